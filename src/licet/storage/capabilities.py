"""Reads of licet.all_capabilities. What it is a view of is written by `mutations.py` only."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Final, LiteralString

from psycopg.sql import SQL, Composed

from licet.app.ports import CapabilityFilter, Clock, Deadline, RevokeTarget, Tree, WouldEnd
from licet.domain.canonical_json import JsonObject
from licet.domain.capability import Capability, End, EndCause, Terms
from licet.domain.capability_set import (
    MAX_ENDED,
    NEVER,
    CapabilitySet,
    HeldCapability,
    OneUse,
    Standing,
)
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import Action, Caller, CapabilityId, Principal
from licet.domain.pattern import ResourcePattern, containment_regex
from licet.storage.pool import Database

# One row with the revision, then one row for each capability, and one for each principal that is
# suspended or a user who is disabled, all of one snapshot. Those for one use are apart, and only
# while they can be used: they are few, and found by their approvals. Instants come as microseconds,
# which keeps infinity, is exact, and costs less than making a datetime of each.
HELD: Final[LiteralString] = """
WITH held AS (
  SELECT wanted.principal, h.*
  FROM unnest(%(principals)s::text[]) AS wanted (principal)
  CROSS JOIN LATERAL (
    SELECT c.id, c.resource, c.actions, c.not_before, c.expires_at,
           NULL::text AS end_cause, NULL::timestamptz AS ended_at, true AS living, c.conditions
    FROM licet.all_capabilities AS c
    WHERE c.principal = wanted.principal AND c.ended_revision IS NULL
      AND c.expires_at > %(now)s::timestamptz AND c.approved_roles IS NULL
    UNION ALL
    (SELECT c.id, c.resource, c.actions, c.not_before, c.expires_at, NULL, NULL, false,
            '{}'
     FROM licet.all_capabilities AS c
     WHERE c.principal = wanted.principal AND c.ended_revision IS NULL
       AND c.expires_at <= %(now)s::timestamptz AND c.approved_roles IS NULL
     ORDER BY c.expires_at DESC LIMIT %(ended)s)
    UNION ALL
    (SELECT c.id, c.resource, c.actions, c.not_before, c.expires_at, c.end_cause, c.ended_at, false,
            '{}'
     FROM licet.all_capabilities AS c
     WHERE c.principal = wanted.principal AND c.ended_revision IS NOT NULL
       AND c.approved_roles IS NULL
     ORDER BY c.ended_at DESC LIMIT %(ended)s)
  ) AS h
)
SELECT NULL AS principal, NULL AS id, NULL AS resource, NULL::text[] AS actions,
       (SELECT max(revision) FROM licet.changes) AS not_before, NULL::bigint AS expires_at,
       NULL AS end_cause, NULL::bigint AS ended_at, NULL::boolean AS living,
       NULL::text[] AS conditions, NULL AS parent_id, NULL::text[] AS approved_roles
UNION ALL
SELECT held.principal, held.id::text, held.resource, held.actions,
       CASE WHEN held.not_before = '-infinity' THEN 0
            ELSE (extract(epoch FROM held.not_before) * 1000000)::bigint END,
       CASE WHEN held.expires_at = 'infinity' THEN 9223372036854775807
            ELSE (extract(epoch FROM held.expires_at) * 1000000)::bigint END,
       held.end_cause, (extract(epoch FROM held.ended_at) * 1000000)::bigint, held.living,
       nullif(held.conditions, '{}'), NULL, NULL
FROM held
UNION ALL
SELECT c.principal, c.id::text, c.resource, c.actions,
       CASE WHEN c.not_before = '-infinity' THEN 0
            ELSE (extract(epoch FROM c.not_before) * 1000000)::bigint END,
       (extract(epoch FROM c.expires_at) * 1000000)::bigint,
       NULL, NULL, true, nullif(c.conditions, '{}'), c.parent_id::text, c.approved_roles
FROM licet.approvals AS a JOIN licet.all_capabilities AS c ON c.id = a.capability_id
WHERE a.principal = ANY (%(principals)s::text[]) AND a.state = 'APPROVED'
  AND c.ended_revision IS NULL AND c.expires_at > %(now)s::timestamptz
UNION ALL
SELECT s.principal, NULL, NULL, NULL, NULL, NULL, 'SUSPENDED', NULL, NULL, NULL, NULL, NULL
FROM licet.suspensions AS s
WHERE s.principal = ANY (%(principals)s::text[]) AND s.resumed_revision IS NULL
UNION ALL
SELECT u.principal, NULL, NULL, NULL, NULL, NULL, 'DISABLED', NULL, NULL, NULL, NULL, NULL
FROM licet.users AS u
WHERE u.principal = ANY (%(principals)s::text[]) AND u.disabled_at IS NOT NULL
"""

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
    """See `ports.Capabilities`; also loads the capability sets that replicas keep."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Read through this pool."""
        self._database = database
        self._clock = clock

    def held(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        """Return what each principal holds and the revision at which it does, in one statement.

        Raises:
            UnavailableError, DeadlineError: nothing is known.
        """
        parameters = {
            "principals": list(principals),
            "now": rfc3339(self._clock.now()),
            "ended": MAX_ENDED,
        }
        with self._database.connection(deadline) as connection:
            rows = connection.execute(HELD, parameters, binary=True).fetchall()
        revision = next(row[4] for row in rows if row[0] is None)
        living: dict[str, list[HeldCapability]] = {principal: [] for principal in principals}
        ended: dict[str, list[HeldCapability]] = {principal: [] for principal in principals}
        for_one_use: dict[str, list[OneUse]] = {}
        actions_seen: dict[tuple[str, ...], tuple[Action, ...]] = {}
        seen: dict[str, str] = {}
        standing: dict[str, Standing] = {}
        for (
            holder,
            identifier,
            resource,
            actions,
            not_before,
            expires_at,
            end_cause,
            ended_at,
            is_living,
            conditions,
            parent_id,
            approved_roles,
        ) in rows:
            if identifier is None:
                if holder is not None and standing.get(holder) is not Standing.SUSPENDED:
                    standing[holder] = Standing(end_cause)
                continue
            capability = HeldCapability(
                identifier,
                resource,
                actions_seen.get(key := tuple(actions)) or _kept(key, actions_seen),
                not_before,
                expires_at,
                None if end_cause is None else EndCause(end_cause),
                NEVER if ended_at is None else ended_at,
                () if conditions is None else _shared(conditions, seen),
            )
            if approved_roles is None:
                (living if is_living else ended)[holder].append(capability)
            else:
                one = OneUse(capability, parent_id, frozenset(approved_roles))
                for_one_use.setdefault(holder, []).append(one)
        return {
            p: CapabilitySet(
                *(p, revision, living[p], ended[p]),
                *(standing.get(p, Standing.GOOD), for_one_use.get(p, ())),
            )
            for p in principals
        }

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


def _kept(
    actions: tuple[str, ...], seen: dict[tuple[str, ...], tuple[Action, ...]]
) -> tuple[Action, ...]:
    """Return a list of actions, to be shared: few are distinct, and capabilities are many."""
    shared = seen[actions] = tuple(Action(sys.intern(action)) for action in actions)
    return shared


def _shared(conditions: list[str], seen: dict[str, str]) -> tuple[str, ...]:
    """Return conditions whose texts are kept once: a child has those of its parent."""
    return tuple(seen.setdefault(text, text) for text in conditions)


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
