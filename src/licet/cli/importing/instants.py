"""Instants as old systems write them; what can be read in two ways is refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final

from licet.domain.errors import InvalidRequestError
from licet.domain.instant import EARLIEST, LATEST, Instant, from_datetime

_TEXT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.,]([0-9]{1,9}))?"
    r" ?([Zz]|[+-][0-9]{2}:?[0-9]{2}|UTC)?"
)
_NUMBER: Final = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,9})?")
# Between these, seconds are of the years 1973 to 2286, and milliseconds too: no number is both.
_SECONDS: Final = (10**8, 10**10)
_MILLISECONDS: Final = (10**11, 10**13)
_MICROS: Final = 1_000_000
_FORMS: Final = (
    "must be an instant: 2026-11-22T15:00:00Z or with an offset like +02:00, or seconds or"
    " milliseconds since 1970 between 1973 and 2286"
)


def instant(value: object, field: str, zone: tzinfo | None, *, up: bool = False) -> Instant:
    """Read an instant.

    Args:
        value: a text or a number.
        field: which one it is.
        zone: of texts that have no offset; None: they are refused.
        up: what is beyond a microsecond is rounded up, not down.

    Raises:
        InvalidRequestError: it is none, or it could be more than one.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidRequestError.of(field, _FORMS)
    text = value.strip() if isinstance(value, str) else repr(value)
    if _NUMBER.fullmatch(text) is not None:
        return _since_1970(Decimal(text), field, up=up)
    if isinstance(value, str) and (found := _TEXT.fullmatch(text)) is not None:
        day, time, fraction, offset = found.groups()
        whole = _moment(f"{day}T{time}", offset, field, zone)
        return _exact(whole, Decimal(f"0.{fraction or 0}") * _MICROS, field, up=up)
    raise InvalidRequestError.of(field, _FORMS)


def _since_1970(number: Decimal, field: str, *, up: bool) -> Instant:
    if _SECONDS[0] <= number < _SECONDS[1]:
        return _exact(0, number * _MICROS, field, up=up)
    if _MILLISECONDS[0] <= number < _MILLISECONDS[1]:
        return _exact(0, number * 1000, field, up=up)
    raise InvalidRequestError.of(field, _FORMS)


def _moment(text: str, offset: str | None, field: str, zone: tzinfo | None) -> int:
    """Return the microseconds of a whole second."""
    try:
        local = datetime.fromisoformat(text)
        if offset is None:
            return from_datetime(_placed(local, field, zone))
        zulu = offset.upper() in {"Z", "UTC"}
        return from_datetime(
            local.replace(tzinfo=UTC)
            if zulu
            else datetime.fromisoformat(f"{text}{offset[:3]}:{offset[-2:]}")
        )
    except (ValueError, OverflowError):
        raise InvalidRequestError.of(field, "must be a day and a time that exist") from None


def _placed(local: datetime, field: str, zone: tzinfo | None) -> datetime:
    """Return a local time in its zone, if it was there once, neither never nor twice."""
    if zone is None:
        raise InvalidRequestError.of(
            field, "has no offset from UTC: say with --timezone whose it is"
        )
    earlier, later = local.replace(tzinfo=zone), local.replace(tzinfo=zone, fold=1)
    if earlier.utcoffset() != later.utcoffset():
        raise InvalidRequestError.of(
            field, "was there twice or never when clocks were changed: give it an offset from UTC"
        )
    return earlier + timedelta()


def _exact(whole: int, rest: Decimal, field: str, *, up: bool) -> Instant:
    micros, beyond = divmod(rest, 1)
    found = whole + int(micros) + (1 if up and beyond else 0)
    if not EARLIEST <= found <= LATEST:
        raise InvalidRequestError.of(field, "must be from 1970 to 9999")
    return Instant(found)
