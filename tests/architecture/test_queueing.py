"""What it costs PostgreSQL to queue a change, counted beside a log of decisions."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.fakes.postgres import Database

_DECISIONS: LiteralString = """
INSERT INTO audit.events (v, event_id, occurred_at, event_type, actor, principal, action, resource,
  capability_id, result, reason, policy_id, session_id, trace_id, revision, metadata)
SELECT 1, ('00000000-0001-8000-8' || lpad(to_hex(n), 15, '0'))::uuid, clock_timestamp(), 'decision',
  'caller:1', 'agent:1', 'read', 'doc:a', '', 'allow', '', '', '', '', 1, '{}'
FROM generate_series(1, 5000) AS n
"""
_ENTRIES: LiteralString = """
SELECT coalesce(sum(i.idx_tup_read), 0) + (
  SELECT coalesce(sum(t.seq_tup_read), 0) FROM pg_stat_user_tables AS t
  WHERE t.schemaname = 'audit' AND t.relname LIKE 'events%')
FROM pg_stat_user_indexes AS i WHERE i.schemaname = 'audit' AND i.relname LIKE 'events%'
"""


@pytest.mark.parametrize("is_analyzed", [True, False])
def test_a_change_is_queued_without_a_look_at_decisions(
    database: Database, *, is_analyzed: bool
) -> None:
    with database.connect() as admin:
        admin.execute(
            "SELECT audit.ensure_partition(clock_timestamp() + n * interval '1 day')"
            " FROM generate_series(-1, 1) AS n"
        )
        admin.execute(_DECISIONS)
        if is_analyzed:
            admin.execute("ANALYZE audit.events")
        read = []
        for _ in range(10):  # more often than a plan for all parameters waits for
            admin.execute("SELECT audit.record_own('audit.incident', '', '{}')")
            admin.execute("SELECT pg_stat_force_next_flush()")
            (entries,) = admin.execute(_ENTRIES).fetchone() or (0,)
            read.append(int(entries))
        (queued,) = admin.execute("SELECT count(*) FROM audit.queue").fetchone() or (0,)
    assert queued == 10
    assert read[-1] - read[0] < 100
