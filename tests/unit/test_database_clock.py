"""The database's clock as this host knows it: bounds that hold, and steps that are followed."""

from __future__ import annotations

import pytest

from licet.domain.instant import Instant
from licet.replica.clock import DatabaseClock

NOON = Instant(1_800_000_000_000_000)
SECOND = 1_000_000


class Host:
    """A host's clock that shows what it is set to."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def test_it_must_be_sampled_before_it_is_read() -> None:
    with pytest.raises(RuntimeError, match="never sampled"):
        DatabaseClock(Host()).now()


def test_the_round_trip_is_the_error_and_now_is_the_latest() -> None:
    host = Host()
    clock = DatabaseClock(host)
    # The database said noon at some moment between 5000.0 and 5000.2.
    clock.sample(5000.0, 5000.2, NOON)
    host.now = 5000.2
    earliest, latest = clock.reading()
    assert abs(earliest - NOON) <= 1
    assert abs(latest - (NOON + SECOND // 5)) <= 200
    assert latest >= NOON + SECOND // 5
    assert clock.now() == latest


@pytest.mark.parametrize("rate", [0.9996, 1.0, 1.0004])
def test_the_bounds_hold_while_the_clocks_differ_in_rate(rate: float) -> None:
    host = Host()
    clock = DatabaseClock(host)
    clock.sample(5000.0, 5000.0, NOON)
    for elapsed in (0.001, 1.0, 30.0, 3600.0):
        host.now = 5000.0 + elapsed
        earliest, latest = clock.reading()
        assert earliest <= NOON + round(elapsed * rate * SECOND) <= latest


def test_a_step_of_the_database_is_followed_and_counted() -> None:
    host = Host()
    clock = DatabaseClock(host)
    clock.sample(5000.0, 5000.001, NOON)
    clock.sample(5000.3, 5000.301, Instant(NOON + 300_000))
    assert clock.steps == 0
    for number, moved in enumerate((-3600 * SECOND, 7200 * SECOND), 1):
        host.now += 1.0
        there = Instant(NOON + 1_000_000 * number + moved)
        clock.sample(host.now, host.now + 0.001, there)
        assert clock.steps == number
        assert abs(clock.now() - there) < SECOND // 100


def test_a_step_is_told_before_any_reading_shows_it() -> None:
    host = Host()
    clock = DatabaseClock(host)
    clock.sample(5000.0, 5000.001, NOON)
    told: list[tuple[int, Instant]] = []
    clock.stepped = lambda by: told.append((by, clock.now()))
    clock.sample(5000.0, 5000.001, Instant(NOON + 90_000))
    assert told == []
    clock.sample(5000.0, 5000.001, Instant(NOON - 3600 * SECOND))
    [(by, shown)] = told
    assert abs(by + 3600 * SECOND) < SECOND
    assert abs(shown - NOON) < SECOND
