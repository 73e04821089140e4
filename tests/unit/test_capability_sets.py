"""The capability sets in memory: what is kept, what is dropped, and what is never stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import pytest

from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.capability_set import CapabilitySet, Standing
from licet.domain.errors import UnavailableError
from licet.domain.names import Principal
from licet.replica.capability_sets import CAPABILITY_BYTES, SET_BYTES, CachedCapabilitySets
from licet.replica.lease import Lease
from tests.unit.builders import PATIENT, held, registered

ONE = SET_BYTES + CAPABILITY_BYTES
"""What the set of a principal with one capability weighs."""


class State:
    """Stands for the database: who holds how many capabilities, at which revision."""

    def __init__(self, **holds: int) -> None:
        self.revision = 1
        self.holds = {Principal(f"agent:{name}"): count for name, count in holds.items()}
        self.reads: list[set[Principal]] = []
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens after the snapshot was taken and before the answer is back."""

    def __call__(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        assert deadline is PATIENT
        self.reads.append(set(principals))
        loaded = {
            p: CapabilitySet(p, self.revision, [held(n) for n in range(self.holds.get(p, 0))])
            for p in principals
        }
        self.meanwhile()
        return loaded


def agent(name: str) -> Principal:
    return Principal(f"agent:{name}")


def kept(sets: CachedCapabilitySets, *names: str) -> list[str]:
    return [name for name in names if agent(name) in sets]


def get(sets: CachedCapabilitySets, *names: str) -> None:
    for name in names:
        assert sets.get(agent(name), PATIENT).principal == agent(name)


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
