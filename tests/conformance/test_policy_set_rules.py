"""What the database itself keeps of policy sets: what held once stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.fakes.postgres import Database

CHANGE: LiteralString = "SELECT status, revision, outcome FROM licet.make_admin_change(%s)"


def put(number: int, **fields: object) -> dict[str, Any]:
    return {
        "kind": "policy.put",
        "request_id": f"r{number}",
        "digest": "00" * 32,
        "actor": "user:alice",
        "trace_id": "",
        "source": f"version: {number}",
        "comment": "",
        "expected_version": None,
        "rollback_of": None,
        "facts": {},
    } | fields


def change(connection: psycopg.Connection, body: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(CHANGE, [Jsonb(body)]).fetchone()
    assert row is not None
    return row


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    """Provide a connection of the administrator to a database with one set."""
    with database.connect() as connection:
        assert change(connection, put(1)) == ("done", 1, {"version": 1})
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE licet.policy_sets SET source = 'version: 2'",
        "UPDATE licet.policy_sets SET put_by = 'user:bob'",
        "DELETE FROM licet.policy_sets",
        "TRUNCATE licet.policy_sets CASCADE",
    ],
)
def test_a_set_is_neither_changed_nor_deleted(
    admin: psycopg.Connection, statement: LiteralString
) -> None:
    with pytest.raises(errors.IntegrityError, match="neither changed nor deleted"):
        admin.execute(statement)


def test_versions_count_and_replicas_are_told(admin: psycopg.Connection) -> None:
    assert change(admin, put(2)) == ("done", 2, {"version": 2})
    back = put(3, kind="policy.rolled_back", source=None, rollback_of=1)
    assert change(admin, back) == ("done", 3, {"version": 3})

    found = admin.execute("SELECT source, rollback_of FROM licet.policy_sets ORDER BY version")
    assert found.fetchall() == [("version: 1", None), ("version: 2", None), ("version: 1", 1)]
    named = admin.execute("SELECT principals FROM licet.changes WHERE revision > 0")
    assert named.fetchall() == [(["/policy"],)] * 3


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"expected_version": 0}, "POLICY_SET_CHANGED"),
        ({"expected_version": 2}, "POLICY_SET_CHANGED"),
        ({"source": None, "rollback_of": 7}, "POLICY_SET_NOT_FOUND"),
        ({"source": None}, "POLICY_SET_NOT_FOUND"),
    ],
)
def test_what_is_refused_is_no_revision(
    admin: psycopg.Connection, fields: dict[str, object], status: str
) -> None:
    assert change(admin, put(2, **fields)) == (status, 1, {})

    assert admin.execute("SELECT max(version) FROM licet.policy_sets").fetchone() == (1,)
    assert admin.execute("SELECT max(revision) FROM licet.changes").fetchone() == (1,)
    refused = admin.execute(
        "SELECT reason FROM audit.events WHERE event_type = 'policy.put' AND result = 'refused'"
    )
    assert refused.fetchall() == [(status,)]


def test_the_digest_is_that_of_the_document(admin: psycopg.Connection) -> None:
    with pytest.raises(errors.CheckViolation):
        admin.execute(
            "INSERT INTO licet.policy_sets SELECT 2, source, sha256('x'), comment, NULL, put_at,"
            " put_by, 9, put_event_id FROM licet.policy_sets"
        )
