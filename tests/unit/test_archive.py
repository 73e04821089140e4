"""Archives: what is written is read again, and anything else is noticed."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from io import BytesIO

import pytest
from typing_extensions import override

from licet.domain.archive import ArchiveError, Segment, read_archive, segment, write_archive
from licet.domain.merkle import leaf_hashes
from tests.fakes.audit_log import ORIGIN, AuditLog

LEAVES = [bytes([n % 251]) * (n % 300) for n in range(2000)] + [b"\xff" * 65_535]


def written(*segments: tuple[Segment, Iterable[bytes]]) -> bytes:
    stream = BytesIO()
    write_archive(stream, segments)
    return stream.getvalue()


def read(packed: bytes) -> list[tuple[Segment, list[bytes]]]:
    return [(header, list(leaves)) for header, leaves in read_archive(BytesIO(packed))]


def described(first: int, leaves: list[bytes]) -> Segment:
    return segment(ORIGIN, first, leaf_hashes(leaves))


WHOLE = (described(7, LEAVES), LEAVES)
SMALL = [b"one", b"two", b"three"]
SMALL_PACKED = written((described(5, SMALL), SMALL))


def test_an_archive_is_read_as_it_was_written() -> None:
    second = (described(5000, SMALL), SMALL)
    assert read(written(WHOLE, second)) == [WHOLE, second]
    assert read(written()) == []


def test_an_archive_is_a_gzip_file_of_headers_and_framed_leaves() -> None:
    header = described(5, SMALL)
    assert gzip.decompress(SMALL_PACKED) == b"".join(
        [
            header.text().encode(),
            *(b"\0\3one", b"\0\3two", b"\0\5three"),
        ]
    )
    assert header.text().split("\n")[:4] == ["licet-archive@v1", ORIGIN, "5", "3"]
    assert header.text().endswith("=\n\n")


def test_the_same_leaves_make_the_same_file() -> None:
    assert written(WHOLE) == written(WHOLE)


def test_leaves_that_are_not_taken_are_checked_all_the_same() -> None:
    packed = written(WHOLE, (described(5000, SMALL), SMALL))
    assert [header.first for header, _ in read_archive(BytesIO(packed))] == [7, 5000]
    content = gzip.decompress(SMALL_PACKED).replace(b"two", b"TWO")
    with pytest.raises(ArchiveError, match="not those of their header"):
        for _ in read_archive(BytesIO(gzip.compress(content))):
            pass


@pytest.mark.parametrize(
    "leaves",
    [SMALL[:2], [*SMALL, b"four"], [b"one", b"three", b"two"], [b"one", b"two", b"thre"], []],
)
def test_leaves_that_are_not_the_announced_ones_make_no_archive(leaves: list[bytes]) -> None:
    stream = BytesIO()
    with pytest.raises(ArchiveError, match="not those announced"):
        write_archive(stream, [(described(5, SMALL), leaves)])
    with pytest.raises(ArchiveError):  # what was written so far is no archive
        read(stream.getvalue())


def test_a_leaf_that_no_bundle_can_hold_makes_no_archive() -> None:
    leaves = [bytes(65_536)]
    with pytest.raises(ArchiveError, match="leaf 0 has 65536 bytes"):
        written((described(0, leaves), leaves))


@pytest.mark.parametrize(
    "segments",
    [
        [(described(5, SMALL), SMALL), (described(7, SMALL), SMALL)],
        [(described(5, SMALL), SMALL), (described(0, SMALL), SMALL)],
        [(described(5, []), [])],
        [(Segment("a b", 0, 3, described(5, SMALL).digest), SMALL)],
    ],
)
def test_segments_are_in_order_and_hold_something(
    segments: list[tuple[Segment, list[bytes]]],
) -> None:
    with pytest.raises(ArchiveError, match="segments have"):
        written(*segments)


@pytest.mark.parametrize("count", range(0, len(SMALL_PACKED), 3))
def test_an_archive_that_was_cut_is_damaged(count: int) -> None:
    with pytest.raises(ArchiveError):
        read(SMALL_PACKED[:count])


@pytest.mark.parametrize("at", range(10, len(SMALL_PACKED), 5))
def test_an_archive_with_a_changed_byte_is_damaged(at: int) -> None:
    changed = bytearray(SMALL_PACKED)
    changed[at] ^= 0x55
    with pytest.raises(ArchiveError):
        read(bytes(changed))


@pytest.mark.parametrize("tail", [b"\0", b"x", SMALL_PACKED])
def test_nothing_may_follow_an_archive(tail: bytes) -> None:
    with pytest.raises(ArchiveError, match="something follows"):
        read(SMALL_PACKED + tail)


HEADER = described(5, SMALL).text()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("licet-archive@v1", "licet-archive@v2"),
        (ORIGIN, ""),
        ("\n5\n", "\n05\n"),
        ("\n3\n", "\n2\n"),
        ("\n3\n", "\n4\n"),
        ("\n3\n", "\n0\n"),
        ("=\n\n", "\n\n"),
        ("=\n\n", "=\nx\n"),
        (ORIGIN, "x" * 300_000),
        (ORIGIN, "\udcff"),
    ],
)
def test_a_wrong_header_is_refused(before: str, after: str) -> None:
    content = gzip.decompress(SMALL_PACKED).decode("utf-8", "surrogateescape")
    changed = content.replace(before, after, 1).encode("utf-8", "surrogateescape")
    with pytest.raises(ArchiveError):
        read(gzip.compress(changed))


def test_segments_out_of_order_are_refused() -> None:
    content = gzip.decompress(SMALL_PACKED)
    with pytest.raises(ArchiveError, match="not in order"):
        read(gzip.compress(content + content))


class Dripping(BytesIO):
    """A stream that gives a few bytes at a time, like a pipe."""

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(7)


def test_an_archive_may_come_in_small_pieces() -> None:
    packed = written(WHOLE)
    [(header, leaves)] = [(h, list(rest)) for h, rest in read_archive(Dripping(packed))]
    assert (header, leaves) == WHOLE


def test_what_follows_an_archive_is_noticed_in_the_next_piece_too() -> None:
    class Exactly(BytesIO):
        """A stream whose first piece is the archive, whole."""

        @override
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(len(SMALL_PACKED))

    with pytest.raises(ArchiveError, match="something follows"):
        for _ in read_archive(Exactly(SMALL_PACKED + b"x")):
            pass


def test_an_archive_that_unpacks_to_very_much_is_read_in_blocks() -> None:
    leaves = [bytes(65_535)] * 1000
    packed = BytesIO(written((described(0, leaves), leaves)))
    assert len(packed.getvalue()) < 1_000_000
    assert [sum(map(len, found)) for _, found in read_archive(packed)] == [65_535_000]


def test_a_log_is_archived_in_ranges() -> None:
    log = AuditLog(LEAVES[:100])
    segments = read(log.archive((0, 10), (50, 100)))
    assert [leaves for _, leaves in segments] == [LEAVES[:10], LEAVES[50:100]]
