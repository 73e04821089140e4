"""Times, JSON objects and addresses of databases on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from licet.cli.database import describe
from licet.cli.errors import CommandError
from licet.cli.times import parse_duration, parse_instant, parse_past
from licet.cli.values import json_object
from licet.config import Settings
from licet.domain.instant import from_datetime

NOW = datetime(2026, 11, 22, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800), ("1h30m", 5400), ("0s", 0)],
)
def test_a_duration_is_read(text: str, seconds: int) -> None:
    assert parse_duration(text, "--ttl") == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "15", "m", "-1s", "1.5h", "1 h", "1w", "1M", "١s", "1h ", "999999999999d"]
)
def test_what_is_no_duration_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(CommandError, match=r"^--ttl "):
        parse_duration(text, "--ttl")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-22T15:00:00Z", NOW),
        ("2026-11-22t15:00:00z", NOW),
        ("2026-11-22 15:00:00Z", NOW),
        ("2026-11-22T20:30:00+05:30", NOW),
        ("2026-11-22T15:00:00.123456Z", NOW + timedelta(microseconds=123_456)),
        ("2026-11-22T15:00:00.5-00:00", NOW + timedelta(milliseconds=500)),
    ],
)
def test_an_instant_is_read(text: str, instant: datetime) -> None:
    assert parse_instant(text, "--until") == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-22",
        "2026-11-22T15:00:00",
        "2026-11-22T15:00Z",
        "2026-02-30T15:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T15:00:60Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:00",
        "2026-11-22T15:00:00+24:00",
        "20261122T150000Z",
        "2026-W47-7T15:00:00Z",
        "2026-11-22T15:00:00Z\n",
    ],
)
def test_what_is_no_instant_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(CommandError, match=r"^--until "):
        parse_instant(text, "--until")


def test_a_time_in_the_past_may_be_so_long_ago() -> None:
    now = from_datetime(NOW)
    assert parse_past("1h30m", "--since", now) == NOW - timedelta(minutes=90)
    assert parse_past("2026-11-22T15:00:00Z", "--since", now) == NOW
    with pytest.raises(CommandError, match="too long ago"):
        parse_past("999999d", "--since", now)
    with pytest.raises(CommandError, match="--since"):
        parse_past("yesterday", "--since", now)


def test_a_json_object_is_read() -> None:
    assert json_object(None, "--context") is None
    assert json_object("{}", "--context") == {}
    assert json_object('{"a": [1, {"b": null}]}', "--context") == {"a": [1, {"b": None}]}


@pytest.mark.parametrize("text", ["", "{", "[1]", "1", "null", '"a"', "[" * 100_000])
def test_what_is_no_json_object_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(CommandError, match=r"^--context must be a JSON object"):
        json_object(text, "--context")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://licet:s3cret@db.example:6432/authz?sslmode=require",
            "PostgreSQL at db.example:6432, database authz",
        ),
        ("postgres://db.example/authz", "PostgreSQL at db.example, database authz"),
        ("postgresql://licet:s3cret%40x@[::1]:5432", "PostgreSQL at [::1]:5432"),
        (
            "postgresql:///authz?host=/run/postgresql&user=licet&password=s3cret",
            "PostgreSQL at /run/postgresql, database authz",
        ),
        (
            "host=db.example port=6432 user=licet password='s3cret x' dbname=authz",
            "PostgreSQL at db.example:6432, database authz",
        ),
        ("service=authz", "PostgreSQL of LICET_DATABASE_URL"),
    ],
)
def test_a_database_is_named_without_its_password(url: str, expected: str) -> None:
    assert describe(Settings(database_url=SecretStr(url))) == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://licet:s3cret@x@db.example/authz",
        "postgresql://licet:s3cret/x@db.example/authz",
        "postgresql://licet:s3cret?x@db.example/authz",
        "postgresql://licet:s3cret#x@db.example/authz",
        "mysql://licet:s3cret@db.example/authz",
        "host=db.example password=s3cret x'",
        "host=db.example password = s3cret",
        "licet:s3cret@db.example",
    ],
)
def test_of_an_address_that_is_not_clear_nothing_is_shown(url: str) -> None:
    described = describe(Settings(database_url=SecretStr(url)))
    assert "s3cret" not in described
    assert described == "PostgreSQL of LICET_DATABASE_URL"
