"""What the database itself keeps of approvals: they are resolved once, and used once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.fakes.postgres import Database

CHANGE: LiteralString = "SELECT status, revision, outcome FROM licet.make_admin_change(%s)"
PARENT: Final = "0199c5f0-0000-7000-8000-000000000001"
APPROVAL: Final = "0199c5f0-0000-7000-8000-00000000000a"
CHILD: Final = "0199c5f0-0000-7000-8000-00000000000b"
GRANT: LiteralString = """
INSERT INTO licet.capabilities (id, principal, actions, resource, granted_by, granted_at,
  delegation_depth, granted_revision, granted_event_id)
VALUES (%s, 'agent:a', '{read}', 'doc:**', 'user:alice', now(), 0, 0, gen_random_uuid())
"""
CHILD_OF: LiteralString = """
INSERT INTO licet.capabilities (id, parent_id, principal, actions, resource, granted_by, granted_at,
  expires_at, delegation_depth, granted_revision, granted_event_id, approved_roles)
SELECT gen_random_uuid(), c.id, x.principal, x.actions, x.resource, 'user:alice', now(),
  now() + x.ttl, x.depth, 1, gen_random_uuid(), x.roles
FROM licet.capabilities AS c, (VALUES (%(principal)s, %(actions)s::text[], %(resource)s,
  %(ttl)s::interval, %(depth)s::smallint, %(roles)s::text[]))
  AS x (principal, actions, resource, ttl, depth, roles)
WHERE c.parent_id IS NULL
"""


def change(kind: str, number: str, **fields: object) -> dict[str, Any]:
    return {
        "kind": f"approval.{kind}",
        "request_id": number,
        "digest": "00" * 32,
        "actor": "user:eve",
        "trace_id": "",
        "comment": "",
        "session_id": "",
        "facts": {},
    } | fields


REQUESTED: Final = change(
    *("requested", "r1"),
    approval={
        "id": APPROVAL,
        "principal": "agent:a",
        "action": "read",
        "resource": "doc:a",
        "roles": ["security", "sre"],
        "policies": ["p"],
        "policy_set": 1,
        "purpose": "",
        "session_id": "",
        "parent_id": PARENT,
        "seconds": 60,
        "most": 1,
        "rejection_seconds": 900,
    },
)
APPROVED: Final = change(
    *("approved", "r2"),
    id=APPROVAL,
    roles=["security", "sre", "admin"],
    ttl_seconds=60,
    capability_id=CHILD,
)
USED: Final = change(
    *("used", "r3"),
    id=CHILD,
    principal="agent:a",
    action="read",
    resource="doc:a",
    actor="service:gate",
    not_approved_by="service:gate",
)


def made(connection: psycopg.Connection, body: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(CHANGE, [Jsonb(body)]).fetchone()
    assert row is not None
    return row


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    """Provide a connection of the administrator to a database with a pending approval."""
    with database.connect() as connection:
        connection.execute(GRANT, [PARENT])
        assert made(connection, REQUESTED)[:2] == ("done", 0)
        yield connection


def test_what_is_asked_for_is_no_revision_and_the_rest_is_one(admin: psycopg.Connection) -> None:
    assert made(admin, APPROVED)[:2] == ("done", 1)
    assert made(admin, USED)[:2] == ("done", 2)
    named = admin.execute("SELECT principals FROM licet.changes WHERE revision > 0")
    assert named.fetchall() == [(["agent:a"],)] * 2
    roles = admin.execute("SELECT role FROM licet.approval_consents ORDER BY 1").fetchall()
    assert roles == [("security",), ("sre",)]  # and none that nobody asked for


def test_a_use_is_repeated_under_its_request_id_alone(admin: psycopg.Connection) -> None:
    made(admin, APPROVED)
    assert made(admin, USED)[0] == "done"
    assert made(admin, USED) == ("done", 2, {"replayed": True})
    assert made(admin, USED | {"request_id": "r4"})[0] == "APPROVAL_NOT_USABLE"
    used = "SELECT count(*) FROM audit.events WHERE event_type = 'approval.used'"
    assert admin.execute(used).fetchone() == (1,)


@pytest.mark.parametrize(
    "fields",
    [
        {"principal": "agent:b"},
        {"action": "write"},
        {"resource": "doc:b"},
        {"id": PARENT},
        {"not_approved_by": "user:eve"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_it_is_used_for_exactly_what_was_approved(
    admin: psycopg.Connection, fields: dict[str, object]
) -> None:
    made(admin, APPROVED)
    assert made(admin, USED | fields)[0] == "APPROVAL_NOT_USABLE"
    assert made(admin, USED | {"request_id": "r4", "not_approved_by": None})[0] == "done"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE licet.capabilities SET expires_at = clock_timestamp() WHERE parent_id IS NOT NULL",
        (
            "UPDATE licet.capabilities SET not_before = clock_timestamp() + interval '30 seconds'"
            " WHERE parent_id IS NOT NULL"
        ),
    ],
    ids=["over", "early"],
)
def test_it_is_used_in_its_time(admin: psycopg.Connection, change: LiteralString) -> None:
    made(admin, APPROVED)
    admin.execute("SET session_replication_role = replica")
    admin.execute(change)
    admin.execute("SET session_replication_role = origin")
    assert made(admin, USED)[0] == "APPROVAL_NOT_USABLE"


def test_a_suspended_principal_uses_nothing(admin: psycopg.Connection) -> None:
    made(admin, APPROVED)
    admin.execute("INSERT INTO licet.suspensions VALUES ('agent:a', 1, now(), 'user:alice', '')")
    assert made(admin, USED)[0] == "APPROVAL_NOT_USABLE"


def test_no_more_are_pending_than_there_may_be(admin: psycopg.Connection) -> None:
    asked = REQUESTED["approval"]
    again = REQUESTED | {"request_id": "r4", "approval": asked | {"id": CHILD}}
    status, _, outcome = made(admin, again)
    assert (status, outcome["id"]) == ("already", APPROVAL)
    other = again | {"request_id": "r5", "approval": asked | {"id": CHILD, "resource": "doc:b"}}
    assert made(admin, other) == ("TOO_MANY_APPROVALS", 0, {})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE licet.approvals SET resource = 'doc:b'",
        "UPDATE licet.approvals SET roles = '{sre}'",
        "UPDATE licet.approvals SET expires_at = 'infinity'",
        "UPDATE licet.approvals SET state = 'PENDING'",
        "UPDATE licet.approvals SET state = 'USED', used_at = now()",
        "DELETE FROM licet.approvals",
        "TRUNCATE licet.approvals CASCADE",
    ],
)
def test_an_approval_is_resolved_once(admin: psycopg.Connection, statement: LiteralString) -> None:
    made(admin, APPROVED)
    made(admin, USED)
    with pytest.raises(errors.IntegrityError):
        admin.execute(statement)


def test_what_is_old_goes_with_the_next_one(admin: psycopg.Connection) -> None:
    made(admin, APPROVED)
    admin.execute("SET session_replication_role = replica")
    admin.execute("UPDATE licet.approvals SET expires_at = now() - interval '31 days'")
    admin.execute("SET session_replication_role = origin")
    body = REQUESTED | {"request_id": "r4", "approval": REQUESTED["approval"] | {"id": CHILD}}
    assert made(admin, body)[0] == "done"
    assert admin.execute("SELECT id::text FROM licet.approvals").fetchall() == [(CHILD,)]


NARROW: Final[dict[str, object]] = {
    "principal": "agent:a",
    "actions": ["read"],
    "resource": "doc:a",
    "ttl": "1 hour",
    "depth": 0,
    "roles": ["sre"],
}


@pytest.mark.parametrize(
    "fields",
    [
        {"principal": "agent:b"},
        {"actions": ["write"]},
        {"actions": ["*"]},
        {"resource": "doc:*"},
        {"ttl": "2 hours"},
        {"depth": 1},
        {"roles": []},
        {"roles": None},  # an ordinary one, of a parent without depth
    ],
    ids=str,
)
def test_a_capability_for_one_use_is_narrow(
    admin: psycopg.Connection, fields: dict[str, object]
) -> None:
    admin.execute(CHILD_OF, NARROW)
    with pytest.raises(errors.IntegrityError):
        admin.execute(CHILD_OF, NARROW | fields)


def test_only_one_for_one_use_ends_by_use(admin: psycopg.Connection) -> None:
    end: LiteralString = (
        "UPDATE licet.capabilities SET ended_revision = 9, ended_event_id = gen_random_uuid(),"
        " ended_at = now(), ended_by = 'user:a', end_reason = '', end_cause = 'USED'"
    )
    with pytest.raises(errors.CheckViolation):
        admin.execute(end)
