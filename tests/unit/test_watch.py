"""A watch alone, over a real feed: what it sends, when it asks the database, and how it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from uuid import UUID, uuid4

import pytest
from typing_extensions import override

from licet.app.ports import Deadline
from licet.app.replication import Change
from licet.app.watch import (
    STALE_SECONDS,
    Heartbeat,
    Recent,
    Retained,
    Sources,
    Watch,
    WatchChanges,
    WatchStart,
)
from licet.domain.errors import OutOfRangeError, SlowConsumerError, UnavailableError
from licet.domain.instant import Instant
from licet.domain.names import Principal
from licet.replica.feed import MemoryFeed

EPOCH, OTHER_EPOCH = uuid4(), uuid4()
INTERVAL = 5.0
PAGE = 3
WAITS_FOR_EVER = Deadline(lambda: None)


def change(revision: int) -> Change:
    return Change(revision, (Principal(f"agent:{revision}"),), Instant(revision))


class Database:
    """What the database holds: every change up to `latest` but the first `oldest`."""

    def __init__(self) -> None:
        self.oldest, self.latest, self.epoch = 0, 0, EPOCH
        self.reads = 0
        self.seconds_each = 0.0
        self.passes: Callable[[float], object] = lambda _: None

    def after(self, revision: int, deadline: Deadline) -> Retained:
        assert deadline is WAITS_FOR_EVER
        self.reads += 1
        self.passes(self.seconds_each)
        first = revision + 1
        page = range(first, min(self.latest, revision + PAGE) + 1) if first > self.oldest else ()
        return Retained([change(number) for number in page], self.oldest, self.latest, self.epoch)


class SteppedFeed(MemoryFeed):
    """A feed on which nobody waits: the time passes, and the next thing happens."""

    def __init__(self, max_changes: int) -> None:
        super().__init__(max_changes=max_changes)
        self.now = 0.0
        self.happens: deque[Callable[[], object]] = deque()

    def let_pass(self, seconds: float) -> None:
        self.now += seconds

    @override
    def wait(self, seen: Recent, over: Callable[[], bool], seconds: float) -> None:
        if self.happens:
            self.happens.popleft()()
            return
        self.let_pass(seconds)


class World:
    """A database, the feed of one replica, and whether the replica has a lease."""

    def __init__(self, latest: int = 0, *, max_changes: int = 1000) -> None:
        self.database = Database()
        self.feed = SteppedFeed(max_changes)
        self.current = True
        self.database.latest = latest
        self.database.passes = self.feed.let_pass
        self.feed.reset(latest, EPOCH)
        self.watches = WatchChanges(
            Sources(self.feed, self.database, lambda: self.current, lambda: self.feed.now, INTERVAL)
        )

    def commit(self, count: int = 1) -> None:
        """Make changes, and let the replica know of them."""
        before = self.database.latest
        self.database.latest += count
        self.feed.append([change(n) for n in range(before + 1, self.database.latest + 1)])

    def commit_elsewhere(self, count: int) -> None:
        """Make changes of which the replica does not know yet."""
        self.database.latest += count

    def register(self) -> None:
        """Let the replica register anew."""
        self.feed.reset(self.database.latest, self.database.epoch)

    def watch(self, after: int | None = None, epoch: UUID | None = None) -> Watch:
        return self.watches(WatchStart(after, epoch), WAITS_FOR_EVER)


def revisions(watch: Iterator[Change | Heartbeat], count: int) -> list[int]:
    """Return the revisions of the next changes, past the heartbeats."""
    changes = (event.revision for event in watch if isinstance(event, Change))
    return list(islice(changes, count))


def test_the_first_message_says_where_the_stream_begins() -> None:
    world = World(7)
    assert next(iter(world.watch())) == Heartbeat(7, EPOCH)
    assert next(iter(world.watch(3))) == Heartbeat(3, EPOCH)
    assert next(iter(world.watch(3, EPOCH))) == Heartbeat(3, EPOCH)


def test_changes_in_memory_cost_no_read_of_the_database() -> None:
    world = World(7)
    watches = [iter(world.watch(7)) for _ in range(20)]
    world.commit(250)
    for watch in watches:
        assert revisions(watch, 250) == list(range(8, 258))
    assert world.database.reads == 0


def test_what_is_older_than_the_feed_comes_from_the_database() -> None:
    world = World(10)
    watch = iter(world.watch(0))
    world.commit(3)
    assert revisions(watch, 13) == list(range(1, 14))
    # 1 to 12, in four pages; 13 is in the feed.
    assert world.database.reads == 4


def test_heartbeats_come_at_intervals_once_it_has_caught_up() -> None:
    world = World(4)
    watch = iter(world.watch(2))
    told = [(next(watch).revision, world.feed.now) for _ in range(6)]
    assert told == [(2, 0), (3, 0), (4, 0), (4, 0), (4, INTERVAL), (4, 2 * INTERVAL)]


def test_from_now_on_there_is_no_second_heartbeat_before_the_interval_is_over() -> None:
    world = World(4)
    watch = iter(world.watch())
    assert [(next(watch).revision, world.feed.now) for _ in range(2)] == [(4, 0), (4, INTERVAL)]


def test_without_a_lease_there_is_no_heartbeat_and_at_last_an_end() -> None:
    world = World()
    watch = iter(world.watch())
    next(watch)
    world.current = False
    with pytest.raises(UnavailableError):
        next(watch)
    assert world.feed.now == pytest.approx(INTERVAL + STALE_SECONDS, abs=0.2)


def test_a_lease_that_returns_in_time_changes_nothing() -> None:
    world = World()
    watch = iter(world.watch())
    next(watch)
    world.current = False

    def renew() -> None:
        world.current = True

    world.feed.now = INTERVAL + STALE_SECONDS - 1
    world.feed.happens.append(renew)
    assert next(watch) == Heartbeat(0, EPOCH)


def test_registering_anew_neither_skips_nor_repeats() -> None:
    world = World()
    watch = iter(world.watch())
    next(watch)
    world.commit(2)
    assert revisions(watch, 1) == [1]
    world.commit_elsewhere(5)
    world.register()
    world.commit(2)
    assert revisions(watch, 8) == list(range(2, 10))


def test_a_start_ahead_of_this_replica_waits_for_it() -> None:
    world = World()
    world.commit_elsewhere(5)
    watch = iter(world.watch(5))
    assert next(watch) == Heartbeat(5, EPOCH)
    world.feed.happens.append(lambda: world.feed.append([change(n) for n in range(1, 6)]))
    world.feed.happens.append(world.commit)
    assert revisions(watch, 1) == [6]
    assert world.database.reads == 1


@pytest.mark.parametrize(
    ("oldest", "after", "epoch", "code"),
    [
        (4, 3, None, "REVISION_TOO_OLD"),
        (4, 8, None, "REVISION_IN_FUTURE"),
        (4, 5, OTHER_EPOCH, "EPOCH_CHANGED"),
        (4, 7, OTHER_EPOCH, "EPOCH_CHANGED"),
    ],
)
def test_a_start_that_cannot_be_served_is_refused_with_what_can(
    oldest: int, after: int, epoch: UUID | None, code: str
) -> None:
    world = World(7)
    world.database.oldest = oldest
    with pytest.raises(OutOfRangeError) as raised:
        next(iter(world.watch(after, epoch)))
    assert raised.value.code == code
    facts = {"oldest_revision": "4", "current_revision": "7", "epoch": str(EPOCH)}
    assert raised.value.facts == facts


@pytest.mark.parametrize("after", [4, 7])
def test_a_start_at_either_end_of_what_is_kept_is_served(after: int) -> None:
    world = World(7)
    world.database.oldest = 4
    watch = iter(world.watch(after))
    world.commit()
    assert revisions(watch, 8 - after) == list(range(after + 1, 9))


def test_another_history_ends_the_watch() -> None:
    world = World(7)
    watch = iter(world.watch())
    next(watch)
    world.database.epoch = OTHER_EPOCH
    world.database.latest = 9
    world.register()
    with pytest.raises(OutOfRangeError, match="restored"):
        next(watch)


def test_a_replica_that_has_not_noticed_another_history_sends_the_client_elsewhere() -> None:
    world = World(7)
    world.database.epoch = OTHER_EPOCH
    with pytest.raises(UnavailableError):
        next(iter(world.watch(5, OTHER_EPOCH)))
    # Nor does it send changes of one history after those of the other.
    with pytest.raises(OutOfRangeError, match="restored"):
        next(iter(world.watch(5)))


def test_a_history_that_became_shorter_ends_the_watch() -> None:
    world = World(7)
    watch = iter(world.watch())
    next(watch)
    world.database.latest = 6
    world.register()
    with pytest.raises(OutOfRangeError, match="no revision 7"):
        next(watch)


def test_changes_that_were_trimmed_before_the_replica_saw_them_end_the_watch() -> None:
    world = World()
    watch = iter(world.watch())
    next(watch)
    world.database.latest, world.database.oldest = 5, 4
    world.feed.append([Change(5, None)])
    with pytest.raises(OutOfRangeError, match="after 4"):
        next(watch)


def test_who_is_behind_for_long_and_out_of_memory_is_dropped() -> None:
    world = World(max_changes=10)
    watch = iter(world.watch())
    next(watch)
    world.commit(2)
    assert revisions(watch, 1) == [1]
    # The client takes its time over revision 1.
    world.feed.now += INTERVAL + 1
    world.commit(20)
    assert next(watch) == change(2)
    with pytest.raises(SlowConsumerError):
        next(watch)


def test_who_is_behind_for_long_but_within_memory_is_not_dropped() -> None:
    world = World(max_changes=10)
    watch = iter(world.watch())
    next(watch)
    world.commit(2)
    assert revisions(watch, 1) == [1]
    world.feed.now += INTERVAL + 1
    world.commit(10)
    assert revisions(watch, 11) == list(range(2, 13))
    assert world.database.reads == 0


def test_a_burst_that_memory_does_not_hold_drops_nobody() -> None:
    world = World(max_changes=10)
    watch = iter(world.watch())
    next(watch)
    world.feed.now += 100 * INTERVAL
    assert next(watch) == Heartbeat(0, EPOCH)
    world.commit(50)
    assert revisions(watch, 50) == list(range(1, 51))


def test_a_burst_after_a_long_silence_drops_nobody() -> None:
    world = World(max_changes=10)
    watch = iter(world.watch())
    next(watch)

    def burst() -> None:
        world.feed.now += 2 * INTERVAL
        world.commit(50)

    world.feed.happens.append(burst)
    assert revisions(watch, 50) == list(range(1, 51))


def test_who_catches_up_from_the_database_may_take_long() -> None:
    world = World(max_changes=10)
    world.database.seconds_each = INTERVAL
    watch = iter(world.watch())
    next(watch)
    world.commit(50)
    assert revisions(watch, 50) == list(range(1, 51))
    assert world.feed.now > 10 * INTERVAL


def test_cancelling_ends_it_without_an_error() -> None:
    world = World()
    watch = world.watch()
    events = iter(watch)
    next(events)
    world.feed.happens.append(watch.cancel)
    assert list(events) == []


def test_closing_ends_it_and_those_that_come() -> None:
    world = World()
    watch = iter(world.watch())
    next(watch)
    world.watches.close()
    with pytest.raises(UnavailableError, match="stopping"):
        next(watch)
    with pytest.raises(UnavailableError, match="stopping"):
        next(iter(world.watch()))
