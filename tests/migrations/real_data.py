"""Rows for every table, put there as the server does it where the server may."""

from __future__ import annotations

import hashlib

from psycopg.types.json import Jsonb

from tests.fakes.postgres import Database

ALICE = "01990000-0000-7000-8000-000000000001"
BOB = "01990000-0000-7000-8000-000000000002"
CAROL = "01990000-0000-7000-8000-000000000003"

APPLY = """
SELECT status FROM licet.apply_mutations(%(grants)s, %(revocations)s) ORDER BY ordinal
"""
TAKE = """
SELECT * FROM licet.exchange_slices(
  ARRAY[repeat('x', 16)::bytea], '{1}', '{t}', '{0}', '{0}', '{1}', '{0}', '{1}', '{1}', '{1}', 1)
"""
REFUSE = "SELECT audit.record_refusal(%(event)s)"
DECISION = """
INSERT INTO audit.events VALUES (
  1, '00000000-0000-8000-8000-000000000001', now(), 'decision', 'service:gate', 'agent:bob', 'read',
  'doc:a/b', '', 'deny', 'NO_CAPABILITY', '', '', '', 1, '{}')
"""
WRITER = "INSERT INTO audit.writers (writer_id) VALUES (1)"
QUARANTINED = "SELECT audit.pass_over(1, 1, 1, 'SQLSTATE 22021', '\\x00')"
SEALED = """
INSERT INTO audit.batches (epoch, first_leaf, n, writer_id, first_id, last_id, min_at, max_at,
                           leaf_hashes)
SELECT 1, 0, q.n, q.writer_id, q.first_id, q.last_id, q.min_at, q.max_at,
       repeat('x', 32 * q.n::integer)::bytea
FROM audit.queue AS q ORDER BY q.batch_id LIMIT 1;
INSERT INTO audit.nodes VALUES (1, 1, 0, sha256(''));
INSERT INTO audit.checkpoints (epoch, tree_size, root, note) VALUES (1, 1, sha256(''), 'a note');
INSERT INTO audit.archives VALUES ('events_20260101', 'a file', sha256(''), 1, gen_random_uuid());
"""
CHANGE_KEY = "SELECT status FROM licet.make_admin_change(%(change)s)"
USED = """
INSERT INTO licet.api_key_uses SELECT id, now() FROM licet.api_keys
ON CONFLICT (id) DO UPDATE SET last_used_at = excluded.last_used_at
"""
KEY = {
    "kind": "key.created",
    "request_id": "k1",
    "digest": "00" * 32,
    "actor": "user:alice",
    "trace_id": "",
    "id": None,
    "only_first": False,
    "facts": {},
    "key": {
        "id": "0123456789abcdef",
        "name": "a gate",
        "secret_sha256": "11" * 32,
        "scopes": ["authorize", "read"],
        "caller": "key:0123456789abcdef",
        "principals": [],
        "resources": ["doc:**"],
        "expires_at": None,
    },
}
ROTATED = KEY | {
    "kind": "key.rotated",
    "request_id": "k2",
    "id": "0123456789abcdef",
    "overlap_seconds": 60,
    "key": KEY["key"] | {"id": "123456789abcdefg"},  # type: ignore[operator] # it is a dict
}
IMPORTED = KEY | {
    "kind": "import.event",
    "request_id": "i1",
    "events": [
        {
            "key": "22" * 32,
            "digest": "33" * 32,
            "principal": "agent:bob",
            "action": "read",
            "resource": "doc:a/b",
            "capability_id": "",
            "session_id": "",
            "trace_id": "",
            "metadata": {"imported": {"source": "old", "id": "e-1"}},
        }
    ],
}
POLICIES = {
    "kind": "policy.put",
    "request_id": "p1",
    "digest": "00" * 32,
    "actor": "user:alice",
    "trace_id": "",
    "source": "version: 1",
    "comment": "",
    "facts": {},
}
USER = {
    "kind": "user.created",
    "request_id": "u1",
    "digest": "00" * 32,
    "actor": "user:alice",
    "trace_id": "",
    "facts": {},
    "principal": "user:bob",
    "name": "Bob",
    "email": "bob@example.org",
    "roles": ["sre"],
    "seen": {},
}
DISABLED = USER | {"kind": "user.disabled", "request_id": "u2", "reason": "has left"}
SUSPENDED = USER | {
    "kind": "principal.suspended",
    "request_id": "u3",
    "principal": "agent:bob",
    "reason": "leaked",
}
BOOTSTRAP = {
    "kind": "bootstrap.created",
    "request_id": "b1",
    "digest": "00" * 32,
    "actor": "user:alice",
    "trace_id": "",
    "id": "23456789abcdefgh",
    "facts": {},
    "token": {
        "name": "a farm",
        "secret_sha256": "11" * 32,
        "principals": ["agent:**"],
        "max_uses": 1,
        "expires_at": "9999-01-01T00:00:00Z",
    },
}
REGISTERED = BOOTSTRAP | {
    "kind": "agent.registered",
    "request_id": "b2",
    "agent": {"name": "a/1", "hostname": "a1", "address": "10.0.0.1:80", "public_key": ""},
    "token": {"id": "3456789abcdefghj", "secret_sha256": "22" * 32, "ttl_seconds": 86_400},
}
HEARD = "INSERT INTO licet.agent_heartbeats SELECT name, now() FROM licet.agents"
REQUESTED = POLICIES | {
    "kind": "approval.requested",
    "request_id": "a1",
    "approval": {
        "id": "01990000-0000-7000-8000-00000000000a",
        "principal": "user:alice",
        "action": "read",
        "resource": "doc:a/b",
        "roles": ["security"],
        "policies": ["p"],
        "policy_set": 1,
        "purpose": "",
        "session_id": "",
        "parent_id": ALICE,
        "seconds": 60,
        "most": 20,
        "rejection_seconds": 900,
    },
}
APPROVED = REQUESTED | {
    "kind": "approval.approved",
    "request_id": "a2",
    "id": "01990000-0000-7000-8000-00000000000a",
    "roles": ["security"],
    "ttl_seconds": 60,
    "capability_id": "01990000-0000-7000-8000-00000000000b",
}
SPENT = APPROVED | {
    "kind": "approval.used",
    "request_id": "a3",
    "id": "01990000-0000-7000-8000-00000000000b",
    "principal": "user:alice",
    "action": "read",
    "resource": "doc:a/b",
    "session_id": "",
}
REQUESTED_AGAIN = REQUESTED | {
    "request_id": "a4",
    "approval": REQUESTED["approval"] | {"id": "01990000-0000-7000-8000-00000000000c"},  # type: ignore[operator] # it is a dict
}
APPROVED_AGAIN = APPROVED | {
    "request_id": "a5",
    "id": "01990000-0000-7000-8000-00000000000c",
    "capability_id": "01990000-0000-7000-8000-00000000000d",
}
REPLICA = """
INSERT INTO licet.replicas (incarnation, applied, lease_seconds)
VALUES (gen_random_uuid(), 1, 1)
"""


def grant(
    request_id: str, capability_id: str, principal: str, parent_id: str | None = None
) -> dict[str, object]:
    depth = 2 if parent_id is None else 1 if principal == "agent:bob" else 0
    return {
        "kind": "grant" if parent_id is None else "delegate",
        "request_id": request_id,
        "digest": hashlib.sha256(request_id.encode()).hexdigest(),
        "id": capability_id,
        "parent_id": parent_id,
        "principal": principal,
        "actions": ["read", "write"],
        "resource": "doc:a/**",
        "not_before": None,
        "expires_at": "9999-01-01T00:00:00Z",
        "delegation_depth": depth,
        "session_id": "session-1",
        "metadata": {"ticket": "T-1"},
        "actor": "user:alice",
        "trace_id": "trace-1",
        "facts": {},
    }


def revoke(request_id: str, capability_id: str) -> dict[str, object]:
    return {
        "kind": "revoke",
        "request_id": request_id,
        "digest": hashlib.sha256(request_id.encode()).hexdigest(),
        "id": capability_id,
        "filter": {},
        "reason": "over",
        "actor": "user:alice",
        "trace_id": "",
        "facts": {},
    }


def fill(database: Database) -> None:
    """Put rows into every table, as the server does it where the server may."""
    mutations = [
        [grant("r1", ALICE, "user:alice")],
        [grant("r2", BOB, "agent:bob", ALICE), grant("r3", CAROL, "agent:carol", BOB)],
        [revoke("r4", BOB)],
        [revoke("r4", BOB)],
    ]
    refusal = {
        "occurred_at": "2026-01-01T00:00:00Z",
        "event_type": "grant",
        "actor": "agent:bob",
        "principal": "agent:dave",
        "resource": "doc:**",
        "capability_id": "",
        "reason": "RESOURCE_WIDENED",
        "session_id": "",
        "trace_id": "",
        "metadata": {},
    }
    with database.connect() as connection:
        connection.execute(REPLICA)
        connection.execute("SET ROLE licet_server")
        connection.execute(TAKE)
        for batch in mutations:
            revocations = [mutation for mutation in batch if mutation["kind"] == "revoke"]
            grants = [mutation for mutation in batch if mutation not in revocations]
            parameters = {"grants": Jsonb(grants), "revocations": Jsonb(revocations)}
            rows = connection.execute(APPLY, parameters).fetchall()
            assert rows == [("done",)] * len(batch)
        connection.execute(REFUSE, {"event": Jsonb(refusal)})
        connection.execute(DECISION)
        connection.execute(WRITER)
        connection.execute(QUARANTINED)
        first = (KEY, ROTATED, USER, DISABLED, SUSPENDED)
        approvals = (REQUESTED, APPROVED, SPENT, REQUESTED_AGAIN, APPROVED_AGAIN)
        for change in (*first, BOOTSTRAP, REGISTERED, POLICIES, IMPORTED, *approvals):
            row = connection.execute(CHANGE_KEY, {"change": Jsonb(change)}).fetchone()
            assert row == ("done",)
        connection.execute(USED)
        connection.execute(HEARD)
        connection.execute("SET ROLE licet_sealer")
        connection.execute(SEALED)
