"""Capability sets in memory over a database that says who holds how many capabilities."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from licet.app.ports import Deadline
from licet.domain.capability_set import CapabilitySet
from licet.domain.names import Principal
from licet.replica.capability_sets import CAPABILITY_BYTES, SET_BYTES, CachedCapabilitySets
from tests.unit.builders import PATIENT, held

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
    """Return the principal of this name."""
    return Principal(f"agent:{name}")


def kept(sets: CachedCapabilitySets, *names: str) -> list[str]:
    """Return those of the agents whose sets are in memory."""
    return [name for name in names if agent(name) in sets]


def get(sets: CachedCapabilitySets, *names: str) -> None:
    """Ask for the sets of agents, one after the other."""
    for name in names:
        assert sets.get(agent(name), PATIENT).principal == agent(name)
