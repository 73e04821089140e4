"""A whole audit log in memory, sealed and signed by the product's code, and the files of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Final, cast

from licet.domain.archive import segment, write_archive
from licet.domain.audit_event import EventType, Result, event_id, leaf
from licet.domain.canonical_json import JsonValue, canonical
from licet.domain.checkpoint import Checkpoint, sign_checkpoint
from licet.domain.instant import Instant
from licet.domain.merkle import HASH_BYTES, Frontier, leaf_hashes
from licet.domain.merkle_proof import StoredTree
from licet.domain.tlog_proof import ConsistencyProof, InclusionProof, cover_text
from licet.steward.signing import Ed25519Signer
from tests.unit.builders import NOW, event

ORIGIN: Final = "licet.example/audit"
SEED: Final = bytes(range(32))
"""The secret of the tests' key, and of no other."""


class AuditLog:
    """Leaves, the hashes that are stored for them, and what is proved of them."""

    def __init__(self, leaves: Iterable[bytes] = (), origin: str = ORIGIN) -> None:
        self.origin = origin
        self.signer = Ed25519Signer(origin, SEED)
        self.leaves: list[bytes] = []
        self.frontier = Frontier()
        self.reads: list[tuple[int, int, int]] = []
        self._stored: dict[int, bytearray] = {0: bytearray()}
        self.append(leaves)

    @property
    def key(self) -> str:
        return self.signer.key.text()

    def append(self, leaves: Iterable[bytes]) -> None:
        """Seal leaves, and store what a sealer stores."""
        added = list(leaves)
        hashes = leaf_hashes(added)
        self.leaves += added
        self.frontier, completed = self.frontier.grown(hashes)
        self._stored[0] += hashes
        for node in completed:
            row = self._stored.setdefault(node.level, bytearray())
            assert len(row) == node.index * HASH_BYTES
            row += node.hash

    def read(self, level: int, first: int, count: int) -> bytes:
        """See `merkle.ReadHashes`."""
        self.reads.append((level, first, count))
        row = self._stored.get(level, bytearray())
        return bytes(row[first * HASH_BYTES : (first + count) * HASH_BYTES])

    def tree(self, size: int | None = None) -> StoredTree:
        return StoredTree(len(self.leaves) if size is None else size, self.read)

    def root(self, size: int | None = None) -> bytes:
        return self.tree(size).frontier().root()

    def note(self, size: int | None = None) -> str:
        """Return the signed checkpoint at a size."""
        count = len(self.leaves) if size is None else size
        return sign_checkpoint(Checkpoint(self.origin, count, self.root(count)), self.signer).text()

    def inclusion(self, index: int, size: int | None = None, *, with_leaf: bool = True) -> str:
        """Return the proof of a leaf."""
        extra = self.leaves[index] if with_leaf else None
        hashes = self.tree(size).inclusion_proof(index)
        return InclusionProof(index, hashes, self.note(size), extra).text()

    def consistency(self, old_size: int, size: int | None = None) -> str:
        """Return the proof that the log grew."""
        hashes = self.tree(size).consistency_proof(old_size)
        return ConsistencyProof(old_size, hashes, self.note(size)).text()

    def archive(self, *ranges: tuple[int, int]) -> bytes:
        """Return an archive of leaves from each first up to each end; all without a range."""
        segments = [
            (
                segment(self.origin, first, self._hashes(first, end)),
                self.leaves[first:end],
            )
            for first, end in ranges or [(0, len(self.leaves))]
        ]
        stream = BytesIO()
        write_archive(stream, segments)
        return stream.getvalue()

    def cover(self, *ranges: tuple[int, int]) -> str:
        """Return the hashes that stand for ranges of leaves."""
        tree = self.tree()
        return cover_text(subtree for a, b in ranges for subtree in tree.cover(a, b))

    def _hashes(self, first: int, end: int) -> bytes:
        return bytes(self._stored[0][first * HASH_BYTES : end * HASH_BYTES])


def recorded(  # noqa: PLR0913 - what tests of the log tell events apart by
    writer: int,
    sequence: int,
    event_type: str = "decision",
    *,
    seconds: int = 0,
    metadata: Mapping[str, JsonValue] | None = None,
    resource: str = "doc:reports/2026/q3",
    reason: str = "",
) -> bytes:
    """Return the leaf of an event, so many seconds after `NOW`."""
    result = Result.ALLOW if event_type == "decision" else Result.DONE
    described = event(
        event_type=cast("EventType", event_type),
        occurred_at=Instant(NOW + seconds * 1_000_000),
        result=result,
        resource=resource,
        reason=reason,
        metadata=canonical(metadata or {}),
    )
    return leaf(event_id(writer, sequence), described)


def busy_leaves(writers: int = 3, each: int = 40) -> list[bytes]:
    """Return the events of writers that open, decide, beat and close, in the order of batches."""
    leaves = [recorded(writer, 1, "audit.writer_opened") for writer in range(1, writers + 1)]
    second = 0
    for start in range(2, each, 5):
        for writer in range(1, writers + 1):
            second += 1
            for sequence in range(start, min(start + 5, each)):
                kind = "audit.heartbeat" if sequence % 20 == 0 else "decision"
                leaves.append(recorded(writer, sequence, kind, seconds=second))
        # A change's number is drawn before it commits: they may come in another order, with gaps.
        leaves.append(recorded(0, start * 10 + 3, "grant", seconds=second))
        leaves.append(recorded(0, start * 10 + 1, "revoke", seconds=second))
    leaves += [
        recorded(writer, each, "audit.writer_closed", seconds=second)
        for writer in range(1, writers + 1)
    ]
    return leaves
