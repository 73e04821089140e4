"""The clock that decides whether a capability has expired: the database's, as known on this host.

It is sampled with every renewal of the lease, with the round trip as the error bound, and carried
on by a clock of this host that never steps. So a step of the host's wall clock changes nothing, and
all replicas agree with the database, and so with each other, to within a round trip.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from time import time_ns
from typing import Final, NamedTuple

from licet.app.ports import Reading
from licet.domain.instant import Instant

_log: Final = logging.getLogger(__name__)

_DRIFT: Final = 500e-6
"""By how much the rates of two clocks may differ between samples: ten times what NTP allows."""
_STEP: Final = 100_000
"""Microseconds by which a sample must miss what was expected to be called a step."""


class SystemClock:
    """See `ports.Clock`: this host's wall clock, for programs that decide nothing by it."""

    def now(self) -> Instant:
        """See `ports.Clock.now`."""
        return Instant(time_ns() // 1000)

    def reading(self) -> Reading:
        """See `ports.Clock.reading`; the host's clock knows no error of its own."""
        now = self.now()
        return Reading(now, now)


class _Sample(NamedTuple):
    """The database said `instant` at some moment between two readings of the host's clock."""

    before: float
    after: float
    instant: Instant


class DatabaseClock:
    """See `ports.Clock`. It must be sampled once before it is read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Carry on by this clock: seconds that never step and count while the machine sleeps."""
        self._clock = clock
        # Guards the change from one sample to the next; readers take the reference as it is.
        self._mutex = Lock()
        self._sample: _Sample | None = None
        self.steps = 0
        """How often the database's clock was seen to step."""

    def sample(self, before: float, after: float, instant: Instant) -> None:
        """Take what the database said between two readings of the host's clock."""
        with self._mutex:
            if self._sample is not None:
                expected = _bounds(self._sample, before)[0], _bounds(self._sample, after)[1]
                if not expected[0] - _STEP <= instant <= expected[1] + _STEP:
                    self.steps += 1
                    _log.warning(
                        "the database's clock stepped by about %d ms",
                        (instant - expected[1]) // 1000,
                    )
            self._sample = _Sample(before, after, instant)

    def reading(self) -> Reading:
        """See `ports.Clock.reading`."""
        sample = self._sample
        if sample is None:
            raise RuntimeError("the database's clock was never sampled")
        earliest, latest = _bounds(sample, self._clock())
        return Reading(Instant(earliest), Instant(latest))

    def now(self) -> Instant:
        """See `ports.Clock.now`."""
        return self.reading().latest


def _bounds(sample: _Sample, now: float) -> tuple[int, int]:
    since_after, since_before = now - sample.after, now - sample.before
    return (
        sample.instant + int(since_after * (1 - _DRIFT) * 1e6),
        sample.instant + int(since_before * (1 + _DRIFT) * 1e6) + 1,
    )
