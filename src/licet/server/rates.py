"""How often somebody may do something: a token bucket for each name, kept as one number.

The generic cell rate algorithm: of a bucket only the instant is kept at which it will be full
again. A bucket that is full is the same as one that was never used, so a name costs memory only
while it was used of late.

Invariants:

- In any time `t`, no name takes more than `rate * t + burst`, whatever the threads do; unless more
  names than there is room for were used since, which forgives those that were not.
- A clock that stands still or goes back gives nothing to anybody, and locks nobody out for longer
  than what they ask for takes.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Final

MAX_NAMES: Final = 10_000
"""For how many names there is room for certain; there may be twice as many."""
# Of seconds: far less than anything that is counted, far more than their sums are wrong by.
_ROUNDING: Final = 1e-9


class Buckets:
    """See the module. Never blocks for longer than another thread needs for the same."""

    __slots__ = ("_clock", "_interval", "_mutex", "_names", "_older", "_recent", "_room", "burst")

    def __init__(
        self,
        rate: float,
        burst: int,
        clock: Callable[[], float] = monotonic,
        names: int = MAX_NAMES,
    ) -> None:
        """Give each name `burst` at first, and `rate` a second, which is more than 0."""
        self.burst = burst
        self._interval = 1.0 / rate
        self._room = burst * self._interval
        self._clock = clock
        self._names = names
        # Guards the two below, and what is between reading and writing them.
        self._mutex = Lock()
        # When each bucket will be full again. What is not in the first when that is full is
        # dropped with the second: the least recently used, without an order to keep.
        self._recent: dict[str, float] = {}
        self._older: dict[str, float] = {}

    def take(self, name: str, amount: int = 1) -> float:
        """Take so much, and return 0; or nothing, and return in how many seconds there is enough.

        Nobody waits for more than a whole bucket: more than that costs as much.
        """
        needed = min(amount, self.burst) * self._interval
        with self._mutex:
            now = self._clock()
            missing = self._missing(name, now)
            wait = missing + needed - self._room
            if wait <= _ROUNDING:
                missing += needed
                wait = 0.0
            recent = self._recent
            if len(recent) >= self._names and name not in recent:
                self._older, self._recent = recent, {}
            # Also when nothing is given: who asks all the same is not to be forgotten.
            self._recent[name] = now + missing
        return wait

    def wait(self, name: str) -> float:
        """Return in how many seconds there is one; 0: there is now. Nothing is taken."""
        with self._mutex:
            missing = self._missing(name, self._clock())
        wait = missing + self._interval - self._room
        return wait if wait > _ROUNDING else 0.0

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._recent) + len(self._older)

    def _missing(self, name: str, now: float) -> float:
        """Return for how many seconds a bucket has to be filled until it is full."""
        full_at = self._recent.get(name)
        if full_at is None:
            full_at = self._older.get(name, now)
        missing = full_at - now
        if missing <= 0.0:
            return 0.0
        # More than that it never was: the clock went back.
        return min(self._room, missing)
