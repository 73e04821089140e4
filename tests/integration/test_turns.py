"""Whose turn it is, of workers that are processes of their own."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from licet.supervisor import Turns, Worker
from licet.supervisor.reports import State
from tests.fakes.postgres import eventually

_WORKER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from licet.supervisor.reports import Reports

    orders, reports = Path(sys.argv[1]), Reports.of_environment()
    while not orders.exists():
        time.sleep(0.01)
    reports.ready()
    while True:
        match orders.read_text():
            case "leave":
                reports.leaving()
            case text:
                reports.serves(text != "sick")
        time.sleep(0.01)
""")


class Host:
    """Three workers, told by files what to say, and what they were given."""

    def __init__(self, folder: Path) -> None:
        """Start them; none is ready."""
        self._orders = [folder / str(slot) for slot in range(3)]
        self.workers = [
            Worker(slot, [sys.executable, "-c", _WORKER, str(orders)], os.environ)
            for slot, orders in enumerate(self._orders)
        ]
        self.given: list[int] = []
        slots = {worker.pid: worker.slot for worker in self.workers}
        # A turn is over with each look.
        self.turns = Turns(lambda pid: self.given.append(slots[pid]), seconds=0.0)

    def tell(self, slot: int, order: str, holds: Callable[[Worker], bool]) -> None:
        passing = self._orders[slot].with_suffix(".new")
        passing.write_text(order)
        passing.replace(self._orders[slot])
        worker = self.workers[slot]

        def said() -> bool:
            worker.listen()
            return holds(worker)

        assert eventually(said)

    def taken(self, looks: int = 6) -> list[int]:
        """Return whose turns it is now, in order."""
        self.given.clear()
        for _ in range(looks):
            self.turns.look(self.workers)
        return self.given


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    try:
        yield host
    finally:
        for worker in host.workers:
            worker.close()


def is_serving(worker: Worker) -> bool:
    return worker.is_serving


def is_sick(worker: Worker) -> bool:
    return worker.state is State.NOT_SERVING


def test_those_that_serve_take_turns(host: Host) -> None:
    assert host.taken() == []
    host.tell(0, "serve", is_serving)
    assert host.taken(2) == [0, 0]
    host.tell(2, "serve", is_serving)
    assert host.taken(4) == [2, 0, 2, 0]
    host.tell(1, "serve", is_serving)
    assert host.taken() == [1, 2, 0, 1, 2, 0]


def test_one_that_cannot_serve_is_passed_over_until_none_can(host: Host) -> None:
    for slot in range(3):
        host.tell(slot, "serve", is_serving)
    host.tell(1, "sick", is_sick)
    assert set(host.taken()) == {0, 2}
    host.tell(0, "leave", lambda worker: worker.state is State.LEAVING)
    assert set(host.taken()) == {2}
    host.workers[2].close()
    # It says itself that it cannot decide, as every one would.
    assert set(host.taken()) == {1}
    host.workers[1].close()
    assert host.taken() == []


def test_a_turn_lasts_until_it_is_over_or_its_holder_has_gone(host: Host) -> None:
    given: list[int] = []
    turns = Turns(given.append, seconds=60.0)
    for slot in range(3):
        host.tell(slot, "serve", is_serving)
    for _ in range(3):
        turns.look(host.workers)
    first = host.workers[0].pid
    assert given == [first]
    host.workers[0].close()
    turns.look(host.workers)
    assert given == [first, host.workers[1].pid]
