"""Tables of a realistic size, for which PostgreSQL plans as it does for those of its users."""

from __future__ import annotations

from typing import LiteralString

from tests.fakes.postgres import Database

# 40,000 capabilities of 2,000 principals; one of them holds 3,000, a third of all has ended.
_CAPABILITIES: LiteralString = """
INSERT INTO licet.capabilities (id, parent_id, principal, actions, resource, granted_by, granted_at,
  expires_at, delegation_depth, session_id, granted_revision, granted_event_id,
  ended_revision, ended_event_id, ended_at, ended_by, end_reason, end_cause)
SELECT ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
  CASE WHEN n % 4 = 0 AND n > 100
       THEN ('019a0000-0000-7000-8000-' || lpad(to_hex(n / 40 + 1), 12, '0'))::uuid END,
  CASE WHEN n % 13 = 0 THEN 'agent:heavy' ELSE 'agent:' || n % 2000 END, '{read,write}',
  'doc:team-' || n % 3000 || '/' || n || '/**', 'caller:' || n % 900, '2026-11-01',
  CASE WHEN n % 5 = 0 AND n > 100 THEN '2026-11-20' ELSE 'infinity' END::timestamptz,
  CASE WHEN n <= 100 THEN 9 ELSE 0 END, CASE WHEN n % 10 = 0 THEN 's-' || n % 700 ELSE '' END,
  1, gen_random_uuid(), e.r, e.id, e.at, e.by, e.why, e.cause
FROM generate_series(1, 40000) AS n
LEFT JOIN LATERAL (SELECT 2::bigint AS r, gen_random_uuid() AS id, '2026-11-02'::timestamptz AS at,
  'caller:1' AS by, '' AS why, 'REVOKED' AS cause WHERE n % 3 = 0 AND n > 100) AS e ON true
"""
_EVENTS: LiteralString = """
INSERT INTO audit.events (v, event_id, occurred_at, event_type, actor, principal, action, resource,
  capability_id, result, reason, policy_id, session_id, trace_id, revision, metadata)
SELECT 1, gen_random_uuid(), '2026-11-22'::timestamptz - n * interval '10 seconds',
  CASE WHEN n % 50 = 0 THEN 'grant' ELSE 'decision' END, 'caller:' || n % 500, 'agent:' || n % 900,
  'action-' || n % 800, 'doc:team-' || n % 300 || '/' || n % 1100,
  ('019a0000-0000-7000-8000-' || lpad(to_hex(n % 1500), 12, '0')),
  CASE WHEN n % 50 = 0 THEN 'done' WHEN n % 200 = 1 THEN 'deny' ELSE 'allow' END,
  CASE WHEN n % 200 = 1 THEN 'CAPABILITY_EXPIRED' ELSE '' END,
  CASE WHEN n % 400 = 1 THEN 'policy-1' ELSE '' END,
  CASE WHEN n % 3 = 0 THEN 's-' || n % 999 ELSE '' END, 't-' || n, 1,
  CASE WHEN n % 50 = 0 THEN jsonb_build_object('ticket', n) ELSE '{}' END
FROM generate_series(1, 34000) AS n
"""
# A tenth of the users is disabled; a fifth of the suspensions lasts.
_USERS: LiteralString = """
INSERT INTO licet.users (principal, name, email, roles, created_at, created_by, created_revision,
  changed_revision, disabled_at, disabled_by, disable_reason)
SELECT 'user:' || n, '', n || '@example.org', '{user}', '2026-11-01', 'caller:1', 1, 1,
  d.at, d.by, d.why
FROM generate_series(1, 5000) AS n
LEFT JOIN LATERAL (SELECT '2026-11-02'::timestamptz AS at, 'caller:1' AS by, '' AS why
                   WHERE n % 10 = 0) AS d ON true
"""
_SUSPENSIONS: LiteralString = """
INSERT INTO licet.suspensions
SELECT 'agent:' || n % 2000, n, '2026-11-01', 'caller:1', '', r.revision, r.at, r.by, r.why
FROM generate_series(1, 10000) AS n
LEFT JOIN LATERAL (SELECT 20000 AS revision, '2026-11-02'::timestamptz AS at, 'caller:1' AS by,
                          '' AS why
                   WHERE n > 2000) AS r ON true
"""
# One of each principal can be used.
_APPROVALS: LiteralString = """
INSERT INTO licet.approvals (id, principal, action, resource, roles, policies, policy_set, purpose,
  session_id, parent_id, asked_by, asked_at, asked_event_id, expires_at, state, resolved_at,
  resolved_by, comment, capability_id)
SELECT gen_random_uuid(), 'agent:' || n % 2000, 'read', 'doc:' || n, '{sre}', '{p}', 1, '', '',
  ('019a0000-0000-7000-8000-' || lpad(to_hex(1), 12, '0'))::uuid, 'caller:1', '2026-11-01',
  gen_random_uuid(), '2026-11-02', CASE WHEN n <= 2000 THEN 'APPROVED' ELSE 'REJECTED' END,
  '2026-11-01', 'caller:2', '', CASE WHEN n <= 2000
    THEN ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid END
FROM generate_series(1, 10000) AS n
"""


def fill(database: Database) -> None:
    """Store 40,000 capabilities, users, and 34,000 events over four days."""
    with database.connect() as admin:
        admin.execute("SET timezone = 'UTC'")
        admin.execute(
            "SELECT audit.ensure_partition('2026-11-22'::timestamptz - n * interval '1 day')"
            " FROM generate_series(0, 4) AS n"
        )
        # The rules hold for these rows, and asking the trigger 40,000 times is not the subject.
        admin.execute("SET session_replication_role = replica")
        admin.execute(_CAPABILITIES)
        admin.execute(_EVENTS)
        admin.execute(_USERS)
        admin.execute(_SUSPENSIONS)
        admin.execute(_APPROVALS)
        admin.execute("ANALYZE")
