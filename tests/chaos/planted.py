"""Workers that do without one safeguard of the protocol, to see the history checker find it.

A few of them also dawdle where the safeguard is missing: the violation is a race, and a test must
not depend on winning it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from threading import Event
from typing import Final
from uuid import UUID

import pytest
from typing_extensions import override

from licet import config
from licet.app.ports import Confirmation, Deadline
from licet.app.replication import Change
from licet.bootstrap import process
from licet.domain.capability_set import CapabilitySet
from licet.domain.errors import UnavailableError
from licet.domain.names import Principal
from licet.replica.capability_sets import CachedCapabilitySets, SetLoader
from licet.replica.lease import Lease
from licet.storage.replicas import PostgresReplicaSession
from licet.writer.acknowledgements import Acknowledgements, Waiter

_DAWDLE_SECONDS: Final = 0.03
_JOIN_SECONDS: Final = 0.5
_LOOKS: Final = 30
_PATCH: Final = pytest.MonkeyPatch()


def _dawdle() -> None:
    Event().wait(_DAWDLE_SECONDS)


def _slow(load: SetLoader) -> SetLoader:
    def slowly(
        principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        loaded = load(principals, deadline)
        _dawdle()
        return loaded

    return slowly


class _NeverWaits(Acknowledgements):
    @override
    def wait(
        self, revision: int, deadline: Deadline, at_most: float, history: UUID | None = None
    ) -> Confirmation:
        return Confirmation(0, 0)

    @override
    def when_confirmed(
        self, revision: int, history: UUID | None, callers: int, then: Callable[[Waiter], None]
    ) -> None:
        then(Waiter(revision))


class _NeverEnds(Lease):
    __slots__ = ()

    @override
    def is_valid(self) -> bool:
        return True


class _NeverEvicts(CachedCapabilitySets):
    @override
    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        pass


class _StoresWhatIsOld(CachedCapabilitySets):
    """Forgets no fill in flight, and takes long over each."""

    def __init__(self, load: SetLoader, lease: Lease, max_bytes: int, max_negative: int) -> None:
        super().__init__(_slow(load), lease, max_bytes, max_negative)

    @override
    def read_ahead(
        self, wanted: Mapping[Principal, int], load: SetLoader, deadline: Deadline
    ) -> None:
        super().read_ahead(wanted, _slow(load), deadline)

    @override
    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        fills, self._fills = self._fills, set()
        super().evict(principals, revision)
        self._fills = fills


class _AcknowledgesFirst(PostgresReplicaSession):
    """Acknowledges changes when it has read them, long before they are applied."""

    _incarnation: UUID | None = None

    @override
    def renew(self, incarnation: UUID, applied: int) -> UUID | None:
        self._incarnation = incarnation
        return super().renew(incarnation, applied)

    @override
    def changes_after(self, revision: int) -> Sequence[Change]:
        changes = super().changes_after(revision)
        if changes and self._incarnation is not None:
            super().renew(self._incarnation, changes[-1].revision)
            _dawdle()
        return changes


class _JoinsAnyRead(CachedCapabilitySets):
    """Shares each read with all who ask while it is under way, and takes long over it."""

    def __init__(self, load: SetLoader, lease: Lease, max_bytes: int, max_negative: int) -> None:
        super().__init__(_slow(load), lease, max_bytes, max_negative)

    @override
    def _joined_fill(self, principal: Principal, deadline: Deadline) -> CapabilitySet:
        flight, leads = self._board(principal)
        if leads:
            try:
                flight.result = self._fill((principal,), deadline)[principal]
            finally:
                with self._mutex:
                    del self._flights[principal]
                flight.landed.set()
        flight.landed.wait(deadline.remaining(_JOIN_SECONDS))
        if flight.result is None:
            raise UnavailableError("the read that was joined has failed")
        return flight.result


class _LooksFirst(CachedCapabilitySets):
    """Looks the entry up, and asks for the lease after that, when it has come back perhaps."""

    @override
    def get(self, principal: Principal, deadline: Deadline) -> CapabilitySet:
        found = self._hit(principal)
        if found is not None:
            for _ in range(_LOOKS):
                if self._lease.is_valid():
                    return found
                _dawdle()
        return super().get(principal, deadline)


class _CountsFromReceipt(Lease):
    """Lasts from when the renewal is done, and not from when it was sent."""

    __slots__ = ("_seconds",)

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._seconds = config.load().lease_seconds

    @override
    def extend(self, deadline: float) -> None:
        super().extend(self.now() + self._seconds)


class _CatchesUpSlowly(PostgresReplicaSession):
    """Takes long for the reading of changes that follows a renewal, and less than a lease."""

    _renewed = False

    @override
    def renew(self, incarnation: UUID, applied: int) -> UUID | None:
        self._renewed = True
        return super().renew(incarnation, applied)

    @override
    def changes_after(self, revision: int) -> Sequence[Change]:
        changes = super().changes_after(revision)
        if self._renewed:
            self._renewed = False
            Event().wait(0.6 * self._lease_seconds)
        return changes


def _instead(name: str, planted: object) -> Callable[[], None]:
    return lambda: _PATCH.setattr(process, name, planted)


def _count_from_receipt() -> None:
    _instead("Lease", _CountsFromReceipt)()
    _instead("PostgresReplicaSession", _CatchesUpSlowly)()


PLANTED: Final[Mapping[str, Callable[[], None]]] = {
    "wait": _instead("Acknowledgements", _NeverWaits),
    "lease": _instead("Lease", _NeverEnds),
    "evict": _instead("CachedCapabilitySets", _NeverEvicts),
    "discard": _instead("CachedCapabilitySets", _StoresWhatIsOld),
    "evict-before-acknowledging": _instead("PostgresReplicaSession", _AcknowledgesFirst),
    "margin": _instead("LEASE_MARGIN", 0.2),
    "join": _instead("CachedCapabilitySets", _JoinsAnyRead),
    "lease-before-entry": _instead("CachedCapabilitySets", _LooksFirst),
    "lease-from-sending": _count_from_receipt,
}
"""By the name of the safeguard that is missing."""
