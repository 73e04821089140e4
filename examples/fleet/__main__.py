"""`python -m examples.fleet`: loads the fleet, replays a day of it, and reports."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from uuid import uuid4

from rich.console import Console

from examples.fleet.day import a_day
from examples.fleet.load import load
from examples.fleet.replay import replay
from examples.fleet.report import print_record, report
from examples.fleet.server import served
from examples.fleet.shape import TEAMS, fleet
from licet.client import Client, LicetCallError
from licet.config import ConfigurationError
from licet.domain.errors import LicetError
from licet.storage.embedded import EmbeddedPostgresError

_DECISIONS_A_TEAM = 500
_WIDTH = 110


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example and return the status to exit with."""
    chosen = _parser().parse_args(arguments)
    # As wide on a pipe as on a terminal of this width.
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    try:
        with served() if chosen.address is None else nullcontext(chosen.address) as address:
            _run(address, chosen, console)
    except (ConfigurationError, EmbeddedPostgresError, LicetCallError, LicetError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(address: str, chosen: argparse.Namespace, console: Console) -> None:
    whole = fleet(chosen.teams)
    day = a_day(whole, chosen.seed, chosen.decisions or _DECISIONS_A_TEAM * chosen.teams)
    # Tells this run from others in the audit log.
    trace_id = f"fleet-{uuid4().hex[:12]}"
    console.print(f"licet at {address}; trace {trace_id}", highlight=False)
    with Client(address, timeout=30) as licet:
        loaded = load(licet, whole, trace_id, chosen.hour_seconds, console)
        replayed = replay(licet, day, loaded, console)
        report(console, whole, day, loaded, replayed)
        print_record(console, licet, day, loaded)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.fleet",
        description="Load a fleet of agents into licet and replay a day of its decisions.",
    )
    parser.add_argument(
        "--address", help="of a licet that runs, host:port; without it one is started"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the day (default: %(default)s)")
    parser.add_argument(
        "--teams",
        type=int,
        choices=range(1, len(TEAMS) + 1),
        default=len(TEAMS),
        metavar=f"1-{len(TEAMS)}",
        help="how much of the fleet (default: all of it)",
    )
    parser.add_argument(
        "--decisions", type=int, help=f"about how many (default: {_DECISIONS_A_TEAM} a team)"
    )
    parser.add_argument(
        "--hour-seconds",
        type=float,
        default=0.5,
        help="how long an hour of the day takes (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
