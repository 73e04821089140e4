"""A thousand damaged spools: no wrong event, nothing whole is lost, and what is lost is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import pytest

from licet.spool.reader import Damage, DamageKind, SpoolReader
from licet.spool.segment import FRAME, HEADER_BYTES
from licet.spool.writer import Durability
from tests.fakes.spool import WRITER, leaves_of, recover, runs, writing

IMAGES: Final = 150
"""Of each way to damage a spool."""
PAGE: Final = 4096

Files = dict[str, bytearray]


class Place(NamedTuple):
    """Where an event's frame is, without what fills it up."""

    file: str
    begin: int
    end: int


class Spool:
    """A dead writer's files, its events, and where each one is."""

    def __init__(self, root: Path, durability: Durability) -> None:
        random = Random(1)
        bodies = [random.randbytes(random.randrange(400)) for _ in range(150)]
        with writing(root, durability) as writer:
            for body in bodies:
                writer.append(body)
            # As SIGKILL leaves it: not closed.
            self.files = {p.name: p.read_bytes() for p in writer.folder.path.glob("*.segment")}
            if durability is Durability.GROUP:
                writer.wait(150, 30)
                self.files = {p.name: p.read_bytes() for p in writer.folder.path.glob("*.segment")}
        self.leaves = leaves_of(bodies)
        self.places: dict[int, Place] = {}
        for name, data in sorted(self.files.items()):
            offset = HEADER_BYTES
            while offset < len(data) and (length := FRAME.unpack_from(data, offset)[1]):
                end = offset + FRAME.size + length
                self.places[FRAME.unpack_from(data, offset)[2]] = Place(name, offset, end)
                offset = (end + 7) & ~7
        assert sorted(self.places) == list(range(1, 151))
        used = {place.file for place in self.places.values()}
        self.used = sorted(used)
        assert len(used) >= 3

    def untouched(self, files: Files) -> set[int]:
        """Return the events of which no byte was changed."""
        return {
            sequence
            for sequence, (name, begin, end) in self.places.items()
            if self.files[name][begin:end] == files[name][begin:end]
        }


def tear(files: Files, spool: Spool, random: Random) -> None:
    """Lose the end of the last segment, from within a frame on."""
    last = spool.places[150]
    offset = random.randrange(HEADER_BYTES + 1, last.end)
    files[last.file][offset:] = bytes(len(files[last.file]) - offset)


def truncate(files: Files, spool: Spool, random: Random) -> None:
    """Lose the end of a file."""
    del files[random.choice(spool.used)][random.randrange(HEADER_BYTES + 1, 4 * PAGE) :]


def flip(files: Files, spool: Spool, random: Random) -> None:
    """Flip some bits."""
    for _ in range(random.randrange(1, 4)):
        data = files[random.choice(spool.used)]
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def zero_page(files: Files, spool: Spool, random: Random) -> None:
    """Lose a page."""
    data = files[random.choice(spool.used)]
    offset = random.randrange(0, len(data), PAGE)
    data[offset : offset + PAGE] = bytes(PAGE)


def bad_length(files: Files, spool: Spool, random: Random) -> None:
    """Make a frame claim another length."""
    name, begin, end = spool.places[random.randrange(1, 151)]
    wrong = random.choice(
        [0, 1, end - begin, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, random.getrandbits(16)]
    )
    files[name][begin + 4 : begin + 8] = wrong.to_bytes(4, "big")


def garbage_tail(files: Files, spool: Spool, random: Random) -> None:
    """Write what is nothing behind the last frame."""
    last = spool.places[150]
    offset = (last.end + 7) & ~7
    garbage = random.randbytes(random.randrange(1, 300))
    files[last.file][offset : offset + len(garbage)] = garbage


def move_page(files: Files, spool: Spool, random: Random) -> None:
    """Find a page at another place, of the same segment or of another one."""
    source, target = (files[random.choice(spool.used)] for _ in range(2))
    begin, offset = (random.randrange(0, 4 * PAGE, PAGE) for _ in range(2))
    target[offset : offset + PAGE] = source[begin : begin + PAGE]


def lose_file(files: Files, spool: Spool, random: Random) -> None:
    """Lose a segment's content, all of it."""
    name = random.choice(spool.used)
    files[name] = bytearray(random.randrange(2) * 4 * PAGE)


WAYS: Final[list[Callable[[Files, Spool, Random], None]]] = [
    tear,
    truncate,
    flip,
    zero_page,
    bad_length,
    garbage_tail,
    move_page,
    lose_file,
]


def lost(damages: list[Damage]) -> list[int]:
    """Return the sequences that are named as lost, in order."""
    return [s for damage in damages for s in range(damage.first, damage.last + 1)]


def check(spool: Spool, files: Files, root: Path) -> None:
    """Recover a damaged spool, and compare with what is known of it."""
    folder = root / f"{WRITER:012x}"
    for name, data in files.items():
        (folder / name).write_bytes(data)
    found, damages = recover(root)
    whole = spool.untouched(files)
    assert found == {sequence: spool.leaves[sequence] for sequence in whole}
    missing = sorted(set(spool.leaves) - whole)
    torn = [damage for damage in damages if damage.kind is DamageKind.TORN_TAIL]
    # What has a whole event behind it is corrupt, and named.
    behind = max(whole, default=0)
    named = lost(damages)
    assert [s for s in named if s < behind] == [s for s in missing if s < behind]
    # What has not is a torn tail, unless it is known to have been whole.
    tail = [s for s in missing if s > behind]
    assert [s for s in named if s > behind] in ([], tail)
    assert torn in ([], damages[-1:])
    if torn:
        assert torn[0].first == behind + 1
        assert torn[0].last == behind
        assert torn[0].end == len(files[torn[0].segment])


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_damage_makes_a_wrong_event(
    tmp_path: Path, way: Callable[[Files, Spool, Random], None], durability: Durability
) -> None:
    spool = Spool(tmp_path, durability)
    for seed in range(IMAGES):
        files = {name: bytearray(data) for name, data in spool.files.items()}
        way(files, spool, Random(seed))
        check(spool, files, tmp_path)


def damage_last_frame(root: Path, durability: Durability) -> list[Damage]:
    spool = Spool(root, durability)
    files = {name: bytearray(data) for name, data in spool.files.items()}
    name, begin, _ = spool.places[150]
    files[name][begin + 20] ^= 1
    check(spool, files, root)
    (root / f"{WRITER:012x}" / name).write_bytes(files[name])
    return recover(root)[1]


def test_damage_to_the_last_event_is_a_torn_tail_if_nobody_was_told_of_it(tmp_path: Path) -> None:
    (damage,) = damage_last_frame(tmp_path, Durability.NONE)
    assert (damage.kind, damage.first, damage.last) == (DamageKind.TORN_TAIL, 150, 149)


def test_damage_to_the_last_event_is_corruption_if_it_was_durable(tmp_path: Path) -> None:
    (damage,) = damage_last_frame(tmp_path, Durability.GROUP)
    assert (damage.kind, damage.first, damage.last) == (DamageKind.CORRUPT, 150, 150)


def test_damage_in_the_middle_says_where_it_is(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Durability.NONE)
    name, begin, _ = spool.places[5]
    path = tmp_path / f"{WRITER:012x}" / name
    data = bytearray(spool.files[name])
    data[begin + 16] ^= 1
    path.write_bytes(data)
    _, damages = recover(tmp_path)
    assert damages == [Damage(DamageKind.CORRUPT, name, begin, spool.places[6].begin, 5, 5)]
    # Whoever has the event already has lost nothing.
    assert recover(tmp_path, 5)[1] == []


@pytest.mark.parametrize("position", [0, 1])
def test_a_segment_that_somebody_deleted_is_named_as_lost(tmp_path: Path, position: int) -> None:
    spool = Spool(tmp_path, Durability.NONE)
    gone = spool.used[position]
    (tmp_path / f"{WRITER:012x}" / gone).unlink()
    expected = sorted(s for s, place in spool.places.items() if place.file == gone)
    found, damages = recover(tmp_path)
    assert lost(damages) == expected
    assert sorted([*found, *expected]) == sorted(spool.leaves)


def test_damage_under_a_living_writer_is_named_as_far_as_was_asked_for(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        for number in range(10):
            writer.append(b"%d" % number)
        (path,) = writer.folder.path.glob("00000001-*")
        with path.open("r+b") as file:
            for sequence in range(4, 8):  # 48 bytes each
                file.seek(HEADER_BYTES + 48 * (sequence - 1) + 20)
                file.write(b"damage")
        through = 5
        reader = SpoolReader(writer.folder, 0, lambda: through)
        assert [run.first for run in runs(reader)] == [1]
        assert reader.position == 5
        assert lost(reader.damages()) == [4, 5]
        through = 10
        (run,) = runs(reader)
        assert (run.first, len(run.leaves)) == (8, 3)
        assert lost(reader.damages()) == [6, 7]
        reader.close()


def test_bytes_that_look_like_a_frame_are_not_taken_for_one(tmp_path: Path) -> None:
    """A client may choose what an event holds; what it cannot know is the segment's salt."""
    spool = Spool(tmp_path / "first", Durability.NONE)
    name, begin, end = spool.places[7]
    frame = spool.files[name][begin:end]
    with writing(tmp_path / "second") as writer:
        for shift in range(8):
            writer.append(bytes(shift) + frame)
    folder = tmp_path / "second" / f"{WRITER:012x}"
    (path,) = folder.glob("00000001-*")
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES] ^= 1  # so that the next frame is searched for
    path.write_bytes(data)
    found, damages = recover(tmp_path / "second")
    assert sorted(found) == list(range(2, 9))
    assert lost(damages) == [1]
