"""A large audit log on a database of its own: stored, sealed, proven, verified, and read in pages.

`make bench-audit EVENTS=10000000` measures this alone, with so many events.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import perf_counter
from typing import Final

from rich.console import Console

from benchmarks import audit_fill, audit_pages, audit_path, audit_size, report, sealed_log
from benchmarks.figures import Figure, Found, spread
from benchmarks.report import Progress
from benchmarks.server import Variant
from benchmarks.stand import Cores, custody, preparing, standing
from benchmarks.throughput import Rounds

ROUNDS: Final = Rounds(10, 0.6)
"""Of what is measured again and again, when it is measured alone."""


def measure(cores: Cores, sizes: Sequence[int], rounds: Rounds, progress: Progress) -> Found:
    """Fill a log, and measure all that is done with it.

    Args:
        cores: for the server, and for the rest.
        sizes: events in a log. The last one is sealed, proven, verified and read; of those before
            it, it is only measured what a decision and a page cost beside them.
        rounds: of what is measured again and again.
        progress: told what is being measured.
    """
    points = [_small(cores, events, rounds, progress) for events in sizes[:-1]]
    with preparing(cores, {}) as site:
        # What stores, seals and verifies is a process beside the database's, as in a server.
        site.keep_to(cores.both)
        kept = custody(site)
        begin = perf_counter()
        filled = audit_fill.fill(site.url, sizes[-1], kept.keys, progress)
        taken = perf_counter() - begin
        sealed = sealed_log.measure(site, kept, filled, rounds.count, progress)
        site.keep_to({cores.load})
        with standing(site, Variant.LICET, Variant.STOCK) as (stand, stock):
            pages = audit_pages.measure(stand, filled, progress)
            points.append(audit_size.measure(stand, stock, filled, rounds, progress))
            whole = audit_path.measure_whole(stand, rounds.count, progress)
        # Last, because pages are read from the newest event on.
        site.keep_to(cores.both)
        stored = audit_path.measure(site, kept.keys, rounds.count, progress)
    filling = Figure(sealed_log.SECTION, f"filling it with {filled:,}", spread([taken]), "s")
    beside = audit_size.found(points)
    return Found([*beside.figures, *stored, whole, *sealed, filling, *pages], beside.plots)


def _small(cores: Cores, events: int, rounds: Rounds, progress: Progress) -> audit_size.Size:
    with preparing(cores, {}) as site:
        site.keep_to(cores.both)
        filled = audit_fill.fill(site.url, events, custody(site).keys, progress)
        site.keep_to({cores.load})
        with standing(site, Variant.LICET, Variant.STOCK) as (stand, stock):
            return audit_size.measure(stand, stock, filled, rounds, progress)


def _main(arguments: list[str]) -> int:
    events = int(arguments[0]) if arguments else 1_000_000
    console = Console(width=120)
    with Progress(console) as progress:
        found = measure(Cores.of_this_machine(), [events], ROUNDS, progress)
    console.print(report.table(found.figures))
    return int(any(figure.is_missed for figure in found.figures))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
