"""The spool on a real file system: what is appended is read, in order, and nothing else is."""

from __future__ import annotations

import stat
import struct
from collections import defaultdict
from functools import partial
from pathlib import Path
from threading import Barrier, Event, Thread
from zlib import crc32

import pytest

from licet.domain.audit_event import MAX_LEAF_BYTES, event_id, leaf_body
from licet.domain.audit_event import leaf as encoded
from licet.domain.errors import UnavailableError
from licet.spool.folder import SpoolFolder
from licet.spool.reader import SpoolReader
from licet.spool.segment import HEADER_BYTES, parse_name
from licet.spool.writer import Durability, SpoolWriter
from tests.fakes.spool import (
    PATIENCE,
    ROOM,
    SMALL,
    WRITER,
    bodies_of,
    leaf,
    leaves_of,
    recover,
    runs,
    writing,
)
from tests.unit.builders import event

EARLY = UnavailableError("not durable yet")
FRAME = 16 + 28
"""What a frame has before its body."""


@pytest.mark.parametrize("durability", Durability)
def test_what_is_appended_is_recovered(tmp_path: Path, durability: Durability) -> None:
    bodies = bodies_of(500)
    with writing(tmp_path, durability) as writer:
        assert [writer.append(body) for body in bodies[:300]] == list(range(1, 301))
        for first in range(300, 400, 20):
            assert writer.append_all(bodies[first : first + 20]) == first + 1
        assert writer.append_all([]) == 401
        assert [writer.append(body) for body in bodies[400:]] == list(range(401, 501))
        assert writer.appended == 500
    assert recover(tmp_path) == (leaves_of(bodies), [])


def test_a_leaf_is_what_the_encoder_makes_of_the_event(tmp_path: Path) -> None:
    happened = event()
    with writing(tmp_path) as writer:
        writer.append(leaf_body(happened))
    found, _ = recover(tmp_path)
    assert found == {1: encoded(event_id(WRITER, 1), happened)}


def test_the_format_of_a_segment_stays(tmp_path: Path) -> None:
    with writing(tmp_path, Durability.GROUP) as writer:
        writer.append(b"first")
        writer.append_all([b"the second", b""])
        writer.wait(3, PATIENCE)
    folder = tmp_path / "010203040506"
    (path,) = folder.glob("00000001-*.segment")
    name = parse_name(path.name)
    assert name is not None
    start = struct.pack(">8sIIQQ", b"licetlog", 1, name.salt, WRITER, 1)
    seed = crc32(start)
    page = start + struct.pack(">I", seed)
    slots = {64: 1, 128: 3}
    for offset, value in slots.items():
        slot = struct.pack(">Q", value)
        page = page.ljust(offset, b"\0") + slot + struct.pack(">I", crc32(slot, seed))
    expected = page.ljust(4096, b"\0")
    for sequence, body in ((1, b"first"), (2, b"the second"), (3, b"")):
        content = leaf(sequence, body)
        record = struct.pack(">IQ", len(content), sequence) + content
        expected += struct.pack(">I", crc32(record, seed ^ len(expected))) + record
        expected += bytes(-len(expected) % 8)
    assert path.read_bytes() == expected.ljust(SMALL, b"\0")


def test_nobody_else_may_read_a_spool(tmp_path: Path) -> None:
    with writing(tmp_path / "root") as writer:
        writer.append(b"")
        modes = {
            stat.S_IMODE(path.stat().st_mode)
            for path in (tmp_path / "root").rglob("*")
            if path.is_file()
        }
        folders = [tmp_path / "root", tmp_path / "root" / "010203040506"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert modes == {0o600}


def test_a_segment_has_all_its_blocks(tmp_path: Path) -> None:
    with writing(tmp_path, segment_bytes=1 << 20):
        (path,) = tmp_path.glob("*/00000001-*.segment")
        status = path.stat()
        assert status.st_size == 1 << 20
        assert status.st_blocks * 512 >= status.st_size


@pytest.mark.parametrize("spare", [-8, -1, 0, 1, 7, 8, FRAME])
def test_a_segment_is_filled_to_its_end(tmp_path: Path, spare: int) -> None:
    """A frame fits exactly, or goes to the next segment."""
    bodies = [b"x" * (ROOM - FRAME - FRAME - 8 - spare), b"12345678", b"next"]
    with writing(tmp_path) as writer:
        for body in bodies:
            writer.append(body)
    assert recover(tmp_path) == (leaves_of(bodies), [])


def test_what_is_too_long_is_refused_before_a_sequence_is_drawn(tmp_path: Path) -> None:
    longest = b"x" * (MAX_LEAF_BYTES - 28)
    with writing(tmp_path, segment_bytes=1 << 17) as writer:
        with pytest.raises(ValueError, match="too long"):
            writer.append(longest + b"x")
        with pytest.raises(ValueError, match="too long"):
            writer.append_all([b"", longest + b"x"])
        with pytest.raises(ValueError, match="do not fit"):
            writer.append_all([longest] * 2)
        assert writer.append(longest) == 1
    assert recover(tmp_path) == (leaves_of([longest]), [])


def test_threads_append_in_the_order_of_their_sequences(tmp_path: Path) -> None:
    drawn: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    begin = Barrier(8)

    def append(thread: int) -> None:
        begin.wait(PATIENCE)
        for number in range(100):
            bodies = [b"%d %d %d" % (thread, number, n) for n in range(1 + number % 3)]
            first = writer.append_all(bodies) if len(bodies) > 1 else writer.append(bodies[0])
            drawn[thread] += enumerate(bodies, first)

    with writing(tmp_path) as writer:
        threads = [Thread(target=append, args=[thread]) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    expected = {
        sequence: leaf(sequence, body) for each in drawn.values() for sequence, body in each
    }
    assert len(expected) == sum(map(len, drawn.values()))
    assert recover(tmp_path) == (expected, [])


def test_a_reader_follows_the_writer(tmp_path: Path) -> None:
    bodies = bodies_of(2000, 300)
    folder = SpoolFolder.create(tmp_path, WRITER)
    writer = SpoolWriter(folder, Durability.NONE, max_bytes=1 << 30, segment_bytes=SMALL)
    reader = SpoolReader(folder, 0, lambda: writer.appended)
    assert reader.read(10) is None
    found: list[bytes] = []
    done = Event()

    def follow() -> None:
        while not done.is_set() or reader.position < len(bodies):
            for run in runs(reader, 100):
                assert run.first == len(found) + 1
                assert len(run.leaves) <= 100
                found.extend(run.leaves)
                folder.discard(reader.position)

    thread = Thread(target=follow)
    thread.start()
    for body in bodies:
        writer.append(body)
    done.set()
    thread.join(PATIENCE)
    assert found == list(leaves_of(bodies).values())
    assert reader.damages() == []
    assert len(folder.segments()) <= 3  # the rest was shipped
    reader.close()
    writer.close()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("after", [0, 1, 56, 57, 199, 200, 500])
def test_a_reader_begins_behind_any_sequence(tmp_path: Path, after: int) -> None:
    bodies = bodies_of(200)
    with writing(tmp_path) as writer:
        writer.append_all(bodies[:40])
        for body in bodies[40:]:
            writer.append(body)
    expected = {s: content for s, content in leaves_of(bodies).items() if s > after}
    assert recover(tmp_path, after) == (expected, [])


def test_only_segments_that_are_shipped_whole_are_discarded(tmp_path: Path) -> None:
    body = b"x" * (ROOM // 4 - FRAME)  # four in a segment
    with writing(tmp_path) as writer:
        folder = writer.folder
        for _ in range(12):
            writer.append(body)
        kept = {through: folder.discard(through) for through in (0, 3, 4, 7, 8, 11, 12)}
        assert kept == {0: 0, 3: 0, 4: 1, 7: 0, 8: 1, 11: 0, 12: 0}
    assert recover(tmp_path, 8) == (
        {sequence: leaf(sequence, body) for sequence in range(9, 13)},
        [],
    )


def test_a_closed_writer_takes_nothing(tmp_path: Path) -> None:
    with writing(tmp_path, Durability.GROUP) as writer:
        writer.append(b"taken")
        writer.close()
        with pytest.raises(UnavailableError, match="stopping"):
            writer.append(b"")
        with pytest.raises(UnavailableError, match="stopping"):
            writer.append_all([b""])
        writer.wait(1, 0)  # closing made it durable
        with pytest.raises(UnavailableError, match="may not be on record"):
            writer.wait(2, 0)
        writer.close()
    assert recover(tmp_path) == (leaves_of([b"taken"]), [])


def test_an_event_is_acknowledged_when_it_is_durable_and_not_before(tmp_path: Path) -> None:
    with writing(tmp_path, Durability.GROUP) as writer:
        told: list[tuple[int, UnavailableError | None]] = []
        done = Event()

        def note(sequence: int, error: UnavailableError | None) -> None:
            told.append((sequence, error if writer.durable >= sequence else EARLY))

        for body in bodies_of(100):
            sequence = writer.append(body)
            writer.when(sequence, partial(note, sequence))
        writer.when(writer.appended, lambda _: done.set())
        assert done.wait(PATIENCE)
        assert sorted(told) == [(sequence, None) for sequence in range(1, 101)]
        writer.wait(100, 0)


def test_an_event_that_nobody_waits_for_becomes_durable_too(tmp_path: Path) -> None:
    with writing(tmp_path, Durability.GROUP) as writer:
        writer.append(b"")
        pause = Event()
        for _ in range(int(PATIENCE / 0.05)):
            if writer.durable == 1:
                break
            pause.wait(0.05)
        assert writer.durable == 1


def test_a_header_that_is_gone_costs_nothing(tmp_path: Path) -> None:
    bodies = bodies_of(200)
    with writing(tmp_path) as writer:
        for body in bodies:
            writer.append(body)
    for path in tmp_path.glob("*/*.segment"):
        with path.open("r+b") as file:
            file.write(bytes(HEADER_BYTES))
    assert recover(tmp_path) == (leaves_of(bodies), [])


def test_a_segment_of_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        writer.append(b"")
    (path,) = tmp_path.glob("*/00000001-*.segment")
    with path.open("r+b") as file:
        start = file.read(32)
        changed = start[:8] + struct.pack(">I", 2) + start[12:]
        file.seek(0)
        file.write(changed + struct.pack(">I", crc32(changed)))
    with pytest.raises(UnavailableError, match="version 2"):
        recover(tmp_path)
