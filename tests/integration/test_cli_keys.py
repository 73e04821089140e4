"""`licet init`, `licet keys` and `licet whoami`, as processes; and where secrets must not be."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from licet.client import Client, LicetCallError
from licet.domain.api_key import parse
from tests.fakes.api import count, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.fakes.terminal import Finished, run, running

TOKEN = re.compile(r"licet_[0-9a-z]{16}_[0-9a-z]{59}")
TABLES = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('licet', 'audit') AND c.relkind = 'r'
"""

Licet = Callable[..., Finished]


def init(database: Database, *arguments: str) -> Finished:
    return run("init", *arguments, variables={"LICET_DATABASE_URL": database.url})


@pytest.fixture
def served(database: Database) -> Iterator[Served]:
    """Provide a server that asks for credentials."""
    settings = {"authentication": "required", "audit_origin": "licet.test"}
    with serving(database, **settings) as running_server:
        yield running_server


@pytest.fixture
def licet(served: Served, tmp_path: Path) -> Licet:
    """Provide the command line of the first admin."""
    file = tmp_path / "admin.key"
    file.write_text(init(served.database).out, encoding="ascii")

    def call(*arguments: str, **variables: str) -> Finished:
        own = {"LICET_ADDRESS": served.address} | variables
        if "LICET_API_KEY" not in own:
            arguments = (*arguments, "--api-key-file", str(file))
        return run(*arguments, variables=own)

    return call


def test_the_first_key_is_made_once(database: Database) -> None:
    first = init(database)
    assert first.status == 0
    assert TOKEN.fullmatch(first.out.rstrip("\n"))
    token = parse(first.out.rstrip("\n"))
    assert token is not None
    assert token.key_id in first.err
    assert token.secret not in first.err

    second = init(database)
    assert (second.status, second.out) == (2, "")
    assert "--again" in second.err
    again = init(database, "--again", "--name", "found again", "--json")
    assert TOKEN.fullmatch(again.object["token"])
    found = rows(database, "SELECT name, scopes, created_by FROM licet.api_keys ORDER BY name")
    assert found == [
        ("first admin", ["admin"], "service:licet"),
        ("found again", ["admin"], "service:licet"),
    ]
    # The attempt is on record as well.
    kinds = "SELECT result, reason FROM audit.events WHERE event_type = 'key.created' ORDER BY 1, 2"
    assert rows(database, kinds) == [("done", ""), ("done", ""), ("refused", "KEYS_EXIST")]


def test_a_database_without_a_schema_gets_it(empty_database: Database) -> None:
    assert init(empty_database).status == 0
    assert count(empty_database, "SELECT count(*) FROM licet.api_keys") == 1


def test_a_key_is_made_used_rotated_and_revoked(licet: Licet) -> None:
    made = licet("keys", "create", "gate", "authorize,read", "--about-resource", "doc:**")
    assert made.status == 0
    token = made.out.strip()
    key_id = token[6:22]

    def gate(*arguments: str) -> Finished:
        return licet(*arguments, LICET_API_KEY=token)

    shown = gate("whoami", "--json").object
    assert (shown["key_id"], sorted(shown["scopes"])) == (key_id, ["authorize", "read"])
    assert f"key:{key_id}" in gate("whoami").out
    assert gate("authorize", "agent:a", "read", "doc:x").status == 1
    denied = gate("grant", "agent:a", "read", "doc:x")
    assert (denied.status, "SCOPE_MISSING" in denied.err) == (2, True)

    rotated = licet("keys", "rotate", key_id, "--overlap", "1h").out.strip()
    assert gate("whoami").status == 0
    token = rotated
    assert gate("whoami").status == 0
    ended = licet("keys", "revoke", rotated[6:22], "--reason", "over")
    assert "1 confirmed" in ended.out
    refused = gate("whoami")
    assert (refused.status, "UNAUTHENTICATED" in refused.err) == (2, True)
    assert "had ended before" in licet("keys", "revoke", rotated[6:22]).out
    listed = {
        key["name"]: key for key in licet("keys", "list", "--include-ended", "--json").objects
    }
    assert set(listed) == {"first admin", "gate"}
    table = licet("keys", "list", "--include-ended").out
    assert "revoked by" in table
    assert "first admin" in table


def test_without_a_key_a_command_says_what_is_missing(served: Served) -> None:
    failed = run("whoami", variables={"LICET_ADDRESS": served.address})
    assert (failed.status, failed.out) == (2, "")
    assert "an API key is required" in failed.err
    # Health needs none.
    assert run("health", variables={"LICET_ADDRESS": served.address}).status == 0


def test_a_key_file_that_is_none_is_one_line(served: Served, tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n", encoding="ascii")
    binary.write_bytes(b"\xff\xfe")
    spaced = tmp_path / "spaced"
    spaced.write_text("s3cret s3cret", encoding="ascii")
    for file in (tmp_path / "nowhere", empty, binary, spaced):
        failed = run(
            "whoami", "--api-key-file", str(file), variables={"LICET_ADDRESS": served.address}
        )
        assert (failed.status, failed.err.count("\n")) == (2, 1)
        assert "s3cret" not in failed.err


def test_the_client_library_sends_its_key(served: Served) -> None:
    token = init(served.database).out.strip()
    with Client(served.address, api_key=token) as client:
        capability = client.grant("agent:a", "read", "doc:**")
        assert capability.granted_by == f"key:{token[6:22]}"
        assert client.authorize("agent:a", "read", "doc:x").allowed
        made = client.callers.create_key("gate", ["authorize"])
        assert [key.key_id for key in client.callers.list_keys()]
        assert made.token not in repr(made)
    with Client(served.address) as stranger, pytest.raises(LicetCallError) as raised:
        stranger.authorize("agent:a", "read", "doc:x")
    assert raised.value.code == "UNAUTHENTICATED"


def stored_text(database: Database) -> Iterator[str]:
    """Yield every row of licet's tables as text, and bytes as hexadecimal digits."""
    with psycopg.connect(database.url) as connection:
        for schema, table in connection.execute(TABLES).fetchall():
            query = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table))
            for (row,) in connection.execute(query).fetchall():
                yield row


def test_secrets_are_nowhere(database: Database, tmp_path: Path) -> None:
    """Not in the database, the log, the spool, or the list of processes."""
    state = tmp_path / "state"
    variables = {
        "LICET_DATABASE_URL": database.url,
        "LICET_STATE_DIR": str(state),
        "LICET_LOG_LEVEL": "DEBUG",
        "LICET_AUTHENTICATION": "required",
        "LICET_WORKERS": "1",
    }
    token = init(database).out.strip()
    with running("serve", "--listen", "127.0.0.1:0", variables=variables) as server:
        address = server.lines_until("serves on")[-1].rpartition(" ")[2]
        with Client(address, api_key=token) as client:
            made = client.callers.create_key("gate", ["authorize", "read"])
            boot = client.agents.create_bootstrap("farm")
        with Client(address, api_key=boot.token) as farm:
            agent = farm.agents.register("one", "one.example.org")
            with pytest.raises(LicetCallError) as raised:
                farm.agents.register("two", "two.example.org")
            assert boot.token[23:] not in str(raised.value)
        with Client(address, api_key=agent.token) as one:
            one.agents.heartbeat()
            rotated = one.agents.rotate()
        assert not any(new.token in repr(new) for new in (boot, agent, rotated))
        with Client(address, api_key=made.token) as gate:
            gate.authorize("agent:a", "read", "doc:x")
            for call in (
                lambda: gate.grant("agent:a", "read", "doc:x"),
                lambda: gate.callers.revoke_key("0" * 16, reason="x"),
            ):
                with pytest.raises(LicetCallError) as raised:
                    call()
                assert made.token[23:] not in str(raised.value)
        broken = made.token[:-1] + ("0" if made.token[-1] != "0" else "1")
        with Client(address, api_key=broken) as typo, pytest.raises(LicetCallError):
            typo.authorize("agent:a", "read", "doc:x")
        environments = _command_lines()
        finished = server.finish(signal.SIGINT)
    texts: dict[str, Any] = {
        "output": finished.out,
        "log": finished.err,
        "processes": environments,
        "database": "\n".join(stored_text(database)),
        "state": "".join(
            path.read_bytes().decode("latin-1") for path in state.rglob("*") if path.is_file()
        ),
    }
    assert "gate" in texts["database"]
    assert "farm" in texts["database"]
    assert count(database, "SELECT count(*) FROM audit.events WHERE event_type = 'auth.failed'") > 0
    texts_of = (token, made.token, boot.token, agent.token, rotated.token)
    for secret in (text[23:75] for text in texts_of):
        hexadecimal = secret.encode().hex()
        for place, text in texts.items():
            assert secret not in text, place
            assert hexadecimal not in text, place


def _command_lines() -> str:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().decode("latin-1"))
        except OSError:
            continue
    return "\n".join(lines)


def test_a_server_says_loudly_that_it_admits_everybody(database: Database) -> None:
    variables = {"LICET_DATABASE_URL": database.url, "LICET_WORKERS": "1"}
    with running("serve", "--listen", "127.0.0.1:0", variables=variables) as server:
        lines = server.lines_until("callers:")
        assert lines[-1] == "callers: anybody who can connect is admin"
        assert eventually(lambda: "CALLERS ARE NOT AUTHENTICATED" in server.errors)
        server.finish(signal.SIGINT)


def test_a_public_server_asks_for_a_key(database: Database) -> None:
    variables = {
        "LICET_DATABASE_URL": database.url,
        "LICET_WORKERS": "1",
        "LICET_INSECURE_BIND": "true",
    }
    with running("serve", "--listen", "0.0.0.0:0", variables=variables) as server:
        lines = server.lines_until("Ctrl-C")
        port = lines[0].rpartition(":")[2]
        assert "callers: need an API key; `licet init` makes the first" in lines
        with Client(f"127.0.0.1:{port}") as stranger, pytest.raises(LicetCallError) as raised:
            stranger.authorize("agent:a", "read", "doc:x")
        assert raised.value.code == "UNAUTHENTICATED"
        with Client(f"127.0.0.1:{port}", api_key=init(database).out.strip()) as admin:
            assert admin.callers.whoami().scopes == ("admin",)
        assert "NOT AUTHENTICATED" not in server.errors
        server.finish(signal.SIGINT)


def test_the_record_of_callers_is_sealed_and_verifies(served: Served, licet: Licet) -> None:
    """Events of the database and of the spool, with all kinds of changes of keys."""
    made = licet("keys", "create", "gate", "authorize", "--json").object
    licet("keys", "rotate", made["key"]["key_id"])
    licet("keys", "revoke", made["key"]["key_id"])
    assert run("whoami", variables={"LICET_ADDRESS": served.address}).status == 2
    kinds = {"key.created", "key.rotated", "key.revoked", "auth.failed"}

    def is_sealed() -> bool:
        query = licet("audit", "query", "--json", "--limit", "0")
        found = {event["event_type"] for event in query.objects}
        pending = count(served.database, "SELECT count(*) FROM audit.queue")
        return kinds <= found and not pending

    assert eventually(is_sealed, timeout_seconds=30)
    verified = licet("audit", "verify", "--json", LICET_DATABASE_URL=served.database.url)
    assert verified.status == 0, verified.out + verified.err
    assert verified.object["verified"]
