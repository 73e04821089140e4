"""The audit log as stored: appended to by writers in batches, read in pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, LiteralString

from psycopg.sql import SQL, Composed

from licet.app.ports import AuditFilter, AuditPosition, Deadline
from licet.domain.audit_event import AuditEvent, EventType, RecordedEvent, Result
from licet.domain.canonical_json import JsonObject
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import EventId, Principal
from licet.domain.pattern import containment_regex
from licet.storage.pool import Database

# Bounded by the rows looked at, not by time: a busy hour and a quiet day cost the same.
_RECENT: Final[LiteralString] = """
WITH latest AS (
  SELECT e.principal, e.occurred_at FROM audit.events AS e
  WHERE e.event_type = 'decision' ORDER BY e.occurred_at DESC LIMIT 20000
)
SELECT latest.principal FROM latest
GROUP BY latest.principal ORDER BY max(latest.occurred_at) DESC LIMIT %(limit)s
"""

_SELECT: Final[LiteralString] = """
SELECT e.event_id::text, (extract(epoch FROM e.occurred_at) * 1000000)::bigint, e.event_type,
       e.actor, e.principal, e.action, e.resource, e.capability_id, e.result, e.reason, e.policy_id,
       e.session_id, e.trace_id, e.revision, e.metadata::text
FROM audit.events AS e
WHERE {where}
ORDER BY e.occurred_at DESC, e.event_id DESC
LIMIT %(limit)s
"""
# The filter's conditions; those whose field is unset are left out of the statement. Where an index
# is partial, its predicate is repeated: the planner cannot see that a parameter fulfils it.
_CONDITIONS: Final[Mapping[str, LiteralString]] = {
    "event_types": "e.event_type = ANY (%(event_types)s)",
    "principal": "e.principal = %(principal)s",
    "actor": "e.actor = %(actor)s",
    "action": "e.action = %(action)s",
    "capability_id": "(e.capability_id = %(capability_id)s AND e.capability_id <> '')",
    "result": "e.result = %(result)s",
    "reason": "(e.reason = %(reason)s AND e.reason <> '')",
    "policy_id": "(e.policy_id = %(policy_id)s AND e.policy_id <> '')",
    "session_id": "(e.session_id = %(session_id)s AND e.session_id <> '')",
    "trace_id": "(e.trace_id = %(trace_id)s AND e.trace_id <> '')",
    "metadata": "e.metadata @> %(metadata)s::jsonb",
    "since": "e.occurred_at >= %(since)s::timestamptz",
    "until": "e.occurred_at < %(until)s::timestamptz",
}
_RESOURCE: Final[LiteralString] = "e.resource = %(resource)s"
_RESOURCE_PATTERN: Final[LiteralString] = "e.resource ~ %(resource)s"
_CHANGES_ONLY: Final[LiteralString] = "e.event_type <> 'decision'"
_NOT_ALLOWS: Final[LiteralString] = "e.result <> 'allow'"
# The bound on the time alone lets the planner leave out later partitions.
_BEFORE: Final[LiteralString] = """
(e.occurred_at <= %(at)s::timestamptz
 AND (e.occurred_at, e.event_id) < (%(at)s::timestamptz, %(event_id)s::uuid))
"""


class PostgresAuditEvents:
    """See `ports.AuditEvents`; also takes what writers ship."""

    def __init__(self, database: Database) -> None:
        """Read and write through this pool."""
        self._database = database

    def recent_principals(self, limit: int, deadline: Deadline) -> Sequence[Principal]:
        """See `app.prefetch.RecentPrincipals`."""
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_RECENT, {"limit": limit}).fetchall()
        return [Principal(row[0]) for row in rows]

    def page(
        self, wanted: AuditFilter, before: AuditPosition | None, limit: int, deadline: Deadline
    ) -> Sequence[RecordedEvent]:
        """See `ports.AuditEvents.page`."""
        parameters = _parameters(wanted, before) | {"limit": limit}
        with self._database.connection(deadline) as connection:
            # Not prepared: a generic plan could not know which of the conditions is selective.
            rows = connection.execute(
                query_statement(wanted, before), parameters, prepare=False
            ).fetchall()
        return [_recorded(*row) for row in rows]


def query_statement(wanted: AuditFilter, before: AuditPosition | None) -> Composed:
    """Return the statement of one page.

    It has only the conditions that apply, so that the planner sees them.
    """
    conditions = [
        SQL(text) for field, text in _CONDITIONS.items() if getattr(wanted, field) not in {None, ()}
    ]
    if wanted.resource is not None:
        conditions.append(SQL(_RESOURCE_PATTERN if "*" in wanted.resource else _RESOURCE))
    if wanted.event_types and EventType.DECISION not in wanted.event_types:
        conditions.append(SQL(_CHANGES_ONLY))
    if wanted.result not in {None, Result.ALLOW}:
        conditions.append(SQL(_NOT_ALLOWS))
    if before is not None:
        conditions.append(SQL(_BEFORE))
    return SQL(_SELECT).format(where=SQL(" AND ").join(conditions) if conditions else SQL("true"))


def _parameters(wanted: AuditFilter, before: AuditPosition | None) -> dict[str, object]:
    parameters: dict[str, object] = wanted._asdict()
    parameters["event_types"] = list(wanted.event_types)
    if wanted.resource is not None and "*" in wanted.resource:
        parameters["resource"] = containment_regex(wanted.resource)
    for bound in ("since", "until"):
        instant = getattr(wanted, bound)
        parameters[bound] = None if instant is None else rfc3339(instant)
    if before is not None:
        parameters |= {"at": rfc3339(before.occurred_at), "event_id": before.event_id}
    return parameters


def _recorded(  # noqa: PLR0913, PLR0917 - one argument per column
    event_id: str,
    occurred_at: int,
    event_type: str,
    actor: str,
    principal: str,
    action: str,
    resource: str,
    capability_id: str,
    result: str,
    reason: str,
    policy_id: str,
    session_id: str,
    trace_id: str,
    revision: int,
    metadata: str,
) -> RecordedEvent:
    return RecordedEvent(
        EventId(event_id),
        AuditEvent(
            Instant(occurred_at),
            EventType(event_type),
            actor,
            principal,
            action,
            resource,
            capability_id,
            Result(result),
            reason,
            policy_id,
            session_id,
            trace_id,
            revision,
            JsonObject(metadata),
        ),
    )
