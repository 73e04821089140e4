"""Each call to the operating system fails, or fails and happened; and the disk is full.

Whatever it is, an event is refused or it is on record, and when the fault is gone it goes on.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from typing_extensions import override

from licet.app.ports import NotAtOnceError
from licet.domain.errors import UnavailableError
from licet.spool.folder import SpoolFolder
from licet.spool.reader import SpoolReader
from licet.spool.segment import FRAME, FRAME_BYTES, HEADER_BYTES
from licet.spool.writer import Durability, SpoolWriter
from tests.fakes.spool import (
    PATIENCE,
    PLENTY,
    SMALL,
    WRITER,
    FaultySystem,
    leaf,
    recover,
    runs,
    writing,
)

MAKING = ["create", "allocate", "map", "sync", "load", "rename", "sync_folder"]
"""The calls that make a segment, in order."""
BODY = b"x" * 1000


def until_refused(writer: SpoolWriter) -> int:
    """Append until no more is taken, and return how many were."""
    for taken in range(10_000):
        try:
            assert writer.append(BODY) == writer.appended
        except UnavailableError:
            return taken
    raise AssertionError("the spool never refused an event")


def until_taken(writer: SpoolWriter) -> None:
    """Append one event, as soon as one is taken again."""
    pause = Event()
    for _ in range(int(PATIENCE / 0.05)):
        with suppress(UnavailableError):
            writer.append(BODY)
            return
        pause.wait(0.05)
    raise AssertionError("the spool did not recover")


def assert_all_on_record(root: Path, appended: int) -> None:
    assert recover(root) == ({s: leaf(s, BODY) for s in range(1, appended + 1)}, [])


@pytest.mark.parametrize("happened", [False, True], ids=["failed", "happened"])
@pytest.mark.parametrize("call", MAKING)
def test_there_is_no_writer_without_a_first_segment(
    tmp_path: Path, call: str, happened: bool
) -> None:
    system = FaultySystem()
    folder = SpoolFolder.create(tmp_path, WRITER, system)
    system.fail(call, happened=happened)
    with pytest.raises(UnavailableError, match="there is no spool"):
        SpoolWriter(folder, Durability.GROUP, max_bytes=PLENTY, segment_bytes=SMALL)
    folder.close()
    assert recover(tmp_path) == ({}, [])


@pytest.mark.parametrize("happened", [False, True], ids=["failed", "happened"])
@pytest.mark.parametrize("call", MAKING)
def test_without_a_next_segment_events_are_refused_until_there_is_one(
    tmp_path: Path, call: str, happened: bool
) -> None:
    system = FaultySystem()
    with writing(tmp_path, system=system) as writer:
        system.fail(call, happened=happened)
        taken = until_refused(writer)
        system.wait_until_met()
        with pytest.raises(UnavailableError, match="cannot grow"):
            writer.append_all([BODY] * 2)
        assert writer.appended == taken
        system.heal()
        until_taken(writer)
        writer.append_all([BODY] * 2)
        assert writer.appended == taken + 3
        assert writer.shortage is None
    assert_all_on_record(tmp_path, taken + 3)


def test_what_cannot_be_read_is_asked_for_again_and_not_passed_over(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        for _ in range(30):
            writer.append(BODY)
    folder = SpoolFolder.adopt(tmp_path)
    assert folder is not None
    reader = SpoolReader(folder, 0)
    assert reader.read(5) is not None
    path = folder.path / str(folder.segments()[1])
    path.rename(folder.path / "aside")
    path.mkdir()
    rest = reader.read(100)  # of the first segment
    assert rest is not None
    for _ in range(2):
        with pytest.raises(UnavailableError, match="cannot read the spool"):
            reader.read(100)
    path.rmdir()
    (folder.path / "aside").rename(path)
    assert sum(len(run.leaves) for run in runs(reader)) == 30 - 5 - len(rest.leaves)
    assert reader.damages() == []
    reader.close()
    folder.close()


@pytest.mark.parametrize("durability", Durability)
def test_a_spool_that_has_reached_its_limit_refuses_until_it_is_shipped(
    tmp_path: Path, durability: Durability
) -> None:
    with writing(tmp_path, durability, max_bytes=3 * SMALL) as writer:
        taken = until_refused(writer)
        assert taken == 3 * 11
        with pytest.raises(UnavailableError, match="has reached its 49152 bytes"):
            writer.append(BODY)
        assert writer.folder.discard(11) == 1
        until_taken(writer)
        more = until_refused(writer)
        assert more == 10
        writer.wait(writer.appended, PATIENCE)
        last = writer.appended
    assert recover(tmp_path, 11) == ({s: leaf(s, BODY) for s in range(12, last + 1)}, [])


def test_a_spool_that_comes_near_to_its_limit_says_so_once_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "licet.spool.writer")

    def said() -> list[str]:
        return [record.levelname for record in caplog.records if " bytes" in record.message[-10:]]

    with writing(tmp_path, max_bytes=10 * SMALL) as writer:
        for _ in range(5 * 11):
            writer.append(BODY)
        assert writer.taken <= 7 * SMALL
        assert said() == []
        until_refused(writer)
        assert writer.taken == writer.max_bytes
        # Once, and then that it has reached it.
        assert said() == ["WARNING"]
        assert "comes near to its" in caplog.text
        assert writer.folder.discard(8 * 11) == 8
        until_taken(writer)
        for _ in range(11):
            writer.append(BODY)
        until_refused(writer)
        assert said() == ["WARNING", "INFO", "WARNING"]


@pytest.mark.parametrize("happened", [False, True], ids=["failed", "happened"])
def test_deleting_what_is_shipped_can_be_repeated(tmp_path: Path, happened: bool) -> None:
    system = FaultySystem()
    with writing(tmp_path, system=system) as writer:
        for _ in range(40):
            writer.append(BODY)
        system.fail("unlink", happened=happened)
        with pytest.raises(UnavailableError, match="cannot delete"):
            writer.folder.discard(22)
        system.heal()
        assert writer.folder.discard(22) == 2 - happened
    assert recover(tmp_path, 22)[0] == {s: leaf(s, BODY) for s in range(23, 41)}


@pytest.mark.parametrize("call", ["unlink", "sync_folder"])
@pytest.mark.parametrize("happened", [False, True], ids=["failed", "happened"])
def test_removing_a_folder_can_be_repeated(tmp_path: Path, call: str, happened: bool) -> None:
    with writing(tmp_path) as writer:
        writer.append(BODY)
    system = FaultySystem()
    folder = SpoolFolder.adopt(tmp_path, system)
    assert folder is not None
    system.fail(call, happened=happened)
    with pytest.raises(UnavailableError, match="cannot remove"):
        folder.remove()
    system.heal()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("happened", [False, True], ids=["failed", "happened"])
def test_a_folder_that_could_not_be_made_is_adopted_at_most(tmp_path: Path, happened: bool) -> None:
    system = FaultySystem()
    system.fail("sync_folder", happened=happened)
    with pytest.raises(UnavailableError, match="cannot make"):
        SpoolFolder.create(tmp_path, WRITER, system)
    assert recover(tmp_path) == ({}, [])


def test_a_file_system_that_only_pretends_to_allocate_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretend(descriptor: int, offset: int, length: int) -> None:
        os.ftruncate(descriptor, offset + length)

    monkeypatch.setattr(os, "posix_fallocate", pretend)
    folder = SpoolFolder.create(tmp_path, WRITER)
    with pytest.raises(UnavailableError, match="does not allocate in advance"):
        SpoolWriter(folder, Durability.NONE, max_bytes=PLENTY, segment_bytes=SMALL)
    folder.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Provide a file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here; the next test fills one in another way")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)  # noqa: S607 - wherever it is


@pytest.mark.parametrize("durability", Durability)
def test_on_a_full_disk_events_are_refused_and_none_is_lost(
    small_disk: Path, durability: Durability
) -> None:
    root = small_disk / "spool"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(512 * 1024))
    with writing(root, durability, segment_bytes=1 << 16) as writer:
        taken = until_refused(writer)
        assert taken % 58 == 0  # whole segments
        assert taken > 2 * 58
        assert "No space left" in (writer.shortage or "")
        ballast.unlink()
        until_taken(writer)
        writer.wait(writer.appended, PATIENCE)
    assert_all_on_record(root, taken + 1)


def test_where_files_may_not_grow_events_are_refused_and_none_is_lost(tmp_path: Path) -> None:
    """The same without a file system of one's own: the kernel refuses to allocate (EFBIG)."""
    system = FaultySystem()
    with writing(tmp_path, system=system) as writer:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL - 1, hard))
        try:
            taken = until_refused(writer)
            assert "too large" in (writer.shortage or "")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        until_taken(writer)
    assert_all_on_record(tmp_path, taken + 1)


def test_a_batch_is_stored_frame_by_frame(tmp_path: Path) -> None:
    """A process that is killed in a copy of many leaves a whole frame behind half a one."""
    stored: list[bytes] = []

    class Memory(mmap):
        @override
        def __setitem__(self, key: Any, value: Any) -> None:
            if (key.start or 0) >= HEADER_BYTES:
                stored.append(value)
            super().__setitem__(key, value)

    class WatchedSystem(FaultySystem):
        @override
        def map(self, descriptor: int, size: int) -> mmap:
            return Memory(descriptor, size)

    with writing(tmp_path, system=WatchedSystem()) as writer:
        writer.append_all([BODY, BODY * 2, BODY * 3])
    sequences = [FRAME.unpack_from(frame)[2] for frame in stored]
    lengths = [FRAME.unpack_from(frame)[1] for frame in stored]
    assert sequences == [1, 2, 3]
    assert all(0 <= len(f) - FRAME_BYTES - n < 8 for f, n in zip(stored, lengths, strict=True))


def test_who_must_not_wait_for_a_segment_is_told_so_and_nothing_was_appended(
    tmp_path: Path,
) -> None:
    system = FaultySystem()
    with writing(tmp_path, system=system) as writer:
        system.fail("create")
        taken = until_refused(writer)
        with pytest.raises(NotAtOnceError):
            writer.append(BODY, waits=False)
        with pytest.raises(NotAtOnceError):
            writer.append_all([BODY] * 2, waits=False)
        assert writer.appended == taken
        system.heal()
        until_taken(writer)
        # In the next segment, which is there.
        assert writer.append(BODY, waits=False) == writer.appended == taken + 2
    assert_all_on_record(tmp_path, taken + 2)


def test_a_spool_that_takes_nothing_any_more_says_so_at_once(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        writer.close()
        with pytest.raises(UnavailableError, match="stopping"):
            writer.append(BODY, waits=False)
