"""How far an import is: a bar where somebody looks at a terminal, and lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_SECONDS: Final = 5.0
_BAR_SECONDS: Final = 0.1

Step = Callable[[str, int], Callable[[int], None]]
"""Begins a step of so many parts, 0: unknown; returns what is told how many are done."""


@contextmanager
def progress() -> Iterator[Step]:
    """Show the steps of an import on standard error."""
    if not sys.stderr.isatty():
        yield _lines
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:

        def begin(what: str, total: int) -> Callable[[int], None]:
            task = bars.add_task(what, total=total or None)
            return _seldom(lambda done: bars.update(task, completed=done), total, _BAR_SECONDS)

        yield begin


def _lines(what: str, total: int) -> Callable[[int], None]:
    """Write a line when a step is done, and every few seconds before."""
    of = f" of {total}" if total else ""

    def write(done: int) -> None:
        sys.stderr.write(f"licet: {what}: {done}{of}\n")

    return _seldom(write, total, _LINE_SECONDS)


def _seldom(show: Callable[[int], None], total: int, seconds: float) -> Callable[[int], None]:
    """Show the end, and before it no more often than every so many seconds."""
    latest = monotonic()

    def told(done: int) -> None:
        nonlocal latest
        if done == total or monotonic() - latest >= seconds:
            latest = monotonic()
            show(done)

    return told
