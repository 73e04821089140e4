"""Hosts that lack one rule of the protocol each, for the search to show what the rule is for.

A rule is taken out of licet's own class by a subclass, or on the way between that class and the
database: what is planted is the fault, and everything around it is the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from typing_extensions import override

from licet.app.ports import AT_ONCE, Confirmation, Deadline
from licet.app.replication import Change, Registration, ReplicaEntry
from licet.domain.capability_set import CapabilitySet
from licet.domain.names import Principal
from licet.replica.capability_sets import CachedCapabilitySets, SetLoader
from licet.replica.lease import Lease
from licet.writer.acknowledgements import Acknowledgements
from tests.properties.replica_host import LEASE, Host, Session
from tests.properties.replica_world import Entry
from tests.properties.turns import point


class _FillsUnmarked(CachedCapabilitySets):
    def unmarked(self, change: Callable[[], None]) -> None:
        """Make a change of which the fills in flight are not told."""
        fills, self._fills = self._fills, set()
        change()
        self._fills = fills


class _NoFloor(_FillsUnmarked):
    # Neither of the two that keep out what was read before: each covers for the other here, where
    # history never goes backwards.
    @override
    def reset(self, revision: int) -> None:
        self.unmarked(lambda: super(_NoFloor, self).reset(revision))
        self._floor = 0


class _NoFloorOfAll(CachedCapabilitySets):
    @override
    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        floor = self._floor
        super().evict(principals, revision)
        self._floor = floor


class _NoDiscarding(_FillsUnmarked):
    @override
    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        self.unmarked(lambda: super(_NoDiscarding, self).evict(principals, revision))


class _NoClearing(CachedCapabilitySets):
    @override
    def reset(self, revision: int) -> None:
        held = self._held.copy()
        super().reset(revision)
        self._held.update(held)


class _NoEviction(CachedCapabilitySets):
    @override
    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        pass


class _LookUpFirst(CachedCapabilitySets):
    @override
    def get(self, principal: Principal, deadline: Deadline) -> CapabilitySet:
        found = self._hit(principal)
        point("looked up")
        if found is not None and self._lease.is_valid():
            return found
        return self._joined_fill(principal, deadline)


class _JoinsAny(CachedCapabilitySets):
    @override
    def get(self, principal: Principal, deadline: Deadline) -> CapabilitySet:
        flight = None if principal in self else self._flights.get(principal)
        if flight is not None and flight.landed.wait(5.0) and flight.result is not None:
            return flight.result
        return super().get(principal, deadline)


class _UsesWhatWasReadAhead(CachedCapabilitySets):
    _read: Mapping[Principal, CapabilitySet] | None = None

    @override
    def get(self, principal: Principal, deadline: Deadline) -> CapabilitySet:
        if deadline is AT_ONCE and principal not in self and self._read is not None:
            return self._read[principal]
        return super().get(principal, deadline)

    @override
    def read_ahead(
        self, wanted: Mapping[Principal, int], load: SetLoader, deadline: Deadline
    ) -> None:
        def noting(
            principals: Collection[Principal], deadline: Deadline
        ) -> Mapping[Principal, CapabilitySet]:
            self._read = load(principals, deadline)
            return self._read

        super().read_ahead(wanted, noting, deadline)


class _NeverEnds(Lease):
    __slots__ = ()

    @override
    def is_valid(self) -> bool:
        return True


class _FromReceipt(Lease):
    __slots__ = ()

    @override
    def extend(self, deadline: float) -> None:
        super().extend(self.now() + LEASE)


class _AcknowledgesFirst(Session):
    incarnation: UUID | None = None

    @override
    def renew(self, incarnation: UUID, applied: int) -> UUID | None:
        self.incarnation = incarnation
        return super().renew(incarnation, applied)

    @override
    def changes_after(self, revision: int) -> Sequence[Change]:
        changes = super().changes_after(revision)
        if changes and self.incarnation is not None:
            super().renew(self.incarnation, changes[-1].revision)
        return changes


class _NeitherFencesNorCatchesUp(Session):
    is_renewed = False

    @override
    def fence(self, incarnation: UUID, beat: int) -> bool:
        self.message("fence: sent")
        return True

    @override
    def renew(self, incarnation: UUID, applied: int) -> UUID | None:
        self.is_renewed = True
        return super().renew(incarnation, applied)

    @override
    def changes_after(self, revision: int) -> Sequence[Change]:
        if self.is_renewed:
            self.is_renewed = False
            return []
        return super().changes_after(revision)


class _FencesWhoeverBeats(Session):
    @override
    def fence(self, incarnation: UUID, beat: int) -> bool:
        self.message("fence: sent")
        hit = self.world.entries.pop(incarnation, None) is not None
        self.message("fence: answered")
        return hit


class _RegistersLater(Session):
    """Its entry is visible to others with its next message only."""

    entering: UUID | None = None

    @override
    def message(self, label: str) -> None:
        if self.entering is not None and label.endswith("sent"):
            self.world.entries[self.entering] = Entry(0, 0)
            self.entering = None
        super().message(label)

    @override
    def register(self, incarnation: UUID) -> Registration:
        registration = super().register(incarnation)
        del self.world.entries[incarnation]
        self.entering = incarnation
        return registration


class _NeverWaits(Acknowledgements):
    @override
    def wait(
        self, revision: int, deadline: Deadline, at_most: float, history: UUID | None = None
    ) -> Confirmation:
        point("not waited")
        return Confirmation(0, 0)


class _ReadBeforeTheCommit(Session):
    @override
    def entries(self) -> Sequence[ReplicaEntry]:
        found = super().entries()
        assert isinstance(self.host, WaitsForThoseBeforeTheCommit)
        return [entry for entry in found if entry.incarnation in self.host.register]


class WithoutFloor(Host):
    sets_class = _NoFloor


class WithoutFloorOfAll(Host):
    sets_class = _NoFloorOfAll


class WithoutDiscarding(Host):
    sets_class = _NoDiscarding


class WithoutClearing(Host):
    sets_class = _NoClearing


class WithoutEviction(Host):
    sets_class = _NoEviction


class WithLookUpFirst(Host):
    sets_class = _LookUpFirst


class WithAnyFlightJoined(Host):
    sets_class = _JoinsAny


class WithReadsAheadUsed(Host):
    sets_class = _UsesWhatWasReadAhead


class WithoutLease(Host):
    lease_class = _NeverEnds


class WithLeaseFromReceipt(Host):
    lease_class = _FromReceipt


class WithAcknowledgementFirst(Host):
    session_class = _AcknowledgesFirst


class WithNeitherFencingNorCatchUp(Host):
    session_class = _NeitherFencesNorCatchesUp


class WithFencingOfTheLiving(Host):
    session_class = _FencesWhoeverBeats


class WithLateRegistration(Host):
    session_class = _RegistersLater


class WithoutMargin(Host):
    margin = 1.0


class WithoutWaiting(Host):
    acknowledgements_class = _NeverWaits


class WithOneIncarnation(Host):
    @override
    def fresh_incarnation(self) -> UUID:
        return UUID(int=1)


class WaitsForThoseBeforeTheCommit(Host):
    session_class = _ReadBeforeTheCommit
    register: frozenset[UUID] = frozenset()

    @override
    def before_commit(self) -> None:
        self.register = frozenset(self.world.entries)


class WithoutWaitingAgain(Host):
    @override
    def confirmed_again(self, revision: int) -> None:
        point("not waited")


PLANTS: Final[Mapping[str, type[Host]]] = {
    "waiting": WithoutWaiting,
    "waiting on a repeated Revoke": WithoutWaitingAgain,
    "the register is read after the commit": WaitsForThoseBeforeTheCommit,
    "eviction": WithoutEviction,
    "eviction before acknowledgement": WithAcknowledgementFirst,
    "the lease": WithoutLease,
    "the lease before the look-up": WithLookUpFirst,
    "the lease counts from the sending": WithLeaseFromReceipt,
    "the margin for drift": WithoutMargin,
    "fills are marked by evictions": WithoutDiscarding,
    "the floor of an eviction of everything": WithoutFloorOfAll,
    "only a later read is joined": WithAnyFlightJoined,
    "what was read ahead is looked up": WithReadsAheadUsed,
    "clearing at registration": WithoutClearing,
    "the floor at registration": WithoutFloor,
    "registration is visible before it counts": WithLateRegistration,
    "fresh incarnations": WithOneIncarnation,
    "the living are not fenced": WithFencingOfTheLiving,
    "fencing, or catching up": WithNeitherFencingNorCatchUp,
}
"""Hosts that lack it, by the rule that is missing."""
