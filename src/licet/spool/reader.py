"""Reads a spool's events in order, while its writer appends or after it died.

What is damaged is never passed over silently, and never taken for an event:

- A *torn tail* is the end of a dead writer's last segment: bytes without a whole frame behind them.
  That is what an append leaves that did not end. It was not acknowledged, and is dropped.
- *Corruption* is damage with a whole frame behind it, or among what is known to have been whole.
  Reading goes on at the next whole frame, and the sequences between are named as lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple
from zlib import crc32

from licet.domain.audit_event import MAX_LEAF_BYTES
from licet.domain.errors import UnavailableError
from licet.spool.folder import SpoolFolder
from licet.spool.segment import (
    CRC,
    FRAME,
    FRAME_BYTES,
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    SegmentName,
    next_frame,
)

_CHUNK_BYTES: Final = 4 * MAX_FRAME_BYTES
_READ_BYTES: Final = 1 << 24


class DamageKind(StrEnum):
    """What is wrong with a place in a spool."""

    TORN_TAIL = "torn_tail"
    CORRUPT = "corrupt"


class Damage(NamedTuple):
    """A place in a spool where there is no event.

    Attributes:
        kind: whether it was acknowledged.
        segment: the name of the file where it begins.
        begin: the offset where it begins.
        end: the offset of the next whole frame in this file, or the end of the file.
        first: the first sequence that is lost.
        last: the last one; `first - 1` for a torn tail: none was acknowledged.
    """

    kind: DamageKind
    segment: str
    begin: int
    end: int
    first: int
    last: int


class Run(NamedTuple):
    """Leaves with consecutive sequences.

    Attributes:
        first: the sequence of the first one.
        leaves: at least one.
    """

    first: int
    leaves: list[bytes]


class _InUse(NamedTuple):
    name: SegmentName
    first: int


class SpoolReader:
    """Reads from a sequence on. Not for several threads.

    Through a file of its own and not through the writer's memory: a page that cannot be read is
    then an error and not the end of the process, and a segment may be closed or deleted meanwhile.
    """

    def __init__(
        self, folder: SpoolFolder, after: int, through: Callable[[], int] | None = None
    ) -> None:
        """Read what follows a sequence.

        Args:
            folder: held by this process, as its writer's or adopted.
            after: the last sequence that is not wanted any more.
            through: the last sequence that the living writer has appended, now; None when the
                writer is dead.
        """
        self._folder = folder
        self._next = after + 1
        self._through = through
        self._damages: list[Damage] = []
        self._name: SegmentName | None = None
        self._descriptor = -1
        self._seed = 0
        self._offset = 0
        self._ended = False

    @property
    def position(self) -> int:
        """The last sequence that was read, or is lost."""
        return self._next - 1

    def damages(self) -> list[Damage]:
        """Return the damage found since the last call, in order."""
        found, self._damages = self._damages, []
        return found

    def read(self, limit: int) -> Run | None:
        """Return the next events, at most `limit`, or None when there are no more now.

        A run ends where a sequence is missing: see `damages` before shipping the next.

        Raises:
            UnavailableError: the spool cannot be read; nothing was passed over, to be asked again.
        """
        through = None if self._through is None else self._through()
        try:
            while not self._ended and (through is None or self._next <= through):
                if self._name is None and not self._enter_first():
                    break
                if run := self._run(limit, through):
                    return run
                if not self._resume(through):
                    break
        except OSError as exc:
            raise UnavailableError(
                f"cannot read the spool {self._folder.path}: {exc.strerror}"
            ) from exc
        return None

    def close(self) -> None:
        """Let go of the file that is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._name = None

    def _run(self, limit: int, through: int | None) -> Run | None:
        """Return the whole frames from here on, none when there is not one more."""
        first, leaves = self._next, list[bytes]()
        most = limit if through is None else min(limit, through - self._next + 1)
        while len(leaves) < most:
            data = os.pread(self._descriptor, _CHUNK_BYTES, self._offset)
            read, before = self._frames(data, leaves, most), self._offset
            self._offset += read
            self._next = first + len(leaves)
            if self._offset == before:
                break
        return Run(first, leaves) if leaves else None

    def _frames(self, data: bytes, leaves: list[bytes], most: int) -> int:
        """Take the frames that follow each other, and return how many bytes they take.

        Those from before what is wanted are passed over.
        """
        unpack, seed, base, size = FRAME.unpack_from, self._seed, self._offset, len(data)
        expected, offset, left = self._next, 0, most - len(leaves)
        while left and offset + FRAME_BYTES <= size:
            crc, length, sequence = unpack(data, offset)
            begin = offset + FRAME_BYTES
            end = begin + length
            if not 0 < length <= MAX_LEAF_BYTES or end > size or sequence > expected:
                break
            if crc32(data[offset + CRC.size : end], seed ^ (base + offset)) != crc:
                break
            if sequence == expected:
                leaves.append(data[begin:end])
                expected += 1
                left -= 1
            offset = (end + 7) & ~7
        return offset

    def _resume(self, through: int | None) -> bool:
        """Go on behind what is no next frame, and say whether there may be more."""
        # The next segment is looked for first: once it is in use, nothing is added to this one.
        following = self._following()
        if following is not None and following.first == self._next:
            self._enter(following.name)  # this one is full
            return True
        rest = self._rest()
        here = next_frame(rest, 0, self._offset, self._seed)
        while here is not None and here.sequence < self._next:
            here = next_frame(rest, here.end, self._offset, self._seed)
        if here is not None:
            before = here.sequence - 1
            self._lose(before if through is None else min(before, through), here.begin)
            self._offset += here.begin
            return True
        if following is not None:
            self._lose(following.first - 1, len(rest))
            self._enter(following.name)
            return True
        self._finish(rest, through)
        return False

    def _finish(self, rest: bytes, through: int | None) -> None:
        """Stop where no whole frame follows."""
        if through is not None:
            self._lose(through, len(rest))
            return
        self._ended = True
        if not self._lose(self._durable(), len(rest)) and rest.strip(b"\0"):
            self._note(DamageKind.TORN_TAIL, self._next - 1, len(rest))

    def _lose(self, last: int, length: int) -> bool:
        """Take the sequences up to `last` for lost; say whether there are any."""
        if last < self._next:
            return False
        self._note(DamageKind.CORRUPT, last, length)
        self._next = last + 1
        return True

    def _note(self, kind: DamageKind, last: int, length: int) -> None:
        begin, end = self._offset, self._offset + length
        self._damages.append(Damage(kind, str(self._name), begin, end, self._next, last))

    def _rest(self) -> bytes:
        return _read(self._descriptor, self._offset)

    def _enter_first(self) -> bool:
        """Go to the segment where the next sequence is, or else to the first."""
        names = self._folder.segments()
        for name in reversed(names):
            first = self._folder.header(name).first
            if first is not None and first <= self._next:
                self._enter(name)
                return True
        if names:
            self._enter(names[0])
        elif self._through is None:
            self._ended = True
        return bool(names)

    def _enter(self, name: SegmentName) -> None:
        descriptor = self._folder.open(name)
        self.close()
        self._descriptor = descriptor
        self._name = name
        self._seed = name.seed(self._folder.writer_id)
        self._offset = HEADER_BYTES

    def _following(self) -> _InUse | None:
        """Return the next segment that is in use."""
        for name in self._folder.segments():
            if self._name is not None and name > self._name:
                first = self._folder.header(name).first
                if first is None:  # not in use, or the slot is damaged
                    first = self._first_frame(name)
                if first is not None:
                    return _InUse(name, first)
        return None

    def _first_frame(self, name: SegmentName) -> int | None:
        """Return the first sequence that is left in a segment."""
        descriptor = self._folder.open(name)
        try:
            data = _read(descriptor, HEADER_BYTES)
        finally:
            os.close(descriptor)
        found = next_frame(data, 0, HEADER_BYTES, name.seed(self._folder.writer_id))
        return None if found is None else found.sequence

    def _durable(self) -> int:
        """Return up to where everything was whole on disk, by any segment's header."""
        headers = map(self._folder.header, self._folder.segments())
        return max((header.durable for header in headers), default=0)


def _read(descriptor: int, offset: int) -> bytes:
    """Return what a file holds from an offset on."""
    parts = []
    while part := os.pread(descriptor, _READ_BYTES, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
