"""Slices of the audit log: they tile it, whatever is believed of its partitions."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from licet.domain.instant import Instant
from licet.storage.audit_slices import AFTER_ALL, FIRST_ROWS, GROWTH, Outline, Partition, Slice

DAY = 86_400_000_000
NOON = 20_000 * DAY + DAY // 2


def outline(rows: list[int], now: int = NOON) -> Outline:
    """Return days up to the one after `now`, newest first, with so many rows each."""
    newest = now // DAY + 1
    return Outline(
        tuple(
            Partition.estimated(day * DAY, (day + 1) * DAY, count, now)
            for day, count in zip(range(newest, newest - len(rows), -1), rows, strict=True)
        )
    )


ROWS = st.lists(st.sampled_from([0, 1, 50, 20_000, 333_000, 10_000_000]), max_size=9)
INSTANTS = st.integers(NOON - 9 * DAY, NOON + 2 * DAY).map(Instant)


@given(ROWS, st.none() | INSTANTS, st.just(AFTER_ALL) | INSTANTS, st.integers(-15, 15))
def test_slices_tile_what_is_looked_through(
    rows: list[int], lower: Instant | None, upper: Instant, pace: int
) -> None:
    assume(lower is None or lower < upper)
    parts = outline(rows)
    end = upper
    for _ in range(200):
        piece = parts.slice(lower, end, pace)
        assert piece.upper == end
        if piece.is_last:
            assert piece.lower == lower
            return
        assert piece.lower is not None
        assert piece.lower < end
        assert lower is None or piece.lower > lower
        end = piece.lower
        pace += 1
    raise AssertionError(end)


@given(ROWS, st.none() | INSTANTS, st.just(AFTER_ALL) | INSTANTS)
def test_going_slower_leads_to_the_smallest_slice(
    rows: list[int], lower: Instant | None, upper: Instant
) -> None:
    assume(lower is None or lower < upper)
    parts = outline(rows)
    pieces = [parts.slice(lower, upper, pace) for pace in range(12, -5, -1)]
    assert [piece.is_smallest for piece in pieces] == [False] * 15 + [True] * 2
    begins = [-1 if piece.lower is None else piece.lower for piece in pieces]
    assert begins == sorted(begins)


def test_a_slice_has_as_many_rows_as_its_pace_says() -> None:
    parts = outline([0, 100_000, 400_000, 400_000])
    today = NOON - DAY // 2
    # Half of today has passed; its rows lie in that half.
    first = Slice(Instant(NOON - DAY // 10), AFTER_ALL, is_last=False, is_smallest=False)
    assert parts.slice(None, AFTER_ALL, 0) == first
    # 160,000 rows: all of today's, and 60,000 of yesterday's 400,000.
    begin = Instant(today - DAY * 60 // 400)
    assert parts.slice(None, AFTER_ALL, 1) == first._replace(lower=begin)
    assert parts.slice(None, AFTER_ALL, 2).is_last
    assert parts.slice(Instant(today - DAY), AFTER_ALL, 2).lower == today - DAY


def test_days_without_events_are_passed_over() -> None:
    piece = outline([0, 0, 0, 400_000]).slice(None, AFTER_ALL, 0)
    day = NOON - DAY // 2 - DAY
    assert piece.lower == day - DAY * 20 // 400


def test_the_first_slice_is_a_moment_of_postgresqls_time() -> None:
    assert (FIRST_ROWS, GROWTH) == (20_000, 8)
