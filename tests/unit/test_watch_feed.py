"""The feed alone: what it holds, what it drops, and who it wakes."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from uuid import uuid4

import pytest

from licet.app.replication import Change
from licet.domain.errors import UnavailableError
from licet.domain.names import Principal
from licet.replica.feed import MemoryFeed

EPOCH = uuid4()


def change(revision: int, names: int = 1) -> Change:
    return Change(revision, tuple(Principal(f"agent:{i}") for i in range(names)))


def registered(revision: int = 0, max_changes: int = 1000, max_names: int = 1000) -> MemoryFeed:
    feed = MemoryFeed(max_changes, max_names)
    feed.reset(revision, EPOCH)
    return feed


def held(feed: MemoryFeed, after: int) -> list[int] | None:
    changes = feed.after(after).changes
    return None if changes is None else [each.revision for each in changes]


def test_before_the_replica_is_registered_there_is_no_feed() -> None:
    with pytest.raises(UnavailableError):
        MemoryFeed().after(0)


def test_it_holds_what_follows_a_revision() -> None:
    feed = registered(5)
    feed.append([change(6), change(7)])
    feed.append([])
    assert held(feed, 4) is None
    assert held(feed, 5) == [6, 7]
    assert held(feed, 6) == [7]
    assert held(feed, 7) == []
    assert held(feed, 9) == []
    assert feed.after(5).revision == 7


def test_a_reader_takes_a_part_at_a_time() -> None:
    feed = registered()
    feed.append([change(n) for n in range(1, 251)])
    taken: list[int] = []
    while part := held(feed, len(taken)):
        taken += part
    assert taken == list(range(1, 251))


def test_it_holds_so_many_changes() -> None:
    feed = registered(max_changes=3)
    feed.append([change(n) for n in range(1, 6)])
    assert held(feed, 1) is None
    assert held(feed, 2) == [3, 4, 5]


def test_it_holds_so_many_names_but_always_the_latest_change() -> None:
    feed = registered(max_names=10)
    feed.append([change(1, 4), change(2, 6), change(3, 1)])
    assert held(feed, 0) is None
    assert held(feed, 1) == [2, 3]
    feed.append([change(4, 50)])
    assert held(feed, 2) is None
    assert held(feed, 3) == [4]
    feed.append([change(5, 10)])
    assert held(feed, 4) == [5]


def test_a_new_run_counts_its_names_anew() -> None:
    feed = registered(max_names=10)
    feed.append([change(1, 9)])
    feed.reset(1, EPOCH)
    feed.append([change(2, 4), change(3, 4)])
    assert held(feed, 1) == [2, 3]


def test_a_gap_begins_a_new_run() -> None:
    feed = registered()
    feed.append([change(1)])
    before = feed.after(1).resets
    feed.append([Change(8, None)])
    assert feed.after(1).changes is None
    assert held(feed, 8) == []
    assert feed.after(8).resets == before + 1
    feed.append([change(9)])
    assert held(feed, 8) == [9]


def test_registering_anew_begins_a_new_run() -> None:
    feed = registered()
    feed.append([change(1)])
    before = feed.after(1).resets
    other = uuid4()
    feed.reset(4, other)
    seen = feed.after(1)
    assert (seen.changes, seen.revision, seen.epoch, seen.resets) == (None, 4, other, before + 1)


@pytest.mark.parametrize(
    "wakes",
    [
        lambda feed: feed.append([change(1)]),
        lambda feed: feed.reset(0, EPOCH),
        lambda feed: feed.close(),
    ],
    ids=["append", "reset", "close"],
)
def test_who_waits_is_woken(wakes: Callable[[MemoryFeed], None]) -> None:
    feed = registered()
    seen = feed.after(0)
    waiting = Thread(target=feed.wait, args=(seen, lambda: False, 30.0), daemon=True)
    waiting.start()
    wakes(feed)
    waiting.join(20)
    assert not waiting.is_alive()


def test_who_is_over_is_woken() -> None:
    feed = registered()
    over = Event()
    waiting = Thread(target=feed.wait, args=(feed.after(0), over.is_set, 30.0), daemon=True)
    waiting.start()
    over.set()
    feed.wake()
    waiting.join(20)
    assert not waiting.is_alive()


def test_who_has_missed_something_does_not_wait() -> None:
    feed = registered()
    seen = feed.after(0)
    feed.append([change(1)])
    waiting = Thread(target=feed.wait, args=(seen, lambda: False, 30.0), daemon=True)
    waiting.start()
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_closed_feed_says_so() -> None:
    feed = registered()
    feed.close()
    with pytest.raises(UnavailableError, match="stopping"):
        feed.after(0)
