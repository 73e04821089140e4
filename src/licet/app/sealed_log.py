"""The ports of verification: the sealed log as it is stored, and what is trusted instead of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias
from uuid import UUID

from licet.app.sealing import Head
from licet.domain.audit_batch import Batch
from licet.domain.checkpoint import Checkpoint, checkpoint, open_checkpoint
from licet.domain.merkle import HASH_BYTES
from licet.domain.signed_note import VerifierKey, Verify, signed_note

Sequences: TypeAlias = dict[int, int]
"""Of each writer the sequence of the last event seen."""
Ranges: TypeAlias = Sequence[tuple[int, int]]
"""From each first leaf up to each end."""


class SealedBatch(NamedTuple):
    """A batch as it is stored; the hashes of its leaves are what the tree was built of."""

    first_leaf: int
    writer_id: int
    first_id: UUID
    last_id: UUID
    hashes: bytes

    @property
    def leaves(self) -> int:
        """How many leaves it has."""
        return len(self.hashes) // HASH_BYTES


class SealedLogReader(Protocol):
    """What a walk reads. All methods raise UnavailableError."""

    def head(self) -> Head:
        """Return how far the log says that it is sealed."""
        ...

    def origin(self, epoch: int) -> str:
        """Return which log the epoch is."""
        ...

    def last_leaf(self, epoch: int) -> int:
        """Return the end of the epoch's last batch; 0 where there is none."""
        ...

    def newest_checkpoint(self, epoch: int) -> tuple[int, bytes, str] | None:
        """Return size, root and note of the epoch's latest checkpoint."""
        ...

    def is_unsigned(self, epoch: int, size: int) -> bool:
        """Tell whether leaves behind a size were sealed more than a minute ago."""
        ...

    def batch_start(self, epoch: int, leaf: int) -> int:
        """Return the first leaf of the batch that holds a leaf; 0 where none does."""
        ...

    def batches(self, epoch: int, first: int, end: int) -> Sequence[SealedBatch]:
        """Return the batches that begin from `first` up to `end`, in order."""
        ...

    def row_hashes(self, epoch: int, first: int, end: int) -> bytes:
        """Return the leaf hashes of the rows of those batches, in order."""
        ...

    def rows(self, first_id: UUID, last_id: UUID) -> Sequence[bytes]:
        """Return the leaves of all rows with these ids, whenever they occurred, by id."""
        ...

    def hashes(self, epoch: int, level: int, first: int, count: int) -> bytes:
        """Return stored hashes of the tree; fewer where there are fewer."""
        ...

    def checkpoints(self, epoch: int, above: int, up_to: int) -> Sequence[tuple[int, bytes, str]]:
        """Return size, root and note of the epoch's checkpoints above a size, smallest first."""
        ...

    def passed_over(self, writer_id: int) -> Sequence[tuple[int, int]]:
        """Return first and last sequence of what the log says was lost or could not be stored."""
        ...


@dataclass(frozen=True, slots=True)
class Trust:
    """What comes from outside the database.

    Attributes:
        key: the log's public key; None: signatures are not verified.
        verify: the mathematics of it.
        kept: a checkpoint from before, which was out of reach of whoever runs the log.
    """

    key: VerifierKey | None
    verify: Verify
    kept: Checkpoint | None = None

    def opened(self, note: str, epoch: int) -> Checkpoint:
        """Return the checkpoint of a note. Raises ValueError: it is not the log's."""
        if self.key is None:
            return checkpoint(signed_note(note).body)
        origin = note.partition("\n")[0]
        name = self.key.name
        if origin != name and (epoch == 1 or not origin.startswith(f"{name}/")):
            raise ValueError(f"it is one of {origin}")
        # A later epoch's log signs under its own origin, with the same key.
        return open_checkpoint(note, VerifierKey(origin, self.key.public_key), self.verify)


class Incident(NamedTuple):
    """What the log says of itself."""

    event_id: str
    reason: str
    facts: str


class AuditLogReader(SealedLogReader, Protocol):
    """What stands around the tree."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Let all reads within the block see one state of the log."""
        ...

    def epochs(self) -> Sequence[int]:
        """Return the epochs that have batches, the first one first."""
        ...

    def row_count(self) -> int:
        """Return how many events are stored."""
        ...

    def strays(self, limit: int) -> Sequence[str]:
        """Return ids of events that are in no batch and not queued."""
        ...

    def queued(self) -> Iterator[tuple[Batch, Sequence[bytes]]]:
        """Yield what waits to be sealed, with the leaves of its rows, in order."""
        ...

    def shipped(self) -> Sequence[tuple[int, int]]:
        """Return of each writer the sequence of its last stored event."""
        ...

    def capability_faults(self, limit: int) -> Sequence[tuple[str, str]]:
        """Return capabilities whose events are missing or say something else, and which."""
        ...

    def event_faults(self, limit: int) -> Sequence[tuple[str, str]]:
        """Return events of changes that no capability shows, and which change."""
        ...

    def capability_count(self) -> int:
        """Return how many capabilities there are."""
        ...

    def incidents(self, limit: int) -> Sequence[Incident]:
        """Return what the log says that was wrong when it was sealed."""
        ...
