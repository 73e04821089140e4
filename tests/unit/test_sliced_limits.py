"""Tokens from memory: what asks the database, what waits, what is remembered and for how long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic

import pytest

from licet.app.limit_ports import Exchange, Exchanged, Taken
from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.errors import DeadlineError, UnavailableError
from licet.domain.token_bucket import Bucket, Demand, Refusal
from licet.replica.limits import SlicedLimits
from licet.replica.slices import IDLE_SECONDS, LIFE_SECONDS
from tests.fakes.postgres import eventually
from tests.fakes.token_buckets import TokenBuckets
from tests.unit.builders import PATIENT

SECOND = 1_000_000
WIDE = Bucket("wide", 100, SECOND, 400)
NARROW = Bucket("narrow", 1, SECOND, 2)


class Scene:
    """A database with buckets, a clock, and a replica without its thread."""

    def __init__(self, max_buckets: int = 100) -> None:
        self.time = 1000.0
        self.buckets = TokenBuckets()
        self.asked: list[Sequence[Exchange]] = []
        self.error: UnavailableError | None = None
        self.gate = Event()
        self.gate.set()
        self.ids = iter(range(1, 1000))
        self.limits = SlicedLimits(self, lambda: self.time, lambda: next(self.ids), max_buckets)

    def exchange(
        self, items: Sequence[Exchange], hold: int, deadline: Deadline
    ) -> Sequence[Exchanged]:
        self.asked.append(items)
        assert self.gate.wait(deadline.remaining(10.0))
        if self.error is not None:
            raise self.error
        return self.buckets.exchange(items, hold, int(self.time * SECOND))

    def wait_for(self, *buckets: Bucket, times: int = 1) -> Sequence[Taken | Refusal]:
        """Ask as a request does that waits, and exchange until it is answered."""
        waiter = self.limits.ask([demands(*buckets)] * times)
        while not waiter.landed.is_set():
            assert self.limits.advance()
        assert isinstance(waiter.outcome, list)
        return waiter.outcome

    def pass_time(self, seconds: float, *uses: Bucket) -> None:
        """Let it pass in steps of the thread, with a use of each of these in each step."""
        for _ in range(round(seconds / 0.05)):
            self.time += 0.05
            for bucket in uses:
                self.limits.take(demands(bucket), AT_ONCE)
            while self.limits.advance():
                pass

    def warm_up(self, bucket: Bucket) -> None:
        """Use a bucket often enough to have its tokens kept here."""
        self.wait_for(bucket, times=8)
        self.pass_time(0.7)
        assert not isinstance(self.limits.take(demands(bucket), AT_ONCE), Refusal)


def demands(*buckets: Bucket) -> list[Demand]:
    return [Demand(bucket.key, bucket) for bucket in buckets]


def test_the_first_request_for_a_bucket_waits_and_nothing_happens_at_once() -> None:
    scene = Scene()
    with pytest.raises(NotAtOnceError):
        scene.limits.take(demands(WIDE), AT_ONCE)
    assert (scene.asked, len(scene.limits), scene.limits.waits) == ([], 0, 0)

    (found,) = scene.wait_for(WIDE)

    assert not isinstance(found, Refusal)
    assert (len(scene.asked), scene.limits.taken, scene.limits.waits) == (1, 1, 1)


def test_who_comes_regularly_never_waits_again() -> None:
    scene = Scene()
    scene.wait_for(WIDE, times=2)
    scene.pass_time(0.7)
    scene.pass_time(10.0, WIDE)
    assert (scene.limits.waits, scene.limits.taken) == (1, 202)
    assert scene.limits.lost == 0


def test_one_statement_is_about_all_that_is_asked() -> None:
    scene = Scene()
    waiters = [scene.limits.ask([demands(WIDE, NARROW)]) for _ in range(3)]
    scene.limits.advance()
    outcomes = [waiter.outcome for waiter in waiters]
    assert [[item.needed for item in items] for items in scene.asked] == [[3, 3]]
    # First come, first served; and who is denied by the second has not used the first.
    assert [isinstance(found[0], Refusal) for found in outcomes if isinstance(found, list)] == [
        False,
        False,
        True,
    ]
    assert scene.limits.taken == 4
    assert not isinstance(scene.limits.take(demands(WIDE), AT_ONCE), Refusal)


def test_a_bucket_that_is_empty_is_remembered_for_as_long_as_it_is() -> None:
    scene = Scene()
    first, second, third = scene.wait_for(NARROW, times=3)
    assert not isinstance(first, Refusal)
    assert not isinstance(second, Refusal)
    assert isinstance(third, Refusal)
    assert third.retry_after == pytest.approx(SECOND, abs=5)

    scene.pass_time(0.75)
    for _ in range(1000):
        found = scene.limits.take(demands(NARROW), AT_ONCE)
        assert isinstance(found, Refusal)
        assert found.retry_after == pytest.approx(SECOND / 4, abs=5)
    # What was used was reported, in time to come back in time.
    assert [[item.needed for item in items] for items in scene.asked] == [[3], [0]]

    scene.time += 0.2501 + 0.05
    (found,) = scene.wait_for(NARROW)
    assert not isinstance(found, Refusal)


def test_what_is_remembered_as_empty_is_not_looked_at_until_it_is_not() -> None:
    scene = Scene()
    hourly = Bucket("hourly", 1, 3600 * SECOND, 1)
    scene.wait_for(hourly, times=2)
    scene.pass_time(5.0)
    (asked, looks) = (len(scene.asked), [due for due, _, _ in scene.limits._heap])  # noqa: SLF001
    assert (asked, len(scene.limits)) == (2, 1)
    assert min(looks) > scene.time + 50
    scene.time += 60
    assert scene.limits.begin() is None
    assert len(scene.limits) == 0


def test_of_several_buckets_an_empty_one_denies_whatever_is_not_known_of_the_others() -> None:
    scene = Scene()
    scene.wait_for(NARROW, times=3)
    found = scene.limits.take(demands(WIDE, NARROW), AT_ONCE)
    assert isinstance(found, Refusal)
    assert found.demand.policy_id == "narrow"


def test_a_batch_that_memory_cannot_answer_takes_nothing() -> None:
    scene = Scene()
    scene.warm_up(WIDE)
    before = scene.limits.taken
    with pytest.raises(NotAtOnceError):
        scene.limits.take_all([demands(WIDE), demands(WIDE, NARROW)], AT_ONCE)
    assert scene.limits.taken == before
    both = scene.limits.take_all([demands(WIDE), demands(WIDE)], AT_ONCE)
    assert not any(isinstance(found, Refusal) for found in both)
    assert scene.limits.taken == before + 2


def test_a_batch_beyond_the_burst_is_answered_in_order() -> None:
    found = Scene().wait_for(NARROW, times=5)
    assert [isinstance(one, Refusal) for one in found] == [False, False, True, True, True]


def test_a_token_that_was_reported_is_not_given_back() -> None:
    scene = Scene()
    scene.warm_up(WIDE)
    left = scene.limits._buckets[WIDE.key].left  # noqa: SLF001 - nothing else tells
    before = left(scene.time)

    kept = scene.limits.take(demands(WIDE), AT_ONCE)
    assert not isinstance(kept, Refusal)
    kept.give_back()
    assert left(scene.time) == before

    spent = scene.limits.take(demands(WIDE), AT_ONCE)
    assert not isinstance(spent, Refusal)
    scene.time += 1.0
    assert scene.limits.begin() is not None
    spent.give_back()
    assert left(scene.time) == before - 1


def test_nor_in_the_place_of_one_that_was_used_since() -> None:
    scene = Scene()
    scene.warm_up(WIDE)
    spent = scene.limits.take(demands(WIDE), AT_ONCE)
    assert not isinstance(spent, Refusal)
    scene.time += 1.0
    assert scene.limits.begin() is not None
    later = scene.limits.take(demands(WIDE), AT_ONCE)
    assert not isinstance(later, Refusal)
    left = scene.limits._buckets[WIDE.key].left  # noqa: SLF001 - as above
    before = left(scene.time)

    spent.give_back()
    assert left(scene.time) == before
    later.give_back()
    assert left(scene.time) == before + 1


def test_without_the_database_a_slice_lasts_for_its_time_and_then_nothing_is_given() -> None:
    scene = Scene()
    scene.warm_up(WIDE)
    scene.error = UnavailableError("the database cannot be reached")
    scene.limits.advance()

    scene.time += LIFE_SECONDS - 1.0
    assert not isinstance(scene.limits.take(demands(WIDE), AT_ONCE), Refusal)
    scene.time += 1.0
    with pytest.raises(NotAtOnceError):
        scene.limits.take(demands(WIDE), AT_ONCE)
    waiter = scene.limits.ask([demands(WIDE)])
    scene.limits.advance()
    assert waiter.outcome is scene.error
    assert scene.limits.lost > 0


def test_what_is_not_used_is_given_back_and_forgotten() -> None:
    scene = Scene()
    scene.warm_up(WIDE)
    scene.pass_time(2 * IDLE_SECONDS)
    assert (len(scene.limits), scene.buckets.rows[WIDE].slices) == (0, ())
    assert scene.limits.granted == scene.limits.taken + scene.limits.given_back
    asked = len(scene.asked)
    scene.pass_time(5.0)
    assert len(scene.asked) == asked


def test_memory_is_bounded_and_forgetting_takes_nothing_from_the_limit() -> None:
    scene = Scene(max_buckets=10)
    taken = 0
    for _ in range(3):
        taken += not isinstance(scene.wait_for(NARROW)[0], Refusal)
        for number in range(20):
            scene.wait_for(Bucket(f"other{number}", 1, SECOND, 5))
            assert len(scene.limits) <= 10
    assert taken == 2


@pytest.fixture
def running() -> Iterator[Scene]:
    scene = Scene()
    scene.limits.start()
    yield scene
    scene.gate.set()
    scene.limits.stop()


def test_a_request_waits_for_the_thread_and_many_share_what_it_asks(running: Scene) -> None:
    running.gate.clear()
    with ThreadPoolExecutor(8) as threads:
        takes = [threads.submit(running.limits.take, demands(WIDE), PATIENT) for _ in range(8)]
        assert eventually(lambda: running.limits.waits == 8)
        running.gate.set()
        assert not any(isinstance(take.result(10), Refusal) for take in takes)
    assert len(running.asked) <= 3


def test_who_waits_too_long_is_told_so_and_takes_nothing(running: Scene) -> None:
    running.gate.clear()
    with pytest.raises(DeadlineError):
        running.limits.take(demands(WIDE), Deadline.after(0.05, monotonic))
    running.gate.set()
    assert not isinstance(running.limits.take(demands(WIDE), PATIENT), Refusal)
    assert running.limits.taken == 1


def test_a_failure_reaches_all_who_wait(running: Scene) -> None:
    running.error = UnavailableError("the database cannot be reached")
    with pytest.raises(UnavailableError, match="what a limit leaves cannot be known"):
        running.limits.take(demands(WIDE), PATIENT)
    running.error = None
    assert not isinstance(running.limits.take(demands(WIDE), PATIENT), Refusal)


def test_whoever_stops_gives_back_what_is_left(running: Scene) -> None:
    running.limits.take_all([demands(WIDE)] * 2, PATIENT)
    running.time += 1.0
    assert eventually(lambda: running.limits.granted > 2)
    running.limits.stop()
    assert running.buckets.rows[WIDE].slices == ()
    assert running.limits.granted == 2 + running.limits.given_back
    with pytest.raises(UnavailableError, match="stopping"):
        running.limits.take(demands(NARROW), PATIENT)
