"""The capability sets in memory against a model that keeps two lists.

The model says exactly who is kept and what is answered, so that the cache can neither exceed its
capacity nor answer what was evicted, whatever happens between a read and its end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from licet.app.ports import Deadline
from licet.domain.capability_set import CapabilitySet
from licet.domain.names import Principal
from licet.replica.capability_sets import CAPABILITY_BYTES, SET_BYTES
from tests.unit.builders import PATIENT, held, registered

MAX_BYTES: Final = 5 * (SET_BYTES + CAPABILITY_BYTES)
MAX_NEGATIVE: Final = 5
NAMES: Final = tuple(Principal(f"agent:{letter}") for letter in "abcdefgh")

principals = st.sampled_from(NAMES)
groups = st.sets(principals, min_size=1, max_size=3)
counts = st.sampled_from([0, 0, 1, 1, 2, 5, 11])
"""How many capabilities one holds; eleven nearly fill the memory."""


class Kept(NamedTuple):
    """What the model knows of an entry."""

    holds: int
    revision: int


def weight(entry: Kept) -> int:
    return SET_BYTES + CAPABILITY_BYTES * entry.holds


_NOTHING: Final = Kept(0, -1)


class CacheMachine(RuleBasedStateMachine):
    """Changes, reads, and changes during reads."""

    def __init__(self) -> None:
        super().__init__()
        self.revision = 0
        self.holds: dict[Principal, int] = {}
        # The model: who is kept, the least recently used first.
        self.kept: dict[Principal, Kept] = {}
        self.negative: dict[Principal, Kept] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        self.reads = 0
        self.sets = registered(self.load, MAX_BYTES, MAX_NEGATIVE, revision=0)

    def load(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        assert deadline is PATIENT
        self.reads += 1
        snapshot = {
            p: CapabilitySet(p, self.revision, [held(n) for n in range(self.holds.get(p, 0))])
            for p in sorted(principals)
        }
        self.meanwhile()
        self.meanwhile = lambda: None
        return snapshot

    def commit(self, touched: Collection[Principal], count: int) -> None:
        """Change what some hold, evict them, and so acknowledge the change."""
        self.revision += 1
        self.holds |= dict.fromkeys(touched, count)
        self.sets.evict(touched, self.revision)
        for principal in touched:
            self.kept.pop(principal, None)
            self.negative.pop(principal, None)

    def commit_everything(self, count: int) -> None:
        """Change what everybody holds and evict all."""
        self.revision += 1
        self.holds = dict.fromkeys(NAMES, count)
        self.sets.evict(None, self.revision)
        self.kept.clear()
        self.negative.clear()

    def model_hit(self, principal: Principal) -> bool:
        if principal in self.kept:
            # Below half of the room no order of use is kept.
            if 2 * sum(map(weight, self.kept.values())) >= MAX_BYTES:
                self.kept[principal] = self.kept.pop(principal)
            return True
        if principal in self.negative:
            if 2 * len(self.negative) >= MAX_NEGATIVE:
                self.negative[principal] = self.negative.pop(principal)
            return True
        return False

    def model_store(self, answer: CapabilitySet) -> None:
        principal, entry = answer.principal, Kept(answer.size, answer.revision)
        if entry.revision <= max(
            self.kept.get(principal, _NOTHING).revision,
            self.negative.get(principal, _NOTHING).revision,
        ):
            return
        self.kept.pop(principal, None)
        self.negative.pop(principal, None)
        if entry.holds and weight(entry) > MAX_BYTES:
            return
        if entry.holds:
            self.kept[principal] = entry
            while sum(map(weight, self.kept.values())) > MAX_BYTES:
                del self.kept[next(iter(self.kept))]
        else:
            self.negative[principal] = entry
            while len(self.negative) > MAX_NEGATIVE:
                del self.negative[next(iter(self.negative))]

    @rule(principal=principals)
    def read(self, principal: Principal) -> None:
        reads = self.reads
        is_kept = self.model_hit(principal)
        answer = self.sets.get(principal, PATIENT)
        assert answer.principal == principal
        assert answer.size == self.holds.get(principal, 0)
        assert (self.reads == reads) == is_kept
        if not is_kept:
            self.model_store(answer)

    @rule(wanted=groups)
    def read_several(self, wanted: set[Principal]) -> None:
        reads = self.reads
        # Those that are kept count as used, though a read for all follows when one is missing.
        hits = [self.model_hit(principal) for principal in wanted]
        answers = self.sets.get_many(wanted, PATIENT)
        assert {p: answer.size for p, answer in answers.items()} == {
            p: self.holds.get(p, 0) for p in wanted
        }
        assert len({answer.revision for answer in answers.values()}) == 1 or all(hits)
        assert (self.reads == reads) == all(hits)
        if not all(hits):
            for answer in answers.values():
                self.model_store(answer)

    @rule(touched=groups, count=counts)
    def change(self, touched: set[Principal], count: int) -> None:
        self.commit(touched, count)

    @rule(count=counts)
    def change_everything(self, count: int) -> None:
        self.commit_everything(count)

    @rule(principal=principals, touched=groups, count=counts)
    def change_during_a_read(
        self, principal: Principal, touched: set[Principal], count: int
    ) -> None:
        if self.model_hit(principal):
            self.sets.get(principal, PATIENT)
            return
        self.meanwhile = lambda: self.commit(touched, count)
        answer = self.sets.get(principal, PATIENT)
        if principal not in touched:
            self.model_store(answer)

    @rule(principal=principals, count=counts)
    def change_everything_during_a_read(self, principal: Principal, count: int) -> None:
        if self.model_hit(principal):
            self.sets.get(principal, PATIENT)
            return
        self.meanwhile = lambda: self.commit_everything(count)
        self.sets.get(principal, PATIENT)

    @invariant()
    def exactly_those_of_the_model_are_kept(self) -> None:
        assert {p for p in NAMES if p in self.sets} == self.kept.keys() | self.negative.keys()
        assert len(self.sets) == len(self.kept) + len(self.negative)

    @invariant()
    def the_capacity_is_not_exceeded(self) -> None:
        assert self.sets.bytes == sum(map(weight, self.kept.values())) <= MAX_BYTES
        assert len(self.negative) <= MAX_NEGATIVE


TestCacheAgainstItsModel = CacheMachine.TestCase
TestCacheAgainstItsModel.settings = settings(max_examples=60, stateful_step_count=40)
