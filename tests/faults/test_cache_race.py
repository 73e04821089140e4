"""Reads that race with evictions, step by step: the loader waits until it is let go.

What was read before a change is never in memory after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest

from licet.app.ports import Deadline
from licet.domain.capability_set import ALWAYS, NEVER, CapabilitySet, HeldCapability
from licet.domain.errors import UnavailableError
from licet.domain.names import Action, CapabilityId, Principal
from licet.domain.pattern import ResourcePattern
from licet.replica.capability_sets import CachedCapabilitySets
from tests.unit.builders import registered

ALICE, BOB = Principal("user:alice"), Principal("user:bob")
FOREVER = Deadline(lambda: None)
READ = HeldCapability(
    CapabilityId("0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"),
    ResourcePattern("doc:**"),
    (Action("read"),),
    ALWAYS,
    NEVER,
)
_SECONDS = 10.0


class PausedLoader:
    """Reads at once and returns when it is told, so that a test decides what happens between."""

    def __init__(self) -> None:
        """Load revision 1, without pausing."""
        self.revision = 1
        self.held = [READ]
        self.error: UnavailableError | None = None
        self.calls = 0
        self.has_read = Event()
        self.go_on = Event()
        self.go_on.set()

    def __call__(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        """See `replica.capability_sets.Loader`."""
        del deadline
        self.calls += 1
        if self.error is not None:
            raise self.error
        read = {p: CapabilitySet(p, self.revision, self.held) for p in principals}
        self.has_read.set()
        assert self.go_on.wait(_SECONDS)
        return read


@pytest.fixture
def loader() -> PausedLoader:
    return PausedLoader()


@pytest.fixture
def sets(loader: PausedLoader) -> CachedCapabilitySets:
    return registered(loader, 1 << 20, 10)


def _paused_fill(
    pool: ThreadPoolExecutor, loader: PausedLoader, sets: CachedCapabilitySets
) -> Future[CapabilitySet]:
    """Start a fill and return when it has read and waits."""
    loader.go_on.clear()
    loader.has_read.clear()
    fill = pool.submit(sets.get, ALICE, FOREVER)
    assert loader.has_read.wait(_SECONDS)
    return fill


@pytest.mark.parametrize("everything", [False, True], ids=["by-name", "everything"])
def test_a_set_that_was_read_before_an_eviction_is_not_kept(
    loader: PausedLoader, sets: CachedCapabilitySets, everything: bool
) -> None:
    with ThreadPoolExecutor(1) as pool:
        fill = _paused_fill(pool, loader, sets)
        sets.evict(None if everything else [BOB, ALICE], 2)
        loader.go_on.set()
        # The request was under way: its own answer may be the old one.
        assert fill.result(_SECONDS).revision == 1
    assert ALICE not in sets
    loader.revision, loader.held = 2, []
    assert sets.get(ALICE, FOREVER).size == 0


def test_a_set_that_was_read_after_the_change_is_kept_although_evicted_meanwhile(
    loader: PausedLoader, sets: CachedCapabilitySets
) -> None:
    loader.revision = 2
    with ThreadPoolExecutor(1) as pool:
        fill = _paused_fill(pool, loader, sets)
        sets.evict([ALICE], 2)
        loader.go_on.set()
        assert fill.result(_SECONDS).revision == 2
    assert ALICE in sets


def test_the_eviction_of_others_does_not_spoil_a_fill(
    loader: PausedLoader, sets: CachedCapabilitySets
) -> None:
    with ThreadPoolExecutor(1) as pool:
        fill = _paused_fill(pool, loader, sets)
        sets.evict([BOB], 2)
        loader.go_on.set()
        fill.result(_SECONDS)
    assert ALICE in sets


def test_of_two_evictions_during_a_fill_the_later_one_counts(
    loader: PausedLoader, sets: CachedCapabilitySets
) -> None:
    loader.revision = 2
    with ThreadPoolExecutor(1) as pool:
        fill = _paused_fill(pool, loader, sets)
        sets.evict([ALICE], 3)
        sets.evict([ALICE], 2)
        loader.go_on.set()
        fill.result(_SECONDS)
    assert ALICE not in sets


def test_a_fill_that_fails_leaves_nothing_behind(
    loader: PausedLoader, sets: CachedCapabilitySets
) -> None:
    loader.error = UnavailableError("the database cannot be reached")
    for _ in range(3):
        with pytest.raises(UnavailableError):
            sets.get(ALICE, FOREVER)
    assert len(sets) == 0
    loader.error = None
    assert sets.get(ALICE, FOREVER).size == 1


def test_a_batch_is_read_at_once_when_one_of_its_principals_is_not_in_memory(
    loader: PausedLoader, sets: CachedCapabilitySets
) -> None:
    sets.get(ALICE, FOREVER)
    loader.revision = 2
    found = sets.get_many({ALICE, BOB}, FOREVER)
    assert {held.revision for held in found.values()} == {2}
    sets.evict([], 2)  # from here on memory is known to be of revision 2 as a whole
    assert sets.get_many({ALICE, BOB}, FOREVER) == found
    assert loader.calls == 2


def test_a_batch_from_memory_does_not_mix_states_around_a_change(
    loader: PausedLoader, sets: CachedCapabilitySets
) -> None:
    sets.get(ALICE, FOREVER)
    # Revision 2 takes both principals' capabilities; it is committed and not evicted yet, when
    # somebody asks for the one who is not in memory.
    loader.revision, loader.held = 2, []
    sets.get(BOB, FOREVER)
    found = sets.get_many({ALICE, BOB}, FOREVER)
    assert found[ALICE].size == found[BOB].size
