"""Segments, the files of a spool: their frozen format, version 1, and how one is made.

A segment is preallocated and written through mapped memory. All numbers are big-endian.

    NAME     ordinal, 8 hex digits "-" salt, 8 hex digits ".segment"
    0        header: magic 8 bytes | version u32 | salt u32 | writer u64 | ordinal u64 | crc u32
    64       slot: the first sequence; empty until the segment is taken into use
    128      slot: every event up to this sequence was on disk, whole
    4096     frames, each at a multiple of 8:
             crc u32 | length u32 | sequence u64 | leaf, `length` bytes | zeros

A slot is a u64 and its crc. What follows the last frame is zeros. The crc of a frame is CRC-32 over
the rest of it, begun from `seed ^ offset`; that of a slot, over its u64, from `seed`. The seed is
the CRC-32 of the header up to its crc. So nothing is taken for a frame that comes from another
segment, or from another place in this one, or that a client made to look like one. The salt is in
the name, so that a segment whose header is gone can be read.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from mmap import mmap
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from typing_extensions import override

from licet.domain.audit_event import MAX_LEAF_BYTES
from licet.domain.errors import UnavailableError
from licet.spool.system import System

HEADER_BYTES: Final = 4096
FRAME_BYTES: Final = 16
"""What a frame has before its leaf."""
MAX_FRAME_BYTES: Final = FRAME_BYTES + MAX_LEAF_BYTES + 1
VERSION: Final = 1
FRAME: Final = Struct(">IIQ")  # crc, length, sequence
CRC: Final = Struct(">I")

_MAGIC: Final = b"licetlog"
_HEADER: Final = Struct(">8sIIQQ")  # without its crc
_SLOT: Final = Struct(">Q")  # without its crc
_FIRST: Final = 64
_DURABLE: Final = 128
_NAME: Final = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})\.segment", re.ASCII)


class SegmentName(NamedTuple):
    """A segment's name, taken apart; names sort by ordinal."""

    ordinal: int
    salt: int

    @override
    def __str__(self) -> str:
        return f"{self.ordinal:08x}-{self.salt:08x}.segment"

    def seed(self, writer_id: int) -> int:
        """Return what the crcs of this segment begin from."""
        return crc32(_HEADER.pack(_MAGIC, VERSION, self.salt, writer_id, self.ordinal))


def parse_name(name: str) -> SegmentName | None:
    """Return what a file's name says, or None when it is not a segment's."""
    found = _NAME.fullmatch(name)
    return None if found is None else SegmentName(int(found[1], 16), int(found[2], 16))


class Header(NamedTuple):
    """What is left of a header.

    Attributes:
        first: the first sequence; None when the segment is not in use, or the slot is damaged.
        durable: every event up to this sequence was on disk; 0 when nobody said so.
    """

    first: int | None
    durable: int


def parse_header(page: bytes, seed: int) -> Header:
    """Return what is left of a header: damage makes it empty, and costs no event.

    Raises:
        UnavailableError: it is whole, and of another version.
    """
    size = _HEADER.size
    if len(page) >= size + CRC.size and page.startswith(_MAGIC):
        _, version, *_ = _HEADER.unpack_from(page)
        whole = CRC.unpack_from(page, size)[0] == crc32(page[:size])
        if whole and version != VERSION:
            raise UnavailableError(f"a spool's segment is of version {version}, not {VERSION}")
    return Header(_slot(page, _FIRST, seed), _slot(page, _DURABLE, seed) or 0)


def _slot(page: bytes, offset: int, seed: int) -> int | None:
    end = offset + _SLOT.size
    if len(page) < end + CRC.size or CRC.unpack_from(page, end)[0] != crc32(page[offset:end], seed):
        return None
    value: int = _SLOT.unpack_from(page, offset)[0]
    return value


class Found(NamedTuple):
    """A whole frame: where in the data it begins, and ends with what fills it up; its sequence."""

    begin: int
    end: int
    sequence: int


def frame_at(data: bytes, offset: int, base: int, seed: int) -> Found | None:
    """Return the frame at an offset in `data`, or None when there is no whole one.

    `base` is where in the segment the data begins.
    """
    if offset + FRAME_BYTES > len(data):
        return None
    crc, length, sequence = FRAME.unpack_from(data, offset)
    end = offset + FRAME_BYTES + length
    if not 0 < length <= MAX_LEAF_BYTES or end > len(data):
        return None
    if crc32(data[offset + CRC.size : end], seed ^ (base + offset)) != crc:
        return None
    return Found(offset, (end + 7) & ~7, sequence)


def next_frame(data: bytes, offset: int, base: int, seed: int) -> Found | None:
    """Return the first whole frame at or after an offset that is a multiple of 8.

    As for `frame_at`.
    """
    # Zeros hold no frame, and most of what is searched is zeros. A frame may end in some.
    end = min(len(data.rstrip(b"\0")), len(data) - FRAME_BYTES + 1)
    unpack = FRAME.unpack_from
    for position in range(offset, end, 8):
        if 0 < unpack(data, position)[1] <= MAX_LEAF_BYTES and (
            found := frame_at(data, position, base, seed)
        ):
            return found
    return None


class Segment:
    """A segment that its writer has mapped. Not for several threads."""

    __slots__ = ("_descriptor", "_system", "memory", "name", "seed", "size")

    def __init__(  # noqa: PLR0913, PLR0917 - made by `prepare` only
        self,
        name: SegmentName,
        seed: int,
        descriptor: int,
        memory: mmap,
        size: int,
        system: System,
    ) -> None:
        """Own an open file and its memory."""
        self.name = name
        self.seed = seed
        self.memory = memory
        self.size = size
        # Open from the beginning until the last sync: a later one is not told of an error in
        # writing back what was stored before it was opened.
        self._descriptor = descriptor
        self._system = system

    def begin(self, first: int) -> None:
        """Take it into use, in memory only; the first sequence in it follows."""
        self._store(_FIRST, first)

    def note_durable(self, sequence: int) -> None:
        """Note that every event up to a sequence is on disk, whole."""
        self._store(_DURABLE, sequence)

    def sync(self) -> None:
        """Bring it to the disk. Raises OSError; never to be repeated after that."""
        self._system.sync(self._descriptor)

    def close(self) -> None:
        """Let go of it. What was stored stays in the page cache and gets to the disk in time."""
        self.memory.close()
        with suppress(OSError):  # it is closed all the same
            os.close(self._descriptor)

    def _store(self, offset: int, value: int) -> None:
        slot = _SLOT.pack(value)
        slot += CRC.pack(crc32(slot, self.seed))
        self.memory[offset : offset + len(slot)] = slot


def prepare(folder: int, writer_id: int, ordinal: int, size: int, system: System) -> Segment:
    """Make a segment, with all its blocks, its header and its name on disk.

    Whatever fails, nothing of it is left that could be taken for a segment in use.

    Raises:
        OSError: there is no space, or the disk is broken. The ordinal must not be used again.
    """
    name = SegmentName(ordinal, secrets.randbits(32))
    draft = f"{name}.new"
    descriptor = system.create(draft, folder)
    memory: mmap | None = None
    try:
        system.allocate(descriptor, size)
        memory = system.map(descriptor, size)
        header = _HEADER.pack(_MAGIC, VERSION, name.salt, writer_id, ordinal)
        memory[: len(header) + CRC.size] = header + CRC.pack(crc32(header))
        system.sync(descriptor)
        system.load(descriptor, size)
        system.rename(draft, str(name), folder)
        system.sync_folder(folder)
    except BaseException:
        if memory is not None:
            memory.close()
        os.close(descriptor)
        for left in (draft, str(name)):
            with suppress(OSError):  # the space is lost until the folder goes, and nothing else
                system.unlink(left, folder)
        raise
    return Segment(name, name.seed(writer_id), descriptor, memory, size, system)
