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
_SLOWEST: Final = 1e6 * (1 - _DRIFT)
_FASTEST: Final = 1e6 * (1 + _DRIFT)
_STEP: Final = 100_000
"""Microseconds by which a sample must miss what was expected to be called a step."""
# A named tuple's own constructor is written in Python and costs twice as much.
_new: Final = tuple.__new__


class SystemClock:
    """See `ports.Clock`: this host's wall clock, for programs that decide nothing by it."""

    def now(self) -> Instant:
        """See `ports.Clock.now`."""
        return Instant(time_ns() // 1000)

    def reading(self) -> Reading:
        """See `ports.Clock.reading`; the host's clock knows no error of its own."""
        now = self.now()
        return Reading(now, now)


class _Line(NamedTuple):
    """The database's time in microseconds as a line over the host's clock, from both sides.

    Of a sample, the database said `instant` at some moment between `before` and `after`.
    """

    earliest_at_zero: float
    latest_at_zero: float

    @classmethod
    def of(cls, before: float, after: float, instant: Instant) -> _Line:
        return cls(instant - after * _SLOWEST, instant - before * _FASTEST + 1)

    def earliest(self, now: float) -> int:
        return int(self.earliest_at_zero + now * _SLOWEST)

    def latest(self, now: float) -> int:
        return int(self.latest_at_zero + now * _FASTEST)


class DatabaseClock:
    """See `ports.Clock`. It must be sampled once before it is read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Carry on by this clock: seconds that never step and count while the machine sleeps."""
        self._clock = clock
        # Guards the change from one sample to the next; readers take the line as it is.
        self._mutex = Lock()
        self._line: _Line | None = None
        self.steps = 0
        """How often the database's clock was seen to step."""
        self.stepped: Callable[[int], None] = lambda _: None
        """Told of each step, by how many microseconds, before a reading shows it; must not wait."""

    def sample(self, before: float, after: float, instant: Instant) -> None:
        """Take what the database said between two readings of the host's clock."""
        with self._mutex:
            line = self._line
            if line is not None:
                latest = line.latest(after)
                if not line.earliest(before) - _STEP <= instant <= latest + _STEP:
                    self.steps += 1
                    by = instant - latest
                    _log.warning("the database's clock stepped by about %d ms", by // 1000)
                    self.stepped(by)
            self._line = _Line.of(before, after, instant)

    def reading(self) -> Reading:
        """See `ports.Clock.reading`."""
        line = self._line
        if line is None:
            raise RuntimeError("the database's clock was never sampled")
        now = self._clock()
        # `_Line`'s methods written out: every decision comes here.
        return _new(
            Reading,
            (Instant(int(line[0] + now * _SLOWEST)), Instant(int(line[1] + now * _FASTEST))),
        )

    def now(self) -> Instant:
        """See `ports.Clock.now`."""
        return self.reading().latest
