"""Which replicas are said to renew, and how long it takes to say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from licet.cli.observing import ObservedReplica, observed
from licet.storage.register import Register, RegisteredReplica

_STARTED = datetime(2026, 1, 1, tzinfo=UTC)


def entry(number: int, beat: int, applied: int = 5, lease: float = 1.0) -> RegisteredReplica:
    return RegisteredReplica(UUID(int=number), "host", _STARTED, lease, applied, beat)


def watch(
    entries: Callable[[float], Sequence[RegisteredReplica]], revision: int = 5
) -> tuple[Sequence[ObservedReplica], float]:
    """Return what is observed of entries that are a function of time, and the time it took."""
    now = 0.0

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    found = observed(lambda: Register(revision, entries(now)), lambda: now, pause)
    return found, now


def test_it_ends_as_soon_as_everyone_has_renewed() -> None:
    found, took = watch(lambda now: [entry(1, int(now * 3)), entry(2, int(now * 4))])
    assert [replica.renewing for replica in found] == [True, True]
    assert took < 0.5


def test_who_does_not_renew_is_looked_at_for_its_own_lease_and_the_margin() -> None:
    found, took = watch(lambda now: [entry(1, int(now * 3)), entry(2, 7, lease=2.0)])
    assert [replica.renewing for replica in found] == [True, False]
    assert 2.3 <= took < 2.5


def test_who_leaves_is_left_out_and_who_comes_is_looked_at_as_well() -> None:
    def entries(now: float) -> Sequence[RegisteredReplica]:
        return [entry(1, 0)] if now < 0.5 else [entry(2, 0)]

    found, took = watch(entries)
    assert [(replica.incarnation.int, replica.renewing) for replica in found] == [(2, False)]
    assert took >= 1.6


def test_one_that_lacks_what_there_was_at_the_first_look_is_lagging() -> None:
    found, _ = watch(lambda now: [entry(1, int(now * 9), applied=4), entry(2, int(now * 9))])
    assert [(replica.behind, replica.lagging) for replica in found] == [(1, True), (0, False)]


def test_one_that_is_behind_what_came_meanwhile_is_not() -> None:
    revisions = iter(range(5, 100))
    times = iter(range(100))
    found = observed(
        lambda: Register(next(revisions), [entry(1, next(times), applied=5)]),
        lambda: 0.0,
        lambda _: None,
    )
    assert [(replica.behind, replica.lagging) for replica in found] == [(1, False)]


def test_nobody_is_nobody() -> None:
    assert watch(lambda _: []) == ([], 0.0)
