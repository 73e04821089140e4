"""One run: some sections or all, a table, plots and files, and whether the targets are held.

`python -m benchmarks.run [--effort quick|full] [SECTION...]`; without sections, all those of the
effort, as `make bench-quick` and `make bench` do.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import monotonic
from types import FrameType
from typing import Final

import grpc
from rich.console import Console

from benchmarks import h2load, report
from benchmarks.efforts import EFFORTS
from benchmarks.figures import BenchmarkError, Figure, Found, Plot, Spread
from benchmarks.h2load import Load
from benchmarks.processes import confine
from benchmarks.report import Progress, Run
from benchmarks.sections import SECTIONS, Effort
from benchmarks.server import Variant
from benchmarks.servers import Server
from benchmarks.stand import Cores
from benchmarks.throughput import no_op
from licet.storage.embedded import EmbeddedPostgresError

HELD: Final = 0
MISSED: Final = 1
"""A target is missed."""
IMPOSSIBLE: Final = 2
"""Nothing could be measured."""

INTERRUPTED: Final = 130

_BUSY: Final = 0.5
_WIDTH: Final = 180
_NO_OP_ROUNDS: Final = 3
_NO_OP_SECONDS: Final = 0.5


def run(effort: Effort, names: Sequence[str]) -> int:
    """Measure some sections, tell, and return the status to exit with."""
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH  # else 80 columns
    signal.signal(signal.SIGTERM, _end)
    load, _, _ = os.getloadavg()
    if load > _BUSY:
        console.print(f"the machine is busy (load {load:.1f}): times will be too long")
    try:
        with Progress(console) as progress:
            found, no_ops = _measure(effort, names, progress)
    except (BenchmarkError, EmbeddedPostgresError) as exc:
        print(exc, file=sys.stderr)
        return IMPOSSIBLE
    except KeyboardInterrupt:
        return INTERRUPTED
    except grpc.RpcError as exc:
        print(f"a call failed: {exc}", file=sys.stderr)
        return IMPOSSIBLE
    console.print(report.table(found.figures))
    console.print(f"written to {report.write(found, Run(effort.name, load, no_ops))}")
    return MISSED if any(figure.is_missed for figure in found.figures) else HELD


def _measure(effort: Effort, names: Sequence[str], progress: Progress) -> tuple[Found, Spread]:
    h2load.program()  # before minutes are spent
    cores = Cores.of_this_machine()
    figures: list[Figure] = []
    plots: list[Plot] = []
    before = _no_op_rate(cores, progress)
    for name in names:
        begin = monotonic()
        found = SECTIONS[name].found(cores, effort, progress)
        figures += found.figures
        plots += found.plots
        # What a section has done to this process is not the next one's.
        confine([os.getpid()], cores.both)
        progress.step(f"{name}: {monotonic() - begin:.0f} s")
    rates = sorted((before, _no_op_rate(cores, progress)))
    return Found(figures, plots), Spread(rates[0], sum(rates) / len(rates), rates[-1])


def _no_op_rate(cores: Cores, progress: Progress) -> float:
    """Return how often stock gRPC does nothing, in a second of its core."""
    progress.step("the no-op RPC of stock gRPC")
    confine([os.getpid()], {cores.load})
    with (
        tempfile.TemporaryDirectory(prefix="licet-bench-") as name,
        Server(Variant.STOCK, "", Path(name), {cores.server}) as server,
    ):
        load, kind = Load(server.port, Path(name)), no_op()
        rates = []
        for _ in range(_NO_OP_ROUNDS):
            used = server.seconds()
            calls = load.burst(kind.method, kind.request, kind.response_bytes, _NO_OP_SECONDS)
            rates.append(calls / (server.seconds() - used))
    confine([os.getpid()], cores.both)
    return median(rates)


def main(arguments: Sequence[str]) -> int:
    """Run what the command line says."""
    listed = "\n".join(f"  {name:12} {section.about}" for name, section in SECTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Measure licet.",
        epilog=f"sections:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--effort", choices=EFFORTS, default="quick", help="how long to measure")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="those of the effort")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"there is no section {unknown[0]}")
    effort = EFFORTS[chosen.effort]
    return run(effort, chosen.sections or effort.sections)


def _end(_number: int, _frame: FrameType | None) -> None:
    # Unwinds, so that nothing is left running.
    raise SystemExit(IMPOSSIBLE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
