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

from licet import bootstrap
from licet.app.ports import Confirmation, Deadline
from licet.app.replication import Change
from licet.domain.capability_set import CapabilitySet
from licet.domain.names import Principal
from licet.replica.capability_sets import CachedCapabilitySets, Loader
from licet.replica.lease import Lease
from licet.storage.replicas import PostgresReplicaSession
from licet.writer.acknowledgements import Acknowledgements, Waiter

_DAWDLE_SECONDS: Final = 0.03
_PATCH: Final = pytest.MonkeyPatch()


def _dawdle() -> None:
    Event().wait(_DAWDLE_SECONDS)


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

    def __init__(self, load: Loader, lease: Lease, max_bytes: int, max_negative: int) -> None:
        def slowly(
            principals: Collection[Principal], deadline: Deadline
        ) -> Mapping[Principal, CapabilitySet]:
            loaded = load(principals, deadline)
            _dawdle()
            return loaded

        super().__init__(slowly, lease, max_bytes, max_negative)

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


def _instead(name: str, planted: type) -> Callable[[], None]:
    return lambda: _PATCH.setattr(bootstrap, name, planted)


PLANTED: Final[Mapping[str, Callable[[], None]]] = {
    "wait": _instead("Acknowledgements", _NeverWaits),
    "lease": _instead("Lease", _NeverEnds),
    "evict": _instead("CachedCapabilitySets", _NeverEvicts),
    "discard": _instead("CachedCapabilitySets", _StoresWhatIsOld),
    "evict-before-acknowledging": _instead("PostgresReplicaSession", _AcknowledgesFirst),
}
"""By the name of the safeguard that is missing."""
