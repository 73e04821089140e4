"""Which events a sync waits for, who is told by whom, and what becomes of them if it hangs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Semaphore

import pytest
from typing_extensions import override

from licet.domain.errors import UnavailableError
from licet.spool import group_sync
from licet.spool.group_sync import Appended, GroupSync, Load
from licet.spool.segment import prepare
from licet.spool.system import System
from tests.fakes.postgres import eventually
from tests.fakes.spool import PATIENCE, SMALL, WRITER

FOR_EVER = 1000.0
SHORT = 0.1


class Gated(System):
    """Begins a sync when it likes, and ends it when it is let."""

    def __init__(self) -> None:
        self.begun = Semaphore(0)
        self.permits = Semaphore(1)  # the segment is made with one

    @override
    def sync(self, descriptor: int) -> None:
        self.begun.release()
        assert self.permits.acquire(timeout=PATIENCE)
        super().sync(descriptor)

    def has_begun(self, seconds: float = PATIENCE) -> bool:
        return self.begun.acquire(timeout=seconds)


class Steady(Load):
    """As busy as it is told."""

    def __init__(self, *, busy: bool) -> None:
        super().__init__()
        self.busy = busy

    @override
    def is_high(self) -> bool:
        return self.busy


class Rig:
    """Events are appended by counting; only their syncs are real."""

    def __init__(self, root: Path, disk_seconds: float, *, busy: bool) -> None:
        self.disk = Gated()
        folder = os.open(root, os.O_RDONLY)
        self._segment = prepare(folder, WRITER, 1, SMALL, self.disk)
        os.close(folder)
        assert self.disk.has_begun()
        self.appended = 0
        self.told: list[list[UnavailableError | None]] = []
        """What was told of each event."""
        self.refusals: list[str] = []
        self.sync = GroupSync(
            lambda: Appended(self.appended, [], self._segment),
            self.refusals.append,
            disk_seconds,
            Steady(busy=busy),
        )
        self.sync.start()

    def ask(self, count: int) -> list[list[UnavailableError | None]]:
        """Append events, and return what is told of each."""
        told: list[list[UnavailableError | None]] = [[] for _ in range(count)]
        for one in told:
            self.appended += 1
            self.told.append(one)
            self.sync.when(self.appended, one.append)
        return told

    def let(self, syncs: int) -> None:
        self.disk.permits.release(syncs)

    def await_told(self) -> None:
        # Not by waiting as a caller: a sync would wait for this one, too.
        assert eventually(lambda: all(self.told))

    def close(self) -> None:
        self.let(1000)
        assert self.sync.stop(PATIENCE)
        self._segment.close()


@contextmanager
def rig(root: Path, disk_seconds: float = FOR_EVER, *, busy: bool = False) -> Iterator[Rig]:
    made = Rig(root, disk_seconds, busy=busy)
    try:
        yield made
    finally:
        made.close()


def crowd(made: Rig, count: int) -> None:
    """Have a sync carry so many: those that come during another one."""
    made.ask(1)
    assert made.disk.has_begun()
    made.ask(count)
    made.let(2)
    assert made.disk.has_begun()
    made.await_told()


def test_a_sync_waits_until_as_many_have_come_as_for_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(tmp_path) as made:
        crowd(made, 3)
        monkeypatch.setattr(group_sync, "_GATHER_SECONDS", FOR_EVER)
        first = made.ask(2)
        assert not made.disk.has_begun(SHORT)
        last = made.ask(1)
        assert made.disk.has_begun()
        assert first + last == [[], [], []]
        made.let(1)
        made.await_told()
        assert first + last == [[None], [None], [None]]


@pytest.mark.parametrize(
    ("busy", "seconds", "other"),
    [
        (False, "_GATHER_SECONDS", "_BUSY_GATHER_SECONDS"),
        (True, "_BUSY_GATHER_SECONDS", "_GATHER_SECONDS"),
    ],
)
def test_it_waits_no_longer_than_it_may_and_that_depends_on_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, busy: bool, seconds: str, other: str
) -> None:
    with rig(tmp_path, busy=busy) as made:
        monkeypatch.setattr(group_sync, seconds, SHORT)
        monkeypatch.setattr(group_sync, other, FOR_EVER)
        crowd(made, 3)
        told = made.ask(2)
        made.let(1)
        assert made.disk.has_begun()
        made.await_told()
        assert told == [[None], [None]]
        monkeypatch.setattr(group_sync, seconds, FOR_EVER)
        monkeypatch.setattr(group_sync, other, 0.0)
        crowd_again = made.ask(1)
        assert not made.disk.has_begun(SHORT)
        made.ask(1)
        assert made.disk.has_begun()
        made.let(1)
        made.await_told()
        assert crowd_again == [[None]]


def test_a_sync_waits_for_no_more_than_plenty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(tmp_path) as made:
        crowd(made, 5)
        monkeypatch.setattr(group_sync, "_GATHER_SECONDS", FOR_EVER)
        monkeypatch.setattr(group_sync, "_PLENTY", 3)
        made.ask(5)
        assert made.disk.has_begun()
        made.let(1)
        made.await_told()
        told = made.ask(2)
        assert not made.disk.has_begun(SHORT)
        told += made.ask(1)
        assert made.disk.has_begun()
        made.let(1)
        made.await_told()
        assert told == [[None], [None], [None]]


def test_what_wakes_it_does_not_pile_up(tmp_path: Path) -> None:
    with rig(tmp_path) as made:
        crowd(made, 3)
        made.ask(3)
        for _ in range(50):
            assert made.disk.has_begun()
            made.ask(3)
            made.let(1)
        assert made.disk.has_begun()
        assert made.sync._wake.qsize() <= 2  # noqa: SLF001 - nothing else shows it
        made.let(1)
        made.await_told()


def test_who_is_alone_never_waits_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_sync, "_GATHER_SECONDS", FOR_EVER)
    with rig(tmp_path) as made:
        for _ in range(5):
            told = made.ask(1)
            made.let(1)
            assert made.disk.has_begun()
            made.await_told()
            assert told == [[None]]


def test_stopping_does_not_wait_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rig(tmp_path) as made:
        crowd(made, 3)
        monkeypatch.setattr(group_sync, "_GATHER_SECONDS", FOR_EVER)
        told = made.ask(2)
        made.let(1)
        assert made.sync.stop(PATIENCE)
        assert told == [[None], [None]]
        (late,) = made.ask(1)
        assert [str(error) for error in late] == [
            "the decision may not be on record: the server is stopping"
        ]


def test_while_a_sync_does_not_return_all_are_refused_and_nobody_is_told_twice(
    tmp_path: Path,
) -> None:
    with rig(tmp_path, disk_seconds=SHORT) as made:
        first = made.ask(1)
        assert made.disk.has_begun()
        later = made.ask(2)
        # Asked for by their threads, these wait longer than the disk is waited for.
        for _ in range(2):
            with pytest.raises(UnavailableError, match="has not answered in time"):
                made.sync.wait(made.appended, PATIENCE)
        refused = first + later
        for one in refused:
            assert [str(error) for error in one] == [
                "the decision may not be on record: the disk has not answered in time"
            ]
        # It was slow and not broken: whoever comes now is served.
        made.let(2)
        assert eventually(lambda: made.sync.durable == made.appended)
        told = made.ask(1)
        made.let(1)
        made.await_told()
        assert told == [[None]]
        assert [len(one) for one in refused] == [1, 1, 1]
        assert not made.refusals


def test_when_very_many_wait_who_must_not_wait_is_told_before_and_added_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_sync, "MAX_PENDING", 2)
    with rig(tmp_path) as made:
        crowded = [made.sync.is_crowded]
        made.ask(1)
        assert made.disk.has_begun()
        crowded.append(made.sync.is_crowded)
        made.ask(1)
        crowded.append(made.sync.is_crowded)
        assert crowded == [False, False, True]
        late: list[UnavailableError | None] = []
        made.appended += 1
        made.sync.when(made.appended, late.append, waits=False)
        assert late == []
        made.let(2)
        made.await_told()
        assert eventually(lambda: late == [None])


def test_when_very_many_wait_the_next_one_waits_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_sync, "MAX_PENDING", 3)
    with rig(tmp_path) as made, ThreadPoolExecutor(1) as pool:
        first = made.ask(1)
        assert made.disk.has_begun()
        first += made.ask(2)
        over = pool.submit(made.ask, 1)
        pause = Event()
        pause.wait(SHORT)
        assert not over.done()
        made.let(2)
        assert over.result(PATIENCE) == [[None]]
        assert first == [[None]] * 3


class Clocks:
    """Go on by hand."""

    def __init__(self) -> None:
        self.passed = 5.0
        self.used = 2.0
        self.load = Load(lambda: self.passed, lambda: self.used)

    def is_high_after(self, seconds: float, share: float) -> bool:
        """Use a share of a core for so long, and say whether that is a high load."""
        self.passed += seconds
        self.used += share * seconds
        return self.load.is_high()


def test_a_process_is_busy_that_uses_nearly_a_whole_core() -> None:
    clocks = Clocks()
    assert not clocks.load.is_high()
    assert clocks.is_high_after(0.06, 0.9)
    assert not clocks.is_high_after(0.06, 0.8)
    assert clocks.is_high_after(0.06, 1.7)
    assert not clocks.is_high_after(60.0, 0.1)


def test_a_load_holds_for_an_interval_and_is_measured_over_all_of_the_next() -> None:
    clocks = Clocks()
    assert clocks.is_high_after(0.06, 1.0)
    assert [clocks.is_high_after(0.01, 0.0) for _ in range(4)] == [True] * 4
    # Idle for 0.04 s of 0.4: those count as well.
    assert clocks.is_high_after(0.36, 1.0)
    # And if they had not counted here, this would be busy.
    clocks.is_high_after(0.04, 0.0)
    assert not clocks.is_high_after(0.02, 1.0)


def test_a_process_that_sleeps_is_not_busy() -> None:
    load = Load()
    Event().wait(SHORT)
    assert not load.is_high()
