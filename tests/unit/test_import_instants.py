"""Instants of old systems: each form, each boundary, and what could be two instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from licet.cli.importing.instants import instant
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import from_datetime

BERLIN = ZoneInfo("Europe/Berlin")
AT = from_datetime(datetime(2026, 11, 22, 15, 0, 0, tzinfo=UTC))


@pytest.mark.parametrize(
    ("value", "zone", "micros"),
    [
        ("2026-11-22T15:00:00Z", None, 0),
        ("2026-11-22t15:00:00z", None, 0),
        ("2026-11-22 15:00:00 UTC", None, 0),
        (" 2026-11-22T15:00:00Z ", None, 0),
        ("2026-11-22T17:00:00+02:00", None, 0),
        ("2026-11-22T17:00:00+0200", None, 0),
        ("2026-11-22T09:30:00-05:30", None, 0),
        ("2026-11-22T15:00:00.5Z", None, 500_000),
        ("2026-11-22T15:00:00,000001Z", None, 1),
        ("2026-11-22T15:00:00.000001999Z", None, 1),
        ("2026-11-22 15:00:00", UTC, 0),
        ("2026-11-22 16:00:00", BERLIN, 0),
        ("2026-11-22T16:00:00.25", BERLIN, 250_000),
        ("2026-11-22 17:00:00", timezone(timedelta(hours=2)), 0),
        # An offset that is there counts.
        ("2026-11-22T15:00:00Z", BERLIN, 0),
        (AT // 1_000_000, None, 0),
        (AT / 1_000_000 + 0.25, None, 250_000),
        (str(AT // 1_000_000), None, 0),
        (f"{AT // 1_000_000}.000001", None, 1),
        (AT // 1000, None, 0),
        (str(AT // 1000 + 7), None, 7_000),
    ],
    ids=repr,
)
def test_an_instant_is_read(value: object, zone: tzinfo | None, micros: int) -> None:
    assert instant(value, "at", zone) == AT + micros


def test_what_is_beyond_a_microsecond_shrinks_a_time() -> None:
    text = "2026-11-22T15:00:00.0000001Z"
    assert instant(text, "at", None) == AT
    assert instant(text, "at", None, up=True) == AT + 1
    assert instant("2026-11-22T15:00:00.000001Z", "at", None, up=True) == AT + 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(10**8, 10**8), (10**10 - 1, 10**10 - 1), (10**11, 10**8), (10**13 - 1, 10**10 - 0.001)],
)
def test_the_boundaries_of_seconds_and_milliseconds(value: int, seconds: float) -> None:
    assert instant(value, "at", None) == round(seconds * 1_000_000)


@pytest.mark.parametrize(
    "value",
    [
        # Seconds, or a day, or milliseconds, or microseconds: nobody knows.
        0, 1, 10**8 - 1, 10**10, 10**11 - 1, 10**13, 10**15, 20261122, "20261122",
        -1_700_000_000, "-1700000000", float("1e300"), 1e-7,
        True, False, [], {}, [1_700_000_000],
        "yesterday", "2026-11-22", "22.11.2026 15:00:00", "11/12/2026 15:00:00", "15:00:00",
        "2026-11-22T15:00Z", "2026-11-22T15:00:00 Europe/Berlin", "2026-11-22T15:00:00Z\n1",
        "２０２６-11-22T15:00:00Z", "1_700_000_000", "+1700000000", "1.7e9", "0x65",
        "1" * 50,
    ],
    ids=repr,
)  # fmt: skip
def test_what_could_be_something_else_is_refused(value: Any) -> None:  # noqa: ANN401 - any JSON
    with pytest.raises(InvalidRequestError, match="at must be an instant"):
        instant(value, "at", UTC)


@pytest.mark.parametrize(
    ("value", "zone", "rule"),
    [
        ("2026-11-22 15:00:00", None, "has no offset"),
        ("2026-10-25 02:30:00", BERLIN, "twice or never"),
        ("2026-03-29 02:30:00", BERLIN, "twice or never"),
        ("2026-02-30T15:00:00Z", None, "that exist"),
        ("2026-11-22T25:00:00Z", None, "that exist"),
        ("2026-11-22T15:00:60Z", None, "that exist"),
        ("2026-11-22T15:00:00+24:00", None, "that exist"),
        ("1969-12-31T23:59:59Z", None, "1970 to 9999"),
        ("0001-01-01T00:00:00+14:00", None, "1970 to 9999"),
        ("9999-12-31T23:59:59-14:00", None, "1970 to 9999"),
    ],
)
def test_a_time_that_was_never_there_is_refused(value: str, zone: tzinfo | None, rule: str) -> None:
    with pytest.raises(InvalidRequestError, match=rule):
        instant(value, "at", zone)
