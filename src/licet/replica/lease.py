"""The lease: for how long this replica may answer from memory without hearing from the database."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import CLOCK_BOOTTIME, clock_gettime
from typing import Final

LEASE_MARGIN: Final = 1.15
"""How much longer a silent replica is waited for than its lease lasts: two clocks may differ in
rate by less than this."""


boottime: Final = partial(clock_gettime, CLOCK_BOOTTIME)
"""Returns seconds that never step and go on while the machine sleeps (clock_gettime(2))."""


class Lease:
    """A point in time, written by the replica's thread and read by every request.

    Without a lock.
    """

    __slots__ = ("_clock", "_deadline")

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start without a lease."""
        self._clock = clock
        self._deadline = float("-inf")

    def now(self) -> float:
        """Read the clock by which the lease runs."""
        return self._clock()

    def is_valid(self) -> bool:
        """Say whether memory may be used by a request that asks now."""
        return self._clock() < self._deadline

    def extend(self, deadline: float) -> None:
        """Let it last until `deadline`, by the clock it was made with."""
        self._deadline = deadline

    def end(self) -> None:
        """End it now."""
        self._deadline = float("-inf")

    def remaining(self) -> float:
        """Return the seconds left, never less than 0."""
        return max(self._deadline - self._clock(), 0.0)
