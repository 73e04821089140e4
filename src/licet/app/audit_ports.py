"""What reading the audit log needs from the outside: see `ports`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from licet.app.ports import Deadline
from licet.domain.audit_event import RecordedEvent
from licet.domain.canonical_json import JsonObject
from licet.domain.instant import Instant
from licet.domain.names import Caller, CapabilityId, EventId, Principal
from licet.domain.pattern import ResourcePattern


class AuditFilter(NamedTuple):
    """Which audit events to list: those that match every field that is set."""

    event_types: tuple[str, ...] = ()
    principal: Principal | None = None
    actor: Caller | None = None
    resource: ResourcePattern | None = None
    action: str | None = None
    capability_id: CapabilityId | None = None
    result: str | None = None
    reason: str | None = None
    policy_id: str | None = None
    session_id: str | None = None
    trace_id: str | None = None
    metadata: JsonObject | None = None
    since: Instant | None = None
    until: Instant | None = None


class AuditPosition(NamedTuple):
    """A place in the log, newest first.

    Attributes:
        occurred_at: with the next, of the event that was last; or between all events.
        event_id: see there.
        pace: how fast a walk went that ended here short of its limit; None: it did not.
    """

    occurred_at: Instant
    event_id: EventId
    pace: int | None = None


class AuditWalk(NamedTuple):
    """What was found on the way back through the log.

    Attributes:
        events: newest first, at most as many as were wanted.
        rest: where to go on, if the walk ended short of what was wanted; None: it did not, or the
            log's end was reached.
    """

    events: Sequence[RecordedEvent]
    rest: AuditPosition | None


class AuditEvents(Protocol):
    """The audit log as stored."""

    def page(
        self, wanted: AuditFilter, before: AuditPosition | None, limit: int, deadline: Deadline
    ) -> AuditWalk:
        """Return the newest events before a position, at most `limit`.

        Fewer, even none, if looking for them takes long: then there is a rest. An event that is
        stored when the walk from `None` begins is found once, on the way from rest to rest.

        Raises UnavailableError or DeadlineError.
        """
        ...
