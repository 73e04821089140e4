"""Heartbeats in memory, and the thread that looks for those that do not come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event
from time import monotonic

from licet.app.ports import Deadline
from licet.domain.errors import UnavailableError
from licet.domain.instant import Instant
from licet.replica.heartbeats import HeartbeatBuffer
from licet.steward.agents import SilenceThread
from tests.fakes.postgres import eventually
from tests.unit.builders import NOW, StillClock


def soon(seconds: float) -> Deadline:
    return Deadline.after(seconds, monotonic)


class Kept:
    """Where heartbeats go; away, while `is_away`."""

    def __init__(self) -> None:
        self.writes: list[dict[str, Instant]] = []
        self.is_away = False

    def heard(self, heard: Mapping[str, Instant], deadline: Deadline) -> None:
        assert deadline.remaining(60.0) > 0
        if self.is_away:
            raise UnavailableError("the database cannot be reached")
        self.writes.append(dict(heard))


def test_the_latest_of_each_agent_is_written_once() -> None:
    kept, clock = Kept(), StillClock()
    buffer = HeartbeatBuffer(kept, clock, soon)
    buffer.write()
    buffer.heard("a")
    clock.instant = Instant(NOW + 1)
    buffer.heard("a")
    buffer.heard("b")
    buffer.write()
    buffer.write()
    assert kept.writes == [{"a": NOW + 1, "b": NOW + 1}]


def test_what_could_not_be_written_waits_and_yields_to_what_is_newer() -> None:
    kept, clock = Kept(), StillClock()
    buffer = HeartbeatBuffer(kept, clock, soon)
    buffer.heard("a")
    buffer.heard("b")
    kept.is_away = True
    buffer.write()
    clock.instant = Instant(NOW + 1)
    buffer.heard("b")
    buffer.write()
    kept.is_away = False
    buffer.write()
    assert kept.writes == [{"a": NOW, "b": NOW + 1}]


def test_what_is_left_is_written_at_the_end() -> None:
    kept = Kept()
    buffer = HeartbeatBuffer(kept, StillClock(), soon, seconds=3600)
    buffer.start()
    buffer.heard("a")
    buffer.stop()
    assert kept.writes == [{"a": NOW}]


class Silence:
    """Counts who asks; fails while `is_away`."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.is_away = False

    def mark_silent(self, seconds: float, deadline: Deadline) -> int:
        assert deadline.remaining(60.0) > 0
        self.asked.append(seconds)
        if self.is_away:
            raise UnavailableError("the database cannot be reached")
        return 2


@contextmanager
def looking(agents: Silence, *, leads: bool) -> Iterator[SilenceThread]:
    thread = SilenceThread(agents, lambda: leads, soon, 0.01)
    thread.start()
    yield thread
    thread.stop()


def test_who_leads_looks_for_those_who_missed_three_heartbeats() -> None:
    agents = Silence()
    with looking(agents, leads=True) as thread:
        assert eventually(lambda: thread.marked >= 4)
    assert set(agents.asked) == {0.03}


def test_who_does_not_lead_does_not_look() -> None:
    agents = Silence()
    with looking(agents, leads=False):
        Event().wait(0.2)
    assert agents.asked == []


def test_a_look_that_fails_is_tried_again() -> None:
    agents = Silence()
    agents.is_away = True
    with looking(agents, leads=True) as thread:
        assert eventually(lambda: len(agents.asked) >= 2)
        agents.is_away = False
        assert eventually(lambda: thread.marked > 0)
