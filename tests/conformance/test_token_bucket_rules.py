"""What the database does in an exchange about a bucket, beside the model of it that tests use."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import LiteralString

import psycopg
import pytest
from psycopg import errors

from licet.app.limit_ports import Exchange, Exchanged
from licet.domain.token_bucket import Bucket
from tests.fakes.postgres import Database
from tests.fakes.token_buckets import State, StoredSlice, TokenBuckets

EXCHANGE: LiteralString = """
SELECT e.tat, e.full_at, e.granted, e.wait,
       (SELECT coalesce(jsonb_agg(jsonb_build_array(s.id, s.granted, s.used, s.ends_at)), '[]')
        FROM unnest(e.slices) AS s)
FROM licet.exchange_slice(
  %s, ARRAY(SELECT ROW(s.a, s.b, s.c, s.d)::licet.slice
            FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS s (a, b, c, d)),
  %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) AS e
"""
SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    with database.connect() as connection:
        yield connection


def exchanged(
    admin: psycopg.Connection, row: State, item: Exchange, hold: int, at: int
) -> tuple[State, Exchanged]:
    """Do as the model does, in the database."""
    columns = [[getattr(s, name) for s in row.slices] for name in ("id", "granted", "used")]
    ends = [s.ends_at for s in row.slices]
    asked = (item.slice_id, item.is_new, item.used, item.age, item.needed, item.wanted)
    limit = (item.bucket.tokens, item.bucket.period, item.bucket.burst)
    found = admin.execute(EXCHANGE, (row.tat, *columns, ends, at, *asked, *limit, hold)).fetchone()
    assert found is not None
    tat, full_at, granted, wait, slices = found
    kept = tuple(StoredSlice(*one) for one in slices)
    return State(tat, kept, full_at), Exchanged(granted, wait)


def test_an_exchange_is_what_the_model_says(admin: psycopg.Connection) -> None:
    random, model = Random(39), TokenBuckets()
    seen = set()
    for _ in range(60):
        rate = random.choice([(1, SECOND), (7, SECOND), (1_000_000, SECOND), (20_000, 86400)])
        bucket = Bucket("b", rate[0], rate[1] * (SECOND if rate[1] == 86400 else 1), 12)
        bucket = bucket._replace(burst=random.choice([1, 2, 12, 1_000_000]))
        row, at, hold = State(), NOW, 5 * SECOND
        for _ in range(25):
            at += random.choice([0, 1, 1000, 140_000, SECOND, 6 * SECOND, -3600 * SECOND])
            item = Exchange(
                bucket,
                random.randrange(4),
                random.random() < 0.5,
                random.randrange(6),
                random.choice([0, 1000, 2 * SECOND]),
                random.choice([0, 0, 1, 5]),
                random.choice([-1, 0, 1, 5, 50]),
            )
            expected = model.exchanged(row, item, hold, at)
            assert exchanged(admin, row, item, hold, at) == expected
            row, answer = expected
            seen.add((answer.granted > 0, min(answer.wait, 1), len(row.slices)))
    # Granted or not, told to wait or not, alone or not.
    assert len(seen) > 12


BAD: list[tuple[LiteralString, str]] = [
    ("'{\"\\\\x00\"}', '{1}', '{t}', '{0}', '{0}', '{0}', '{0}', '{1}', '{1}', '{1}', 1", "digest"),
    ("'{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', 0", "bounds"),
    ("'{}', '{}', '{}', '{}', '{}', '{}', '{}', '{0}', '{}', '{}', 1", "bounds"),
    ("'{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{1000001}', 1", "bounds"),
    ("'{}', '{}', '{}', '{}', '{-1}', '{}', '{}', '{}', '{}', '{}', 1", "bounds"),
]


@pytest.mark.parametrize(("arguments", "why"), BAD)
def test_what_is_out_of_bounds_is_refused(
    admin: psycopg.Connection, arguments: LiteralString, why: str
) -> None:
    with pytest.raises((errors.InvalidParameterValue, errors.CheckViolation), match=why):
        admin.execute("SELECT licet.exchange_slices(" + arguments + ")")
