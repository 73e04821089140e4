"""The ports of sealing (audit.md): the tree as stored, and the transaction that lets it grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from licet.domain.audit_batch import Batch
from licet.domain.instant import Instant
from licet.domain.merkle import Node, ReadHashes


class Head(NamedTuple):
    """How far the log is sealed.

    Attributes:
        origin: the name of this epoch's log.
        epoch: which tree it is, from 1 on.
        size: its leaves.
        root: its root hash.
    """

    origin: str
    epoch: int
    size: int
    root: bytes


class QueuedBatch(NamedTuple):
    """A batch that waits to be sealed."""

    number: int
    batch: Batch


class SealedBatch(NamedTuple):
    """A batch in its place: the hashes are those of the events as they were read back."""

    first_leaf: int
    batch: Batch
    hashes: bytes


class Recording(Protocol):
    """One transaction that stores events; all methods raise UnavailableError when it is lost."""

    @property
    def now(self) -> Instant:
        """The database's time at the beginning."""
        ...

    def next_sequence(self, writer_id: int) -> int:
        """Return the sequence of the next event of a writer that nobody else writes as."""
        ...

    def record(self, first: int, batch: Batch, leaves: Sequence[bytes]) -> None:
        """Store events of that writer, from sequence `first` on, and queue them."""
        ...


class SealingTransaction(Recording, Protocol):
    """One transaction that holds the head; all methods raise UnavailableError when it is lost."""

    @property
    def head(self) -> Head:
        """The head, which nobody else changes meanwhile."""
        ...

    def queued(self, limit: int) -> Sequence[QueuedBatch]:
        """Return the next batches, in the order in which they are to be sealed."""
        ...

    def leaves(self, batch: Batch) -> Sequence[bytes]:
        """Return the canonical bytes of the events that are stored, in the order of their ids."""
        ...

    def read_hashes(self, level: int, first: int, count: int) -> bytes:
        """See `merkle.ReadHashes`."""
        ...

    def grow(
        self,
        head: Head,
        batches: Sequence[SealedBatch],
        nodes: Sequence[Node],
        done: Sequence[int],
    ) -> None:
        """Store the new head, what it has grown by, and take the queue's `done` numbers away."""
        ...

    def begin_epoch(self, origin: str, epoch: int) -> None:
        """Let the head be that of a new and empty tree; what was sealed before stays."""
        ...

    def queued_of(self, writer_id: int) -> Sequence[QueuedBatch]:
        """Return all that waits of one writer."""
        ...


class Sealing(Protocol):
    """The sealer's database connection. All methods raise UnavailableError when it is lost."""

    def register(self, writer_id: int) -> None:
        """Make a writer known."""
        ...

    def lead(self) -> bool:
        """Say whether this sealer is the one to work; what makes it safe is the head's lock."""
        ...

    def transaction(self) -> AbstractContextManager[SealingTransaction]:
        """Begin a transaction that holds the head and commits at the end of the block."""
        ...

    def close(self) -> None:
        """Close the connection. Raises nothing."""
        ...


class LatestCheckpoint(NamedTuple):
    """What the latest checkpoint in the database says."""

    origin: str
    size: int
    root: bytes


class Checkpoints(Protocol):
    """The head and its checkpoints. All methods raise UnavailableError when the database is lost.

    Either nothing was done then, or all of it.
    """

    def head(self) -> Head:
        """Return how far the log is sealed."""
        ...

    def latest_size(self, epoch: int) -> int | None:
        """Return the size of the epoch's latest checkpoint; None before the first."""
        ...

    def latest(self) -> LatestCheckpoint | None:
        """Return the latest checkpoint of all epochs; None before the first."""
        ...

    def standings(self, limit: int) -> Mapping[int, int]:
        """Return the last sealed sequence of each writer that may go on, of the newest ones.

        Those that closed do not go on, and the one of changes numbers with gaps.
        """
        ...

    def reader(self, epoch: int) -> ReadHashes:
        """Return a reader of the epoch's stored tree."""
        ...

    def publish(self, head: Head, note: str) -> None:
        """Store the signed checkpoint of a head; once for a size, whoever comes second."""
        ...
