"""Syncs of a spool that fail or hang: no event is called durable that none of them vouches for."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Semaphore

import pytest
from typing_extensions import override

from licet.domain.errors import UnavailableError
from licet.spool.writer import Durability, SpoolWriter
from tests.fakes.spool import PATIENCE, FaultySystem, leaf, recover, writing

BODY = b"x" * 1000


def assert_all_on_record(root: Path, appended: int) -> None:
    assert recover(root) == ({s: leaf(s, BODY) for s in range(1, appended + 1)}, [])


@pytest.mark.parametrize("happened", [False, True], ids=["failed", "happened"])
def test_after_a_failed_sync_no_event_is_ever_taken_again(tmp_path: Path, happened: bool) -> None:
    system = FaultySystem()
    with writing(tmp_path, Durability.GROUP, system=system, segment_bytes=1 << 20) as writer:
        system.wait_for("sync_folder", 3)  # the root, and two segments: only syncs are left
        for _ in range(5):
            writer.wait(writer.append(BODY), PATIENCE)
        durable = writer.appended
        system.fail("sync", happened=happened)
        with pytest.raises(UnavailableError, match="may not be on record"):
            writer.wait(writer.append(BODY), PATIENCE)
        system.heal()
        assert writer.refusal is not None
        assert writer.durable == durable
        for _ in range(3):
            with pytest.raises(UnavailableError, match="writing to the disk failed"):
                writer.append(BODY)
            with pytest.raises(UnavailableError, match="may not be on record"):
                writer.wait(durable + 1, PATIENCE)
        writer.wait(durable, 0)
        syncs = system.calls["sync"]
    # Nor is it synced again: that could succeed, and would mean nothing.
    assert system.calls["sync"] == syncs
    assert_all_on_record(tmp_path, durable + 1)


def test_nobody_is_told_of_an_event_while_the_disk_hangs(tmp_path: Path) -> None:
    going = Event()

    class HangingSystem(FaultySystem):
        hangs = False

        @override
        def sync(self, descriptor: int) -> None:
            if self.hangs:
                assert going.wait(PATIENCE)
            super().sync(descriptor)

    system = HangingSystem()
    with writing(tmp_path, Durability.GROUP, system=system) as writer:
        writer.wait(writer.append(BODY), PATIENCE)
        system.hangs = True
        told: list[UnavailableError | None] = []
        writer.when(writer.append(BODY), told.append)
        with pytest.raises(UnavailableError, match="in time"):
            writer.wait(writer.append(BODY), 0.05)
        assert told == []
        assert writer.durable == 1
        going.set()
        writer.wait(3, PATIENCE)
        writer.wait(writer.append(BODY), PATIENCE)
        assert told == [None]
    assert_all_on_record(tmp_path, 4)


def test_a_sync_vouches_for_nothing_that_was_appended_after_it_began(tmp_path: Path) -> None:
    entered, permits = Semaphore(0), Semaphore(0)

    class GatedSystem(FaultySystem):
        gated = False

        @override
        def sync(self, descriptor: int) -> None:
            if self.gated:
                entered.release()
                assert permits.acquire(timeout=PATIENCE)
            super().sync(descriptor)

    system = GatedSystem()
    with writing(tmp_path, Durability.GROUP, system=system) as writer:
        system.wait_for("sync_folder", 3)  # the root, and two segments: only syncs are left
        system.gated = True
        first, second = Event(), Event()
        writer.when(writer.append(BODY), lambda _: first.set())
        assert entered.acquire(timeout=PATIENCE)
        writer.when(writer.append(BODY), lambda _: second.set())
        permits.release()
        assert entered.acquire(timeout=PATIENCE)  # the next sync has begun, and not ended
        assert first.is_set()
        assert not second.is_set()
        assert writer.durable == 1
        system.gated = False
        permits.release()
        assert second.wait(PATIENCE)
    assert_all_on_record(tmp_path, 2)


def test_a_segment_that_was_filled_is_synced_before_what_is_in_it_is_durable(
    tmp_path: Path,
) -> None:
    synced: list[tuple[int, int]] = []

    class RecordingSystem(FaultySystem):
        writer: SpoolWriter | None = None

        @override
        def sync(self, descriptor: int) -> None:
            appended = 0 if self.writer is None else self.writer.appended
            super().sync(descriptor)
            synced.append((os.fstat(descriptor).st_ino, appended))

    system = RecordingSystem()
    with writing(tmp_path, Durability.GROUP, system=system) as writer:
        system.writer = writer
        for _ in range(40):
            writer.append(BODY)
        writer.wait(writer.appended, PATIENCE)
        vouched = list(synced)
        ends = dict(zip(writer.folder.segments(), (11, 22, 33, 40), strict=False))
        for name, last in ends.items():
            inode = (writer.folder.path / str(name)).stat().st_ino
            assert any(file == inode and appended >= last for file, appended in vouched), name


def test_a_callers_bug_does_not_end_the_syncing(tmp_path: Path) -> None:
    def fail(_: UnavailableError | None) -> None:
        raise RuntimeError("a bug")

    with writing(tmp_path, Durability.GROUP) as writer:
        writer.when(writer.append(BODY), fail)
        writer.wait(writer.append(BODY), PATIENCE)
    assert_all_on_record(tmp_path, 2)
