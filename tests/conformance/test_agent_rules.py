"""What the database itself keeps of agents, their tokens and bootstrap tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.fakes.postgres import Database

BOOT = "0123456789abcdef"
TOKEN = "123456789abcdefg"
NEXT = "23456789abcdefgh"
CHANGE: LiteralString = "SELECT * FROM licet.make_admin_change(%s)"


def change(
    connection: psycopg.Connection, kind: str, request_id: str, **details: object
) -> tuple[Any, ...]:
    body = {
        "kind": kind,
        "request_id": request_id,
        "digest": "00" * 32,
        "actor": "user:alice",
        "trace_id": "",
        "reason": "",
        "facts": {},
    }
    row = connection.execute(CHANGE, [Jsonb(body | details)]).fetchone()
    assert row is not None
    return row


def bootstrap(connection: psycopg.Connection, request_id: str, **fields: object) -> tuple[Any, ...]:
    token = {
        "name": "a farm",
        "secret_sha256": "11" * 32,
        "principals": ["agent:**"],
        "max_uses": 2,
        "expires_at": "9999-01-01T00:00:00Z",
    }
    identifier = fields.pop("id", BOOT)
    return change(connection, "bootstrap.created", request_id, id=identifier, token=token | fields)


def token(identifier: str, seconds: float = 86_400) -> dict[str, object]:
    return {"id": identifier, "secret_sha256": "22" * 32, "ttl_seconds": seconds}


def register(
    connection: psycopg.Connection,
    request_id: str,
    name: str = "a",
    identifier: str = TOKEN,
    seconds: float = 86_400,
    **fields: object,
) -> tuple[Any, ...]:
    agent = {"name": name, "hostname": name, "address": "", "public_key": ""} | fields
    return change(
        connection,
        "agent.registered",
        request_id,
        id=BOOT,
        agent=agent,
        token=token(identifier, seconds),
    )


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection]:
    """Provide a connection of the administrator to a database with one agent."""
    with database.connect() as connection:
        assert bootstrap(connection, "b1")[:2] == ("done", 1)
        assert register(connection, "a1")[:2] == ("done", 2)
        yield connection


REFUSED: list[LiteralString] = [
    "DELETE FROM licet.bootstrap_tokens",
    "TRUNCATE licet.bootstrap_tokens",
    "UPDATE licet.bootstrap_tokens SET uses = 0",
    "UPDATE licet.bootstrap_tokens SET uses = uses + 2",
    "UPDATE licet.bootstrap_tokens SET max_uses = 9",
    "UPDATE licet.bootstrap_tokens SET expires_at = 'infinity'",
    "UPDATE licet.bootstrap_tokens SET principals = '{agent:*}'",
    "UPDATE licet.bootstrap_tokens SET secret_sha256 = sha256('')",
    "DELETE FROM licet.agents",
    "TRUNCATE licet.agents CASCADE",
    "UPDATE licet.agents SET name = 'b'",
    "UPDATE licet.agents SET name = '*'",
    "UPDATE licet.agents SET hostname = 'A'",
    "UPDATE licet.agents SET deactivated_at = now()",
    "UPDATE licet.agent_tokens SET agent = 'b'",
    "UPDATE licet.agent_tokens SET expires_at = expires_at + interval '1 second'",
    "UPDATE licet.agent_tokens SET secret_sha256 = sha256('')",
]


@pytest.mark.parametrize("name", ["a*", "*", "**", "a/**", "", "a//b", "-a", "a b", "../a"])
def test_no_name_of_an_agent_is_a_pattern(admin: psycopg.Connection, name: str) -> None:
    with pytest.raises(errors.IntegrityError):
        register(admin, "a2", name, NEXT, hostname="h")
    assert admin.execute("SELECT uses FROM licet.bootstrap_tokens").fetchone() == (1,)


def test_what_is_said_once_stays(admin: psycopg.Connection) -> None:
    for statement in REFUSED:
        with pytest.raises(errors.IntegrityError):
            admin.execute(statement)


def test_what_has_ended_does_not_come_back(admin: psycopg.Connection) -> None:
    assert change(admin, "agent.deactivated", "d1", name="a")[:2] == ("done", 3)
    assert change(admin, "bootstrap.revoked", "d2", id=BOOT)[:2] == ("done", 4)
    backward: list[LiteralString] = [
        "UPDATE licet.agent_tokens SET ended_revision = NULL, ended_at = NULL",
        """UPDATE licet.bootstrap_tokens SET ended_revision = NULL, ended_event_id = NULL,
           ended_at = NULL, ended_by = NULL, end_reason = NULL""",
    ]
    for statement in backward:
        with pytest.raises(errors.IntegrityError):
            admin.execute(statement)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "0123456789abcdeI"},
        {"id": BOOT},
        {"id": NEXT, "name": ""},
        {"id": NEXT, "principals": []},
        {"id": NEXT, "principals": ["agent:a", "user:**"]},
        {"id": NEXT, "max_uses": 0},
        {"id": NEXT, "max_uses": 10_001},
        {"id": NEXT, "secret_sha256": "11"},
    ],
)
def test_a_wrong_bootstrap_token_cannot_be_stored(
    admin: psycopg.Connection, fields: dict[str, object]
) -> None:
    with pytest.raises(errors.IntegrityError):
        bootstrap(admin, "b2", **fields)
    assert admin.execute("SELECT count(*) FROM licet.bootstrap_tokens").fetchone() == (1,)


def test_no_token_lives_longer_than_a_day(admin: psycopg.Connection) -> None:
    with pytest.raises(errors.IntegrityError):
        register(admin, "a2", "b", NEXT, seconds=86_401)


def test_a_registration_counts_and_what_is_refused_does_not(admin: psycopg.Connection) -> None:
    uses: LiteralString = "SELECT uses FROM licet.bootstrap_tokens"
    assert register(admin, "a1")[:2] == ("done", 2)  # a repetition
    assert register(admin, "a2", "a", NEXT)[:2] == ("AGENT_EXISTS", 2)
    assert register(admin, "a3", "b", NEXT, hostname="a")[:2] == ("HOSTNAME_TAKEN", 2)
    assert admin.execute(uses).fetchone() == (1,)
    assert register(admin, "a4", "b", NEXT)[:2] == ("done", 3)
    assert admin.execute(uses).fetchone() == (2,)
    last = "3456789abcdefghj"
    assert register(admin, "a5", "c", last)[:2] == ("BOOTSTRAP_ENDED", 3)
    touched = admin.execute("SELECT principals FROM licet.changes WHERE revision = 3").fetchone()
    # With the last use, every replica forgets the bootstrap token.
    assert touched == (["/agents/b", f"/api_keys/{NEXT}", f"/api_keys/{BOOT}"],)


def test_an_agent_whose_tokens_are_over_registers_again(admin: psycopg.Connection) -> None:
    assert register(admin, "a2", "b", NEXT, seconds=0.001)[:2] == ("done", 3)
    assert bootstrap(admin, "b2", id="456789abcdefghjk")[0] == "done"
    again = {"id": "456789abcdefghjk", "token": token("56789abcdefghjkm")}
    agent = {"name": "b", "hostname": "moved", "address": "", "public_key": ""}
    assert change(admin, "agent.registered", "a3", agent=agent, **again)[:2] == ("done", 5)
    found = admin.execute("SELECT id FROM licet.agent_tokens WHERE agent = 'b'").fetchall()
    assert found == [("56789abcdefghjkm",)]


def test_a_rotation_is_by_a_token_that_counts(admin: psycopg.Connection) -> None:
    def rotate(request_id: str, old: str, new: str) -> tuple[Any, ...]:
        fields = {"id": old, "name": "a", "overlap_seconds": 300, "token": token(new)}
        return change(admin, "agent.rotated", request_id, **fields)

    assert rotate("r1", TOKEN, NEXT)[:2] == ("done", 3)
    overlap: LiteralString = "SELECT overlap_ends_at FROM licet.agent_tokens WHERE id = %s"
    first = admin.execute(overlap, [TOKEN]).fetchone()
    third = "3456789abcdefghj"
    assert rotate("r2", TOKEN, third)[:2] == ("done", 4)
    # Not prolonged; and what was made of it before is over.
    assert admin.execute(overlap, [TOKEN]).fetchone() == first
    assert rotate("r3", NEXT, "456789abcdefghjk")[:2] == ("TOKEN_ENDED", 4)
    assert rotate("r4", third, "56789abcdefghjkm")[:2] == ("done", 5)
    assert change(admin, "agent.deactivated", "d1", name="a")[:2] == ("done", 6)
    assert rotate("r5", "56789abcdefghjkm", "6789abcdefghjkmn")[:2] == ("TOKEN_ENDED", 6)
    living = "SELECT count(*) FROM licet.agent_tokens WHERE ended_revision IS NULL"
    assert admin.execute(living).fetchone() == (0,)


def test_only_the_silent_are_marked_and_only_the_heard_come_back(
    admin: psycopg.Connection,
) -> None:
    mark: LiteralString = "SELECT licet.mark_silent_agents(make_interval(secs => %s), %s)"
    back: LiteralString = "SELECT licet.bring_back_agents('{a,b,nobody}')"
    assert register(admin, "a2", "b", NEXT)[0] == "done"
    admin.execute("INSERT INTO licet.agent_heartbeats VALUES ('b', now() + interval '1 minute')")
    assert admin.execute(mark, [60, 9]).fetchone() == (0,)
    revisions: LiteralString = "SELECT max(revision) FROM licet.changes"
    before = admin.execute(revisions).fetchone()
    assert admin.execute(mark, [0, 9]).fetchone() == (1,)
    assert admin.execute(mark, [0, 9]).fetchone() == (0,)
    assert admin.execute(back).fetchone() == (0,)
    admin.execute("INSERT INTO licet.agent_heartbeats VALUES ('a', clock_timestamp())")
    assert admin.execute(back).fetchone() == (1,)
    assert admin.execute(back).fetchone() == (0,)
    # No revision of theirs, and events that are sealed like all others.
    assert admin.execute(revisions).fetchone() == before
    events = admin.execute(
        "SELECT event_type, actor, principal FROM audit.events"
        " WHERE event_type IN ('agent.offline', 'agent.online') ORDER BY event_id"
    ).fetchall()
    assert events == [
        ("agent.offline", "service:licet", "agent:a"),
        ("agent.online", "agent:a", "agent:a"),
    ]
    stored = admin.execute("SELECT count(*) FROM audit.events").fetchone()
    assert admin.execute("SELECT sum(n) FROM audit.queue").fetchone() == stored


def test_nobody_is_marked_in_a_history_that_nobody_has_confirmed(
    admin: psycopg.Connection,
) -> None:
    admin.execute("SELECT licet.begin_epoch()")
    assert admin.execute("SELECT licet.mark_silent_agents(interval '0', 9)").fetchone() == (0,)
    assert register(admin, "a2", "b", NEXT)[0] == "HISTORY_UNCONFIRMED"
