"""Time as the core knows it: microseconds since the Unix epoch, UTC.

Whoever calls brings the clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NewType

Instant = NewType("Instant", int)
"""Microseconds since 1970-01-01T00:00:00Z: PostgreSQL's resolution, and cheap to compare."""

EARLIEST = Instant(0)
"""1970-01-01T00:00:00Z."""

LATEST = Instant(253_402_300_799_999_999)
"""9999-12-31T23:59:59.999999Z, the last instant that every client language can show."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def rfc3339(instant: Instant) -> str:
    """Return an instant as text with all its microseconds.

    Like `2026-11-22T01:02:03.000004+00:00`.
    """
    return to_datetime(instant).isoformat(timespec="microseconds")


def to_datetime(instant: Instant) -> datetime:
    """Return an instant as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=instant)


def from_datetime(moment: datetime) -> Instant:
    """Return the instant of an aware datetime, exactly."""
    return Instant((moment - _EPOCH) // _MICROSECOND)
