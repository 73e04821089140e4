"""What can break in a fleet, and how."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from threading import Event
from typing import Final

import psycopg

from licet.replica.lease import LEASE_MARGIN
from tests.chaos.faults import Fault, Lane, Time
from tests.chaos.fleet import Server, Supervisor, Worker
from tests.chaos.postgres import CrashingPostgres, locked_replica
from tests.chaos.proxy import SlowProxy

_DELAYS: Final = (0.002, 0.02, 0.1)
RATES: Final = (0.94, 1.07)
"""Of clocks that go wrong. Two workers' may do so at the same time, one each way."""
assert RATES[1] / RATES[0] < LEASE_MARGIN
_STARTS: Final = 20
_DRAIN_SECONDS: Final = 60.0


def lanes_of_worker(name: str, worker: Worker, proxy: SlowProxy) -> list[Lane]:
    """Return what can break in and around a worker that was started alone."""
    return [
        Lane(f"{name}'s process", _process(worker)),
        Lane(f"{name}'s inside", _inside(worker)),
        Lane(f"{name}'s connections", _connections(proxy)),
    ]


def lanes_of_supervisor(name: str, supervisor: Supervisor, proxy: SlowProxy) -> list[Lane]:
    """Return what can break in and around a supervisor, its workers and its steward."""
    return [
        Lane(f"{name}'s processes", {**_processes(supervisor), **_steward(supervisor)}),
        Lane(f"{name}'s connections", _connections(proxy)),
    ]


def lane_of_database(url: str, postgres: CrashingPostgres | None) -> Lane:
    """Return what can break in the database; it crashes if it is `postgres`'s."""

    def lock(rng: Random, time: Time) -> None:
        with suppress(psycopg.OperationalError), locked_replica(url, rng):
            time.last(rng)

    faults: dict[str, Fault] = {"lock": lock}
    if postgres is not None:
        faults["crash"] = lambda rng, time: postgres.crash(lambda: time.last(rng))
    return Lane("the database", faults)


def _process(worker: Worker) -> Mapping[str, Fault]:
    def pause(rng: Random, time: Time) -> None:
        worker.pause()
        time.last(rng)
        worker.resume()

    def kill(_rng: Random, time: Time) -> None:
        worker.kill()
        _revive(worker, time)

    return {"pause": pause, "kill": kill}


def _processes(supervisor: Supervisor) -> Mapping[str, Fault]:
    def pause(rng: Random, time: Time) -> None:
        workers = supervisor.workers()
        worker = rng.choice(workers) if workers else None
        if worker is not None:
            worker.send(signal.SIGSTOP)
            time.last(rng)
            worker.send(signal.SIGCONT)

    def kill(rng: Random, _time: Time) -> None:
        workers = supervisor.workers()
        if workers:
            rng.choice(workers).send(signal.SIGKILL)

    def kill_supervisor(rng: Random, time: Time) -> None:
        # What is stopped while it loses its supervisor drains when it goes on.
        stopped = [process for process in supervisor.children() if rng.random() < 0.5]
        for worker in stopped:
            worker.send(signal.SIGSTOP)
        left = supervisor.kill_alone()
        if stopped:
            time.last(rng)
        for worker in stopped:
            worker.send(signal.SIGCONT)
        for worker in left:
            assert worker.has_ended(_DRAIN_SECONDS), "a process outlives its supervisor"
        supervisor.kill()
        _revive(supervisor, time)

    return {
        "pause-supervised": pause,
        "kill-supervised": kill,
        "kill-supervisor": kill_supervisor,
    }


def _steward(supervisor: Supervisor) -> Mapping[str, Fault]:
    def pause(rng: Random, time: Time) -> None:
        stewards = supervisor.stewards()
        for steward in stewards:
            steward.send(signal.SIGSTOP)
        time.last(rng)
        for steward in stewards:
            steward.send(signal.SIGCONT)

    def kill(_rng: Random, _time: Time) -> None:
        for steward in supervisor.stewards():
            steward.send(signal.SIGKILL)

    return {"pause-steward": pause, "kill-steward": kill}


def _inside(worker: Worker) -> Mapping[str, Fault]:
    def starve(rng: Random, time: Time) -> None:
        worker.tell("starve")
        time.last(rng)
        worker.tell("feed")

    def clock(rng: Random, time: Time) -> None:
        worker.tell(f"clock {rng.choice(RATES)}")
        time.last(rng)
        time.last(rng)
        worker.tell("clock 1")

    return {"starve": starve, "clock": clock}


def _connections(proxy: SlowProxy) -> Mapping[str, Fault]:
    def cut(_rng: Random, _time: Time) -> None:
        proxy.cut()

    def away(rng: Random, time: Time) -> None:
        proxy.go_down()
        time.last(rng)
        proxy.heal()

    def stall(rng: Random, time: Time) -> None:
        up, down = rng.choice(((True, True), (True, False), (False, True)))
        proxy.stall(up=up, down=down)
        time.last(rng)
        proxy.heal()

    def slow(rng: Random, time: Time) -> None:
        proxy.slow(rng.choice(_DELAYS))
        time.last(rng)
        proxy.heal()

    def deaf(rng: Random, time: Time) -> None:
        proxy.deafen()
        time.last(rng)
        time.last(rng)
        proxy.heal()

    return {"cut": cut, "away": away, "stall": stall, "slow": slow, "deaf": deaf}


def _revive(server: Server, time: Time) -> None:
    """Start it again, and again if it ends, because it needs a database, which breaks as well."""
    for _ in range(_STARTS):
        if time.is_over():
            return
        server.launch()
        if server.serves():
            return
        Event().wait(0.2)
    raise AssertionError("it does not come back")
