"""Evictions of capability sets from memory: what goes, and what was read too early to be stored."""

from __future__ import annotations

import pytest

from licet.replica.capability_sets import CachedCapabilitySets
from licet.replica.lease import Lease
from tests.fakes.capability_sets import ONE, State, agent, get, kept
from tests.unit.builders import PATIENT, registered


def test_an_evicted_principal_is_read_again() -> None:
    state = State(a=1, b=1)
    sets = registered(state, 9 * ONE, 9)
    get(sets, "a", "b", "x", "y")
    state.revision = 2
    sets.evict([agent("a"), agent("x"), agent("never-seen")], 2)
    assert kept(sets, "a", "b", "x", "y") == ["b", "y"]
    assert sets.bytes == ONE
    assert sets.get(agent("a"), PATIENT).revision == 2


def test_an_eviction_spares_what_was_read_at_its_revision_or_later() -> None:
    state = State(a=1)
    state.revision = 5
    sets = registered(state, 9 * ONE, 9)
    get(sets, "a", "x")
    sets.evict([agent("a"), agent("x")], 5)
    sets.evict([agent("a"), agent("x")], 4)
    assert kept(sets, "a", "x") == ["a", "x"]
    sets.evict([agent("a"), agent("x")], 6)
    assert len(sets) == sets.bytes == 0


@pytest.mark.parametrize("holds", [0, 1])
def test_what_was_read_before_an_eviction_is_not_stored_after_it(holds: int) -> None:
    state = State(a=holds)
    sets = registered(state, 9 * ONE, 9)
    state.meanwhile = lambda: sets.evict([agent("a")], 2)
    # It may be answered: the request was under way when the change was made.
    assert sets.get(agent("a"), PATIENT).revision == 1
    assert len(sets) == 0


def test_what_was_read_at_the_revision_of_an_eviction_is_stored() -> None:
    state = State(a=1)
    state.revision = 2
    sets = registered(state, 9 * ONE, 9)
    state.meanwhile = lambda: sets.evict([agent("a")], 2)
    get(sets, "a")
    assert kept(sets, "a") == ["a"]


def test_of_several_evictions_during_a_read_the_latest_counts() -> None:
    state = State(a=1)
    state.revision = 2
    sets = registered(state, 9 * ONE, 9)

    def evictions() -> None:
        sets.evict([agent("a")], 3)
        sets.evict([agent("a")], 2)

    state.meanwhile = evictions
    get(sets, "a")
    assert len(sets) == 0


def test_an_eviction_of_others_during_a_read_does_not_matter() -> None:
    state = State(a=1)
    sets = registered(state, 9 * ONE, 9)
    state.meanwhile = lambda: sets.evict([agent("b")], 2)
    get(sets, "a")
    assert kept(sets, "a") == ["a"]


def test_evicting_everything_leaves_nothing_and_stores_nothing_older() -> None:
    state = State(a=1)
    sets = registered(state, 9 * ONE, 9)
    get(sets, "a", "x")
    sets.evict(None, 3)
    assert len(sets) == sets.bytes == 0
    for revision, stored in ((2, []), (3, ["a", "x"])):
        state.revision = revision
        get(sets, "a", "x")
        assert kept(sets, "a", "x") == stored


def test_the_floor_never_sinks() -> None:
    state = State(a=1)
    sets = registered(state, 9 * ONE, 9)
    sets.evict(None, 3)
    sets.evict(None, 2)
    state.revision = 2
    get(sets, "a")
    assert len(sets) == 0


def test_evicting_everything_during_a_read_stores_nothing() -> None:
    state = State(a=1)
    sets = registered(state, 9 * ONE, 9)
    state.meanwhile = lambda: sets.evict(None, 2)
    get(sets, "a")
    assert len(sets) == 0


def test_a_slower_read_does_not_replace_what_a_faster_one_stored_later() -> None:
    state = State(a=1)
    sets = registered(state, 9 * ONE, 9)

    def overtake() -> None:
        state.meanwhile = lambda: None
        state.revision = 2
        # Not `get`, which would wait for the read that it overtakes.
        sets.get_many({agent("a")}, PATIENT)

    state.meanwhile = overtake
    assert sets.get(agent("a"), PATIENT).revision == 1
    assert sets.get(agent("a"), PATIENT).revision == 2
    assert sets.bytes == ONE


def test_before_it_is_registered_a_replica_keeps_nothing() -> None:
    state = State(a=1)
    lease = Lease(lambda: 0.0)
    lease.extend(1.0)
    sets = CachedCapabilitySets(state, lease, 9 * ONE, 9)
    get(sets, "a", "a")
    assert len(state.reads) == 2
    assert len(sets) == 0


def test_registering_forgets_everything_and_keeps_nothing_read_before() -> None:
    state = State(a=1, b=1)
    sets = registered(state, 9 * ONE, 9)
    get(sets, "a")
    state.meanwhile = lambda: sets.reset(7)
    get(sets, "b")
    assert len(sets) == 0
    state.meanwhile = lambda: None
    get(sets, "a")
    assert len(sets) == 0
    state.revision = 7
    get(sets, "a")
    assert kept(sets, "a", "b") == ["a"]


def test_what_was_read_of_a_lost_history_is_not_kept_after_registering_anew() -> None:
    state = State(a=1)
    state.revision = 1000
    sets = registered(state, 9 * ONE, 9)
    state.meanwhile = lambda: sets.reset(900)
    get(sets, "a")
    assert len(sets) == 0


def test_what_is_behind_what_was_applied_is_not_kept() -> None:
    state = State(a=1)
    sets = registered(state, 9 * ONE, 9)
    sets.evict([agent("b")], 5)
    get(sets, "a")  # from a database that is at revision 1 still
    assert len(sets) == 0
