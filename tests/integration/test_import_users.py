"""Users of an old system: made once, and the holders of what refers to their records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from licet.client import Client
from tests.fakes.api import rows
from tests.fakes.importing import capability, counts, imported, reasons, token, user, written
from tests.fakes.serving import Served

USERS = "SELECT principal, email, roles, name FROM licet.users ORDER BY principal"


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, timeout=20) as opened:
        yield opened


def test_users_are_made_and_hold_what_refers_to_them(
    served: Served, client: Client, tmp_path: Path
) -> None:
    old = written(
        tmp_path / "old",
        capability("c-1", principal=None, user="17"),
        token("t-1", principal=None, user="17", scopes=["read"]),
        user(
            "17", principal="user:ada", name="Ada", email="Ada@Example.org", roles=["sre", "user"]
        ),
        user("bob", created_at=1_600_000_000),
    )
    dry = imported(client, old, dry_run=True)
    assert counts(dry, "user") == (2, 0, 0, 0)
    assert rows(served.database, USERS) == []
    report = imported(client, old, keys_file=tmp_path / "keys")
    for kind, expected in (("user", 2), ("token", 1), ("capability", 1)):
        assert counts(report, kind) == counts(dry, kind) == (expected, 0, 0, 0)
    assert rows(served.database, USERS) == [
        ("user:ada", "ada@example.org", ["sre", "user"], "Ada"),
        ("user:bob", "bob@example.org", ["developer"], ""),
    ]
    (held,) = client.capabilities()
    (key,) = client.callers.list_keys()
    assert held.principal == key.caller == "user:ada"

    again = imported(client, old, keys_file=tmp_path / "keys")
    for kind, expected in (("user", 2), ("token", 1), ("capability", 1)):
        assert counts(again, kind) == (0, expected, 0, 0)


def test_a_user_who_was_disabled_is_not_made_and_holds_nothing(
    client: Client, tmp_path: Path
) -> None:
    old = written(
        tmp_path / "old",
        user("ada", disabled=True),
        capability("c-1", principal=None, user="ada"),
    )
    report = imported(client, old)
    assert counts(report, "user") == (0, 0, 1, 0)
    assert reasons(report) == {2: [("user", "had ended, and is not imported")]}
    assert list(client.callers.users.list(include_disabled=True)) == []


def test_bad_users_are_rejected(client: Client, tmp_path: Path) -> None:
    client.callers.users.create("user:there", "there@example.org", ["user"])
    for name in ("other", "on"):
        client.callers.users.create(f"user:{name}", f"{name}@example.org", ["user"])
    bad: list[tuple[dict[str, Any], str, str]] = [
        (user("a", email="nobody"), "email", "must be an e-mail address"),
        (user("b", email=None), "email", "is required"),
        (user("c", roles=["root"]), "roles[0]", "must be one of"),
        (user("d", roles=["user", "user"]), "roles", "distinct"),
        (user("e", principal="agent:e"), "principal", "must be of the type `user`"),
        (user("f", disabled="no"), "disabled", "must be true or false"),
        (user("g", password="hunter2"), "password", "is no field of this type"),
        (user("good", name="x"), "id", "must be unique: line 1 has it"),
        (user("k", principal="user:good"), "principal", "must be unique: line 1 has it"),
        (user("h", email="GOOD@example.org"), "email", "must be unique: line 1 has it"),
        (user("i", email="other@example.org"), "email", "is that of user:other in licet"),
        (user("there"), "principal", "is in licet, and not as it is here"),
        (user("j", principal="user:on", disabled=True), "disabled", "is not so in licet"),
        (capability("c-1", principal=None, user="a"), "user", "was rejected itself"),
        (capability("c-2", principal=None, user="z"), "user", "must be the id of a record"),
    ]
    path = written(tmp_path / "old", user("good"), *(record for record, _, _ in bad))
    for dry_run in (True, False):
        report = imported(client, path, dry_run=dry_run)
        found = reasons(report)
        assert found.keys() == set(range(2, len(bad) + 2))
        for line, (_, field, rule) in enumerate(bad, 2):
            ((its_field, its_rule),) = found[line]
            assert (its_field, rule in its_rule) == (field, True), (line, found[line])
        assert counts(report, "user") == (1, 0, 0, 13)


def test_a_mended_record_knows_the_user_who_was_imported(client: Client, tmp_path: Path) -> None:
    old = written(
        tmp_path / "old",
        user("17", principal="user:ada"),
        capability("c-1", principal=None, user="17", actions=["READ"]),
        capability("c-2", principal=None, user="17", parent="c-1"),
    )
    report = imported(client, old)
    assert report.rejects is not None
    text = report.rejects.read_text(encoding="utf-8").replace("READ", "read")
    mended = written(tmp_path / "mended", text.replace('"parent": "c-1"', '"parent": ""').strip())
    again = imported(client, mended)
    assert counts(again, "capability") == (2, 0, 0, 0), again.rejects
    assert {held.principal for held in client.capabilities()} == {"user:ada"}
