"""The port of archiving: the partitions of the audit log, their leaves, and what is archived."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from licet.app.sealing import SealingTransaction
from licet.domain.canonical_json import JsonValue
from licet.domain.instant import Instant
from licet.domain.names import EventId


class ArchiveRefusedError(Exception):
    """A partition cannot be archived, or not be dropped; the message says why. It is all there."""


class Partition(NamedTuple):
    """A partition of the log.

    Attributes:
        name: of its table.
        relation: the number of its table, which one that is made again does not have.
        lower: the first instant that is in it.
        upper: the first instant that is not.
    """

    name: str
    relation: int
    lower: Instant
    upper: Instant


class PlacedBatch(NamedTuple):
    """A sealed batch of which a partition has events.

    Attributes:
        first_leaf: where it is in the tree.
        hashes: the hashes of its leaves, concatenated.
        is_whole: all of its events must be in the partition.
    """

    first_leaf: int
    hashes: bytes
    is_whole: bool


class LeafPage(NamedTuple):
    """Some of a partition's leaves.

    Attributes:
        epoch: of which tree.
        origin: the name of the epoch's log.
        batches: in the order of their leaves.
        leaves: those that are in the partition, in order.
    """

    epoch: int
    origin: str
    batches: Sequence[PlacedBatch]
    leaves: Sequence[bytes]


class Archive(NamedTuple):
    """A file with leaves of a partition.

    Attributes:
        file: its name.
        sha256: of its bytes.
        epoch: of which tree the leaves are.
        ranges: first leaf and the one behind the last, in order.
    """

    file: str
    sha256: bytes
    epoch: int
    ranges: Sequence[tuple[int, int]]

    @property
    def events(self) -> int:
        """How many leaves it holds."""
        return sum(end - first for first, end in self.ranges)


class RecordedArchive(NamedTuple):
    """An archive that the log tells of.

    Attributes:
        archive: what it is.
        is_proved: the event that tells of it is under a checkpoint.
    """

    archive: Archive
    is_proved: bool


class ToldArchive(NamedTuple):
    """An archive as its row has it, and what the sealed log says of it.

    Attributes:
        archive: what the row says.
        epoch: of the event that is to tell of it.
        leaf: of the same.
        told: the event's metadata; None: it is not in the database.
    """

    archive: Archive
    epoch: int
    leaf: int
    told: Mapping[str, JsonValue] | None


class Partitions(Protocol):
    """The archiver's database connection. All methods raise UnavailableError when it is lost."""

    def lock(self) -> bool:
        """Say whether this archiver is the one to work; nothing but work is saved by it."""
        ...

    def partitions(self, older_than_days: int) -> Sequence[Partition]:
        """Return the partitions that ended so many days ago or before, oldest first."""
        ...

    def find(self, name: str) -> tuple[Partition, bool] | None:
        """Return a partition and whether its time is over; None when there is none."""
        ...

    def count(self, partition: Partition) -> int:
        """Return how many events a partition has."""
        ...

    def pages(self, partition: Partition) -> Iterator[LeafPage]:
        """Yield its leaves that are under a checkpoint, by epoch and in leaf order."""
        ...

    def stored_hashes(self, epoch: int, first: int, count: int) -> bytes:
        """Return stored hashes of consecutive leaves, concatenated."""
        ...

    def archives(self, partition: Partition) -> Sequence[RecordedArchive]:
        """Return what is recorded of a partition, the latest last."""
        ...

    def current_epoch(self) -> int:
        """Return the epoch that grows."""
        ...

    def register(self, writer_id: int) -> None:
        """Make a writer known."""
        ...

    def transaction(self) -> AbstractContextManager[SealingTransaction]:
        """Begin a transaction that holds the head and commits at the end of the block."""
        ...

    def record(self, partition: Partition, archive: Archive, event_id: EventId) -> None:
        """Store, in the transaction, that there is an archive, and which event tells of it."""
        ...

    def drop(self, name: str) -> bool:
        """Drop a partition that is archived; False when there is none of this name.

        Raises:
            ArchiveRefusedError: it is not, or not all of it, or under no checkpoint.
        """
        ...

    def close(self) -> None:
        """Close the connection. Raises nothing."""
        ...
