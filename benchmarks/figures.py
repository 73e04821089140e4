"""What a benchmark finds: figures, their spread over the rounds, and their targets."""

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


def percentile(measurements: Sequence[float], percent: int) -> float:
    """Return what so many percent of the measurements do not exceed; there must be two at least."""
    return quantiles(measurements, n=100, method="inclusive")[percent - 1]


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
    """

    section: str
    name: str
    value: Spread
    unit: str = RATIO
    target: Target | None = None

    @property
    def is_missed(self) -> bool:
        """Whether there is a target that the median does not reach."""
        return self.target is not None and not self.target.holds(self.value.middle)
