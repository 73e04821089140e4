"""The archive format: ranges of leaves of the log, to keep outside the database.

Frozen format, version 1. A gzip file; inside, one segment after the other, each of them

    licet-archive@v1
    <origin>
    <index of the first leaf>
    <number of leaves>
    <base64 of SHA-256 over the concatenated leaf hashes>
    <an empty line>

and then the leaves in order, each behind its length: two bytes, big-endian (the entry bundles of
c2sp.org/tlog-tiles). Segments are in the order of their leaves and do not overlap.

The digest says that the file is what was written, and not that this was the log: for that the leaf
hashes are brought to the root of a checkpoint (docs/audit-format.md).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO, Final

from licet.domain.checkpoint import decimal, hash_of
from licet.domain.merkle import HASH_BYTES, leaf_hash
from licet.domain.signed_note import MalformedNoteError, encode_base64, is_key_name

HEADER: Final = "licet-archive@v1"
MAX_LEAF_BYTES: Final = 0xFFFF

_GZIP: Final = 31
_LEVEL: Final = 6
_BLOCK: Final = 1 << 18
_MAX_HEADER_BYTES: Final = 2048
_HEADER_LINES: Final = 5


class ArchiveError(ValueError):
    """The archive is not what it says, or what is written is not what was announced.

    A file that is being written is then not finished: delete it.
    """


@dataclass(frozen=True, slots=True)
class Segment:
    """What the header of a range of leaves says.

    Attributes:
        origin: of the log.
        first: the index of the first leaf.
        count: how many leaves there are.
        digest: SHA-256 over their concatenated leaf hashes.
    """

    origin: str
    first: int
    count: int
    digest: bytes

    def text(self) -> str:
        """Return the header as it is written."""
        digest = encode_base64(self.digest)
        return f"{HEADER}\n{self.origin}\n{self.first}\n{self.count}\n{digest}\n\n"


def segment(origin: str, first: int, leaf_hashes: bytes) -> Segment:
    """Return the header of a range, from the stored hashes of its leaves.

    The leaves that are then written are held to it: an archive of leaves that are not those of the
    tree cannot be finished.
    """
    return Segment(origin, first, len(leaf_hashes) // HASH_BYTES, sha256(leaf_hashes).digest())


def write_archive(stream: BinaryIO, segments: Iterable[tuple[Segment, Iterable[bytes]]]) -> None:
    """Write an archive, in one pass and constant memory. The stream is not flushed to disk.

    Raises:
        ArchiveError: leaves are not those that their header announces, or segments overlap.
    """
    stream.writelines(packed_archive(segments))


def packed_archive(segments: Iterable[tuple[Segment, Iterable[bytes]]]) -> Iterator[bytes]:
    """Yield the bytes of an archive, a piece at a time; see `write_archive`."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    end = 0
    for header, leaves in segments:
        if header.first < end or not header.count or not is_key_name(header.origin):
            raise ArchiveError("segments have an origin, are in order, and are not empty")
        end = header.first + header.count
        yield packer.compress(header.text().encode())
        for block in _framed(header, leaves):
            yield packer.compress(block)
    yield packer.flush()


def read_archive(stream: BinaryIO) -> Iterator[tuple[Segment, Iterator[bytes]]]:
    """Yield each segment with its leaves, in one pass and constant memory.

    The leaves are checked against the header when the last of them has been taken; those that are
    not taken are read, and checked, before the next segment.

    Raises:
        ArchiveError: the file is damaged or incomplete. What came before was whole.
    """
    source = _Unpacked(stream)
    end = 0
    while not source.at_end():
        header = _header(source)
        if header.first < end:
            raise ArchiveError(f"the segment at leaf {header.first} is not in order")
        end = header.first + header.count
        leaves = _leaves(source, header)
        yield header, leaves
        for _ in leaves:
            pass


def _framed(header: Segment, leaves: Iterable[bytes]) -> Iterator[bytes]:
    digest = sha256()
    count = size = 0
    block: list[bytes] = []
    for leaf in leaves:
        if len(leaf) > MAX_LEAF_BYTES:
            raise ArchiveError(f"leaf {header.first + count} has {len(leaf)} bytes")
        digest.update(leaf_hash(leaf))
        count += 1
        block += (len(leaf).to_bytes(2, "big"), leaf)
        size += len(leaf)
        if size >= _BLOCK:
            yield b"".join(block)
            size = 0
            block.clear()
    if (count, digest.digest()) != (header.count, header.digest):
        raise ArchiveError(f"the {count} leaves from {header.first} on are not those announced")
    yield b"".join(block)


def _header(source: _Unpacked) -> Segment:
    lines = [source.line() for _ in range(_HEADER_LINES)]
    if source.line() or lines[0] != HEADER or not lines[1]:
        raise ArchiveError("a segment does not begin with its header")
    try:
        header = Segment(lines[1], decimal(lines[2]), decimal(lines[3]), hash_of(lines[4]))
    except MalformedNoteError as error:
        raise ArchiveError(f"the header of a segment: {error}") from error
    if not header.count:
        raise ArchiveError("a segment is empty")
    return header


def _leaves(source: _Unpacked, header: Segment) -> Iterator[bytes]:
    digest = sha256()
    for _ in range(header.count):
        leaf = source.take(int.from_bytes(source.take(2), "big"))
        digest.update(leaf_hash(leaf))
        yield leaf
    if digest.digest() != header.digest:
        raise ArchiveError(f"the leaves from {header.first} on are not those of their header")


class _Unpacked:
    """A stream without its compression; at most a block of it is in memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._packed = zlib.decompressobj(_GZIP)
        self._block = b""
        self._at = 0

    def at_end(self) -> bool:
        """Tell whether nothing is left, and the file ends where it should."""
        if self._at < len(self._block) or self._fill():
            return False
        if self._packed.unused_data or self._stream.read(1):
            raise ArchiveError("something follows the end of the archive")
        return True

    def take(self, count: int) -> bytes:
        """Return that many bytes."""
        while len(self._block) - self._at < count:
            if not self._fill():
                raise ArchiveError("the archive ends within a segment")
        start, self._at = self._at, self._at + count
        return self._block[start : self._at]

    def line(self) -> str:
        """Return what comes before the next newline."""
        while (end := self._block.find(b"\n", self._at)) < 0:
            if len(self._block) - self._at > _MAX_HEADER_BYTES or not self._fill():
                raise ArchiveError("a line of a header has no end")
        start, self._at = self._at, end + 1
        try:
            return self._block[start:end].decode()
        except UnicodeDecodeError:
            raise ArchiveError("a header is no UTF-8") from None

    def _fill(self) -> bool:
        """Unpack a block more; tell whether there was one."""
        unpacked = b""
        while not unpacked and not self._packed.eof:
            # While something is still packed, at least gzip's trailer has not been consumed.
            packed = self._packed.unconsumed_tail or self._stream.read(_BLOCK)
            if not packed:
                raise ArchiveError("the archive ends too early")
            try:
                unpacked = self._packed.decompress(packed, _BLOCK)
            except zlib.error as error:
                raise ArchiveError(f"the archive is damaged: {error}") from error
        self._block = self._block[self._at :] + unpacked
        self._at = 0
        return bool(unpacked)
