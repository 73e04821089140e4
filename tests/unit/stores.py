"""Stand-ins for what is stored, for tests of the use cases: they keep what they are given.

They decide nothing, so there is no behaviour in which they could differ from the real adapters;
those are tested on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from licet.app.audit_ports import AuditFilter, AuditPosition, AuditWalk
from licet.app.ports import (
    AT_ONCE,
    CapabilityFilter,
    Deadline,
    Ended,
    Grant,
    Granted,
    NotAtOnceError,
    Revoke,
    Revoked,
    RevokeTarget,
    Tree,
    WouldEnd,
)
from licet.domain.audit_event import AuditEvent, RecordedEvent
from licet.domain.capability import Capability
from licet.domain.instant import Instant
from licet.domain.names import CapabilityId
from tests.unit.builders import NOW

NO_TREE: Final = Tree((), (), truncated=False)


class Stored:
    """See `ports.Capabilities`: some capabilities, in order, and the tree around each of them."""

    def __init__(self, capabilities: Iterable[Capability], tree: Tree = NO_TREE) -> None:
        self._capabilities = {capability.id: capability for capability in capabilities}
        self._tree = tree
        self.asked: list[tuple[object, ...]] = []

    def find(self, capability_id: CapabilityId, _: Deadline) -> Capability | None:
        return self._capabilities.get(capability_id)

    def tree(self, capability_id: CapabilityId, limit: int, _: Deadline) -> Tree:
        self.asked.append((capability_id, limit))
        return self._tree

    def page(
        self,
        wanted: CapabilityFilter,
        after: CapabilityId | None,
        limit: int,
        now: Instant,
        _: Deadline,
    ) -> Sequence[Capability]:
        self.asked.append((wanted, after, limit, now))
        found = [c for c in self._capabilities.values() if after is None or c.id > after]
        return found[:limit]

    def would_end(self, target: RevokeTarget, limit: int, _: Deadline) -> WouldEnd:
        self.asked.append((target, limit))
        return WouldEnd(len(self._capabilities), tuple(self._capabilities)[:limit], 9)


class Events:
    """See `ports.AuditEvents`: some events, newest first.

    A walk that begins at the start ends at `rest`, if there is one, before it has found any.
    """

    def __init__(self, events: Iterable[RecordedEvent], rest: AuditPosition | None = None) -> None:
        self._events = tuple(events)
        self._rest = rest
        self.asked: list[tuple[object, ...]] = []

    def page(
        self, wanted: AuditFilter, before: AuditPosition | None, limit: int, _: Deadline
    ) -> AuditWalk:
        self.asked.append((wanted, before, limit))
        if before is None and self._rest is not None:
            return AuditWalk((), self._rest)
        found = [
            recorded
            for recorded in self._events
            if before is None or (recorded.event.occurred_at, recorded.event_id) < before[:2]
        ]
        return AuditWalk(found[:limit], None)


class Journal:
    """See `ports.Mutations`: what was handed on, and what earlier requests did."""

    def __init__(self) -> None:
        self.earlier: dict[str, Granted] = {}
        self.grants: list[Grant] = []
        self.revocations: list[Revoke] = []
        self.refusals: list[AuditEvent] = []
        self.patience: list[Deadline] = []

    def granted_before(self, request_id: str, digest: bytes, _: Deadline) -> Granted | None:
        assert len(digest) == 32
        return self.earlier.get(request_id)

    def grant(self, grant: Grant, _: Deadline) -> Granted:
        self.grants.append(grant)
        made = Capability(
            grant.capability_id, grant.terms, grant.parent_id, grant.actor, NOW, 8, None
        )
        return Granted(made, 8)

    def begin_grant(
        self, grant: Grant, deadline: Deadline, tell: Callable[[Ended[Granted]], None]
    ) -> None:
        self.patience.append(deadline)
        granted = self.grant(grant, deadline)
        tell(Ended(lambda: granted, waits=False))

    def begin_revoke(
        self, revoke: Revoke, deadline: Deadline, tell: Callable[[Ended[Revoked]], None]
    ) -> None:
        self.patience.append(deadline)
        revoked = self.revoke(revoke, deadline)
        tell(Ended(lambda: revoked, waits=False))

    def revoke(self, revoke: Revoke, _: Deadline) -> Revoked:
        self.revocations.append(revoke)
        return Revoked(0, (), 8, 1, 0, already_ended=False)

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        if deadline is AT_ONCE:
            raise NotAtOnceError
        self.refusals.append(event)
