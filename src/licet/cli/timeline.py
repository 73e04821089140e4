"""Decisions over time, as two rows of bars in a terminal: allowed above, denied below."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import AuditEvent

_BARS: Final = " ▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = " .:-=+*%#"
_WIDTH: Final = 60
_LABEL: Final = 8


def print_timeline(console: Console, events: Sequence[AuditEvent]) -> None:
    """Draw the decisions among these events; nothing if all are of one instant."""
    allowed = [e.occurred_at for e in events if e.result == "allow"]
    denied = [e.occurred_at for e in events if e.result == "deny"]
    instants = allowed + denied
    if len(set(instants)) < 2:  # noqa: PLR2004 - an interval has two ends
        return
    first, last = min(instants), max(instants)
    width = min(_WIDTH, max(10, console.width - 2 * _LABEL - 2))
    bars = _ASCII_BARS if console.options.ascii_only else _BARS
    for label, style, of_one in (("allowed", "green", allowed), ("denied", "red", denied)):
        counts = histogram(of_one, first, last, width)
        line = Text(f"{label:<{_LABEL}}")
        line.append(heights(counts, bars), style=style)
        line.append(f" {len(of_one):,}")
        console.print(line, soft_wrap=True)
    ends = [moment.astimezone(UTC).strftime("%m-%d %H:%M:%S") for moment in (first, last)]
    gap = max(1, width - sum(map(len, ends)))
    console.print(Text(" " * _LABEL + ends[0] + " " * gap + ends[1]), style="dim", soft_wrap=True)


def histogram(
    instants: Sequence[datetime], first: datetime, last: datetime, width: int
) -> list[int]:
    """Return how many instants fall into each of `width` equal parts of an interval."""
    counts = [0] * width
    for instant in instants:
        position = int((instant - first) / (last - first) * width)
        counts[min(position, width - 1)] += 1  # the last instant belongs to the last part
    return counts


def heights(counts: Sequence[int], bars: str) -> str:
    """Return a bar for each count, the highest for the greatest; what is not 0 can be seen."""
    most = max(counts, default=0)
    steps = len(bars) - 1
    return "".join(bars[-(-count * steps // most) if most else 0] for count in counts)
