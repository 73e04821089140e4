"""Follows the audit log: each event once, in order, as it is stored."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from threading import Event
from time import monotonic
from typing import Final

from licet.cli.invocation import Invocation
from licet.client import AuditEvent, AuditFilter, Client, LicetCallError

POLL_SECONDS: Final = 0.25
HOLD_SECONDS: Final = 0.5
"""How long an event waits for earlier ones that are stored later: a decision takes up to 100 ms."""
LOOK_BACK_SECONDS: Final = 5.0
"""An event that is stored longer than this after a later one was is missed."""
CLOCKS_DIFFER_BY: Final = timedelta(seconds=1)
"""How far apart the clocks of those who write events may be."""

_OUTAGE: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})


class Follower:
    """Puts events in order. Reads no clock and calls no server.

    An event is held from when it is first seen until `HOLD_SECONDS` later. Whatever happened before
    it and is stored within that time has been seen by then, so that what is given out is in order,
    whatever the clocks say.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        # How far the log had reached at which monotonic time; only the first is LOOK_BACK old.
        self._reached: deque[tuple[float, datetime]] = deque()
        # Everything that the next look can bring again.
        self._seen: dict[str, datetime] = {}
        self._held: list[tuple[float, AuditEvent]] = []

    @property
    def since(self) -> datetime | None:
        """From when on to look; None as long as the log is empty."""
        return self._reached[0][1] - CLOCKS_DIFFER_BY if self._reached else None

    def reach(self, newest: datetime, now: float) -> None:
        """Take note that at `now`, in monotonic seconds, the newest event was of `newest`."""
        self._reached.append((now, newest))
        while len(self._reached) > 1 and now - self._reached[1][0] >= LOOK_BACK_SECONDS:
            self._reached.popleft()

    def pass_over(self, events: Iterable[AuditEvent]) -> None:
        """Take note of events that are not to be given out."""
        for event in events:
            self._note(event)

    def take(self, events: Iterable[AuditEvent], now: float) -> None:
        """Take events as a look at `now`, in monotonic seconds, brought them; in any order."""
        self._held.extend((now, event) for event in events if self._note(event))

    def ready(self, now: float) -> list[AuditEvent]:
        """Return the events that have been held long enough, in order, and forget them.

        A look must have been taken at `now`.
        """
        held = sorted(self._held, key=_order)
        ripe = [now - seen_at >= HOLD_SECONDS for seen_at, _ in held]
        # Up to the last one whose time has come: nothing is to come before that one any more.
        count = len(ripe) - ripe[::-1].index(True) if True in ripe else 0
        self._held = held[count:]
        since = self.since
        if since is not None:
            self._seen = {key: at for key, at in self._seen.items() if at >= since}
        return [event for _, event in held[:count]]

    def rest(self) -> list[AuditEvent]:
        """Return all that is held, in order."""
        held, self._held = sorted(self._held, key=_order), []
        return [event for _, event in held]

    def _note(self, event: AuditEvent) -> bool:
        if event.event_id in self._seen:
            return False
        self._seen[event.event_id] = event.occurred_at
        return True


def _order(held: tuple[float, AuditEvent]) -> tuple[datetime, str]:
    return held[1].occurred_at, held[1].event_id


def follow_events(
    invocation: Invocation, wanted: AuditFilter, show: Callable[[AuditEvent], None]
) -> None:
    """Show events as they are stored, until KeyboardInterrupt, which passes.

    Raises:
        CommandError: the first look failed, or the server refuses the filter.
    """
    with invocation.client() as client:
        log = _FollowedLog(client, wanted)
        pause = Event()  # never set: a bounded wait
        is_out = False
        try:
            while True:
                try:
                    events = log.look()
                except LicetCallError as exc:
                    if exc.code not in _OUTAGE:
                        raise
                    if not is_out:
                        sys.stderr.write(f"licet: waiting: {invocation.explain(exc)}\n")
                    is_out = True
                else:
                    is_out = False
                    _show(events, show)
                pause.wait(POLL_SECONDS)
        except KeyboardInterrupt:
            _show(log.rest(), show)
            raise


class _FollowedLog:
    """The audit log of one server, looked at again and again."""

    def __init__(self, client: Client, wanted: AuditFilter) -> None:
        """Start with the next event, or with the filter's `since`.

        Raises:
            LicetCallError: the log cannot be read.
        """
        self._client = client
        self._wanted = wanted
        self._start = wanted.get("since")
        self._follower = Follower()
        newest = self._newest()
        if self._start is None and newest is not None:
            self._follower.reach(newest, monotonic())
            self._follower.pass_over(self._events())

    def look(self) -> list[AuditEvent]:
        """Return the events whose time has come.

        Raises:
            LicetCallError: the log cannot be read; the next look brings what this one did not.
        """
        now = monotonic()
        # Without the filter: where nothing matches it for days, a look must not go back for days.
        newest = self._newest()
        events = list(self._events())
        if newest is not None:
            self._follower.reach(newest, now)
        self._follower.take(events, now)
        return self._follower.ready(now)

    def rest(self) -> list[AuditEvent]:
        """Return the events whose time has not come."""
        return self._follower.rest()

    def _newest(self) -> datetime | None:
        # Not the first page alone: it may be empty and have a successor.
        event = next(self._client.audit(page_size=1), None)
        return None if event is None else event.occurred_at

    def _events(self) -> Iterator[AuditEvent]:
        bounds = [bound for bound in (self._start, self._follower.since) if bound is not None]
        wanted: AuditFilter = {**self._wanted, "since": max(bounds, default=None)}
        return self._client.audit(**wanted)


def _show(events: Iterable[AuditEvent], show: Callable[[AuditEvent], None]) -> None:
    for event in events:
        show(event)
