"""The long run: `python -m tests.chaos.run --minutes 10 --workers 3 --seed 1`.

Ends with 1 and the shortest violation if the promise was broken.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic
from typing import Final, NamedTuple

from licet.storage import migrate
from tests.chaos import faults
from tests.chaos.faults import Faults, Happened, Lane
from tests.chaos.fleet import ROOT, Server, Supervisor, Worker, running
from tests.chaos.history import STALE, Answer, Call, Violation, check, summary
from tests.chaos.lanes import lane_of_database, lanes_of_supervisor, lanes_of_worker
from tests.chaos.load import Load
from tests.chaos.postgres import CrashingPostgres
from tests.chaos.proxy import SlowProxy
from tests.fakes.postgres import reachable_folder

_SETTINGS: Final = {
    "max_connections": "200",
    # Only PostgreSQL is crashed and never the machine: what it wrote is not lost with it.
    "fsync": "off",
}
_REPORT_SECONDS: Final = 30.0
_SHOWN: Final = 3


class Result(NamedTuple):
    """What a run was.

    Attributes:
        calls: the history.
        happened: the faults.
    """

    calls: list[Call]
    happened: list[Happened]


class Plan(NamedTuple):
    """What to do.

    Attributes:
        seconds: for how long; longer if not every fault has happened alone by then, or too few
            calls were answered.
        calls: how many must have been answered.
        workers: how many that are started alone.
        seed: of all choices.
        supervised: whether there is a supervisor with two workers besides.
        faults: which; all for None.
        lease_seconds: of the workers.
        without: the safeguard that the workers do without.
        log: where the workers' logs are appended.
        until_violation: end early when the promise was broken.
    """

    seconds: float
    workers: int
    seed: int
    supervised: bool = False
    calls: int = 0
    faults: Sequence[str] | None = None
    lease_seconds: float = 0.5
    without: str | None = None
    log: Path | None = None
    until_violation: bool = False


def run(plan: Plan) -> Result:
    """Let clients and faults loose on workers of a PostgreSQL of their own."""
    with reachable_folder() as folder:
        postgres = CrashingPostgres(folder / "postgres", _SETTINGS)
        with postgres.running():
            migrate.up(postgres.url)
            return run_on(postgres.url, postgres, plan)


def run_on(url: str, postgres: CrashingPostgres | None, plan: Plan) -> Result:
    """Let them loose on workers of this database, which is crashed if it is `postgres`'s."""
    with ExitStack() as stack:
        state = Path(
            stack.enter_context(
                TemporaryDirectory(prefix="licet-chaos-", ignore_cleanup_errors=True)
            )
        )
        fleet, lanes = _fleet(url, state, plan, stack)
        stack.enter_context(running(*fleet))
        load = Load(fleet, plan.seed, changers=3 * len(fleet), askers=2 * len(fleet))
        lanes.append(lane_of_database(url, postgres))
        nemesis = Faults(lanes, plan.lease_seconds, plan.seed, plan.faults)
        with load.running(), nemesis.happening():
            _watch(load, nemesis, plan)
    return Result(load.calls, nemesis.happened)


def _fleet(url: str, state: Path, plan: Plan, stack: ExitStack) -> tuple[list[Server], list[Lane]]:
    fleet: list[Server] = []
    lanes: list[Lane] = []
    log, lease = plan.log, plan.lease_seconds
    for number in range(plan.workers):
        proxy = stack.enter_context(SlowProxy(url))
        worker = Worker(
            proxy.url, without=plan.without, log=log, lease_seconds=lease, state_dir=state
        )
        fleet.append(worker)
        lanes += lanes_of_worker(f"worker {number}", worker, proxy)
    if plan.supervised:
        proxy = stack.enter_context(SlowProxy(url))
        supervisor = Supervisor(proxy.url, log=log, lease_seconds=lease, state_dir=state)
        fleet.append(supervisor)
        lanes += lanes_of_supervisor("the supervisor", supervisor, proxy)
    return fleet, lanes


def _watch(load: Load, nemesis: Faults, plan: Plan) -> None:
    """Return when the time is over."""
    end = monotonic() + plan.seconds
    patience = 0.5 if plan.until_violation else _REPORT_SECONDS
    while (left := end - monotonic()) > 0 or _answered(load.calls[:]) < plan.calls:
        if nemesis.has_failed():
            return
        Event().wait(min(left, patience) if left > 0 else patience)
        if plan.until_violation and any(v.rule == STALE for v in check(load.calls[:])):
            return
        if not plan.until_violation:
            happened = faults.summary(nemesis.happened[:])
            sys.stderr.write(f"{summary(load.calls[:])}; {happened}\n")
    nemesis.happened_alone.wait()


def _answered(calls: Sequence[Call]) -> int:
    return sum(call.answer is not Answer.FAILED for call in calls)


def _report(result: Result, seed: int) -> int:
    violations = check(result.calls)
    sys.stdout.write(f"{summary(result.calls)}\n{faults.summary(result.happened)}\n")
    sys.stdout.write(f"{_answered(result.calls)} calls were answered\n")
    sys.stdout.write(f"{len(violations)} violations\n")
    for violation in violations[:_SHOWN]:
        sys.stdout.write(f"{violation}\n")
        for fault in _during(violation, result.happened):
            sys.stdout.write(f"  meanwhile: {fault.fault} of {fault.lane}\n")
    if not violations:
        return 0
    kept = ROOT / "build" / f"chaos-{seed}.jsonl"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("".join(f"{json.dumps(line)}\n" for line in (*result.happened, *result.calls)))
    sys.stdout.write(f"every call and every fault is in {kept.relative_to(ROOT)}\n")
    return 1


def _during(violation: Violation, happened: Sequence[Happened]) -> list[Happened]:
    start, end = violation.calls[0].start, violation.calls[0].start + violation.seconds
    return [fault for fault in happened if fault.start < end and start < fault.end]


def main(arguments: Sequence[str]) -> int:
    """Run, check and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--calls", type=int, default=0, help="and longer until so many are answered"
    )
    parser.add_argument("--workers", type=int, default=3, help="besides the two of a supervisor")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--faults", help="which, separated by commas; default: all, mixed")
    parser.add_argument("--lease", type=float, default=0.5, help="of the workers, in seconds")
    parser.add_argument("--without", help="the safeguard that the workers do without")
    parser.add_argument("--until-violation", action="store_true", help="and no longer")
    parser.add_argument("--log", type=Path, help="where the workers' logs are appended")
    chosen = parser.parse_args(arguments)
    sys.stderr.write(f"seed {chosen.seed}\n")
    plan = Plan(
        seconds=chosen.minutes * 60,
        workers=chosen.workers,
        seed=chosen.seed,
        supervised=chosen.without is None,
        calls=chosen.calls,
        faults=None if chosen.faults is None else list(filter(None, chosen.faults.split(","))),
        lease_seconds=chosen.lease,
        without=chosen.without,
        log=chosen.log,
        until_violation=chosen.until_violation,
    )
    return _report(run(plan), chosen.seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
