"""In no time are more tokens taken than a limit lets, over all replicas, whatever goes wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from licet.app.limit_ports import Exchange
from licet.domain.token_bucket import Bucket, Demand, Refusal
from licet.replica.limits import Round
from licet.replica.slices import LIFE_SECONDS
from tests.fakes.token_buckets import StoredSlice, TokenBuckets
from tests.properties.limit_world import BUCKETS, SECOND, Replica, World, overrun

_STEPS = 300


def test_the_checker_looks_at_every_window() -> None:
    bucket = Bucket("b", 2, SECOND, 3)
    assert overrun(bucket, [0, 0, 0, SECOND // 2, SECOND]) is None
    assert overrun(bucket, [0, 0, 0, SECOND // 2 - 1]) == (0, SECOND // 2 - 1, 4)
    # Not from the first take on, nor to the last one.
    assert overrun(bucket, [0, 9 * SECOND, 9 * SECOND, 9 * SECOND, 9 * SECOND, 99 * SECOND])


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_no_window_has_more_than_its_limit(seed: int) -> None:
    world = World(seed)
    world.run(_STEPS)
    assert not world.wrong()
    # And nobody is locked out: what was lost comes back.
    world.settle()
    for bucket in BUCKETS:
        replica = world.replicas[0]
        if world.wants(replica, bucket) is None:
            waiter = replica.limits.ask([[Demand(bucket.key, bucket)]])
            world.exchange(replica)
            assert waiter.landed.is_set()
            assert not isinstance(waiter.outcome, Exception)
            assert waiter.outcome is not None
            assert not isinstance(waiter.outcome[0], Refusal)


class ForgetsOthers(TokenBuckets):
    @override
    def room(self, bucket: Bucket, tat: int, at: int, outstanding: int) -> int:
        return super().room(bucket, tat, at, 0)


class ForgetsTheDead(TokenBuckets):
    @override
    def ended(self, bucket: Bucket, tat: int, held: StoredSlice, ends_at: int) -> int:
        return tat


class TrimsWhatIsHeld(TokenBuckets):
    @override
    def trim(self, at: int) -> None:
        self.rows = {bucket: row for bucket, row in self.rows.items() if row.tat > at}


class ChargesLongBefore(TokenBuckets):
    @override
    def ended(self, bucket: Bucket, tat: int, held: StoredSlice, ends_at: int) -> int:
        return super().ended(bucket, tat, held, ends_at - 60 * SECOND)


def mistaken(plant: type[TokenBuckets | World], seed: int) -> World:
    if issubclass(plant, TokenBuckets):
        return World(seed, buckets=plant())
    return plant(seed)


class EndsTooEarly(World):
    hold = int(LIFE_SECONDS * SECOND)


class LastsFromTheAnswer(World):
    @override
    def received(self, asked: Round, replica: Replica) -> Round:
        return asked._replace(sent=replica.limits._clock())  # noqa: SLF001 - it is a mistake


class SaysItWasLongAgo(World):
    @override
    def sent(self, exchange: Exchange) -> Exchange:
        return exchange._replace(age=exchange.age + SECOND)


class TrustsItsClock(World):
    @override
    def sent(self, exchange: Exchange) -> Exchange:
        return exchange._replace(age=int(exchange.age * 1.15))


class ReportsTooLittle(World):
    @override
    def sent(self, exchange: Exchange) -> Exchange:
        return exchange._replace(used=max(exchange.used - (exchange.wanted < 0), 0))


@pytest.mark.parametrize(
    "plant",
    [
        ForgetsOthers,
        ForgetsTheDead,
        TrimsWhatIsHeld,
        ChargesLongBefore,
        EndsTooEarly,
        LastsFromTheAnswer,
        SaysItWasLongAgo,
        TrustsItsClock,
        ReportsTooLittle,
    ],
)
def test_a_planted_mistake_is_found(plant: type[TokenBuckets | World]) -> None:
    for seed in range(400):
        world = mistaken(plant, seed)
        world.run(_STEPS)
        if world.wrong():
            return
    pytest.fail("no schedule found it")
