"""Verifies the sealed log against what is stored: rows against hashes, hashes against roots.

A walk goes through the leaves of one epoch in slices, so that memory does not grow and others get
their turn. Where a slice is as it was sealed, it costs a hash and a comparison; only where it is
not, the rows are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from licet.app.findings import Code, Finding, Report
from licet.app.sealed_log import Ranges, SealedBatch, SealedLogReader, Sequences, Trust
from licet.domain.merkle import HASH_BYTES, Frontier, Node, leaf_hash
from licet.domain.merkle_cover import root_of, subtrees_of
from licet.domain.merkle_proof import StoredTree, verify_consistency

SLICE_LEAVES: Final = 1 << 14
"""How many leaves are verified at once."""
_ID: Final = slice(12, 28)
"""Where the event's id is in a leaf."""
_SEQUENCE: Final = (1 << 62) - 1
_WRITER_SHIFT: Final = 80


class Walk:
    """See the module. Begins at a batch's first leaf; everything before is taken from the tree."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it is about, and what it keeps
        self,
        log: SealedLogReader,
        trust: Trust,
        report: Report,
        epoch: int,
        first: int = 0,
        sequences: Sequences | None = None,
        archived: Ranges = (),
    ) -> None:
        """Walk from the batch that holds leaf `first` on.

        Args:
            log: what is verified.
            trust: what it is verified against.
            report: takes what is found.
            epoch: whose leaves.
            first: a leaf.
            sequences: of each writer the last sequence before; None: not known.
            archived: leaves that were verified elsewhere, and need not be in the database.
        """
        self._log = log
        self._trust = trust
        self._report = report
        self._epoch = epoch
        self._archived = archived
        kept = trust.kept
        self._kept = kept if kept is not None and kept.origin == log.origin(epoch) else None
        self._is_first = sequences is not None
        self.sequences: Sequences = {} if sequences is None else sequences
        self.at = log.batch_start(epoch, first) if first else 0
        # None once leaves are in no batch: no root is known from there on.
        self._frontier: Frontier | None = Frontier()
        if self.at:
            self._frontier = self._cover(0, self.at)
        self._check_signed(self.at - 1, self.at)
        self._check_kept_before()

    def step(self, end: int) -> bool:
        """Verify the next slice of the leaves up to `end`; False when there is none."""
        if self.at >= end:
            return False
        first, stop = self.at, min(self.at + SLICE_LEAVES, end)
        batches = self._log.batches(self._epoch, first, stop)
        if not batches or batches[0].first_leaf > first:
            self._gap(first, batches[0].first_leaf if batches else stop)
            return True
        expected = b"".join(batch.hashes for batch in batches)
        found = self._log.row_hashes(self._epoch, first, stop)
        self._report.leaves += len(found) // HASH_BYTES
        is_unbroken = self._is_unbroken(batches)
        for batch in batches:
            self._follow(batch)
        if found != expected:
            self._compare_all(batches)
        if is_unbroken:
            self._grow(first, expected)
        self.at = max(batch.first_leaf + batch.leaves for batch in batches)
        return True

    def finish(self) -> None:
        """Bring what was walked to the newest roots: the one signed last, and that of the head."""
        # In this order, because the log may grow meanwhile.
        newest, head = self._log.newest_checkpoint(self._epoch), self._log.head()
        size = self._log.last_leaf(self._epoch)
        if self._kept is not None and self._kept.size > size:
            text = f"the log had {self._kept.size} leaves, and now {size}: its end was cut off"
            self._find(Code.TRUSTED_ROLLBACK, text, size)
        elif self._kept is not None and self._kept.size > self.at and self._frontier is not None:
            self._check_kept(self._kept.size, self._root_at(self._frontier, self._kept.size))
        if newest is not None and newest[0] > size:
            text = f"a checkpoint of {newest[0]} leaves was signed, and {size} are there"
            self._find(Code.CHECKPOINT_BEYOND, text, newest[0] - 1)
        elif newest is not None and newest[0] > self.at and self._frontier is not None:
            self._check_checkpoint(*newest, self._root_at(self._frontier, newest[0]))
        if self._log.is_unsigned(self._epoch, 0 if newest is None else newest[0]):
            text = "leaves were sealed more than a minute ago, and no checkpoint was signed since"
            self._find(Code.CHECKPOINT_MISSING, text, 0 if newest is None else newest[0])
        if head.epoch != self._epoch or self._frontier is None:
            return
        if self.at > head.size:
            text = f"the log says that it has {head.size} leaves, and {self.at} are stored"
            self._find(Code.ROOT_MISMATCH, text, head.size)
        elif self._root_at(self._frontier, head.size) != head.root:
            text = f"the leaves do not have the root that the log says of {head.size} leaves"
            self._find(Code.ROOT_MISMATCH, text, None)

    def _root_at(self, frontier: Frontier, size: int) -> bytes:
        """Return the root at a size, of what was walked and the stored tree behind it."""
        try:
            rest = self._tree(size).cover(self.at, size)
        except ValueError:
            return b""
        return root_of((*subtrees_of(frontier), *rest))

    def _is_unbroken(self, batches: Sequence[SealedBatch]) -> bool:
        at = self.at
        for batch in batches:
            if batch.first_leaf != at:
                self._gap(at, batch.first_leaf)
                return False
            at += batch.leaves
        return self._frontier is not None

    def _gap(self, first: int, end: int) -> None:
        what = "are in no batch" if end > first else "are in two batches"
        low, high = min(first, end), max(first, end)
        self._find(Code.BATCH_GAP, f"leaves {low} to {high - 1} {what}", low)
        self._frontier = None
        self.at = max(first, end)

    def _grow(self, first: int, hashes: bytes) -> None:
        """Grow the tree, and compare its root with each that was signed on the way."""
        frontier = self._frontier
        if frontier is None:
            return
        end = first + len(hashes) // HASH_BYTES
        completed: list[Node] = []
        signed = {size: (root, note) for size, root, note in self._signed(first, end)}
        kept = (
            () if self._kept is None or not first < self._kept.size <= end else (self._kept.size,)
        )
        for size in sorted({*signed, *kept, end}):
            piece = hashes[(frontier.size - first) * HASH_BYTES : (size - first) * HASH_BYTES]
            frontier, nodes = frontier.grown(piece)
            completed += nodes
            if size in signed:
                self._check_checkpoint(size, *signed[size], frontier.root())
            self._check_kept(size, frontier.root())
        self._frontier = frontier
        self._check_nodes(completed)

    def _signed(self, above: int, up_to: int) -> Sequence[tuple[int, bytes, str]]:
        return self._log.checkpoints(self._epoch, above, up_to)

    def _check_signed(self, above: int, up_to: int) -> None:
        """Check the checkpoints of the tree that the walk begins with."""
        if self._frontier is None:
            return
        for size, root, note in self._signed(above, up_to):
            self._check_checkpoint(size, root, note, self._frontier.root())
        self._check_kept(up_to, self._frontier.root())

    def _check_checkpoint(self, size: int, root: bytes, note: str, found: bytes) -> None:
        self._report.checkpoints += 1
        try:
            statement = self._trust.opened(note, self._epoch)
        except ValueError as exc:
            text = f"the checkpoint of {size} leaves is not signed by the log's key: {exc}"
            self._find(Code.CHECKPOINT_FORGED, text, size - 1)
            return
        if (statement.size, statement.root) != (size, root) or found != root:
            text = f"the leaves do not have the root of the checkpoint of {size} leaves"
            self._find(Code.CHECKPOINT_ROOT, text, size - 1)

    def _check_kept(self, size: int, root: bytes) -> None:
        kept = self._kept
        if kept is not None and kept.size == size and kept.root != root:
            self._find(Code.TRUSTED_FORK, f"the first {size} leaves were others: rewritten", None)

    def _check_kept_before(self) -> None:
        """Check that the checkpoint that was kept grew into the tree that the walk begins with."""
        kept, frontier = self._kept, self._frontier
        if kept is None or frontier is None or not 0 < kept.size < self.at:
            return
        try:
            proof = self._tree(self.at).consistency_proof(kept.size)
        except ValueError:
            proof = ()
        if not verify_consistency(kept.size, self.at, kept.root, frontier.root(), proof):
            text = f"the first {kept.size} leaves were others: rewritten"
            self._find(Code.TRUSTED_FORK, text, None)

    def _check_nodes(self, nodes: Sequence[Node]) -> None:
        for level in {node.level for node in nodes}:
            row = [node for node in nodes if node.level == level]
            first = row[0].index
            stored = self._log.hashes(self._epoch, level, first, len(row))
            if stored == b"".join(node.hash for node in row):
                continue
            for at, node in enumerate(row):
                if stored[at * HASH_BYTES : (at + 1) * HASH_BYTES] != node.hash:
                    text = f"node {node.index} of level {level} is not that of its leaves"
                    self._find(Code.NODE_ALTERED, text, node.index << (8 * level))

    def _follow(self, batch: SealedBatch) -> None:
        """Check that each writer's events are there without a gap."""
        writer, first = batch.first_id.int >> _WRITER_SHIFT, batch.first_id.int & _SEQUENCE
        last = batch.last_id.int & _SEQUENCE
        if writer != batch.writer_id or writer != batch.last_id.int >> _WRITER_SHIFT:
            self._find(Code.BATCH_IDS, "a batch of two writers", batch.first_leaf)
            return
        if writer == 0:  # its numbers are drawn in transactions, which may be rolled back
            return
        if last - first + 1 != batch.leaves:
            text = f"writer {writer:012x}: of events {first} to {last} {batch.leaves} are sealed"
            self._find(Code.WRITER_GAP, text, batch.first_leaf)
        before = self.sequences.get(writer, 0 if self._is_first else first - 1)
        if first <= before:
            text = f"writer {writer:012x}: event {first} comes after {before}"
            self._find(Code.WRITER_REPEAT, text, batch.first_leaf)
        elif first > before + 1:
            self._missing(writer, before + 1, first - 1, batch.first_leaf)
        self.sequences[writer] = last

    def _missing(self, writer: int, first: int, last: int, leaf: int) -> None:
        """Report events of a writer that are not there, unless the log says why."""
        at = first
        for low, high in self._log.passed_over(writer):
            if low <= at <= high:
                at = high + 1
        if at > last:
            self._report.explained += last - first + 1
            return
        text = f"writer {writer:012x}: events {first} to {last} are missing"
        self._find(Code.WRITER_GAP, text, leaf, f"{writer:012x}:{first}")

    def _compare_all(self, batches: Sequence[SealedBatch]) -> None:
        """Name what is wrong with a slice that is not as it was sealed."""
        before = self._report.counts.total() + self._report.archived
        for batch in batches:
            self._compare(batch)
        if self._report.counts.total() + self._report.archived == before:
            # Every row is as it was: what is said of their batch is not.
            self._find(Code.BATCH_IDS, "the times of a batch were altered", batches[0].first_leaf)

    def _compare(self, batch: SealedBatch) -> None:
        """Name what is wrong with a batch."""
        end = batch.first_leaf + batch.leaves
        expected = [
            batch.hashes[at : at + HASH_BYTES] for at in range(0, len(batch.hashes), HASH_BYTES)
        ]
        rows = self._log.rows(batch.first_id, batch.last_id)
        archived = sum(self._is_archived(leaf) for leaf in range(batch.first_leaf, end))
        if not rows and not archived:
            text = "all rows of whole batches are missing"
            self._find(Code.LEAF_MISSING, text, batch.first_leaf)
            return
        sealed = set(expected)
        found = {leaf_hash(row): UUID(bytes=row[_ID]) for row in rows}
        lost = [at for at, value in enumerate(expected) if value not in found]
        other = {str(value): key for key, value in found.items() if key not in sealed}
        known = batch.last_id.int - batch.first_id.int + 1 == batch.leaves
        for at in lost:
            if self._is_archived(batch.first_leaf + at):
                # Of a batch over midnight the one day may be gone and the other not.
                self._report.archived += 1
                continue
            name = str(UUID(int=batch.first_id.int + at)) if known else next(iter(other), "")
            leaf = batch.first_leaf + at
            if other.pop(name, None) is not None:
                self._find(Code.LEAF_ALTERED, f"leaf {leaf}: the row was altered", leaf, name)
            else:
                text = f"leaf {leaf}: the row is missing"
                self._find(Code.LEAF_MISSING, text, leaf, name if known else "")
        for name in other:
            text = "a row was inserted among sealed ones"
            self._find(Code.ROW_INSERTED, text, batch.first_leaf, name)

    def _is_archived(self, leaf: int) -> bool:
        return any(first <= leaf < end for first, end in self._archived)

    def _cover(self, first: int, end: int) -> Frontier | None:
        try:
            tree = self._tree(self._log.last_leaf(self._epoch))
            peaks = tuple(subtree.hash for subtree in tree.cover(first, end))
        except ValueError as exc:
            self._find(Code.ROOT_MISMATCH, f"the stored tree is damaged: {exc}", first)
            return None
        return Frontier(end, peaks)

    def _tree(self, size: int) -> StoredTree:
        epoch, hashes = self._epoch, self._log.hashes
        return StoredTree(size, lambda level, first, count: hashes(epoch, level, first, count))

    def _find(self, code: Code, message: str, leaf: int | None, subject: str = "") -> None:
        self._report.add(Finding(code, message, self._epoch, leaf, subject))
