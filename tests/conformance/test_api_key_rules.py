"""What the database itself keeps of API keys: they end, once, and nothing else of them changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.fakes.postgres import Database

ID = "0123456789abcdef"
OTHER = "123456789abcdefg"
CHANGE: LiteralString = "SELECT * FROM licet.make_admin_change(%s)"


def created(request_id: str = "r1", **fields: object) -> dict[str, Any]:
    key: dict[str, object] = {
        "id": ID,
        "name": "a gate",
        "secret_sha256": "11" * 32,
        "scopes": ["authorize"],
        "caller": f"key:{ID}",
        "principals": [],
        "resources": [],
        "expires_at": None,
    }
    return {
        "kind": "key.created",
        "request_id": request_id,
        "digest": "00" * 32,
        "actor": "user:alice",
        "trace_id": "",
        "id": None,
        "only_first": False,
        "reason": "",
        "facts": {},
        "key": key | fields,
    }


def change(connection: psycopg.Connection, body: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(CHANGE, [Jsonb(body)]).fetchone()
    assert row is not None
    return row


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    """Provide a connection of the administrator to a database with one key."""
    with database.connect() as connection:
        assert change(connection, created())[:2] == ("done", 1)
        yield connection


IMMUTABLE: dict[str, LiteralString] = {
    "id": "id = '123456789abcdefg'",
    "name": "name = 'another'",
    "secret_sha256": "secret_sha256 = sha256('')",
    "scopes": "scopes = '{admin}'",
    "caller": "caller = 'agent:a'",
    "principals": "principals = '{agent:a}'",
    "resources": "resources = '{doc:**}'",
    "expires_at": "expires_at = '2099-01-01'",
    "replaces": "replaces = id",
    "created_at": "created_at = '2000-01-01'",
    "created_by": "created_by = 'user:bob'",
    "created_revision": "created_revision = 0",
    "created_event_id": "created_event_id = gen_random_uuid()",
}
END: LiteralString = """
UPDATE licet.api_keys SET ended_revision = 99, ended_event_id = gen_random_uuid(),
  ended_at = now(), ended_by = 'user:a', end_reason = ''
"""


@pytest.mark.parametrize("column", IMMUTABLE)
def test_nothing_but_the_end_of_a_key_changes(admin: psycopg.Connection, column: str) -> None:
    update: LiteralString = "UPDATE licet.api_keys SET "
    with pytest.raises(errors.IntegrityError):
        admin.execute(update + IMMUTABLE[column])
    both: LiteralString = END.replace("SET ", "SET " + IMMUTABLE[column] + ", ")
    with pytest.raises(errors.IntegrityError):
        admin.execute(both)


def test_every_column_is_covered(admin: psycopg.Connection) -> None:
    found = admin.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'licet.api_keys'::regclass"
        " AND attnum > 0 AND attname NOT LIKE 'end%' AND attname <> 'overlap_ends_at'"
    ).fetchall()
    assert {name for (name,) in found} == set(IMMUTABLE)


def test_a_key_ends_once_and_is_never_deleted(admin: psycopg.Connection) -> None:
    for statement in ("DELETE FROM licet.api_keys", "TRUNCATE licet.api_keys CASCADE"):
        with pytest.raises(errors.IntegrityError, match="not deleted"):
            admin.execute(statement)
    admin.execute(END)
    for again in (END, "UPDATE licet.api_keys SET ended_at = NULL"):
        with pytest.raises(errors.IntegrityError, match="has ended"):
            admin.execute(again)


def test_a_key_that_was_rotated_may_only_end(admin: psycopg.Connection) -> None:
    admin.execute("UPDATE licet.api_keys SET overlap_ends_at = '2099-01-01'")
    with pytest.raises(errors.IntegrityError, match="was rotated"):
        admin.execute("UPDATE licet.api_keys SET overlap_ends_at = '2100-01-01'")
    admin.execute(END)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "0123456789abcdeI"},
        {"id": ID},
        {"id": OTHER, "name": ""},
        {"id": OTHER, "secret_sha256": "11"},
        {"id": OTHER, "scopes": []},
        {"id": OTHER, "scopes": ["root"]},
        {"id": OTHER, "caller": "alice"},
    ],
)
def test_a_wrong_key_cannot_be_stored(admin: psycopg.Connection, fields: dict[str, object]) -> None:
    with pytest.raises(errors.IntegrityError):
        change(admin, created("r2", **fields))
    counts = admin.execute("SELECT count(*), max(created_revision) FROM licet.api_keys").fetchone()
    assert counts == (1, 1)
    assert admin.execute("SELECT max(revision) FROM licet.changes").fetchone() == (1,)


def test_a_change_is_one_revision_and_repeatable(admin: psycopg.Connection) -> None:
    assert change(admin, created())[:2] == ("done", 1)
    reused = created() | {"digest": "22" * 32}
    assert change(admin, reused)[:2] == ("REQUEST_ID_REUSED", 1)
    rotated = created("r2", id=OTHER) | {"kind": "key.rotated", "id": ID, "overlap_seconds": 60}
    assert change(admin, rotated)[:2] == ("done", 2)
    again = rotated | {"request_id": "r3"}
    assert change(admin, again)[:2] == ("KEY_ROTATED", 2)
    found = admin.execute("SELECT revision, principals FROM licet.changes ORDER BY 1").fetchall()
    assert found == [
        (0, []),
        (1, [f"/api_keys/{ID}"]),
        (2, [f"/api_keys/{ID}", f"/api_keys/{OTHER}"]),
    ]
    events = admin.execute(
        "SELECT event_type, resource, result, revision FROM audit.events ORDER BY event_id"
    ).fetchall()
    assert sorted(events) == [
        ("key.created", f"api_key:{ID}", "done", 1),
        ("key.created", f"api_key:{OTHER}", "done", 2),
        ("key.rotated", f"api_key:{ID}", "done", 2),
        ("key.rotated", f"api_key:{ID}", "refused", 2),
    ]
    queued = admin.execute("SELECT sum(n) FROM audit.queue").fetchone()
    assert queued == (len(events),)


def test_nothing_changes_in_a_history_that_nobody_has_confirmed(admin: psycopg.Connection) -> None:
    admin.execute("SELECT licet.begin_epoch()")
    assert change(admin, created("r2", id=OTHER))[0] == "HISTORY_UNCONFIRMED"
    assert admin.execute("SELECT count(*) FROM licet.api_keys").fetchone() == (1,)
