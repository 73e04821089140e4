"""Instants and durations as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from licet.cli.errors import CommandError
from licet.domain.instant import Instant, to_datetime

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART: Final = re.compile(r"([0-9]{1,12})([smhd])")
_DURATION: Final = re.compile(r"([0-9]{1,12}[smhd])+")
_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def parse_duration(value: str, option: str) -> timedelta:
    """Read a duration: `90s`, `15m`, `1h30m`, `7d`.

    Raises:
        CommandError: it is none.
    """
    if _DURATION.fullmatch(value) is None:
        raise CommandError(f"{option} must be a duration like 90s, 15m, 1h30m or 7d, not {value!r}")
    seconds = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise CommandError(f"{option} is too long: {value}") from None


def parse_instant(value: str, option: str) -> datetime:
    """Read an instant as RFC 3339 writes it: `2026-11-22T15:00:00Z`.

    Raises:
        CommandError: it is none.
    """
    if _INSTANT.fullmatch(value) is not None:
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # no such day, or out of the calendar
    raise CommandError(f"{option} must be an instant like 2026-11-22T15:00:00Z, not {value!r}")


def parse_past(value: str, option: str, now: Instant) -> datetime:
    """Read an instant, or a duration for "so long ago".

    Raises:
        CommandError: it is neither, or before the calendar.
    """
    if _DURATION.fullmatch(value) is None:
        return parse_instant(value, option)
    try:
        return to_datetime(now) - parse_duration(value, option)
    except OverflowError:
        raise CommandError(f"{option} is too long ago: {value}") from None
