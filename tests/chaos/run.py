"""The long run: `python -m tests.chaos.run --minutes 10 --workers 3 --seed 1`.

Ends with 1 and the shortest violation if the promise was broken.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final, NamedTuple

from licet.storage import migrate
from tests.chaos.faults import CrashingPostgres, Faults
from tests.chaos.fleet import Worker, running
from tests.chaos.history import Call, check, summary
from tests.chaos.load import Load
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
        faults: when each fault began, and what it was.
    """

    calls: list[Call]
    faults: list[tuple[float, str]]


class Plan(NamedTuple):
    """What to do.

    Attributes:
        seconds: for how long.
        workers: how many.
        seed: of all choices.
        faults: which; all for None.
        lease_seconds: of the workers.
        without: the safeguard that the workers do without.
        log: where the workers' logs are appended.
        until_violation: end early when the promise was broken.
    """

    seconds: float
    workers: int
    seed: int
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
        proxies = [stack.enter_context(SlowProxy(url)) for _ in range(plan.workers)]
        fleet = [
            Worker(proxy.url, without=plan.without, log=plan.log, lease_seconds=plan.lease_seconds)
            for proxy in proxies
        ]
        stack.enter_context(running(*fleet))
        load = Load(fleet, plan.seed, changers=3 * plan.workers, askers=2 * plan.workers)
        nemesis = Faults(fleet, proxies, postgres, plan.lease_seconds, plan.seed)
        chosen = nemesis.names if plan.faults is None else plan.faults
        with load.running(), nemesis.happening(chosen):
            end = monotonic() + plan.seconds
            while (left := end - monotonic()) > 0:
                Event().wait(min(left, 0.5 if plan.until_violation else _REPORT_SECONDS))
                if plan.until_violation and check(load.calls[:]):
                    break
                if not plan.until_violation:
                    sys.stderr.write(f"{summary(load.calls[:])}; {len(nemesis.happened)} faults\n")
    return Result(load.calls, nemesis.happened)


def main(arguments: Sequence[str]) -> int:
    """Run, check and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=3)
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
        faults=None if chosen.faults is None else list(filter(None, chosen.faults.split(","))),
        lease_seconds=chosen.lease,
        without=chosen.without,
        log=chosen.log,
        until_violation=chosen.until_violation,
    )
    result = run(plan)
    violations = check(result.calls)
    sys.stdout.write(f"{summary(result.calls)}; {len(result.faults)} faults\n")
    sys.stdout.write(f"{len(violations)} violations\n")
    for violation in violations[:_SHOWN]:
        sys.stdout.write(f"{violation}\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
