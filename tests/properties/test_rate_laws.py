"""Token buckets: never more than they may give, never less than they must."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licet.server.rates import Buckets
from tests.fakes.manual import ManualClock

RATES = st.sampled_from([0.1, 1.0, 3.0, 7.3, 1000.0, 1e6])
BURSTS = st.sampled_from([1, 2, 10, 1000])
# Multiples of what one costs, so that what is taken is often exactly what there is.
STEPS = st.lists(
    st.tuples(
        st.floats(-3.0, 5.0) | st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e4]), st.integers(1, 1200)
    ),
    min_size=1,
    max_size=60,
)


@given(RATES, BURSTS, STEPS, st.floats(0.0, 1e9))
def test_in_no_time_is_more_taken_than_the_rate_and_a_burst(
    rate: float, burst: int, steps: list[tuple[float, int]], begin: float
) -> None:
    clock = ManualClock()
    clock.now = begin
    buckets = Buckets(rate, burst, clock)
    taken: list[tuple[float, int]] = []
    for cost, amount in steps:
        clock.now += max(cost, 0.0) / rate
        if buckets.take("a", amount) == 0.0:
            taken.append((clock.now, min(amount, burst)))
    for first in range(len(taken)):
        total = 0
        for at, amount in taken[first:]:
            total += amount
            most = rate * (at - taken[first][0]) + burst
            # What a clock of so many seconds cannot tell apart, each time.
            assert total <= most + rate * len(taken) * (2e-9 + begin * 1e-15)


@given(RATES, BURSTS, STEPS)
def test_who_waits_as_long_as_told_gets_it_and_not_before(
    rate: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    clock = ManualClock()
    buckets = Buckets(rate, burst, clock)
    for cost, amount in steps:
        clock.now += max(cost, 0.0) / rate
        seconds = buckets.take("a", amount)
        assert 0.0 <= seconds <= min(amount, burst) / rate + 1e-9
        if seconds > 0.0:
            clock.now += 0.9 * seconds
            assert seconds < 1e-6 or buckets.take("a", amount) > 0.0
            clock.now += 0.1 * seconds + 1e-9
            assert buckets.take("a", amount) == 0.0


@given(BURSTS, STEPS)
def test_a_clock_that_goes_back_gives_nothing_and_locks_nobody_out(
    burst: int, steps: list[tuple[float, int]]
) -> None:
    clock = ManualClock()
    buckets = Buckets(1.0, burst, clock)
    forward, taken = 0.0, 0
    for step, amount in steps:
        clock.now += step
        forward += max(step, 0.0)
        seconds = buckets.take("a", amount)
        taken += min(amount, burst) if seconds == 0.0 else 0
        assert seconds <= burst + 1e-9
    assert taken <= burst + forward + 1e-6


def test_a_clock_that_stands_still_gives_a_burst_and_no_more() -> None:
    buckets = Buckets(10.0, 5, ManualClock())
    assert [buckets.take("a") == 0.0 for _ in range(8)] == [True] * 5 + [False] * 3


def test_looking_takes_nothing_and_says_when() -> None:
    clock = ManualClock()
    buckets = Buckets(10.0, 2, clock)
    for _ in range(5):
        assert buckets.wait("a") == 0.0
    assert len(buckets) == 0
    assert buckets.take("a", 2) == 0.0
    assert buckets.wait("a") == pytest.approx(0.1)
    clock.now += 0.1
    assert buckets.wait("a") == 0.0


def test_each_name_has_a_bucket_of_its_own() -> None:
    buckets = Buckets(1.0, 1, ManualClock())
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0.0
    assert buckets.take("b") == 0.0


def test_more_than_a_bucket_holds_costs_a_whole_one() -> None:
    clock = ManualClock()
    buckets = Buckets(1.0, 10, clock)
    assert buckets.take("a", 1000) == 0.0
    assert buckets.take("a") == pytest.approx(1.0)
    clock.now += 10
    assert buckets.take("a", 11) == 0.0


def test_names_without_end_take_bounded_memory_and_the_busy_stay() -> None:
    buckets = Buckets(1.0, 3, ManualClock(), names=100)
    for _ in range(3):
        assert buckets.take("busy") == 0.0
    for number in range(10_000):
        buckets.take(f"address:{number}")
        assert len(buckets) <= 200
    # Forgiven: nothing was heard of it while a hundred others, twice, were.
    assert buckets.take("busy") == 0.0
    given_to_busy = 1
    for number in range(10_000):
        buckets.take(f"address:{number}")
        given_to_busy += buckets.take("busy") == 0.0
    assert given_to_busy == 3


def test_threads_together_get_no_more_than_one_would() -> None:
    buckets = Buckets(1e-9, 1000)
    together = Barrier(8)

    def grab() -> int:
        together.wait(10)
        return sum(buckets.take("a") == 0.0 for _ in range(500))

    with ThreadPoolExecutor(8) as threads:
        grabbed = [threads.submit(grab) for _ in range(8)]
        assert sum(each.result(30) for each in grabbed) == 1000
