"""The capability sets in memory: what is kept, what makes room, and what is read again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.capability_set import CapabilitySet, Standing
from licet.domain.errors import UnavailableError
from licet.domain.names import Principal
from licet.replica.capability_sets import CAPABILITY_BYTES, SET_BYTES, CachedCapabilitySets
from licet.replica.lease import Lease
from tests.fakes.capability_sets import ONE, State, agent, get, kept
from tests.unit.builders import PATIENT, held, registered


def test_that_nothing_is_held_does_not_hide_a_suspension() -> None:
    """A set without capabilities is kept apart, and is a set like others."""
    standing = Standing.SUSPENDED
    reads: list[int] = []

    def load(principals: Collection[Principal], _: Deadline) -> Mapping[Principal, CapabilitySet]:
        reads.append(len(principals))
        return {p: CapabilitySet(p, len(reads), [], [], standing) for p in principals}

    sets = registered(load, 100 * ONE, 10)
    assert sets.get(agent("a"), PATIENT).is_suspended
    assert sets.get(agent("a"), PATIENT).is_suspended
    assert reads == [1]
    standing = Standing.GOOD
    sets.evict([agent("a")], 2)
    assert not sets.get(agent("a"), PATIENT).is_suspended


def test_a_set_is_read_once_and_then_answered_from_memory() -> None:
    state = State(a=2)
    sets = registered(state, 100 * ONE, 10)
    first = sets.get(agent("a"), PATIENT)
    assert first.size == 2
    assert sets.get(agent("a"), PATIENT) is first
    assert state.reads == [{agent("a")}]
    assert (len(sets), sets.bytes) == (1, SET_BYTES + 2 * CAPABILITY_BYTES)


def test_conditions_weigh_what_their_texts_do_once() -> None:
    text, other = "x" * 1000, "y" * 500

    def load(principals: Collection[Principal], _: Deadline) -> Mapping[Principal, CapabilitySet]:
        conditional = [held(n, conditions=(text, other)) for n in range(10)]
        return {p: CapabilitySet(p, 1, conditional) for p in principals}

    sets = registered(load, 100 * ONE, 10)
    get(sets, "a")
    plain = SET_BYTES + 10 * CAPABILITY_BYTES
    assert plain + 1500 + 10 * 16 <= sets.bytes <= plain + 1500 + 10 * 100
    # And as much is given back.
    sets.evict([agent("a")], 2)
    assert sets.bytes == 0


def test_one_who_holds_nothing_is_remembered_without_weight() -> None:
    state = State()
    sets = registered(state, 100 * ONE, 10)
    get(sets, "x", "x")
    assert len(state.reads) == 1
    assert (len(sets), sets.bytes) == (1, 0)


def test_the_least_recently_used_sets_make_room() -> None:
    sets = registered(State(a=1, b=1, c=1, d=1), 3 * ONE, 10)
    get(sets, "a", "b", "c")
    assert kept(sets, "a", "b", "c") == ["a", "b", "c"]
    get(sets, "a", "d")
    assert kept(sets, "a", "b", "c", "d") == ["a", "c", "d"]
    assert sets.bytes == 3 * ONE


def test_a_heavy_set_makes_as_much_room_as_it_needs() -> None:
    sets = registered(State(a=1, b=1, c=1, heavy=4), 3 * ONE, 10)
    get(sets, "a", "b", "c", "heavy")
    # It weighs less than two of the others, but there was room for three of them only.
    assert kept(sets, "a", "b", "c", "heavy") == ["c", "heavy"]
    assert sets.bytes == ONE + SET_BYTES + 4 * CAPABILITY_BYTES


def test_a_set_heavier_than_the_memory_is_answered_and_not_kept() -> None:
    state = State(huge=100)
    sets = registered(state, 3 * ONE, 10)
    assert sets.get(agent("huge"), PATIENT).size == 100
    assert (len(sets), sets.bytes) == (0, 0)
    get(sets, "huge")
    assert len(state.reads) == 2


def test_asking_for_unknown_principals_cannot_evict_real_ones() -> None:
    state = State(a=1, b=1)
    sets = registered(state, 2 * ONE, 3)
    get(sets, "a", "b", *(f"unknown-{n}" for n in range(50)))
    assert kept(sets, "a", "b") == ["a", "b"]
    assert len(sets) == 5
    assert kept(sets, "unknown-46", "unknown-47", "unknown-48", "unknown-49") == [
        "unknown-47",
        "unknown-48",
        "unknown-49",
    ]


def test_the_least_recently_used_unknown_principal_makes_room_for_another() -> None:
    sets = registered(State(), ONE, 2)
    get(sets, "x", "y", "x", "z")
    assert kept(sets, "x", "y", "z") == ["x", "z"]


def test_real_principals_cannot_evict_unknown_ones() -> None:
    sets = registered(State(a=1, b=1, c=1), ONE, 2)
    get(sets, "x", "y", "a", "b", "c")
    assert kept(sets, "x", "y", "a", "b", "c") == ["x", "y", "c"]


def test_one_who_comes_to_hold_something_moves_between_the_segments() -> None:
    state = State()
    sets = registered(state, 9 * ONE, 9)
    get(sets, "a")
    state.holds[agent("a")], state.revision = 1, 2
    sets.evict([agent("a")], 2)
    get(sets, "a")
    assert (len(sets), sets.bytes) == (1, ONE)
    state.holds[agent("a")], state.revision = 0, 3
    sets.evict([agent("a")], 3)
    get(sets, "a")
    assert (len(sets), sets.bytes) == (1, 0)


def test_several_are_answered_from_memory_or_all_from_one_read() -> None:
    state = State(a=1, b=1)
    sets = registered(state, 9 * ONE, 9)
    wanted = {agent("a"), agent("b"), agent("x")}
    get(sets, "a")
    assert sets.get_many(wanted, PATIENT).keys() == wanted
    assert state.reads[1:] == [wanted]
    assert sets.get_many(wanted, PATIENT).keys() == wanted
    assert len(state.reads) == 2


def test_using_several_counts_as_using_each() -> None:
    sets = registered(State(a=1, b=1, c=1), 2 * ONE, 9)
    get(sets, "a", "b")
    sets.get_many({agent("a")}, PATIENT)
    get(sets, "c")
    assert kept(sets, "a", "b", "c") == ["a", "c"]


def test_a_read_that_fails_leaves_nothing_behind() -> None:
    state = State(a=1)
    sets = registered(state, 9 * ONE, 9)

    def fail() -> None:
        raise UnavailableError("the database has gone")

    state.meanwhile = fail
    with pytest.raises(UnavailableError):
        sets.get(agent("a"), PATIENT)
    assert not sets._fills  # noqa: SLF001 - forgotten ones would make every eviction slower
    state.meanwhile = lambda: None
    get(sets, "a")
    assert kept(sets, "a") == ["a"]


def test_without_a_lease_every_request_reads_and_what_it_reads_is_kept() -> None:
    state = State(a=1)
    now = 0.0
    lease = Lease(lambda: now)
    sets = CachedCapabilitySets(state, lease, 9 * ONE, 9)
    sets.reset(0)
    for _ in range(3):
        get(sets, "a")
        sets.get_many({agent("a")}, PATIENT)
    assert len(state.reads) == 6
    lease.extend(1.0)
    get(sets, "a")
    assert len(state.reads) == 6
    now = 1.0  # the lease ends at its deadline, not after it
    get(sets, "a")
    assert len(state.reads) == 7


def test_what_is_wanted_at_once_comes_from_memory_or_nothing_happens() -> None:
    state = State(a=1)
    now = 0.0
    lease = Lease(lambda: now)
    lease.extend(1.0)
    sets = CachedCapabilitySets(state, lease, 9 * ONE, 9)
    sets.reset(1)

    def nothing_happens(*names: str) -> None:
        before = sets.misses, sets.reads, sets.joined
        with pytest.raises(NotAtOnceError):
            sets.get(agent(names[0]), AT_ONCE)
        with pytest.raises(NotAtOnceError):
            sets.get_many(set(map(agent, names)), AT_ONCE)
        assert (sets.misses, sets.reads, sets.joined) == before

    nothing_happens("a")
    known = sets.get(agent("a"), PATIENT)
    assert sets.get(agent("a"), AT_ONCE) is known
    assert sets.get_many({agent("a")}, AT_ONCE) == {agent("a"): known}
    nothing_happens("b", "a")
    now = 1.0
    nothing_happens("a")
    assert len(state.reads) == 1
