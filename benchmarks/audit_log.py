"""A large audit log on a database of its own: stored, sealed, proven, verified, and read in pages.

`make bench-audit EVENTS=10000000` measures this alone, with so many events.
"""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Final

from rich.console import Console

from benchmarks import audit_fill, audit_pages, audit_path, report, sealed_log
from benchmarks.figures import Figure, spread
from benchmarks.report import Progress
from benchmarks.server import Variant
from benchmarks.stand import Cores, custody, preparing, standing

ROUNDS: Final = 10
"""Of what is measured again and again, when it is measured alone."""


def measure(cores: Cores, events: int, rounds: int, progress: Progress) -> list[Figure]:
    """Fill a log with so many events, and measure all that is done with it.

    Args:
        cores: for the server, and for the rest.
        events: in the log that is sealed, proven, verified and read.
        rounds: of what is measured again and again.
        progress: told what is being measured.
    """
    with preparing(cores, {}) as site:
        # What stores, seals and verifies is a process beside the database's, as in a server.
        site.keep_to(cores.both)
        kept = custody(site)
        begin = perf_counter()
        filled = audit_fill.fill(site.url, events, kept.keys, progress)
        taken = perf_counter() - begin
        sealed = sealed_log.measure(site, kept, filled, rounds, progress)
        site.keep_to({cores.load})
        with standing(site, Variant.LICET) as (stand,):
            pages = audit_pages.measure(stand, filled, progress)
            whole = audit_path.measure_whole(stand, rounds, progress)
        # Last, because pages are read from the newest event on.
        site.keep_to(cores.both)
        stored = audit_path.measure(site, kept.keys, rounds, progress)
    filling = Figure(sealed_log.SECTION, f"filling it with {filled:,}", spread([taken]), "s")
    return [*stored, whole, *sealed, filling, *pages]


def _main(arguments: list[str]) -> int:
    events = int(arguments[0]) if arguments else 1_000_000
    console = Console(width=120)
    with Progress(console) as progress:
        figures = measure(Cores.of_this_machine(), events, ROUNDS, progress)
    console.print(report.table(figures))
    return int(any(figure.is_missed for figure in figures))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
