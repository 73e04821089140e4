"""When something is open: days and hours on the clocks of a time zone, with exceptions by date.

An instant is inside when a clock on the wall of the zone shows a time inside: where an hour comes
twice, both are; an hour that is left out never is. Hours that end no later than they begin go on
past midnight and belong to the day on which they begin. Whoever calls brings the zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final, NamedTuple, TypeAlias

from licet.domain.instant import LATEST, Instant, from_datetime, to_datetime

MINUTES: Final = 1440
"""Minutes of a day by the clock."""
EVERY_DAY: Final = frozenset(range(7))

Hours: TypeAlias = tuple[tuple[int, int], ...]
"""Minutes since the midnight before, the end exclusive; past 1440 is the day after."""
ALL_DAY: Final[Hours] = ((0, MINUTES),)

_DAY: Final = timedelta(days=1)
_CHUNK_DAYS: Final = 10
_HORIZON_DAYS: Final = 800
"""Without a change for so long none is foretold. There is room for a year of exceptions."""
_PROBE: Final = timedelta(hours=6)
"""No zone changes its offset and changes it back within so long."""
_LAST_DAY: Final = to_datetime(LATEST).date() - _DAY


class Schedule(NamedTuple):
    """Days of the week (Monday is 0), hours on each of them, and dates that have other hours."""

    zone: tzinfo
    days: frozenset[int]
    hours: Hours
    exceptions: Mapping[date, Hours]

    def on(self, day: date) -> Hours:
        """Return the hours that begin on a date."""
        other = self.exceptions.get(day)
        if other is not None:
            return other
        return self.hours if day.weekday() in self.days else ()


class State(NamedTuple):
    """Whether it is open from one instant until another.

    Attributes:
        since: the first instant of which this is known.
        until: the first after it of which it is not.
        is_open: in between.
        changes: it is otherwise from `until` on; else that is only how far was looked.
    """

    since: Instant
    until: Instant
    is_open: bool
    changes: bool


_UNKNOWN: Final = State(Instant(0), Instant(0), is_open=False, changes=False)


class OpeningHours:
    """Tells whether a schedule is open.

    What was worked out last is kept: it holds until the schedule opens or closes, and nearly every
    question falls into it.
    """

    __slots__ = ("_last", "schedule")

    def __init__(self, schedule: Schedule) -> None:
        """Take the schedule."""
        self.schedule = schedule
        # Replaced as a whole, by any thread; each value is true by itself.
        self._last = _UNKNOWN

    def at(self, now: Instant) -> State:
        """Return the state at an instant."""
        last = self._last
        if last.since <= now < last.until:
            return last
        self._last = found = self._work_out(now)
        return found

    def _work_out(self, now: Instant) -> State:
        is_open = self._is_open(now)
        first = to_datetime(now).astimezone(self.schedule.zone).date()
        day = first - 2 * _DAY
        while day - first < timedelta(days=_HORIZON_DAYS) and day < _LAST_DAY:
            end = day + min(_CHUNK_DAYS * _DAY, _LAST_DAY - day)
            # What lies behind the chunk may be in front of what the next one brings.
            safe = from_datetime(datetime.combine(end, time(), UTC) - 2 * _DAY)
            for instant in sorted(set(self._boundaries(day, end))):
                if now < instant < safe and self._is_open(instant) is not is_open:
                    return State(now, instant, is_open, changes=True)
            day = end - 5 * _DAY if end < _LAST_DAY else end
        until = from_datetime(datetime.combine(day - 4 * _DAY, time(), UTC))
        return State(now, Instant(max(until, now + 1)), is_open, changes=False)

    def _is_open(self, now: Instant) -> bool:
        local = to_datetime(now).astimezone(self.schedule.zone).replace(tzinfo=None)
        today = local.date()
        return self._covers(today, local) or self._covers(today - _DAY, local)

    def _covers(self, day: date, local: datetime) -> bool:
        since_midnight = local - datetime.combine(day, time())
        minute = timedelta(minutes=1)
        return any(
            start * minute <= since_midnight < end * minute for start, end in self.schedule.on(day)
        )

    def _boundaries(self, first: date, end: date) -> Iterator[Instant]:
        """Yield every instant at which it may open or close, of the hours that begin on these days.

        Others, too.
        """
        zone = self.schedule.zone
        yield from _offset_changes(zone, first, end)
        for number in range((end - first).days):
            day = first + number * _DAY
            midnight = datetime.combine(day, time())
            for minutes in _flat(self.schedule.on(day)):
                wall = (midnight + timedelta(minutes=minutes)).replace(tzinfo=zone)
                # Of a time that is left out these are instants around the change, which is above.
                yield from_datetime(wall.replace(fold=0))
                yield from_datetime(wall.replace(fold=1))


def _flat(hours: Hours) -> Iterable[int]:
    return (minutes for both in hours for minutes in both)


def _offset_changes(zone: tzinfo, first: date, end: date) -> Iterator[Instant]:
    at, last = (datetime.combine(day, time(), UTC) for day in (first, end + _DAY))
    while at < last:
        after = at + _PROBE
        if _offset(at, zone) != _offset(after, zone):
            yield _first_with_other_offset(at, after, zone)
        at = after


def _first_with_other_offset(before: datetime, after: datetime, zone: tzinfo) -> Instant:
    low, high, old = 0, int((after - before).total_seconds()), _offset(before, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(before + timedelta(seconds=middle), zone) == old:
            low = middle
        else:
            high = middle
    return from_datetime(before + timedelta(seconds=high))


def _offset(at: datetime, zone: tzinfo) -> timedelta | None:
    return at.astimezone(zone).utcoffset()
