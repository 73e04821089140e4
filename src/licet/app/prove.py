"""Proofs about the audit log: checkpoints, that an event is in it, that it only grew, and leaves.

Nothing is handed out that does not verify: what is stored may have been changed, and then the
answer is that, and no proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

from licet.app.ports import Deadline
from licet.domain.archive import ArchiveError, Segment, packed_archive, segment
from licet.domain.checkpoint import Checkpoint
from licet.domain.errors import (
    InvalidRequestError,
    NotAsSealedError,
    NotFoundError,
    NotSealedError,
)
from licet.domain.instant import Instant
from licet.domain.merkle import LEVEL_WIDTH, Frontier, ReadHashes, leaf_hash
from licet.domain.merkle_proof import Proof, StoredTree, verify_consistency, verify_inclusion
from licet.domain.signed_note import VerifierKey
from licet.domain.tlog_proof import ConsistencyProof, InclusionProof, cover_text

SEGMENT_LEAVES: Final = 16 * LEVEL_WIDTH
"""How many leaves of an export are in memory at once."""
PIECE_BYTES: Final = 1 << 20
"""The longest piece of an archive that is sent at once."""

_Made = TypeVar("_Made")


class StoredCheckpoint(NamedTuple):
    """A checkpoint as it was signed.

    Attributes:
        epoch: whose.
        size: how many leaves.
        root: their root hash.
        note: the signed note.
        created_at: when it was stored; not signed.
    """

    epoch: int
    size: int
    root: bytes
    note: str
    created_at: Instant

    @property
    def origin(self) -> str:
        """Which log it is."""
        return self.note.partition("\n")[0]

    @property
    def line(self) -> str:
        """Origin, size and root in base64, separated by spaces."""
        return " ".join(Checkpoint(self.origin, self.size, self.root).text().splitlines())


class Place(NamedTuple):
    """Where an event is in the tree.

    Attributes:
        epoch: of which epoch.
        leaf_index: of its leaf.
        leaf: its bytes; None when they are no longer in the database.
    """

    epoch: int
    leaf_index: int
    leaf: bytes | None


class SealedLog(Protocol):
    """The sealed log as stored, read on one connection.

    All methods raise UnavailableError or DeadlineError.
    """

    def checkpoint(self, epoch: int, size: int) -> StoredCheckpoint | None:
        """Return a checkpoint; epoch 0 is the current one, size 0 the latest of the epoch."""
        ...

    def place(self, event_id: UUID) -> Place | None:
        """Return where an event is, or None when it is not sealed."""
        ...

    def is_stored(self, event_id: UUID) -> bool:
        """Tell whether there is an event with this id, sealed or not."""
        ...

    def reader(self, epoch: int) -> ReadHashes:
        """Return a reader of the epoch's stored tree."""
        ...

    def leaves(self, epoch: int, first: int, end: int) -> Sequence[bytes]:
        """Return the leaves from `first` up to `end` that are in the database, in order."""
        ...


class SealedLogs(Protocol):
    """Opens the log for reading."""

    def reading(self, deadline: Deadline) -> AbstractContextManager[SealedLog]:
        """Lend a connection for as long as the block lasts."""
        ...

    def unsealed(
        self, event_ids: Sequence[str], checkpoint: StoredCheckpoint | None, deadline: Deadline
    ) -> int:
        """Return how many of these events are not under a checkpoint."""
        ...


class Inclusion(NamedTuple):
    """That an event is in the log."""

    checkpoint: StoredCheckpoint
    leaf_index: int
    leaf: bytes | None
    hashes: Proof

    def text(self) -> str:
        """Return the proof as a file."""
        return InclusionProof(self.leaf_index, self.hashes, self.checkpoint.note, self.leaf).text()


class Consistency(NamedTuple):
    """That the log only grew."""

    checkpoint: StoredCheckpoint
    old_size: int
    hashes: Proof

    def text(self) -> str:
        """Return the proof as a file."""
        return ConsistencyProof(self.old_size, self.hashes, self.checkpoint.note).text()


class Export(NamedTuple):
    """Leaves, and what they are verified against.

    Attributes:
        checkpoint: whose leaves they are.
        first: the index of the first.
        end: the index behind the last.
        cover: the hashes that stand for all others, as text; empty when there are none.
        archive: the bytes of the archive, piece by piece; read from the database as it is taken.
    """

    checkpoint: StoredCheckpoint
    first: int
    end: int
    cover: str
    archive: Iterator[bytes]


class ProveAudit:
    """The use cases. All raise UnavailableError and DeadlineError."""

    def __init__(self, logs: SealedLogs, public_key: bytes | None = None) -> None:
        """Prove from these logs, and name the public key that signs them, if it is known."""
        self._logs = logs
        self._public_key = public_key

    def key_of(self, found: StoredCheckpoint) -> str:
        """Return the public key under the name of the log's first epoch; empty if not known."""
        key = self._public_key
        if key is None:
            return ""
        name = found.origin
        if found.epoch > 1:
            name = name.removesuffix(f"/epoch{found.epoch}")
        return VerifierKey(name, key).text()

    def checkpoint(self, epoch: int, size: int, deadline: Deadline) -> StoredCheckpoint:
        """Return a checkpoint; 0 is the current epoch, and the latest size.

        Raises:
            NotFoundError: there is none of this size.
            NotSealedError: none was signed yet.
        """
        with self._logs.reading(deadline) as log:
            return _checkpoint(log, epoch, size)

    def inclusion(self, event_id: UUID, deadline: Deadline) -> Inclusion:
        """Prove that an event is in the log, against the latest checkpoint of its epoch.

        Raises:
            NotFoundError: there is no such event.
            NotSealedError: it is under no checkpoint yet.
            NotAsSealedError: it is not what was sealed, or the stored tree is damaged.
        """
        with self._logs.reading(deadline) as log:
            place = log.place(event_id)
            if place is None:
                if log.is_stored(event_id):
                    raise NotSealedError(f"event {event_id} is not sealed yet")
                raise NotFoundError(f"there is no event {event_id}")
            epoch, index, leaf = place
            checkpoint = log.checkpoint(epoch, 0)
            if checkpoint is None or checkpoint.size <= index:
                raise NotSealedError(f"event {event_id} is under no checkpoint yet")
            read = log.reader(epoch)
            hashes = _made(lambda: StoredTree(checkpoint.size, read).inclusion_proof(index))
            hashed = read(0, index, 1) if leaf is None else leaf_hash(leaf)
        if not verify_inclusion(hashed, index, checkpoint.size, hashes, checkpoint.root):
            raise NotAsSealedError(f"event {event_id} is not what was sealed as leaf {index}")
        return Inclusion(checkpoint, index, leaf, hashes)

    def consistency(self, epoch: int, old_size: int, size: int, deadline: Deadline) -> Consistency:
        """Prove that the log of `old_size` is the beginning of that of a checkpoint; 0: the latest.

        Raises:
            InvalidRequestError: the old size is above the other.
            NotFoundError: there is no checkpoint of this size.
            NotSealedError: the latest checkpoint has fewer leaves than the old size.
            NotAsSealedError: the stored tree is damaged.
        """
        if size and old_size > size:
            raise InvalidRequestError.of("from_size", "must not be above to_size")
        with self._logs.reading(deadline) as log:
            checkpoint = _checkpoint(log, epoch, size)
            if old_size > checkpoint.size:
                raise NotSealedError(
                    f"the latest checkpoint has {checkpoint.size} leaves, fewer than {old_size}"
                )
            tree = StoredTree(checkpoint.size, log.reader(checkpoint.epoch))
            hashes = _made(lambda: tree.consistency_proof(old_size))
            peaks = _made(lambda: tuple(s.hash for s in tree.cover(0, old_size)))
        old_root = Frontier(old_size, peaks).root()
        if not verify_consistency(old_size, checkpoint.size, old_root, checkpoint.root, hashes):
            raise NotAsSealedError("the stored tree does not have the root that was signed")
        return Consistency(checkpoint, old_size, hashes)

    def export(self, epoch: int, first: int, end: int, deadline: Deadline) -> Export:
        """Begin an export of leaves under the latest checkpoint; `end` 0: up to it.

        Raises:
            InvalidRequestError: the range is empty.
            NotSealedError: the range goes beyond the latest checkpoint.
            NotAsSealedError: the stored tree is damaged. While the archive is read: a leaf is not
                what was sealed.
            NotFoundError: while the archive is read, leaves are not in the database.
        """
        with self._logs.reading(deadline) as log:
            checkpoint = _checkpoint(log, epoch, 0)
            end = end or checkpoint.size
            if first >= end:
                raise InvalidRequestError.of("first_leaf", f"must be below end_leaf, {end}")
            if end > checkpoint.size:
                raise NotSealedError(f"only {checkpoint.size} leaves are under a checkpoint")
            tree = StoredTree(checkpoint.size, log.reader(checkpoint.epoch))
            rest = _made(lambda: [*tree.cover(0, first), *tree.cover(end, checkpoint.size)])
        archive = _pieces(packed_archive(self._segments(checkpoint, first, end, deadline)))
        cover = cover_text(rest) if rest else ""
        return Export(checkpoint, first, end, cover, _as_sealed(archive))

    def unsealed(
        self, event_ids: Sequence[str], checkpoint: StoredCheckpoint | None, deadline: Deadline
    ) -> int:
        """Return how many of these events are not under a checkpoint."""
        if checkpoint is None or not event_ids:
            return len(event_ids)
        return self._logs.unsealed(event_ids, checkpoint, deadline)

    def _segments(
        self, checkpoint: StoredCheckpoint, first: int, end: int, deadline: Deadline
    ) -> Iterator[tuple[Segment, Sequence[bytes]]]:
        """Yield a piece of the range at a time; no connection is held while it is sent."""
        while first < end:
            count = min(SEGMENT_LEAVES - first % SEGMENT_LEAVES, end - first)
            with self._logs.reading(deadline) as log:
                read = log.reader(checkpoint.epoch)
                hashes = b"".join(
                    read(0, at, min(LEVEL_WIDTH - at % LEVEL_WIDTH, first + count - at))
                    for at in _tiles(first, first + count)
                )
                leaves = log.leaves(checkpoint.epoch, first, first + count)
            if len(leaves) < count:
                raise NotFoundError(
                    f"leaves {first} to {first + count - 1} are not all in the database"
                )
            yield segment(checkpoint.origin, first, hashes), leaves
            first += count


def _checkpoint(log: SealedLog, epoch: int, size: int) -> StoredCheckpoint:
    found = log.checkpoint(epoch, size)
    if found is not None:
        return found
    if size or epoch:
        raise NotFoundError("there is no such checkpoint")
    raise NotSealedError("no checkpoint was signed yet")


def _made(make: Callable[[], _Made]) -> _Made:
    """Return what is made of stored hashes, or say that they are damaged."""
    try:
        return make()
    except ValueError as exc:
        raise NotAsSealedError(f"the stored tree is damaged: {exc}") from exc


def _as_sealed(archive: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from archive
    except ArchiveError as exc:
        raise NotAsSealedError(f"what is stored is not what was sealed: {exc}") from exc


def _pieces(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces that are worth a message each, and fit one."""
    waiting = bytearray()
    for block in blocks:
        waiting += block
        while len(waiting) >= PIECE_BYTES:
            yield bytes(waiting[:PIECE_BYTES])
            del waiting[:PIECE_BYTES]
    yield bytes(waiting)


def _tiles(first: int, end: int) -> Iterator[int]:
    """Yield where reads of hashes begin, none of them across a multiple of a tile."""
    while first < end:
        yield first
        first += LEVEL_WIDTH - first % LEVEL_WIDTH
