"""Instants: exact both ways, at the edges too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from licet.domain.instant import EARLIEST, LATEST, Instant, from_datetime, rfc3339, to_datetime

EXAMPLES = [
    (EARLIEST, "1970-01-01T00:00:00.000000+00:00"),
    (Instant(1), "1970-01-01T00:00:00.000001+00:00"),
    (Instant(-1), "1969-12-31T23:59:59.999999+00:00"),
    (Instant(946_684_800_000_000), "2000-01-01T00:00:00.000000+00:00"),
    (Instant(1_795_309_323_000_004), "2026-11-22T01:02:03.000004+00:00"),
    (LATEST, "9999-12-31T23:59:59.999999+00:00"),
]


@pytest.mark.parametrize(("instant", "text"), EXAMPLES)
def test_an_instant_is_shown_with_all_its_microseconds(instant: Instant, text: str) -> None:
    assert rfc3339(instant) == text


@pytest.mark.parametrize(("instant", "text"), EXAMPLES)
def test_an_instant_survives_being_a_datetime(instant: Instant, text: str) -> None:
    moment = to_datetime(instant)
    assert moment == datetime.fromisoformat(text)
    assert moment.tzinfo is UTC
    assert from_datetime(moment) == instant


def test_the_zone_of_a_datetime_does_not_matter() -> None:
    kathmandu = timezone(timedelta(hours=5, minutes=45))
    assert from_datetime(datetime(1970, 1, 1, 5, 45, 0, 7, tzinfo=kathmandu)) == 7
