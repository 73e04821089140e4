"""The fleet's clock: a day that passes in seconds, by the server's clock and not by ours."""

from __future__ import annotations

from datetime import datetime, timedelta
from threading import Event
from time import monotonic
from typing import Final

MINUTES: Final = 24 * 60


class FleetClock:
    """Says when a minute of the fleet's day is, and waits for it.

    The server decides what has expired, so the day is laid out by its clock, as read off the
    capability that it granted last: two hosts need not agree on the time.
    """

    def __init__(self, server_time: datetime, lead_seconds: float, hour_seconds: float) -> None:
        """Let the day begin `lead_seconds` after now, which by the server's clock is given.

        An hour of it takes `hour_seconds`.
        """
        self._minute_seconds = hour_seconds / 60
        self._begin = server_time + timedelta(seconds=lead_seconds)
        self._begin_here = monotonic() + lead_seconds
        self._pause = Event()  # never set: a bounded wait

    def instant(self, minute: int) -> datetime:
        """Return when a minute of the day begins, by the server's clock."""
        return self._begin + self.length(minute)

    def length(self, minutes: int) -> timedelta:
        """Return how long so many minutes of the day take."""
        return timedelta(seconds=minutes * self._minute_seconds)

    def wait_for(self, minute: int) -> None:
        """Return when a minute of the day has begun; at once if it was before."""
        left = self._begin_here + minute * self._minute_seconds - monotonic()
        if left > 0:
            self._pause.wait(left)


def time_of_day(minute: int) -> str:
    """Return a minute of the day as people write it."""
    return f"{minute // 60:02}:{minute % 60:02}"
