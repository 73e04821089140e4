"""Agents of an old system: each gets what it needs to register itself, once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from licet.cli.importing.issuing import LOST
from licet.client import Client, LicetCallError
from tests.fakes.api import count
from tests.fakes.importing import (
    agent,
    capability,
    counts,
    imported,
    reasons,
    token,
    written,
)
from tests.fakes.serving import Served

TOKENS = "SELECT count(*) FROM licet.bootstrap_tokens"
PEM = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, timeout=20) as opened:
        yield opened


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the credentials of a keys file."""
    found = map(json.loads, path.read_text(encoding="ascii").splitlines())
    return [line for line in found if "key" in line]


def test_an_agent_registers_with_what_the_import_made_for_it(
    served: Served, client: Client, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    old = written(
        tmp_path / "old",
        capability("c-1", principal=None, agent="a-1"),
        token("t-1", principal=None, agent="a-1"),
        agent("a-1", name="workers/17", address="10.0.0.7:80", public_key=PEM),
        agent("a-2", disabled=True),
    )
    dry = imported(client, old, dry_run=True)
    report = imported(client, old, keys_file=keys)
    for found in (dry, report):
        assert counts(found, "agent") == (1, 0, 1, 0)
        assert counts(found, "token") == (0, 0, 1, 0)
        assert counts(found, "capability") == (1, 0, 0, 0)
    assert count(served.database, TOKENS) == 1
    (line,) = lines(keys)
    assert (line["agent"], line["name"], line["hostname"]) == (
        *("a-1", "workers/17", "a-1.example.org"),
    )
    (held,) = client.capabilities()
    assert held.principal == "agent:workers/17"
    again = imported(client, old, keys_file=keys)
    assert counts(again, "agent") == (0, 1, 1, 0)

    with Client(served.address, api_key=line["key"]) as newcomer:
        with pytest.raises(LicetCallError) as raised:
            newcomer.agents.register("workers/18", "w18")
        assert raised.value.reason == "OUTSIDE_LIMITS"
        registered = newcomer.agents.register("workers/17", "w17")
    with Client(served.address, api_key=registered.token) as worker:
        assert worker.authorize("agent:workers/17", "read", "doc:reports/x").allowed
    # It is there, and needs nothing more, whatever file is given.
    for options in ({"keys_file": keys}, {"keys_file": tmp_path / "other"}):
        assert counts(imported(client, old, **options), "agent") == (0, 1, 1, 0)
    assert count(served.database, TOKENS) == 1


def test_a_token_that_nobody_can_use_is_made_anew(
    served: Served, client: Client, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    old = written(tmp_path / "old", agent("a-1"))
    imported(client, old, keys_file=keys)
    first = keys.read_text(encoding="ascii").splitlines()[0]
    (lost,) = lines(keys)
    keys.write_text(f"{first}\n", encoding="ascii")
    assert counts(imported(client, old, keys_file=keys), "agent") == (1, 0, 0, 0)
    listed = {each.token_id: each for each in client.agents.list_bootstrap(include_ended=True)}
    assert listed[lost["key_id"]].end_reason == LOST
    # Out of date, and never used.
    with served.database.connect() as connection:
        connection.execute("ALTER TABLE licet.bootstrap_tokens DISABLE TRIGGER ALL")
        connection.execute("UPDATE licet.bootstrap_tokens SET expires_at = created_at")
    assert counts(imported(client, old, keys_file=keys), "agent") == (1, 0, 0, 0)
    (usable,) = client.agents.list_bootstrap()
    assert usable.token_id == lines(keys)[-1]["key_id"]


def test_an_agent_that_has_registered_already_needs_nothing(
    served: Served, client: Client, tmp_path: Path
) -> None:
    made = client.agents.create_bootstrap("by hand", principals=["agent:a-1"])
    with Client(served.address, api_key=made.token) as newcomer:
        newcomer.agents.register("a-1", "a-1")
    old = written(tmp_path / "old", agent("a-1"), capability("c-1", principal=None, agent="a-1"))
    report = imported(client, old, keys_file=tmp_path / "keys")
    assert counts(report, "agent") == (0, 1, 0, 0)
    assert counts(report, "capability") == (1, 0, 0, 0)
    assert count(served.database, TOKENS) == 1


def test_a_token_that_was_revoked_stays_so(served: Served, client: Client, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    old = written(tmp_path / "old", agent("a-1"))
    imported(client, old, keys_file=keys)
    (line,) = lines(keys)
    client.agents.revoke_bootstrap(line["key_id"], reason="it leaked")
    assert counts(imported(client, old, keys_file=keys), "agent") == (0, 1, 0, 0)
    # Its time being over makes no difference.
    with served.database.connect() as connection:
        connection.execute("ALTER TABLE licet.bootstrap_tokens DISABLE TRIGGER ALL")
        connection.execute("UPDATE licet.bootstrap_tokens SET expires_at = created_at")
    for path in (keys, tmp_path / "other"):
        assert counts(imported(client, old, keys_file=path), "agent") == (0, 1, 0, 0)
    assert list(client.agents.list_bootstrap()) == []


def test_bad_agents_are_rejected(client: Client, tmp_path: Path) -> None:
    bad: list[tuple[dict[str, Any], str, str]] = [
        (agent("a", name="*"), "name", "must be an agent's name"),
        (agent("*", hostname="star"), "name", "must be an agent's name"),
        (agent("b", hostname="-"), "hostname", "must be a host's name"),
        (agent("c", hostname=""), "hostname", "is required"),
        (agent("d", public_key="ssh-rsa AAAA"), "public_key", "must be a public key in PEM"),
        (agent("e", address="a" * 257), "address", "at most 256 bytes"),
        (agent("f", name="good"), "name", "must be unique: line 1 has it"),
        (agent("g", hostname="GOOD.example.org"), "hostname", "must be unique: line 1 has it"),
        (agent("h", created_at="then"), "created_at", "must be an instant"),
        (capability("c-1", principal=None, agent="a"), "agent", "was rejected itself"),
    ]
    old = written(tmp_path / "old", agent("good"), *(record for record, _, _ in bad))
    report = imported(client, old, keys_file=tmp_path / "keys")
    for line, (_, field, rule) in enumerate(bad, 2):
        ((its_field, its_rule),) = reasons(report)[line]
        assert (its_field, rule in its_rule) == (field, True), its_rule
    assert counts(report, "agent") == (1, 0, 0, 9)
