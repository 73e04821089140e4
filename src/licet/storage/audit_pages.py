"""Pages of the audit log: a walk through time in slices, newest first, within a time budget.

One statement over the whole log would be fast for filters that match often or that an index
answers, and take seconds for the others. So a page is looked for in slices of the log that grow
while they cost little. When the budget is spent, the page ends short, or empty, with the position
where the next one goes on. See docs/decisions/0023-audit-walk.md.

What is found never depends on estimates: they only say where slices are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, LiteralString

from psycopg import Connection, errors
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Composed

from licet.app.audit_ports import AuditFilter, AuditPosition, AuditWalk
from licet.app.ports import Deadline
from licet.domain.audit_event import AuditEvent, EventType, RecordedEvent, Result
from licet.domain.canonical_json import JsonObject
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import EventId
from licet.domain.pattern import containment_regex
from licet.storage.audit_slices import (
    AFTER_ALL,
    FIRST_PACE,
    GROWTH,
    Outline,
    Partition,
    Slice,
)
from licet.storage.pool import Database

_OUTLINE_SECONDS: Final = 10.0
"""How long the sizes of partitions are remembered: they only say where slices are cut."""
_UNTIMED: Final = AuditFilter._fields.index("since")
"""How many fields of a filter say something else than when."""
_PATIENCE: Final = 3
"""How many budgets the first slice of a page may take, if it is smaller than usual."""
_BEFORE_ALL: Final = EventId("00000000-0000-0000-0000-000000000000")
"""No event has this id: a position with it is between two instants."""

# Partitions newest first; what is not bounded on both sides is left out. Statistics may be missing
# or old, so that the greatest counts; an event takes about 300 bytes. No event is read.
_OUTLINE: Final[LiteralString] = r"""
SELECT (extract(epoch FROM b.bounds[1]::timestamptz) * 1000000)::bigint AS lower,
       (extract(epoch FROM b.bounds[2]::timestamptz) * 1000000)::bigint AS upper,
       greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), pg_relation_size(c.oid) / 500)::bigint,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL (
  SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid),
                      '^FOR VALUES FROM \(''([^'']+)''\) TO \(''([^'']+)''\)$') AS bounds
) AS b
WHERE i.inhparent = 'audit.events'::regclass AND b.bounds IS NOT NULL
ORDER BY lower DESC
"""
# Compiling costs more than any slice may take; a plan for any parameter cannot leave partitions
# out, nor know how often a filter matches.
_BOUND: Final[LiteralString] = """
SELECT set_config('statement_timeout', %s, true), set_config('jit', 'off', true),
       set_config('plan_cache_mode', 'force_custom_plan', true)
"""

_COLUMNS: Final[LiteralString] = """
e.event_id::text, (extract(epoch FROM e.occurred_at) * 1000000)::bigint, e.event_type, e.actor,
e.principal, e.action, e.resource, e.capability_id, e.result, e.reason, e.policy_id, e.session_id,
e.trace_id, e.revision, e.metadata::text
"""
_IN_ORDER: Final[LiteralString] = """
SELECT {columns} FROM audit.events AS e WHERE {where}
ORDER BY e.occurred_at DESC, e.event_id DESC LIMIT %(limit)s
"""
# All that match, and then the newest of them. PostgreSQL cannot know how often metadata contains
# something, a pattern matches, or two conditions hold at once; told to stop at the limit, it hopes
# for early matches and walks along an index that is in order.
_ALL_FIRST: Final[LiteralString] = """
WITH m AS MATERIALIZED (SELECT e.* FROM audit.events AS e WHERE {where})
SELECT {columns} FROM m AS e
ORDER BY e.occurred_at DESC, e.event_id DESC LIMIT %(limit)s
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
}
_RESOURCE: Final[LiteralString] = "e.resource = %(resource)s"
_RESOURCE_PATTERN: Final[LiteralString] = "e.resource ~ %(resource)s"
_CHANGES_ONLY: Final[LiteralString] = "e.event_type <> 'decision'"
_NOT_ALLOWS: Final[LiteralString] = "e.result <> 'allow'"
_FROM: Final[LiteralString] = "e.occurred_at >= %(lower)s::timestamptz"
_TO: Final[LiteralString] = "e.occurred_at < %(upper)s::timestamptz"
_AFTER: Final[LiteralString] = "(e.occurred_at, e.event_id) < (%(at)s::timestamptz, %(id)s::uuid)"


class PostgresAuditPages:
    """See `ports.AuditEvents`."""

    def __init__(
        self,
        database: Database,
        budget_seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Read through this pool; a page may take so long, by this clock, before it ends short."""
        self._database = database
        self._budget = budget_seconds
        self._clock = clock
        # Replaced as a whole, by whichever thread finds it too old.
        self._outline: tuple[float, tuple[Partition, ...]] | None = None

    def page(
        self, wanted: AuditFilter, before: AuditPosition | None, limit: int, deadline: Deadline
    ) -> AuditWalk:
        """See `ports.AuditEvents.page`."""
        with self._database.connection(deadline) as connection:
            # Some time is left for the answer when the caller is in a hurry.
            budget = deadline.remaining(2 * self._budget) / 2
            outline = Outline(self._partitions(connection))
            return _Walk(connection, outline, wanted, before, limit).walk(budget, self._clock)

    def _partitions(self, connection: Connection[TupleRow]) -> tuple[Partition, ...]:
        known = self._outline
        if known is not None and monotonic() - known[0] < _OUTLINE_SECONDS:
            return known[1]
        rows = connection.execute(_OUTLINE).fetchall()
        partitions = tuple(Partition.estimated(*row) for row in rows)
        self._outline = (monotonic(), partitions)
        return partitions


class _Walk:
    """One walk for one page."""

    def __init__(
        self,
        connection: Connection[TupleRow],
        outline: Outline,
        wanted: AuditFilter,
        before: AuditPosition | None,
        limit: int,
    ) -> None:
        self._connection = connection
        self._outline = outline
        self._wanted = wanted
        self._before = before
        self._limit = limit
        self._lower = wanted.since
        ends = [wanted.until, None if before is None else _end_of(before)]
        self._upper = min((end for end in ends if end is not None), default=AFTER_ALL)
        resumed = None if before is None else before.pace
        self._pace = FIRST_PACE if resumed is None else resumed
        # That little matches has shown: in this walk, or in the one that ended short before it.
        self._is_rare = resumed is not None
        self._begins_anew = False
        self._found: list[RecordedEvent] = []

    def walk(self, budget_seconds: float, clock: Callable[[], float]) -> AuditWalk:
        """Look until there are enough, nothing is left, or the budget is spent."""
        begin = clock()
        end = begin + budget_seconds
        if self._lower is not None and self._lower >= self._upper:
            return AuditWalk((), None)
        # What is small may take longer: if that is too slow, size is not the reason.
        patience = budget_seconds * (_PATIENCE if self._pace < FIRST_PACE else 1)
        while True:
            piece = self._outline.slice(self._lower, self._upper, self._pace)
            if not self._take(piece, patience):
                # In a large slice there may be many after all. A small one is slow.
                self._begins_anew = self._pace > FIRST_PACE
                self._pace -= 1
                break
            if len(self._found) == self._limit or piece.is_last or piece.lower is None:
                return AuditWalk(tuple(self._found), None)
            self._upper = piece.lower
            self._is_rare = True
            now = clock()
            took, patience, begin = now - begin, end - now, now
            if took * GROWTH <= patience:
                self._pace += 1
            elif took > patience:
                break
        return AuditWalk(tuple(self._found), self._rest())

    def _rest(self) -> AuditPosition:
        pace = None if self._begins_anew else self._pace
        if self._before is not None and self._upper == _end_of(self._before):
            # Not past its instant, some of whose events have been on earlier pages.
            return self._before._replace(pace=pace)
        return AuditPosition(self._upper, _BEFORE_ALL, pace)

    def _take(self, piece: Slice, seconds: float) -> bool:
        """Take what a slice has. Returns False if that takes longer."""
        statement = slice_statement(self._wanted, piece, self._before, is_rare=self._is_rare)
        parameters = slice_parameters(self._wanted, piece, self._before)
        parameters["limit"] = self._limit - len(self._found)
        try:
            with self._connection.transaction():
                # The smallest one is ended by the caller's deadline only, and then with an error.
                if not piece.is_smallest:
                    self._connection.execute(_BOUND, [str(max(1, int(seconds * 1000)))])
                # Not prepared: see _BOUND.
                rows = self._connection.execute(statement, parameters, prepare=False).fetchall()
        except errors.QueryCanceled:
            if piece.is_smallest:
                raise
            return False
        self._found += [_recorded(*row) for row in rows]
        return True


def slice_statement(
    wanted: AuditFilter, piece: Slice, before: AuditPosition | None, *, is_rare: bool
) -> Composed:
    """Return the statement that reads one slice.

    It has only the conditions that apply, so that the planner sees them. `is_rare`: what newer
    slices have shown.
    """
    conditions = [
        SQL(text) for field, text in _CONDITIONS.items() if getattr(wanted, field) not in {None, ()}
    ]
    if wanted.resource is not None:
        conditions.append(SQL(_RESOURCE_PATTERN if _has_pattern(wanted) else _RESOURCE))
    if wanted.event_types and EventType.DECISION not in wanted.event_types:
        conditions.append(SQL(_CHANGES_ONLY))
    if wanted.result not in {None, Result.ALLOW}:
        conditions.append(SQL(_NOT_ALLOWS))
    if piece.lower is not None:
        conditions.append(SQL(_FROM))
    if piece.upper != AFTER_ALL:
        conditions.append(SQL(_TO))
    if before is not None and _end_of(before) > before.occurred_at:
        conditions.append(SQL(_AFTER))
    return SQL(_ALL_FIRST if is_rare and _is_guess(wanted) else _IN_ORDER).format(
        columns=SQL(_COLUMNS), where=SQL(" AND ").join(conditions) if conditions else SQL("true")
    )


def slice_parameters(
    wanted: AuditFilter, piece: Slice, before: AuditPosition | None
) -> dict[str, object]:
    """Return the parameters of `slice_statement`, but for the limit."""
    parameters: dict[str, object] = wanted._asdict()
    parameters["event_types"] = list(wanted.event_types)
    if wanted.resource is not None and _has_pattern(wanted):
        parameters["resource"] = containment_regex(wanted.resource)
    if piece.lower is not None:
        parameters["lower"] = rfc3339(piece.lower)
    if piece.upper != AFTER_ALL:
        parameters["upper"] = rfc3339(piece.upper)
    if before is not None and _end_of(before) > before.occurred_at:
        parameters |= {"at": rfc3339(before.occurred_at), "id": before.event_id}
    return parameters


def _is_guess(wanted: AuditFilter) -> bool:
    """Say whether PostgreSQL has no statistics of how often a filter matches."""
    conditions = sum(field not in {None, ()} for field in wanted[:_UNTIMED])
    return conditions > 1 or wanted.metadata is not None or _has_pattern(wanted)


def _has_pattern(wanted: AuditFilter) -> bool:
    return wanted.resource is not None and "*" in wanted.resource


def _end_of(position: AuditPosition) -> Instant:
    """Return the instant before which everything after a position is."""
    # Events of the position's own instant may follow it, unless it is between two instants.
    return Instant(position.occurred_at + (position.event_id != _BEFORE_ALL))


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
