"""The sealer: events that were stored become leaves of the tree, in the order of the queue.

It seals what is there. Events that are not those the writer stored are sealed as they are and
reported, in the log itself: an alarm that stopped the sealing would let whoever raised it choose
what is sealed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from licet.app.sealing import Head, QueuedBatch, SealedBatch, Sealing, SealingTransaction
from licet.domain.audit_batch import Batch, MacKeys
from licet.domain.audit_event import EventType
from licet.domain.canonical_json import JsonValue
from licet.domain.merkle import Frontier, leaf_hashes
from licet.domain.merkle_proof import StoredTree
from licet.steward.journal import Journal

_log: Final = logging.getLogger(__name__)

BATCHES: Final = 50
"""How many batches one transaction seals."""


class SealError(Exception):
    """The stored tree is not what its head says: nothing can be sealed on it."""


class Mismatch(NamedTuple):
    """A batch whose events are not those that its writer stored."""

    batch: Batch
    found: int


class Sealer:
    """Seals for one process; several may run, and one of them gets to work."""

    def __init__(self, sealing: Sealing, keys: MacKeys, journal: Journal) -> None:
        """Compose it.

        Args:
            sealing: the database connection; replaced by making another sealer.
            keys: by which batches are authenticated.
            journal: takes the events about what does not match.
        """
        self._sealing = sealing
        self._keys = keys
        self._journal = journal
        # Of the head that was sealed last, and so only to be used on that very head.
        self._frontier: Frontier | None = None
        self.sealed = 0
        """How many leaves this sealer has added."""
        self.mismatches = 0
        """How many batches were not what their writer stored."""

    def step(self) -> int:
        """Seal some of what waits, and return how many events that were.

        Raises:
            UnavailableError: the connection is lost; nothing or all of it was sealed.
            SealError: the stored tree is damaged; nothing was sealed.
        """
        if not self._sealing.lead():
            return 0
        frontier, self._frontier = self._frontier, None
        mismatches: Sequence[Mismatch] = ()
        with self._sealing.transaction() as transaction:
            size = transaction.head.size
            if frontier is None or not _stands_for(frontier, transaction.head):
                frontier = stored_frontier(transaction)
            queued = transaction.queued(BATCHES)
            if queued:
                frontier, mismatches = seal(transaction, frontier, queued, self._keys)
                for mismatch in mismatches:
                    self._journal.record(transaction, EventType.INCIDENT, *_facts(mismatch))
        # Only now is it sealed.
        self._frontier = frontier
        self.sealed += frontier.size - size
        self.mismatches += len(mismatches)
        for mismatch in mismatches:
            _log.error("audit events are not those that were stored: %s", _facts(mismatch)[1])
        return frontier.size - size


def seal(
    transaction: SealingTransaction,
    frontier: Frontier,
    queued: Sequence[QueuedBatch],
    keys: MacKeys,
) -> tuple[Frontier, list[Mismatch]]:
    """Make batches the next leaves; return what the tree then grows on from, and the mismatches.

    Args:
        transaction: whose head the frontier is that of.
        frontier: of the tree as it is.
        queued: what is to be sealed.
        keys: by which it is authenticated.
    """
    head = transaction.head
    sealed: list[SealedBatch] = []
    mismatches: list[Mismatch] = []
    first_leaf = head.size
    for _, batch in queued:
        leaves = transaction.leaves(batch)
        count = len(leaves)
        if not batch.is_intact(leaves, keys):
            mismatches.append(Mismatch(batch, count))
        if count:
            sealed.append(SealedBatch(first_leaf, batch, leaf_hashes(leaves)))
        first_leaf += count
    grown, nodes = frontier.grown(b"".join(batch.hashes for batch in sealed))
    transaction.grow(
        head._replace(size=grown.size, root=grown.root()),
        sealed,
        nodes,
        [number for number, _ in queued],
    )
    return grown, mismatches


def _stands_for(frontier: Frontier, head: Head) -> bool:
    return frontier.size == head.size and frontier.root() == head.root


def stored_frontier(transaction: SealingTransaction) -> Frontier:
    """Return the frontier of the stored tree, which must have the head's root. Raises SealError."""
    head = transaction.head
    try:
        frontier = StoredTree(head.size, transaction.read_hashes).frontier()
    except ValueError as exc:
        raise SealError(f"the stored tree of the audit log is damaged: {exc}") from exc
    if not _stands_for(frontier, head):
        raise SealError(f"the stored hashes of {head.size} leaves do not have the head's root")
    return frontier


def _facts(mismatch: Mismatch) -> tuple[str, Mapping[str, JsonValue]]:
    batch = mismatch.batch
    return "BATCH_MISMATCH", {
        "writer_id": batch.writer_id,
        "first_id": str(batch.first_id),
        "last_id": str(batch.last_id),
        "stored": batch.events,
        "found": mismatch.found,
    }
