"""Reads what principals hold, for the replicas that keep it: all of it, or of those with little."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, LiteralString

from licet.app.ports import Clock, Deadline
from licet.domain.capability import EndCause
from licet.domain.capability_set import (
    MAX_ENDED,
    NEVER,
    CapabilitySet,
    HeldCapability,
    OneUse,
    Standing,
)
from licet.domain.instant import rfc3339
from licet.domain.names import Action, Principal
from licet.storage.pool import Database, Kept

# A named tuple's own constructor is written in Python and costs twice as much.
_new: Final = tuple.__new__

LITTLE: Final = 100
"""So many living capabilities, and as many ended ones, are little."""

# One row with the revision, then one row for each capability, and one for each principal that is
# suspended or a user who is disabled, all of one snapshot. At most `most` living ones of each
# principal; NULL: all of them. Those for one use are apart, and only while they can be used: they
# are few, and found by their approvals. Instants come as microseconds, which keeps infinity, is
# exact, and costs less than making a datetime of each. The names come from a subquery, which
# PostgreSQL does not look into when it plans: else it finds a plan for one name so much cheaper
# than one for any that it plans each read anew, and that takes several times what the read does.
# They are one text, because psycopg makes an array slowly; no name has a line break.
HELD: Final[LiteralString] = r"""
WITH wanted AS (
  SELECT string_to_array(%(principals)s, E'\n') AS principals
), held AS (
  SELECT one.principal, h.*
  FROM wanted CROSS JOIN LATERAL unnest(wanted.principals) AS one (principal)
  CROSS JOIN LATERAL (
    (SELECT c.id, c.resource, c.actions, c.not_before, c.expires_at,
            NULL::text AS end_cause, NULL::timestamptz AS ended_at, true AS living, c.conditions
     FROM licet.all_capabilities AS c
     WHERE c.principal = one.principal AND c.ended_revision IS NULL
       AND c.expires_at > %(now)s::timestamptz AND c.approved_roles IS NULL
     LIMIT %(most)s::bigint)
    UNION ALL
    (SELECT c.id, c.resource, c.actions, c.not_before, c.expires_at, NULL, NULL, false,
            '{}'
     FROM licet.all_capabilities AS c
     WHERE c.principal = one.principal AND c.ended_revision IS NULL
       AND c.expires_at <= %(now)s::timestamptz AND c.approved_roles IS NULL
     ORDER BY c.expires_at DESC LIMIT %(ended)s::bigint)
    UNION ALL
    (SELECT c.id, c.resource, c.actions, c.not_before, c.expires_at, c.end_cause, c.ended_at, false,
            '{}'
     FROM licet.all_capabilities AS c
     WHERE c.principal = one.principal AND c.ended_revision IS NOT NULL
       AND c.approved_roles IS NULL
     ORDER BY c.ended_at DESC LIMIT %(ended)s::bigint)
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
WHERE a.principal = ANY ((SELECT principals FROM wanted)::text[]) AND a.state = 'APPROVED'
  AND c.ended_revision IS NULL AND c.expires_at > %(now)s::timestamptz
UNION ALL
SELECT s.principal, NULL, NULL, NULL, NULL, NULL, 'SUSPENDED', NULL, NULL, NULL, NULL, NULL
FROM licet.suspensions AS s
WHERE s.principal = ANY ((SELECT principals FROM wanted)::text[]) AND s.resumed_revision IS NULL
UNION ALL
SELECT u.principal, NULL, NULL, NULL, NULL, NULL, 'DISABLED', NULL, NULL, NULL, NULL, NULL
FROM licet.users AS u
WHERE u.principal = ANY ((SELECT principals FROM wanted)::text[]) AND u.disabled_at IS NOT NULL
"""


class PostgresHeld:
    """Loads the capability sets that replicas keep."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Read through this pool."""
        self._database = database
        self._clock = clock

    def __call__(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        """Return what each principal holds and the revision at which it does, in one statement.

        Raises:
            UnavailableError, DeadlineError: nothing is known.
        """
        with self._database.connection(deadline) as connection:
            rows = connection.execute(
                HELD, _parameters(principals, self._clock, None, MAX_ENDED), binary=True
            ).fetchall()
        return _sets(principals, rows)


class LittleHeld:
    """Loads the sets of those who hold little, for many requests together.

    So that none of them waits long for what another holds. For one thread, which keeps a
    connection.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        """Read through this pool."""
        self._kept = Kept(database)
        self._clock = clock

    def __call__(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        """Return what each principal holds, but of those who hold more than little nothing.

        Raises as `PostgresHeld` does.
        """
        parameters = _parameters(principals, self._clock, LITTLE + 1, LITTLE + 1)
        with self._kept.cursor(deadline) as cursor:
            rows = cursor.execute(HELD, parameters, prepare=True).fetchall()
        return _sets(principals, rows, LITTLE)

    def rest(self) -> None:
        """Let others have the connection, until it is needed again."""
        self._kept.give_back()


def _parameters(
    principals: Collection[Principal], clock: Clock, most: int | None, ended: int
) -> dict[str, object]:
    return {
        "principals": "\n".join(principals),
        "now": rfc3339(clock.now()),
        "most": most,
        "ended": ended,
    }


def _sets(
    principals: Collection[Principal], rows: Iterable[tuple[Any, ...]], most: int | None = None
) -> Mapping[Principal, CapabilitySet]:
    """Make sets of the rows; without those of which there may be more than was asked for."""
    revision: int | None = None
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
            if holder is None:
                revision = not_before
            elif standing.get(holder) is not Standing.SUSPENDED:
                standing[holder] = Standing(end_cause)
            continue
        fields = (
            identifier,
            resource,
            actions_seen.get(key := tuple(actions)) or _kept(key, actions_seen),
            not_before,
            expires_at,
            None if end_cause is None else EndCause(end_cause),
            NEVER if ended_at is None else ended_at,
            () if conditions is None else _shared(conditions, seen),
        )
        capability = _new(HeldCapability, fields)
        if approved_roles is None:
            (living if is_living else ended)[holder].append(capability)
        else:
            one = OneUse(capability, parent_id, frozenset(approved_roles))
            for_one_use.setdefault(holder, []).append(one)
    if revision is None:
        message = "what is held came without its revision"
        raise RuntimeError(message)
    return {
        p: CapabilitySet(
            p, revision, living[p], ended[p], standing.get(p, Standing.GOOD), for_one_use.get(p, ())
        )
        for p in principals
        if most is None or (len(living[p]) <= most and len(ended[p]) <= most)
    }


def _kept(
    actions: tuple[str, ...], seen: dict[tuple[str, ...], tuple[Action, ...]]
) -> tuple[Action, ...]:
    """Return a list of actions, to be shared: few are distinct, and capabilities are many."""
    shared = seen[actions] = tuple(Action(sys.intern(action)) for action in actions)
    return shared


def _shared(conditions: list[str], seen: dict[str, str]) -> tuple[str, ...]:
    """Return conditions whose texts are kept once: a child has those of its parent."""
    return tuple(seen.setdefault(text, text) for text in conditions)
