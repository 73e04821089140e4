"""Runs the model checker over the models and says what came of it.

Exit status: 0 when everything came out as it must, 1 when something did not, 2 when the checker
(Spin 6.5 and a C compiler) is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final, NamedTuple

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.checks import CHECKS, Check, Outcome

MODELS: Final = Path(__file__).parent
_DEPTH: Final = 200_000
"""Far above the deepest search that was seen; one that is too shallow is reported as incomplete."""


class Result(NamedTuple):
    """What came of a check.

    Attributes:
        check: which.
        outcome: what the checker says.
        states: how many it stored.
        seconds: how long it took, compiling included.
        note: the assertion that fails, or what went wrong.
    """

    check: Check
    outcome: Outcome
    states: int
    seconds: float
    note: str

    @property
    def is_right(self) -> bool:
        """Whether it is what must come of it."""
        return self.outcome is self.check.expected


class Tools(NamedTuple):
    """Where the programs are, and what they may use."""

    spin: str
    compiler: str
    megabytes: int
    seconds: float


def run(check: Check, tools: Tools, *, reduced: bool) -> Result:
    """Generate, compile and run the checker for one configuration.

    Args:
        check: which.
        tools: what to do it with.
        reduced: with partial order reduction, which is sound; without, nothing rests on it.
    """
    began = monotonic()
    with TemporaryDirectory(prefix="licet-model-") as folder:
        try:
            outcome, states, note = _search(check, tools, Path(folder), reduced=reduced)
        except subprocess.TimeoutExpired:
            outcome, states, note = Outcome.INCOMPLETE, 0, "it took too long"
    return Result(check, outcome, states, monotonic() - began, note)


def _search(check: Check, tools: Tools, folder: Path, *, reduced: bool) -> tuple[Outcome, int, str]:
    switches = [f"-D{switch}" for switch in check.switches.split()]
    searching = ["-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={tools.megabytes}"]
    if check.expected is Outcome.FOUND:
        # It ends within seconds: compiling is most of it.
        searching.append("-O1")
    else:
        searching += ["-O2"] if reduced else ["-O2", "-DNOREDUCE"]
    if "ATOMIC" in check.switches:
        searching.append("-DBFS")  # near, and far off for a search in depth
    for command, product in (
        ([tools.spin, "-a", *switches, str(MODELS / check.model)], "pan.c"),
        ([tools.compiler, "-w", *searching, "-o", "pan", "pan.c"], "pan"),
    ):
        done = _execute(command, folder, tools.seconds)
        if done.returncode or not (folder / product).exists():
            return Outcome.BROKEN, 0, (done.stdout + done.stderr).strip()[-300:]
    done = _execute([str(folder / "pan"), f"-m{_DEPTH}", "-w20", "-n"], folder, tools.seconds)
    return reading(done.stdout + done.stderr)


def _execute(
    command: Sequence[str], folder: Path, seconds: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - programs that `main` has looked up
        command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False
    )


def reading(text: str) -> tuple[Outcome, int, str]:
    """Read what a search has printed: the outcome, the states it stored, and a note."""
    errors = re.search(r"errors: (\d+)", text)
    stored = re.search(r"(\S+) states, stored", text)
    states = 0 if stored is None else int(float(stored[1]))
    error = re.search(r"^pan:\d+: (.*?)(?: \(at depth \d+\))?$", text, re.MULTILINE)
    note = "" if error is None else error[1]
    if note.startswith("assertion violated"):
        return Outcome.FOUND, states, note
    if any(sign in text for sign in ("search depth too small", "out of memory", "MEMLIM")):
        return Outcome.INCOMPLETE, states, "memory or depth was not enough"
    if errors is None or errors[1] != "0" or "Search not completed" in text:
        return Outcome.BROKEN, states, note or text.strip()[-300:]
    return Outcome.CLEAN, states, ""


def run_all(
    checks: Sequence[Check], tools: Tools, jobs: int, console: Console, *, reduced: bool
) -> list[Result]:
    """Run checks side by side, show each when it is done, and return all in the order given."""
    results: dict[Check, Result] = {}
    with _progress(console, len(checks)) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("models", total=len(checks))
        futures = [pool.submit(run, check, tools, reduced=reduced) for check in checks]
        for future in as_completed(futures):
            result = future.result()
            results[result.check] = result
            progress.console.print(_line(result), markup=False, highlight=False, soft_wrap=True)
            progress.advance(task)
    return [results[check] for check in checks]


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Progress]:
    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal or total == 1
    ) as progress:
        yield progress


def _line(result: Result) -> str:
    verdict = "ok " if result.is_right else "BAD"
    line = f"{verdict} {result.outcome.value:10} {result.states:>10} states {result.seconds:7.1f} s"
    line = f"{line}  {result.check.name}"
    if result.is_right:
        return line
    return f"{line}: expected {result.check.expected.value}. {result.note}".rstrip()


def table(results: Sequence[Result]) -> Table:
    """Lay the results out for a terminal."""
    laid = Table("model", "check", "switches", "outcome", "states", "seconds")
    for column in (4, 5):
        laid.columns[column].justify = "right"
    for result in results:
        laid.add_row(
            result.check.model,
            result.check.name,
            result.check.switches,
            result.outcome.value if result.is_right else f"[bold red]{result.outcome.value}[/]",
            f"{result.states:,}",
            f"{result.seconds:.1f}",
        )
    return laid


def as_json(results: Sequence[Result]) -> str:
    """Write the results for programs."""
    rows = [
        {
            **result.check._asdict(),
            "expected": result.check.expected.value,
            "outcome": result.outcome.value,
            "states": result.states,
            "seconds": round(result.seconds, 1),
            "note": result.note,
            "is_right": result.is_right,
        }
        for result in results
    ]
    return json.dumps(rows, indent=1) + "\n"


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small selection for CI")
    parser.add_argument("--only", default="", help="checks whose name or switches contain this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--megabytes", type=int, default=6000, help="memory of one search")
    parser.add_argument("--seconds", type=float, default=7200, help="time of one search")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks that the arguments ask for."""
    options = _arguments(arguments)
    console = Console()
    spin, compiler = shutil.which("spin"), shutil.which("gcc")
    if spin is None or compiler is None:
        missing = " and ".join(
            name for name, path in (("spin", spin), ("gcc", compiler)) if path is None
        )
        sys.stderr.write(
            f"the models need {missing}: on Debian and Ubuntu, apt-get install spin gcc libc6-dev\n"
        )
        return 2
    checks = [
        check
        for check in CHECKS
        if (check.is_quick or not options.quick)
        and (options.only in check.name or options.only in check.switches)
    ]
    tools = Tools(spin, compiler, options.megabytes, options.seconds)
    began = monotonic()
    results = run_all(checks, tools, max(1, options.jobs), console, reduced=options.quick)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(as_json(results), encoding="utf-8")
    if console.is_terminal:
        console.print(table(results))
    wrong = sum(not result.is_right for result in results)
    sys.stdout.write(
        f"models: {len(results) - wrong} of {len(results)} as they must be, "
        f"in {monotonic() - began:.0f} s\n"
    )
    return 1 if wrong or not results else 0


if __name__ == "__main__":
    sys.exit(main())
