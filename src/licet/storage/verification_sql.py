"""The statements of verification. Each finds its rows by the key of a table, whatever its size."""

from __future__ import annotations

from typing import Final, LiteralString

HEAD: Final[LiteralString] = "SELECT l.origin, l.epoch, l.tree_size, l.root FROM audit.log AS l"
FIRST_NOTE: Final[LiteralString] = """
SELECT c.note FROM audit.checkpoints AS c
WHERE c.epoch = %(epoch)s ORDER BY c.tree_size LIMIT 1
"""
EPOCHS: Final[LiteralString] = """
WITH RECURSIVE found AS (
  (SELECT b.epoch FROM audit.batches AS b ORDER BY b.epoch LIMIT 1)
  UNION ALL
  SELECT (SELECT min(b.epoch) FROM audit.batches AS b WHERE b.epoch > found.epoch)
  FROM found WHERE found.epoch IS NOT NULL
)
SELECT epoch FROM found WHERE epoch IS NOT NULL
UNION SELECT l.epoch FROM audit.log AS l
ORDER BY 1
"""
LAST_LEAF: Final[LiteralString] = """
SELECT coalesce((SELECT b.first_leaf + b.n FROM audit.batches AS b
                 WHERE b.epoch = %(epoch)s ORDER BY b.first_leaf DESC LIMIT 1), 0)
"""
NEWEST_CHECKPOINT: Final[LiteralString] = """
SELECT c.tree_size, c.root, c.note FROM audit.checkpoints AS c
WHERE c.epoch = %(epoch)s ORDER BY c.tree_size DESC LIMIT 1
"""
IS_UNSIGNED: Final[LiteralString] = """
SELECT FROM audit.batches AS b
WHERE b.epoch = %(epoch)s AND b.first_leaf >= %(size)s
  AND b.sealed_at < clock_timestamp() - interval '1 minute'
LIMIT 1
"""
BATCH_START: Final[LiteralString] = """
SELECT coalesce((SELECT max(b.first_leaf) FROM audit.batches AS b
                 WHERE b.epoch = %(epoch)s AND b.first_leaf <= %(leaf)s), 0)
"""
RECENT_LEAF: Final[LiteralString] = """
SELECT coalesce((SELECT min(b.first_leaf) FROM audit.batches AS b
                 WHERE b.epoch = (SELECT l.epoch FROM audit.log AS l)
                   AND b.max_at > clock_timestamp() - make_interval(secs => %(seconds)s)), 0)
"""
BATCHES: Final[LiteralString] = """
SELECT b.first_leaf, b.writer_id, b.first_id, b.last_id, b.leaf_hashes
FROM audit.batches AS b
WHERE b.epoch = %(epoch)s AND b.first_leaf >= %(first)s AND b.first_leaf < %(end)s
ORDER BY b.first_leaf
"""
CHECKPOINTS: Final[LiteralString] = """
SELECT c.tree_size, c.root, c.note FROM audit.checkpoints AS c
WHERE c.epoch = %(epoch)s AND c.tree_size > %(above)s AND c.tree_size <= %(up_to)s
ORDER BY c.tree_size
"""

_LEAF: Final[LiteralString] = """
SELECT e.v, e.event_id, e.occurred_at, e.event_type, e.actor, e.principal, e.action, e.resource,
       e.capability_id, e.result, e.reason, e.policy_id, e.session_id, e.trace_id, e.revision,
       e.metadata
"""
# One statement for many batches. The rows of each are found by the key, in the few partitions that
# its times are in, and come in the order of their leaves.
ROWS_OF_BATCHES: Final[LiteralString] = (
    "COPY ("  # noqa: S608 - constants
    + _LEAF
    + """
  FROM audit.batches AS b
  CROSS JOIN LATERAL (
    SELECT * FROM audit.events AS e
    WHERE e.event_id BETWEEN b.first_id AND b.last_id
      AND e.occurred_at BETWEEN b.min_at AND b.max_at) AS e
  WHERE b.epoch = %(epoch)s AND b.first_leaf >= %(first)s AND b.first_leaf < %(end)s
  ORDER BY b.first_leaf, e.event_id
) TO STDOUT (FORMAT BINARY)
"""
)
ROWS_OF_IDS: Final[LiteralString] = (
    "COPY ("
    + _LEAF
    + """
  FROM audit.events AS e WHERE e.event_id BETWEEN %(first)s AND %(last)s
  ORDER BY e.event_id, e.occurred_at
) TO STDOUT (FORMAT BINARY)
"""
)
ROWS_OF_QUEUED: Final[LiteralString] = (
    "COPY ("  # noqa: S608 - constants
    + _LEAF
    + """
  FROM audit.queue AS q
  CROSS JOIN LATERAL (
    SELECT * FROM audit.events AS e
    WHERE e.event_id BETWEEN q.first_id AND q.last_id
      AND e.occurred_at BETWEEN q.min_at AND q.max_at) AS e
  WHERE q.batch_id = %(number)s
  ORDER BY e.event_id
) TO STDOUT (FORMAT BINARY)
"""
)
QUEUED: Final[LiteralString] = """
SELECT q.batch_id, q.writer_id, q.first_id, q.last_id,
       (extract(epoch FROM q.min_at) * 1000000)::bigint,
       (extract(epoch FROM q.max_at) * 1000000)::bigint, q.n, q.digest
FROM audit.queue AS q WHERE q.batch_id > %(after)s ORDER BY q.batch_id LIMIT 100
"""
SHIPPED: Final[LiteralString] = """
SELECT w.writer_id, w.shipped_seq FROM audit.writers AS w ORDER BY w.writer_id
"""
PASSED_OVER: Final[LiteralString] = """
SELECT coalesce(e.metadata ->> 'first', e.metadata ->> 'sequence')::bigint,
       coalesce(e.metadata ->> 'last', e.metadata ->> 'sequence')::bigint
FROM audit.events AS e
WHERE e.event_type = ANY ('{audit.incident,audit.quarantined}') AND e.event_type <> 'decision'
  AND e.reason = ANY ('{EVENTS_LOST,""}')
  AND e.metadata @> jsonb_build_object('writer_id', %(writer)s::bigint)
ORDER BY 1
"""
INCIDENTS: Final[LiteralString] = """
SELECT e.event_id, e.reason, e.metadata::text FROM audit.events AS e
WHERE e.event_type = 'audit.incident' AND e.event_type <> 'decision'
ORDER BY e.occurred_at LIMIT %(limit)s
"""
HAS_INCIDENT: Final[LiteralString] = """
SELECT count(*) FROM audit.events AS e
WHERE e.event_type = 'audit.incident' AND e.event_type <> 'decision'
  AND e.reason = 'NOT_AS_SEALED' AND e.metadata ->> 'finding' = %(key)s
"""
ROW_COUNT: Final[LiteralString] = "SELECT count(*) FROM audit.events"
STRAYS: Final[LiteralString] = """
SELECT e.event_id FROM audit.events AS e
WHERE NOT EXISTS (
    SELECT FROM (SELECT b.last_id, b.min_at, b.max_at FROM audit.batches AS b
                 WHERE b.first_id <= e.event_id ORDER BY b.first_id DESC LIMIT 1) AS s
    WHERE s.last_id >= e.event_id AND e.occurred_at BETWEEN s.min_at AND s.max_at)
  AND NOT EXISTS (
    SELECT FROM audit.queue AS q
    WHERE e.event_id BETWEEN q.first_id AND q.last_id
      AND e.occurred_at BETWEEN q.min_at AND q.max_at)
LIMIT %(limit)s
"""
CAPABILITY_COUNT: Final[LiteralString] = "SELECT count(*) FROM licet.capabilities"
# The event must be there and say the same. What is in an archived partition is left to its archive.
CAPABILITY_FAULTS: Final[LiteralString] = """
SELECT c.id, 'grant' FROM licet.capabilities AS c
WHERE NOT EXISTS (
    SELECT FROM audit.events AS e
    WHERE e.event_id = c.granted_event_id AND e.occurred_at = c.granted_at
      AND e.event_type = ANY (CASE WHEN c.approved_roles IS NULL THEN '{grant,delegate}'
                                   ELSE '{approval.approved}' END::text[]) AND e.result = 'done'
      AND e.capability_id = c.id::text AND e.principal = c.principal AND e.resource = c.resource
      AND e.actor = c.granted_by AND e.revision = c.granted_revision
      AND CASE WHEN c.approved_roles IS NULL THEN e.metadata -> 'actions' = to_jsonb(c.actions)
               ELSE to_jsonb(ARRAY[e.metadata ->> 'action']) = to_jsonb(c.actions)
                    AND e.metadata -> 'all_roles' = to_jsonb(c.approved_roles) END
      AND coalesce(e.metadata ->> 'condition', '') = c.condition
      AND coalesce(e.metadata ->> 'parent_id', '') = coalesce(c.parent_id::text, '')
      AND c.conditions = coalesce((SELECT p.conditions FROM licet.capabilities AS p
                                   WHERE p.id = c.parent_id), '{}')
                         || array_remove(ARRAY[c.condition], ''))
  AND NOT EXISTS (
    SELECT FROM audit.archives AS a
    WHERE a.partition = 'events_' || to_char(c.granted_at, 'YYYYMMDD'))
UNION ALL
SELECT c.id, 'end' FROM licet.capabilities AS c
WHERE c.ended_event_id IS NOT NULL
  AND NOT EXISTS (
    SELECT FROM audit.events AS e
    WHERE e.event_id = c.ended_event_id AND e.occurred_at = c.ended_at
      AND e.event_type = CASE c.end_cause WHEN 'USED' THEN 'approval.used' ELSE 'revoke' END
      AND e.result = 'done' AND e.capability_id = c.id::text
      AND e.actor = c.ended_by AND e.revision = c.ended_revision)
  AND NOT EXISTS (
    SELECT FROM audit.archives AS a
    WHERE a.partition = 'events_' || to_char(c.ended_at, 'YYYYMMDD'))
LIMIT %(limit)s
"""
# A capability that was brought back to life, or deleted, leaves its event behind.
EVENT_FAULTS: Final[LiteralString] = """
SELECT e.event_id, e.event_type FROM audit.events AS e
WHERE e.event_type = ANY ('{grant,delegate,revoke,approval.approved,approval.used}')
  AND e.event_type <> 'decision'
  AND e.result = 'done' AND e.reason = ANY (ARRAY['', 'CASCADE'])
  -- A consent after which another one was missing has made nothing.
  AND NOT (e.event_type = 'approval.approved' AND e.capability_id = '')
  AND NOT EXISTS (
    SELECT FROM licet.capabilities AS c
    WHERE c.id = CASE WHEN e.capability_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                      THEN e.capability_id::uuid END
      AND e.event_id = CASE WHEN e.event_type IN ('revoke', 'approval.used') THEN c.ended_event_id
                            ELSE c.granted_event_id END)
LIMIT %(limit)s
"""
