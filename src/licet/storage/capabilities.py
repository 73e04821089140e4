"""Reads of licet.all_capabilities. What it is a view of is written by `mutations.py` only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, LiteralString

from psycopg.sql import SQL, Composed

from licet.app.ports import CapabilityFilter, Deadline, RevokeTarget, Tree, WouldEnd
from licet.domain.canonical_json import JsonObject
from licet.domain.capability import Capability, End, EndCause, Terms
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import Action, Caller, CapabilityId, Principal
from licet.domain.pattern import ResourcePattern, containment_regex
from licet.storage.pool import Database

_COLUMNS: Final[LiteralString] = """
  c.id::text, c.principal, c.actions, c.resource,
  CASE WHEN c.not_before <> '-infinity'
       THEN (extract(epoch FROM c.not_before) * 1000000)::bigint END,
  CASE WHEN c.expires_at <> 'infinity'
       THEN (extract(epoch FROM c.expires_at) * 1000000)::bigint END,
  c.delegation_depth, c.session_id, c.metadata::text, c.parent_id::text, c.granted_by,
  (extract(epoch FROM c.granted_at) * 1000000)::bigint, c.granted_revision,
  (extract(epoch FROM c.ended_at) * 1000000)::bigint, c.ended_by, c.end_reason, c.end_cause,
  c.condition, c.conditions, c.approved_roles
"""

_FIND: Final = SQL(
    "SELECT {columns} FROM licet.all_capabilities AS c WHERE c.id = %(id)s::uuid"
).format(columns=SQL(_COLUMNS))

_ANCESTORS: Final = SQL("""
WITH RECURSIVE up AS (
  SELECT c.id, c.parent_id, 0 AS distance
  FROM licet.all_capabilities AS c WHERE c.id = %(id)s::uuid
  UNION ALL
  SELECT c.id, c.parent_id, up.distance + 1
  FROM licet.all_capabilities AS c JOIN up ON c.id = up.parent_id
)
SELECT {columns}
FROM up JOIN licet.all_capabilities AS c ON c.id = up.id
WHERE up.distance > 0
ORDER BY up.distance
""").format(columns=SQL(_COLUMNS))

_DESCENDANTS: Final = SQL("""
WITH RECURSIVE down AS (
  SELECT c.id, 1 AS distance FROM licet.all_capabilities AS c WHERE c.parent_id = %(id)s::uuid
  UNION ALL
  SELECT c.id, down.distance + 1 FROM licet.all_capabilities AS c JOIN down ON c.parent_id = down.id
)
SELECT {columns}
FROM down JOIN licet.all_capabilities AS c ON c.id = down.id
ORDER BY down.distance, c.id
LIMIT %(limit)s
""").format(columns=SQL(_COLUMNS))

_WOULD_END: Final[LiteralString] = """
WITH roots AS (
  SELECT CASE WHEN %(id)s::uuid IS NOT NULL THEN ARRAY[%(id)s::uuid]
         ELSE ARRAY(SELECT licet.living_matching(
           %(principal)s, %(resource_regex)s, %(granted_by)s, %(session_id)s)) END AS ids
), ended AS (
  SELECT t.id FROM roots CROSS JOIN LATERAL licet.living_subtrees(roots.ids) AS t
)
SELECT (SELECT count(*) FROM ended),
       ARRAY(SELECT ended.id::text FROM ended ORDER BY ended.id LIMIT %(limit)s),
       (SELECT max(revision) FROM licet.changes)
"""

# The filter's conditions; those whose field is unset are left out of the statement.
_CONDITIONS: Final[Mapping[str, LiteralString]] = {
    "principal": "c.principal = %(principal)s",
    "resource": "c.resource ~ %(resource)s",
    "granted_by": "c.granted_by = %(granted_by)s",
    "session_id": "(c.session_id = %(session_id)s AND c.session_id <> '')",
    "parent_id": "c.parent_id = %(parent_id)s::uuid",
}
_LIVING: Final[LiteralString] = "(c.ended_revision IS NULL AND c.expires_at > %(now)s::timestamptz)"
_AFTER: Final[LiteralString] = "c.id > %(after)s::uuid"


class PostgresCapabilities:
    """See `ports.Capabilities`."""

    def __init__(self, database: Database) -> None:
        """Read through this pool."""
        self._database = database

    def find(self, capability_id: CapabilityId, deadline: Deadline) -> Capability | None:
        """See `ports.Capabilities.find`."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_FIND, {"id": capability_id}).fetchone()
        return None if row is None else _capability(*row)

    def tree(self, capability_id: CapabilityId, limit: int, deadline: Deadline) -> Tree:
        """See `ports.Capabilities.tree`."""
        with self._database.connection(deadline) as connection:
            ancestors = connection.execute(_ANCESTORS, {"id": capability_id}).fetchall()
            descendants = connection.execute(
                _DESCENDANTS, {"id": capability_id, "limit": limit + 1}
            ).fetchall()
        return Tree(
            tuple(_capability(*row) for row in ancestors),
            tuple(_capability(*row) for row in descendants[:limit]),
            truncated=len(descendants) > limit,
        )

    def page(
        self,
        wanted: CapabilityFilter,
        after: CapabilityId | None,
        limit: int,
        now: Instant,
        deadline: Deadline,
    ) -> Sequence[Capability]:
        """See `ports.Capabilities.page`."""
        parameters: dict[str, object] = wanted._asdict() | {
            "after": after,
            "limit": limit,
            "now": rfc3339(now),
        }
        if wanted.resource is not None:
            parameters["resource"] = containment_regex(wanted.resource)
        with self._database.connection(deadline) as connection:
            # Not prepared: a generic plan could not know which of the conditions is selective.
            rows = connection.execute(
                list_statement(wanted, after), parameters, prepare=False
            ).fetchall()
        return [_capability(*row) for row in rows]

    def would_end(self, target: RevokeTarget, limit: int, deadline: Deadline) -> WouldEnd:
        """See `ports.Capabilities.would_end`."""
        parameters = {
            "id": target.capability_id,
            "principal": target.principal,
            "resource_regex": None
            if target.resource is None
            else containment_regex(target.resource),
            "granted_by": target.granted_by,
            "session_id": target.session_id,
            "limit": limit,
        }
        with self._database.connection(deadline) as connection:
            row = connection.execute(_WOULD_END, parameters).fetchone()
        if row is None:
            message = "an aggregate without a row"
            raise RuntimeError(message)
        return WouldEnd(row[0], tuple(row[1]), row[2])


def list_statement(wanted: CapabilityFilter, after: CapabilityId | None) -> Composed:
    """Return the statement of one page.

    It has only the conditions that apply, so that the planner sees them.
    """
    conditions = [
        SQL(text) for field, text in _CONDITIONS.items() if getattr(wanted, field) is not None
    ]
    if not wanted.include_ended:
        conditions.append(SQL(_LIVING))
    if after is not None:
        conditions.append(SQL(_AFTER))
    where = SQL(" AND ").join(conditions) if conditions else SQL("true")
    return SQL(
        "SELECT {columns} FROM licet.all_capabilities AS c WHERE {where}"
        " ORDER BY c.id LIMIT %(limit)s"
    ).format(columns=SQL(_COLUMNS), where=where)


def _capability(  # noqa: PLR0913, PLR0917 - one argument per column
    identifier: str,
    principal: str,
    actions: list[str],
    resource: str,
    not_before: int | None,
    expires_at: int | None,
    delegation_depth: int,
    session_id: str,
    metadata: str,
    parent_id: str | None,
    granted_by: str,
    granted_at: int,
    granted_revision: int,
    ended_at: int | None,
    ended_by: str | None,
    end_reason: str | None,
    end_cause: str | None,
    condition: str,
    conditions: list[str],
    approved_roles: list[str] | None,
) -> Capability:
    end = None
    if (
        ended_at is not None
        and ended_by is not None
        and end_reason is not None
        and end_cause is not None
    ):
        end = End(Instant(ended_at), Caller(ended_by), end_reason, EndCause(end_cause))
    return Capability(
        id=CapabilityId(identifier),
        terms=Terms(
            principal=Principal(principal),
            actions=tuple(Action(action) for action in actions),
            resource=ResourcePattern(resource),
            not_before=None if not_before is None else Instant(not_before),
            expires_at=None if expires_at is None else Instant(expires_at),
            delegation_depth=delegation_depth,
            session_id=session_id,
            metadata=JsonObject(metadata),
            condition=condition,
            # Its own is the last one, if it has one.
            inherited=tuple(conditions[: len(conditions) - bool(condition)]),
        ),
        parent_id=None if parent_id is None else CapabilityId(parent_id),
        granted_by=Caller(granted_by),
        granted_at=Instant(granted_at),
        revision=granted_revision,
        end=end,
        approved_roles=tuple(approved_roles or ()),
    )
