"""When something is open: midnight, exceptions, and the days on which clocks are changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import pytest

from licet.domain.instant import LATEST, Instant, from_datetime, to_datetime
from licet.domain.opening_hours import ALL_DAY, EVERY_DAY, Hours, OpeningHours, Schedule
from licet.policies.zones import zone

WEEKDAYS = frozenset(range(5))
NINE_TO_FIVE: Hours = ((9 * 60, 17 * 60),)
NIGHT: Hours = ((22 * 60, 30 * 60),)


def opening(
    name: str,
    hours: Hours = ALL_DAY,
    days: frozenset[int] = EVERY_DAY,
    exceptions: Mapping[date, Hours] | None = None,
) -> OpeningHours:
    found = zone(name)
    assert found is not None
    return OpeningHours(Schedule(found, days, hours, exceptions or {}))


def utc(text: str) -> Instant:
    return from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC))


def shown(instant: Instant) -> str:
    return to_datetime(instant).strftime("%Y-%m-%dT%H:%M")


def hours(*ranges: str) -> Hours:
    found = []
    for text in ranges:
        start, end = (int(t[:2]) * 60 + int(t[3:]) for t in text.split("-"))
        found.append((start, end if end > start else end + 1440))
    return tuple(found)


@pytest.mark.parametrize(
    ("name", "ranges", "asked", "is_open", "until"),
    [
        # Northern: Berlin goes from 02:00 to 03:00 on 2026-03-29 (01:00 UTC), and back from 03:00
        # to 02:00 on 2026-10-25 (01:00 UTC).
        ("Europe/Berlin", "09:00-17:00", "2026-03-28T08:00", True, "2026-03-28T16:00"),
        ("Europe/Berlin", "09:00-17:00", "2026-03-28T07:59", False, "2026-03-28T08:00"),
        ("Europe/Berlin", "09:00-17:00", "2026-03-28T16:00", False, "2026-03-29T07:00"),
        ("Europe/Berlin", "09:00-17:00", "2026-03-29T07:00", True, "2026-03-29T15:00"),
        ("Europe/Berlin", "02:30-04:00", "2026-03-29T00:59", False, "2026-03-29T01:00"),
        ("Europe/Berlin", "02:30-04:00", "2026-03-29T01:00", True, "2026-03-29T02:00"),
        ("Europe/Berlin", "01:00-02:30", "2026-03-29T00:30", True, "2026-03-29T01:00"),
        # Hours that are left out whole do not come on that day.
        ("Europe/Berlin", "02:15-02:45", "2026-03-29T00:00", False, "2026-03-30T00:15"),
        # Hours that come twice are open twice.
        ("Europe/Berlin", "02:00-02:30", "2026-10-24T23:00", False, "2026-10-25T00:00"),
        ("Europe/Berlin", "02:00-02:30", "2026-10-25T00:00", True, "2026-10-25T00:30"),
        ("Europe/Berlin", "02:00-02:30", "2026-10-25T00:30", False, "2026-10-25T01:00"),
        ("Europe/Berlin", "02:00-02:30", "2026-10-25T01:00", True, "2026-10-25T01:30"),
        ("Europe/Berlin", "01:30-02:15", "2026-10-25T00:15", False, "2026-10-25T01:00"),
        ("Europe/Berlin", "22:00-06:00", "2026-10-24T20:00", True, "2026-10-25T05:00"),
        ("Europe/Berlin", "22:00-06:00", "2026-03-28T21:00", True, "2026-03-29T04:00"),
        # Southern: Sydney goes forward on 2026-10-04 at 02:00 (16:00 UTC the day before) and back
        # on 2026-04-05 at 03:00 (16:00 UTC the day before).
        ("Australia/Sydney", "09:00-17:00", "2026-10-02T23:30", True, "2026-10-03T07:00"),
        ("Australia/Sydney", "09:00-17:00", "2026-10-03T07:00", False, "2026-10-03T22:00"),
        ("Australia/Sydney", "02:30-03:30", "2026-10-03T15:59", False, "2026-10-03T16:00"),
        ("Australia/Sydney", "02:00-03:00", "2026-04-04T15:00", True, "2026-04-04T17:00"),
        ("Australia/Sydney", "02:45-03:15", "2026-04-04T15:50", True, "2026-04-04T16:00"),
        ("Australia/Sydney", "02:45-03:15", "2026-04-04T16:00", False, "2026-04-04T16:45"),
        # Lord Howe's clocks go by half an hour.
        ("Australia/Lord_Howe", "01:30-02:15", "2026-04-04T14:40", True, "2026-04-04T15:45"),
        ("Australia/Lord_Howe", "02:00-02:30", "2026-10-03T15:29", False, "2026-10-04T15:00"),
        # Year ends.
        ("UTC", "22:00-06:00", "2026-12-31T23:59", True, "2027-01-01T06:00"),
        ("Pacific/Auckland", "00:00-08:00", "2026-12-31T10:59", False, "2026-12-31T11:00"),
        ("America/New_York", "23:00-23:30", "2027-01-01T04:00", True, "2027-01-01T04:30"),
    ],
)
def test_hours_are_those_on_the_wall(
    name: str, ranges: str, asked: str, is_open: bool, until: str
) -> None:
    state = opening(name, hours(*ranges.split(" "))).at(utc(asked))

    assert (state.is_open, shown(state.until), state.changes) == (is_open, until, True)


@pytest.mark.parametrize(
    ("asked", "is_open", "until"),
    [
        ("2026-11-20T16:59", True, "2026-11-20T17:00"),  # a Friday
        ("2026-11-20T17:00", False, "2026-11-23T09:00"),
        ("2026-11-22T12:00", False, "2026-11-23T09:00"),
        ("2026-11-23T09:00", True, "2026-11-23T17:00"),
    ],
)
def test_a_week_has_its_days(asked: str, is_open: bool, until: str) -> None:
    state = opening("UTC", NINE_TO_FIVE, WEEKDAYS).at(utc(asked))

    assert (state.is_open, shown(state.until)) == (is_open, until)


def test_hours_past_midnight_belong_to_the_day_on_which_they_begin() -> None:
    fridays = opening("UTC", NIGHT, frozenset({4}))

    assert fridays.at(utc("2026-11-21T05:59")).is_open  # Saturday morning
    assert not fridays.at(utc("2026-11-20T05:59")).is_open  # Friday morning
    assert shown(fridays.at(utc("2026-11-21T06:00")).until) == "2026-11-27T22:00"


def test_a_date_may_be_closed_or_have_other_hours() -> None:
    christmas = {date(2026, 12, 24): hours("09:00-12:00"), date(2026, 12, 25): ()}
    office = opening("UTC", NINE_TO_FIVE, WEEKDAYS, christmas)

    assert shown(office.at(utc("2026-12-24T10:00")).until) == "2026-12-24T12:00"
    assert shown(office.at(utc("2026-12-24T12:00")).until) == "2026-12-28T09:00"
    assert not office.at(utc("2026-12-25T10:00")).is_open


def test_a_closed_date_does_not_end_the_night_before_it() -> None:
    nightly = opening("UTC", NIGHT, exceptions={date(2026, 12, 25): ()})

    assert nightly.at(utc("2026-12-25T05:59")).is_open
    assert shown(nightly.at(utc("2026-12-25T06:00")).until) == "2026-12-26T22:00"


def test_what_opens_after_a_year_of_closed_dates_is_foretold() -> None:
    start = date(2026, 1, 1)
    closed = {start + timedelta(days=n): Hours() for n in range(366)}

    state = opening("UTC", NINE_TO_FIVE, exceptions=closed).at(utc("2026-01-01T00:00"))

    assert (state.is_open, shown(state.until)) == (False, "2027-01-02T09:00")


def test_what_never_opens_or_closes_says_so() -> None:
    always, never = opening("Europe/Berlin"), opening("UTC", ())

    open_, shut = always.at(utc("2026-03-29T01:00")), never.at(utc("2026-03-29T01:00"))

    assert (open_.is_open, open_.changes) == (True, False)
    assert (shut.is_open, shut.changes) == (False, False)
    assert open_.until > utc("2028-01-01T00:00")


def test_hours_that_meet_are_one() -> None:
    state = opening("UTC", hours("09:00-12:00", "12:00-17:00")).at(utc("2026-11-20T10:00"))

    assert shown(state.until) == "2026-11-20T17:00"


@pytest.mark.parametrize("now", [0, LATEST])
def test_the_ends_of_time_are_told_too(now: int) -> None:
    state = opening("UTC", NINE_TO_FIVE).at(Instant(now))

    assert not state.is_open
    assert state.until > now


def test_what_was_worked_out_is_used_until_it_ends() -> None:
    office = opening("UTC", NINE_TO_FIVE)
    first = office.at(utc("2026-11-20T10:00"))

    assert office.at(utc("2026-11-20T16:59")) is first
    assert not office.at(utc("2026-11-20T17:00")).is_open
    assert office.at(utc("2026-11-20T10:00")).is_open
