"""What the database itself keeps of users and suspensions, and what each change touches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors

from licet.domain.user import Role
from tests.conformance.test_api_key_rules import ID, OTHER, change, created
from tests.fakes.postgres import Database

THIRD = "23456789abcdefgh"


def user(kind: str, request_id: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {
        "kind": f"user.{kind}",
        "request_id": request_id,
        "digest": "00" * 32,
        "actor": "user:root",
        "trace_id": "",
        "facts": {},
        "principal": "user:bob",
        "name": None,
        "email": None,
        "roles": None,
        "reason": "",
        "seen": {},
    } | fields


def made(request_id: str = "u1", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    given = {"name": "Bob", "email": "bob@example.org", "roles": ["user"]}
    return user("created", request_id, **(given | fields))


def standing(kind: str, request_id: str, principal: str) -> dict[str, Any]:
    return user("", request_id, principal=principal) | {"kind": f"principal.{kind}"}


def touched(connection: psycopg.Connection) -> list[str]:
    row = connection.execute(
        "SELECT principals FROM licet.changes ORDER BY revision DESC LIMIT 1"
    ).fetchone()
    assert row is not None
    return list(row[0])


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    """Provide a connection of the administrator to a database with a user and its two keys."""
    with database.connect() as connection:
        assert change(connection, made())[:2] == ("done", 1)
        for number, key in enumerate((ID, OTHER)):
            body = created(f"k{number}", id=key, caller="user:bob")
            assert change(connection, body)[0] == "done"
        other = created("k3", id=THIRD, caller="user:bobby")
        assert change(connection, other)[:2] == ("done", 4)
        yield connection


def test_a_change_touches_the_keys_that_act_as_the_user_and_no_others(
    admin: psycopg.Connection,
) -> None:
    keys = [f"/api_keys/{ID}", f"/api_keys/{OTHER}"]
    assert change(admin, user("updated", "1", roles=["sre"]))[:2] == ("done", 5)
    assert touched(admin) == ["/users/user:bob", *keys]
    for kind in ("disabled", "enabled"):
        assert change(admin, user(kind, kind))[0] == "done"
        assert touched(admin) == ["user:bob", "/users/user:bob", *keys]
    for kind in ("suspended", "resumed"):
        assert change(admin, standing(kind, f"p {kind}", "user:bob"))[0] == "done"
        assert touched(admin) == ["user:bob", *keys]
    revoked = created("end") | {"kind": "key.revoked", "id": ID, "actor": "user:x"}
    assert change(admin, revoked)[0] == "done"
    assert change(admin, user("disabled", "2"))[:2] == ("done", 11)
    assert touched(admin) == ["user:bob", "/users/user:bob", keys[1]]
    assert change(admin, standing("suspended", "p3", "agent:nobody"))[0] == "done"
    assert touched(admin) == ["agent:nobody"]


def test_a_key_that_was_made_just_before_does_not_escape(
    admin: psycopg.Connection, database: Database
) -> None:
    """The disabling waits for the lock that the making of the key holds, and then sees the key."""
    late = "3456789abcdefghj"
    with database.connect() as making, database.connect() as disabling:
        with making.transaction():
            assert change(making, created("late", id=late, caller="user:bob"))[0] == "done"
            disabling.execute("SET lock_timeout = '100ms'")
            with pytest.raises(errors.LockNotAvailable):
                change(disabling, user("disabled", "d"))
        assert change(disabling, user("disabled", "d"))[0] == "done"
    assert f"/api_keys/{late}" in touched(admin)


def test_nothing_is_changed_that_was_checked_against_something_else(
    admin: psycopg.Connection,
) -> None:
    for seen in ({"user:bob": 0}, {"user:bob": 2}, {"user:bob": 1, "user:root": 7}):
        with pytest.raises(errors.SerializationFailure):
            change(admin, user("updated", "s", roles=["admin"], seen=seen))
        # The same of keys, and of who is suspended: whoever asks for it may have lost a role.
        for other in (created("s", id=THIRD[::-1]), standing("suspended", "s", "agent:a")):
            with pytest.raises(errors.SerializationFailure):
                change(admin, other | {"seen": seen})
    assert admin.execute("SELECT roles FROM licet.users").fetchone() == (["user"],)
    # Nothing of it was kept, so the same request counts when it was checked again.
    checked = {"user:bob": 1, "user:root": 0}
    assert change(admin, user("updated", "s", roles=["admin"], seen=checked))[:2] == ("done", 5)


def test_who_was_shut_out_meanwhile_changes_nothing(admin: psycopg.Connection) -> None:
    barred = {"actor": "user:bob"}
    assert change(admin, user("disabled", "d"))[0] == "done"
    attempts = [
        made("1", principal="user:eve", email="eve@example.org") | barred,
        standing("suspended", "2", "user:root") | barred,
        created("3", id="456789abcdefghjk") | barred,
        user("disabled", "4", principal="user:root") | barred,
    ]
    for attempt in attempts:
        assert change(admin, attempt)[:2] == ("CALLER_BARRED", 5)
    assert change(admin, user("enabled", "e"))[0] == "done"
    assert change(admin, standing("suspended", "s", "user:bob"))[0] == "done"
    for attempt in attempts:
        again = attempt | {"request_id": f"again {attempt['request_id']}"}
        assert change(admin, again)[:2] == ("CALLER_BARRED", 7)
    counts = admin.execute(
        "SELECT (SELECT count(*) FROM licet.users), (SELECT count(*) FROM licet.api_keys),"
        " (SELECT count(*) FROM audit.events WHERE result = 'refused')"
    ).fetchone()
    assert counts == (1, 3, 8)


def test_a_change_is_one_revision_and_repeatable(admin: psycopg.Connection) -> None:
    first = change(admin, user("disabled", "d"))
    again = change(admin, user("disabled", "d"))
    assert again == (*first[:2], first[2] | {"replayed": True}, first[3])
    assert change(admin, user("disabled", "d", digest="22" * 32))[0] == "REQUEST_ID_REUSED"
    assert change(admin, user("disabled", "d2"))[:2] == ("already", 5)
    assert change(admin, user("disabled", "d3", principal="user:x"))[:2] == ("USER_NOT_FOUND", 5)
    assert change(admin, made("d4"))[:2] == ("USER_EXISTS", 5)
    assert change(admin, made("d5", principal="user:b2"))[:2] == ("EMAIL_TAKEN", 5)
    assert admin.execute("SELECT max(revision) FROM licet.changes").fetchone() == (5,)
    counts = admin.execute(
        "SELECT (SELECT sum(n) FROM audit.queue), (SELECT count(*) FROM audit.events)"
    ).fetchone()
    assert counts == (9, 9)


@pytest.mark.parametrize(
    "fields",
    [
        {"principal": "agent:x"},
        {"principal": "user:"},
        {"name": "x" * 129},
        {"email": "Eve@example.org"},
        {"email": "eve"},
        {"email": "e ve@example.org"},
        {"email": "ève@example.org"},
        {"roles": []},
        {"roles": ["root"]},
        {"roles": ["user", None]},
    ],
)
def test_a_wrong_user_cannot_be_stored(
    admin: psycopg.Connection, fields: dict[str, object]
) -> None:
    given = {"principal": "user:eve", "email": "eve@example.org"} | fields
    with pytest.raises(errors.IntegrityError):
        change(admin, made("w", **given))
    assert admin.execute("SELECT count(*) FROM licet.users").fetchone() == (1,)


def test_every_role_can_be_stored(admin: psycopg.Connection) -> None:
    assert change(admin, user("updated", "r", roles=list(Role)))[0] == "done"


WRONG: list[LiteralString] = [
    "UPDATE licet.users SET principal = 'user:eve', changed_revision = 99",
    "UPDATE licet.users SET created_by = 'user:eve', changed_revision = 99",
    "UPDATE licet.users SET created_at = now(), changed_revision = 99",
    "UPDATE licet.users SET created_revision = 0, changed_revision = 99",
    "UPDATE licet.users SET roles = '{admin}'",
    "UPDATE licet.users SET disabled_at = now(), changed_revision = 99",
    "DELETE FROM licet.users",
    "TRUNCATE licet.users",
    "UPDATE licet.suspensions SET principal = 'agent:b'",
    "UPDATE licet.suspensions SET suspended_revision = 1",
    "UPDATE licet.suspensions SET suspended_at = now()",
    "UPDATE licet.suspensions SET suspended_by = 'user:eve'",
    "UPDATE licet.suspensions SET reason = 'another'",
    "UPDATE licet.suspensions SET resumed_at = now()",
    "DELETE FROM licet.suspensions",
    "TRUNCATE licet.suspensions",
    "INSERT INTO licet.suspensions VALUES ('agent:a', 99, now(), '', '')",
]


def test_users_and_suspensions_change_by_the_rules_only(admin: psycopg.Connection) -> None:
    assert change(admin, standing("suspended", "s", "agent:a"))[0] == "done"
    for statement in WRONG:
        with pytest.raises(errors.IntegrityError):
            admin.execute(statement)
    assert change(admin, standing("resumed", "r", "agent:a"))[0] == "done"
    with pytest.raises(errors.IntegrityError, match="only the end"):
        admin.execute(
            "UPDATE licet.suspensions SET resumed_revision = NULL, resumed_at = NULL,"
            " resumed_by = NULL, resume_reason = NULL"
        )
    # A second time it is another suspension.
    assert change(admin, standing("suspended", "s2", "agent:a"))[0] == "done"
    assert admin.execute("SELECT count(*) FROM licet.suspensions").fetchone() == (2,)
