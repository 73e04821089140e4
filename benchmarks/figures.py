"""What a benchmark finds: figures, their spread over the rounds, their targets, and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median, quantiles
from typing import Final, NamedTuple

RATIO: Final = "x"
"""The unit of a figure that has none."""


class BenchmarkError(Exception):
    """The figures cannot be measured here; the message says why and what to do."""


class Spread(NamedTuple):
    """The median of some measurements, and the quartiles around it."""

    low: float
    middle: float
    high: float


def spread(measurements: Sequence[float]) -> Spread:
    """Sum measurements up by what does not change when one of them is an outlier."""
    if len(measurements) == 1:
        return Spread(measurements[0], measurements[0], measurements[0])
    low, _, high = quantiles(measurements, n=4, method="inclusive")
    return Spread(low, median(measurements), high)


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Compare two series round by round.

    What slows the machine down for a while slows both measurements of a round, and cancels out.
    """
    return spread([one / other for one, other in zip(above, below, strict=True)])


def percentile(measurements: Sequence[float], percent: float) -> float:
    """Return what so many percent of the measurements do not exceed, of one or more."""
    ordered = sorted(measurements)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def tail(measurements: Sequence[float]) -> Spread:
    """Sum measurements up by their 95th percentile, between their median and the longest."""
    return Spread(median(measurements), percentile(measurements, 95), max(measurements))


class Bound(StrEnum):
    """On which side of its target a figure must be."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure must reach."""

    bound: Bound
    value: float

    def holds(self, value: float) -> bool:
        """Say whether a value reaches it."""
        return value >= self.value if self.bound is Bound.AT_LEAST else value <= self.value


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        section: the heading that it stands under.
        name: what was measured, for people.
        value: its median and quartiles over the rounds.
        unit: RATIO, or what one of it is.
        target: what the median must reach; None: the figure is for orientation.
        settings: under which it was measured; empty: those of its section.
    """

    section: str
    name: str
    value: Spread
    unit: str = RATIO
    target: Target | None = None
    settings: str = ""

    @property
    def is_missed(self) -> bool:
        """Whether there is a target that the median does not reach."""
        return self.target is not None and not self.target.holds(self.value.middle)


class Point(NamedTuple):
    """What was measured at one place of a plot's horizontal axis."""

    at: float
    value: Spread


@dataclass(frozen=True, slots=True)
class Curve:
    """Points that belong together, from left to right."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves over one axis.

    Attributes:
        name: of its file, without a suffix.
        title: what was measured, for people.
        across: what the horizontal axis is, with its unit.
        up: what the vertical axis is, with its unit.
        curves: what is drawn.
        settings: under which it was measured.
        is_log_across: whether equal ratios are equally far apart from left to right.
        is_log_up: the same upwards.
    """

    name: str
    title: str
    across: str
    up: str
    curves: Sequence[Curve]
    settings: str = ""
    is_log_across: bool = False
    is_log_up: bool = False


def distribution(measurements: Sequence[float]) -> list[Point]:
    """Return which part of the measurements does not exceed each of them, in percent."""
    count = len(measurements)
    parts = (100 * number / count for number in range(1, count + 1))
    return [
        Point(measured, Spread(part, part, part))
        for measured, part in zip(sorted(measurements), parts, strict=True)
    ]


class Found(NamedTuple):
    """What a section has found."""

    figures: Sequence[Figure]
    plots: Sequence[Plot] = ()
