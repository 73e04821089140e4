"""A large audit log: a month of decisions and changes, written by SQL and queued to be sealed.

The events go in by SQL, because that is fast, and their batches are authenticated by the code that
ships a spool: the product's sealer takes them for what any other writer has stored. Each change
has its capability, so that the verification of all of it finds nothing.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from psycopg import Connection, sql

from benchmarks.figures import BenchmarkError
from benchmarks.report import Progress
from benchmarks.seed import REVISION
from licet.domain.audit_batch import Batch, MacKeys, batch_of
from licet.domain.audit_event import event_id
from licet.domain.instant import Instant, to_datetime
from licet.spool.shipper import BATCH
from licet.storage.sealing import read_leaves

DAYS: Final = 30
HOT: Final = "agent:hot"
CAPABILITIES: Final = 5000
"""How many of them decisions rest on, at most."""
GRANT_EVERY: Final = 199
REVOKE_EVERY: Final = 997

_WRITER: Final = 1
_DAY_SECONDS: Final = 86_400
BEGIN: Final = 20_700 * _DAY_SECONDS  # a midnight of 2026, in UTC
END: Final = BEGIN + DAYS * _DAY_SECONDS

_SETTINGS: Final[LiteralString] = """
SELECT set_config('timezone', 'UTC', false), set_config('synchronous_commit', 'off', false),
       set_config('maintenance_work_mem', '256MB', false)
"""
_NAMES: Final[LiteralString] = """
SELECT 'events_' || to_char(to_timestamp(%(at)s), 'YYYYMMDD'),
       to_timestamp(%(at)s)::text, (to_timestamp(%(at)s) + interval '1 day')::text
"""
# A day is filled before it becomes a partition: its indexes are built once, from sorted events.
# Every GRANT_EVERY-th event is a grant, of the capability of that number, and every REVOKE_EVERY-th
# revokes one that was granted before.
_DAY: Final[LiteralString] = """
CREATE TABLE audit.{name} (LIKE audit.events INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
INSERT INTO audit.{name} (v, event_id, occurred_at, event_type, actor, principal, action, resource,
  capability_id, result, reason, policy_id, session_id, trace_id, revision, metadata)
SELECT 1, ('00000000-0001-8000-8' || lpad(to_hex(n), 15, '0'))::uuid,
  to_timestamp({begin}) + (n - {first}) * interval '1 day' / {count},
  CASE WHEN n % {grants} <> 0 THEN CASE WHEN is_change THEN 'revoke' ELSE 'decision' END
       WHEN n % 2 = 0 THEN 'delegate' ELSE 'grant' END,
  'service:gate-' || h % 20,
  CASE WHEN h % 3 = 0 THEN 'agent:hot' ELSE 'agent:' || h % 50000 END,
  CASE WHEN is_change THEN '' ELSE 'action-' || h % 30 END,
  'doc:team-' || h % 2000 || '/reports/' || h % 7919,
  '019a0000-0000-7000-8000-' || lpad(to_hex(CASE
    WHEN n % {grants} = 0 THEN n / {grants} WHEN is_change THEN n / {revocations}
    ELSE 1 + h % {capabilities} END), 12, '0'),
  CASE WHEN is_change THEN 'done' WHEN h % 50 = 1 THEN 'deny' ELSE 'allow' END,
  CASE WHEN is_change OR h % 50 <> 1 THEN ''
       WHEN h % 7 = 0 THEN 'CAPABILITY_EXPIRED' ELSE 'NO_CAPABILITY' END,
  CASE WHEN h % 5000 = 1 THEN 'policy-' || h % 9 ELSE '' END,
  CASE WHEN h % 4 = 0 THEN 's-' || h % 100000 ELSE '' END,
  CASE WHEN h % 10 = 0 THEN 't-' || n / 20 ELSE '' END, n * {revision} / {all},
  CASE WHEN n % {grants} = 0 THEN jsonb_build_object('ticket', n, 'tenant', 't' || h % 100,
       'actions', '["read"]'::jsonb, 'like',
       '019a0000-0000-7000-8000-' || lpad(to_hex(1 + h % {capabilities}), 12, '0'))
       WHEN h % 3 = 1 THEN '{{"region": "north"}}' ELSE '{{}}' END
FROM (SELECT n, (n * 2654435761) % 1000003 AS h,
             n % {grants} = 0 OR n % {revocations} = 0 AS is_change
      FROM generate_series({first}::bigint, {first} + {count} - 1) AS n) AS numbered;
ALTER TABLE audit.events ATTACH PARTITION audit.{name}
  FOR VALUES FROM ({lower}) TO ({upper});
ANALYZE audit.{name};
"""
_CAPABILITIES: Final[LiteralString] = """
INSERT INTO licet.capabilities (id, principal, actions, resource, granted_by, granted_at,
  delegation_depth, granted_revision, granted_event_id, ended_revision, ended_event_id, ended_at,
  ended_by, end_reason, end_cause)
SELECT g.capability_id::uuid, g.principal, '{read}', g.resource, g.actor, g.occurred_at, 0,
  g.revision, g.event_id, r.revision, r.event_id, r.occurred_at, r.actor,
  CASE WHEN r.event_id IS NOT NULL THEN '' END, CASE WHEN r.event_id IS NOT NULL THEN 'REVOKED' END
FROM (SELECT * FROM audit.events WHERE event_type IN ('grant', 'delegate')) AS g
LEFT JOIN (SELECT * FROM audit.events WHERE event_type = 'revoke') AS r USING (capability_id)
"""
_REGISTER: Final[LiteralString] = (
    "INSERT INTO audit.writers (writer_id, shipped_seq) VALUES (%s, %s)"
)
_QUEUE: Final[LiteralString] = """
INSERT INTO audit.queue (writer_id, first_id, last_id, min_at, max_at, n, digest, mac)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""


def capability(number: int) -> str:
    """Return the id of a capability that was granted, from 1 on."""
    return f"019a0000-0000-7000-8000-{number:012x}"


def capabilities(events: int) -> int:
    """Return how many capabilities the decisions of so many events rest on."""
    return min(CAPABILITIES, events // GRANT_EVERY)


def event(number: int) -> UUID:
    """Return the id of an event, from 1 on."""
    return UUID(int=event_id(_WRITER, number))


def fill(url: str, events: int, keys: MacKeys, progress: Progress) -> int:
    """Fill the log with events over DAYS days, and queue them; return how many they are."""
    a_day = events // DAYS
    total = DAYS * a_day
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(_SETTINGS)
        for day in range(DAYS):
            progress.step(f"{total:,} audit events, day {day + 1} of {DAYS}")
            lower, first = BEGIN + day * _DAY_SECONDS, day * a_day + 1
            _fill_day(admin, lower, first, a_day, total)
            _queue_day(admin, keys, lower, first, a_day)
        admin.execute(_REGISTER, (_WRITER, total))
        admin.execute(_CAPABILITIES)
        admin.execute("VACUUM ANALYZE licet.capabilities")
        admin.execute("CHECKPOINT")
    return total


def _fill_day(admin: Connection[Any], lower: int, first: int, count: int, total: int) -> None:
    row = admin.execute(_NAMES, {"at": lower}).fetchone()
    if row is None:
        raise BenchmarkError("PostgreSQL knows no days")
    numbers = {
        "begin": lower,
        "first": first,
        "count": count,
        "all": total,
        "revision": REVISION,
        "grants": GRANT_EVERY,
        "revocations": REVOKE_EVERY,
        "capabilities": capabilities(total),
    }
    admin.execute(
        sql.SQL(_DAY).format(
            name=sql.Identifier(row[0]),
            lower=sql.Literal(row[1]),
            upper=sql.Literal(row[2]),
            **{key: sql.Literal(number) for key, number in numbers.items()},
        )
    )


def _queue_day(admin: Connection[Any], keys: MacKeys, lower: int, first: int, count: int) -> None:
    """Queue the events of a day in batches as large as those of a spool that has fallen behind."""
    begin, end = Instant(lower * 1_000_000), Instant((lower + _DAY_SECONDS) * 1_000_000 - 1)
    rows = []
    for at in range(first, first + count, BATCH):
        last = min(at + BATCH, first + count) - 1
        wanted = Batch(_WRITER, event(at), event(last), begin, end, last - at + 1, b"")
        batch = keys.authenticated(batch_of(_WRITER, at, read_leaves(admin, wanted)))
        times = to_datetime(batch.min_at), to_datetime(batch.max_at)
        rows.append((*batch[:3], *times, batch.events, batch.digest, batch.mac))
    with admin.cursor() as cursor:
        cursor.executemany(_QUEUE, rows)
