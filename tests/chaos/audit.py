"""Crashes under load, and then the audit log: `python -m tests.chaos.audit --events 100000`.

`licet serve` with its workers, on a PostgreSQL of its own. Workers, and the sealer in them, are
killed, or paused until another one seals, all of it is killed and started again, and PostgreSQL is
stopped as `pg_ctl stop -m immediate` does. In the end every decision that was answered is stored,
sealed and signed, once, and the whole log verifies.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple

import grpc
import psycopg

from licet.storage import migrate
from licet.v1 import authorization_pb2 as pb
from tests.chaos.fleet import SupervisedWorker, Supervisor, running
from tests.chaos.postgres import CrashingPostgres
from tests.fakes.api import stored_decisions
from tests.fakes.postgres import Database, eventually, reachable_folder
from tests.fakes.served_log import assert_on_record, is_signed
from tests.fakes.serving import serving

_SETTINGS: Final = {"max_connections": "100", "fsync": "off"}
BATCH: Final = 50
_CLIENTS: Final = 4
_CALL_SECONDS: Final = 5.0
_REFUSED_SECONDS: Final = 0.02
_SETTLE_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 60.0
_TAKE_THE_LOCK: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'licet sealer'"
)


class Plan(NamedTuple):
    """What to do.

    Attributes:
        events: how many decisions must have been answered.
        crashes: how often each fault happens; their order is drawn.
        seed: of that.
        log: where the servers' logs are appended.
    """

    events: int
    crashes: dict[str, int]
    seed: int = 1
    log: Path | None = None


class Outcome(NamedTuple):
    """What it came to.

    Attributes:
        acknowledged: how many decisions were answered.
        unanswered: of how many nobody knows: their call failed.
        stored: how many decisions the log has.
        leaves: how many events of all kinds are sealed and were verified.
    """

    acknowledged: int
    unanswered: int
    stored: int
    leaves: int


class Deciders:
    """Clients that ask for decisions, and keep the ids of those that were answered."""

    def __init__(self, server: Supervisor) -> None:
        self._server = server
        self._stopping = Event()
        self._threads = [Thread(target=self._decide, args=(n,)) for n in range(_CLIENTS)]
        self.acknowledged: list[str] = []
        self.unanswered = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run them."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()

    def reach(self, count: int) -> None:
        """Wait until so many were answered."""
        assert eventually(lambda: len(self.acknowledged) >= count, _SETTLE_SECONDS)

    def _decide(self, number: int) -> None:
        request = pb.AuthorizeRequest(principal=f"agent:{number}", action="read", resource="doc:x")
        batch = pb.BatchAuthorizeRequest(requests=[request] * BATCH)
        while not self._stopping.is_set():
            try:
                answers = self._server.stub.BatchAuthorize(batch, timeout=_CALL_SECONDS).responses
                self.acknowledged += [answer.decision_id for answer in answers]
            except (grpc.RpcError, ValueError, ZeroDivisionError):  # there is no channel just now
                self.unanswered += BATCH
                self._stopping.wait(_REFUSED_SECONDS)


def run(plan: Plan) -> Outcome:
    """Crash what there is, and verify the log. Raises AssertionError: it is not as promised."""
    with reachable_folder() as folder:
        postgres = CrashingPostgres(folder / "postgres", _SETTINGS)
        with postgres.running():
            migrate.up(postgres.url)
            state = folder / "state"
            server = Supervisor(postgres.url, log=plan.log, state_dir=state, lease_seconds=1.0)
            deciders = Deciders(server)
            with running(server):
                with deciders.running():
                    _crash(plan, server, postgres, deciders)
                database = Database("postgres", postgres.url)
                _settle(server, database, deciders.acknowledged)
            # Whoever ended last may have left something to seal: one process alone leaves nothing.
            with serving(database, state_dir=state):
                assert eventually(lambda: is_signed(database), _SETTLE_SECONDS)
            return _verified(database, state, deciders)


def _crash(plan: Plan, server: Supervisor, postgres: CrashingPostgres, deciders: Deciders) -> None:
    rng = random.Random(plan.seed)

    def worker() -> None:
        # Among them is the one that seals.
        with suppress(IndexError):
            rng.choice(server.workers()).send(signal.SIGKILL)

    def everything() -> None:
        server.kill()
        server.launch()
        assert server.serves()

    def database() -> None:
        postgres.crash(lambda: Event().wait(rng.random() * 0.5))

    def pause() -> None:
        # Whoever seals is stopped for longer than it has the lock; meanwhile another one seals.
        stopped = server.workers()[:1]
        for process in stopped:
            process.send(signal.SIGSTOP)
        with suppress(psycopg.Error), psycopg.connect(postgres.url) as admin:
            admin.execute(_TAKE_THE_LOCK)
        Event().wait(rng.uniform(0.5, 1.5))
        for process in stopped:
            process.send(signal.SIGCONT)

    crashes: dict[str, Callable[[], None]] = {
        "pause": pause,
        "worker": worker,
        "everything": everything,
        "database": database,
    }
    order = [name for name, times in plan.crashes.items() for _ in range(times)]
    rng.shuffle(order)
    for number, name in enumerate(order):
        deciders.reach(plan.events * number // len(order) + BATCH)
        crashes[name]()
    deciders.reach(max(plan.events, len(deciders.acknowledged) + BATCH))


def _settle(server: Supervisor, database: Database, acknowledged: Sequence[str]) -> None:
    """Wait until what the dead have left is stored, and end the service as an operator does."""
    wanted = set(acknowledged)
    assert eventually(lambda: wanted <= set(stored_decisions(database)), _SETTLE_SECONDS)
    assert eventually(lambda: is_signed(database), _SETTLE_SECONDS)
    supervisor = SupervisedWorker(server.process_id())
    supervisor.send(signal.SIGTERM)
    assert supervisor.has_ended(_STOP_SECONDS)
    supervisor.close()


def _verified(database: Database, state: Path, deciders: Deciders) -> Outcome:
    report = assert_on_record(database, state, deciders.acknowledged)
    stored = len(stored_decisions(database))
    acknowledged = len(deciders.acknowledged)
    # What is on record and was not answered is of calls that failed.
    assert acknowledged <= stored <= acknowledged + deciders.unanswered
    return Outcome(acknowledged, deciders.unanswered, stored, report.leaves)


def main(arguments: Sequence[str]) -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.audit", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=20, help="how many workers are killed")
    parser.add_argument("--everything", type=int, default=3, help="how often all of it is")
    parser.add_argument("--database", type=int, default=5, help="how often PostgreSQL is stopped")
    parser.add_argument("--pauses", type=int, default=5, help="how often a sealer is stopped")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--log", type=Path, help="where the servers' logs are appended")
    chosen = parser.parse_args(arguments)
    sys.stderr.write(f"seed {chosen.seed}\n")
    crashes = {
        "pause": chosen.pauses,
        "worker": chosen.workers,
        "everything": chosen.everything,
        "database": chosen.database,
    }
    outcome = run(Plan(chosen.events, crashes, chosen.seed, chosen.log))
    sys.stdout.write(
        f"{outcome.acknowledged} decisions were answered, all of them stored and sealed, once;"
        f" {outcome.stored} are stored, of {outcome.unanswered} more no answer came;"
        f" {outcome.leaves} leaves verified\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
