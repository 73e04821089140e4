"""What is told: progress while it runs, a table at the end, and files: JSON, Markdown and plots."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from benchmarks import plots
from benchmarks.figures import RATIO, Bound, Figure, Found, Spread, Target
from licet import is_compiled
from licet.domain.instant import rfc3339
from licet.replica.clock import SystemClock

RESULTS: Final = Path(__file__).parent / "results"
JSON: Final = "latest.json"
MARKDOWN: Final = "latest.md"
_LARGE: Final = 100
_HEADING: Final = "| figure | median | quartiles | target | | settings |\n|---|---|---|---|---|---|"
LEGEND: Final = (
    "Settings: `group`: a decision is on the disk when it is answered; `none`: in memory that"
    " survives the process. Lease 1 s: decisions are from memory, and a revocation that has"
    " returned is final on every server."
)
_PROCESSOR: Final = Path("/proc/cpuinfo")


class Run(NamedTuple):
    """What is beside every figure of a run.

    Attributes:
        effort: its name.
        load: how many processes wanted a core before it.
        no_op: calls a second of stock gRPC's no-op RPC, before and after.
    """

    effort: str
    load: float
    no_op: Spread


class Progress:
    """Says what is being measured: in place on a terminal, line by line elsewhere."""

    def __init__(self, console: Console) -> None:
        """Write to a console."""
        self._console = console
        self._status = Status("", console=console) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, what: str) -> None:
        """Say what comes next."""
        if self._status is not None:
            self._status.update(what)
        else:
            self._console.print(what)


def table(figures: Sequence[Figure]) -> Table:
    """Lay the figures out."""
    drawn = Table(title="Figures of this run", title_justify="left")
    drawn.add_column("figure", overflow="fold")
    drawn.add_column("median", justify="right", no_wrap=True)
    drawn.add_column("quartiles", justify="right", no_wrap=True)
    drawn.add_column("target", justify="right", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    drawn.add_column("settings", overflow="fold", style="dim")
    for section, members in groupby(figures, key=lambda figure: figure.section):
        drawn.add_section()
        drawn.add_row(f"[bold]{section}[/bold]")
        for figure in members:
            *texts, verdict = cells(figure)
            style = "red" if figure.is_missed else "green"
            drawn.add_row(*texts, Text(verdict, style=style), figure.settings)
    return drawn


def cells(figure: Figure) -> tuple[str, str, str, str, str]:
    """Return a figure as the texts of a row: name, median, quartiles, target, verdict."""
    low, middle, high = figure.value
    target, verdict = "", ""
    if figure.target is not None:
        target = f"{figure.target.bound} {_number(figure.target.value)}"
        verdict = "missed" if figure.is_missed else "held"
    quartiles = "" if low == high else f"{_number(low)} – {_number(high)}"  # noqa: RUF001 - a range
    unit = "" if figure.unit == RATIO else f" {figure.unit}"
    return figure.name, f"{_number(middle)}{unit}", quartiles, target, verdict


def figure_of(fields: Mapping[str, Any]) -> Figure:
    """Return a figure from what `write` wrote of it."""
    target = fields["target"]
    return Figure(
        fields["section"],
        fields["name"],
        Spread(**fields["value"]),
        fields["unit"],
        None if target is None else Target(Bound(target["bound"]), target["value"]),
        fields["settings"],
    )


def about(content: Mapping[str, Any]) -> str:
    """Return, from what `write` wrote, what is beside every figure: the machine and the no-op."""
    machine, no_op = content["machine"], content["no_op"]
    return (
        f"{content['at'][:10]}, {content['effort']}: {machine['cores']} cores"
        f" ({machine['processor']}), load before {machine['load_before']:.1f},"
        f" Python {machine['python']}, grpcio {machine['grpcio']},"
        f" hot path {'compiled' if machine['compiled'] else 'not compiled'};"
        f" no-op RPC of stock gRPC {_number(no_op['low'])} to {_number(no_op['high'])} calls/s"
    )


def markdown(content: Mapping[str, Any]) -> str:
    """Return the tables of what `write` wrote."""
    lines = [f"{about(content)}.", "", LEGEND]
    figures = [figure_of(fields) for fields in content["figures"]]
    for section, members in groupby(figures, key=lambda figure: figure.section):
        lines += ["", f"### {section}", "", _HEADING]
        for figure in members:
            row = " | ".join((*cells(figure), figure.settings))
            lines.append(f"| {row} |".replace("|  |", "| |").replace("|  |", "| |"))
    for plot in content["plots"]:
        lines += ["", f"![{plot['title']}]({plot['name']}.svg)"]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= _LARGE else f"{value:.3g}"


def write(found: Found, run: Run, folder: Path = RESULTS) -> Path:
    """Write figures, plots and the machine's facts, and return the folder."""
    content = {
        "at": rfc3339(SystemClock().now()),
        "effort": run.effort,
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "load_before": run.load,
            "system": platform.system(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "grpcio": version("grpcio"),
            "protobuf": version("protobuf"),
            "psycopg": version("psycopg"),
            "compiled": is_compiled(),
        },
        "no_op": run.no_op._asdict(),
        "figures": [
            asdict(figure) | {"value": figure.value._asdict(), "missed": figure.is_missed}
            for figure in found.figures
        ],
        "plots": [asdict(plot) for plot in found.plots],
    }
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()  # of another run
    plots.draw(found.plots, folder, about(content))
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / JSON).write_text(text, encoding="utf-8")
    # From what programs will read, so that the two say the same.
    (folder / MARKDOWN).write_text(markdown(json.loads(text)), encoding="utf-8")
    return folder


def _processor() -> str:
    for line in _PROCESSOR.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
