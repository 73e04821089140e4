"""What is told: progress while it runs, a table at the end, and a file for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from benchmarks.figures import RATIO, Bound, Figure, Spread, Target
from licet.domain.instant import rfc3339
from licet.replica.clock import SystemClock

RESULTS: Final = Path(__file__).parent / "results" / "latest.json"
_LARGE: Final = 100


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
    for section, members in groupby(figures, key=lambda figure: figure.section):
        drawn.add_section()
        drawn.add_row(f"[bold]{section}[/bold]")
        for figure in members:
            *texts, verdict = cells(figure)
            style = "red" if figure.is_missed else "green"
            drawn.add_row(*texts, Text(verdict, style=style))
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


def figure_of(fields: dict[str, Any]) -> Figure:
    """Return a figure from what `write` wrote of it."""
    target = fields["target"]
    return Figure(
        fields["section"],
        fields["name"],
        Spread(**fields["value"]),
        fields["unit"],
        None if target is None else Target(Bound(target["bound"]), target["value"]),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= _LARGE else f"{value:.3g}"


def write(figures: Sequence[Figure], effort: str, load: float, path: Path = RESULTS) -> Path:
    """Write the figures and the machine's facts for programs, and return where.

    `load` is how many processes wanted a core before the run.
    """
    content = {
        "at": rfc3339(SystemClock().now()),
        "effort": effort,
        "machine": {
            "cores": os.cpu_count(),
            "load_before": load,
            "system": platform.system(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "grpcio": version("grpcio"),
            "protobuf": version("protobuf"),
            "psycopg": version("psycopg"),
        },
        "figures": [
            asdict(figure) | {"value": figure.value._asdict(), "missed": figure.is_missed}
            for figure in figures
        ],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
