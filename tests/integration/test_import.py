"""`licet import` on a real licet: what is loaded, what is rejected, and what is there once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from licet.cli.errors import CommandError
from licet.client import Client
from tests.fakes.api import count, rows
from tests.fakes.importing import (
    BEFORE,
    LATER,
    capability,
    counts,
    imported,
    reasons,
    row,
    written,
)
from tests.fakes.serving import Served


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, timeout=20) as opened:
        yield opened


GOOD = [
    # A child before its parent.
    capability("c-2", parent="c-1", resource="doc:reports/2026/**", principal="agent:b"),
    capability(
        "c-1",
        delegation_depth=3,
        expires_at=LATER,
        granted_at="2021-05-06 07:08:09",
        granted_by="root",
        session_id="run-9",
        metadata={"ticket": "T-1"},
    ),
    row("e-1", principal="agent:a", capability="c-1", result="allow"),
    row("e-2", capability="elsewhere"),
    capability("c-3", revoked_at=BEFORE),
    capability("c-4", expires_at=BEFORE, parent="nobody"),
]


def test_capabilities_are_granted_and_say_where_they_are_from(
    client: Client, tmp_path: Path
) -> None:
    zone = ZoneInfo("Europe/Berlin")
    report = imported(client, written(tmp_path / "old", *GOOD), zone=zone)
    assert report.rejects is None
    assert counts(report, "capability") == (2, 0, 2, 0)
    assert counts(report, "audit") == (2, 0, 0, 0)
    parent, child = client.capabilities()
    assert (child.parent_id, child.principal) == (parent.id, "agent:b")
    assert child.expires_at == parent.expires_at
    assert parent.granted_by == "caller:anonymous"
    digest = parent.metadata["imported"].pop("sha256")  # type: ignore[union-attr] # a mapping
    assert len(digest) == 64
    assert parent.metadata == {
        "ticket": "T-1",
        "imported": {
            "source": "old",
            "id": "c-1",
            "granted_by": "root",
            "granted_at": "2021-05-06T05:08:09.000000+00:00",
        },
    }
    assert (parent.delegation_depth, parent.session_id) == (3, "run-9")
    assert client.authorize("agent:b", "read", "doc:reports/2026/q3").allowed
    first, second = sorted(client.audit(event_types=["import.event"]), key=str)
    about = {first.capability_id, second.capability_id}
    assert about == {parent.id, ""}


BAD: list[tuple[dict[str, Any] | str, str, str]] = [
    ("{", "", "must be JSON"),
    ('{"type": "audit", "type": "audit"}', "", "is there twice"),
    ("[1]", "", "must be a JSON object"),
    ({"id": "x"}, "type", "must be one of user, agent, token, capability, audit"),
    ({"type": "policy", "id": "x"}, "type", "must be one of"),
    (capability(""), "id", "is required"),
    (capability("x" * 129), "id", "at most 128 bytes"),
    (capability("b-1", principal=None), "principal", "or user or agent must be set"),
    (capability("b-2", user="u-1"), "principal", "and only one of them"),
    (capability("b-3", principal="alice"), "principal", "must be `type:id`"),
    (capability("b-4", principal=None, user="u-9"), "user", "must be the id of a record"),
    (capability("b-5", actions=None), "actions", "is required"),
    (capability("b-6", actions=["READ"]), "actions[0]", "must be an action"),
    (capability("b-7", actions="read"), "actions", "must be a list of texts"),
    (capability("b-8", resource="doc:a/../b"), "resource", "must be normalised"),
    (capability("b-9", resource=7), "resource", "must be a text"),
    (capability("b-10", expires_at="soon"), "expires_at", "must be an instant"),
    (capability("b-11", expires_at="2099-01-01 00:00:00"), "expires_at", "has no offset"),
    (capability("b-12", granted_at=LATER), "granted_at", "must not be in the future"),
    (capability("b-13", not_before=LATER, expires_at=LATER), "not_before", "before expires_at"),
    (capability("b-14", delegation_depth=65), "delegation_depth", "from 0 to 64"),
    (capability("b-15", metadata={"imported": 1}), "metadata", "must not have the key"),
    (capability("b-16", metadata={"a": "x" * 16_300}), "metadata", "at most 16384 bytes"),
    (capability("b-17", metadata={"a": 2**60}), "metadata", "up to 2**53"),
    (capability("b-18", condition="ip in home"), "condition", "is no field of this type"),
    (capability("c-1"), "id", "must be unique: line 1 has it"),
    (capability("b-19", parent="nobody"), "parent", "must be the id of a capability"),
    (capability("b-20", parent="b-19"), "parent", "was rejected itself, in line"),
    (capability("b-21", parent="b-18"), "parent", "was rejected itself"),
    (capability("b-22", parent="b-23"), "parent", "leads back"),
    (capability("b-23", parent="b-22"), "parent", "leads back"),
    (capability("b-24", parent="c-1", actions=["*"]), "actions", "ACTIONS_WIDER"),
    (capability("b-25", parent="c-1", resource="doc:**"), "resource", "RESOURCE_WIDER"),
    (capability("b-26", parent="c-1", delegation_depth=1), "delegation_depth", "DEPTH_WIDER"),
    (capability("b-27", parent="c-2"), "parent", "NO_DEPTH_LEFT"),
    (capability("b-28", parent="c-1", expires_at="2100-01-01T00:00:00Z"), "expires_at", "WIDER"),
    (capability("b-29", parent="c-3"), "parent", "has ended, and so has what descends"),
    (row("e-1"), "id", "must be unique: an earlier line has it"),
    (row("e-2", occurred_at=LATER), "occurred_at", "must not be in the future"),
    (row("e-3", occurred_at=None), "occurred_at", "is required"),
    (row("e-4", event_type=""), "event_type", "is required"),
    (row("e-5", principal="alice"), "principal", "must be `type:id`"),
    (row("e-6", note="x"), "note", "is no field of this type"),
]


def bad_file(path: Path) -> Path:
    known = [
        capability("c-1", delegation_depth=1, expires_at=LATER),
        capability("c-2", parent="c-1"),
        capability("c-3", revoked_at=BEFORE),
        row("e-1"),
    ]
    return written(path, *known, *(record for record, _, _ in BAD))


def test_each_bad_record_is_rejected_with_its_field_and_rule(
    served: Served, client: Client, tmp_path: Path
) -> None:
    path = bad_file(tmp_path / "old")
    expected = {line: (field, rule) for line, (_, field, rule) in enumerate(BAD, 5)}
    dry = imported(client, path, dry_run=True)
    report = imported(client, path)
    for found in (reasons(dry), reasons(report)):
        assert found.keys() == expected.keys()
        for line, (field, rule) in expected.items():
            ((its_field, its_rule),) = found[line]
            assert (its_field, rule in its_rule) == (field, True), (line, found[line])
    assert counts(report, "capability") == counts(dry, "capability") == (2, 0, 1, 32)
    assert counts(report, "audit") == counts(dry, "audit") == (1, 0, 0, 6)
    assert counts(report, "unknown") == (0, 0, 0, 5)
    # Nothing of what was rejected was even tried.
    assert count(served.database, "SELECT count(*) FROM licet.capabilities") == 2
    assert rows(served.database, "SELECT * FROM audit.events WHERE result = 'refused'") == []


def test_all_that_is_wrong_with_a_record_is_said(client: Client, tmp_path: Path) -> None:
    bad = capability("c-1", actions=[], resource="", expires_at=True, colour="red")
    found = reasons(imported(client, written(tmp_path / "old", bad)))
    assert [field for field, _ in found[1]] == ["actions", "resource", "expires_at", "colour"]


def test_a_dry_run_changes_nothing(served: Served, client: Client, tmp_path: Path) -> None:
    state = """
    SELECT (SELECT count(*) FROM licet.capabilities), (SELECT count(*) FROM licet.requests),
           (SELECT max(revision) FROM licet.changes), (SELECT count(*) FROM audit.imported),
           (SELECT count(*) FROM audit.events WHERE event_type !~ '^audit')
    """
    before = rows(served.database, state)
    report = imported(client, written(tmp_path / "old", *GOOD), zone=ZoneInfo("UTC"), dry_run=True)
    assert counts(report, "capability") == (2, 0, 2, 0)
    assert counts(report, "audit") == (2, 0, 0, 0)
    assert rows(served.database, state) == before == [(0, 0, 0, 0, 0)]


def test_a_second_import_changes_nothing(served: Served, client: Client, tmp_path: Path) -> None:
    path = written(tmp_path / "old", *GOOD)
    zone = ZoneInfo("UTC")
    imported(client, path, zone=zone)
    # Long after request ids were forgotten.
    with served.database.connect() as connection:
        connection.execute("DELETE FROM licet.requests")
    revision = rows(served.database, "SELECT max(revision) FROM licet.changes")
    dry = imported(client, path, zone=zone, dry_run=True)
    again = imported(client, path, zone=zone)
    for report in (dry, again):
        assert report.rejects is None
        assert counts(report, "capability") == (0, 2, 2, 0)
    assert counts(again, "audit") == (0, 2, 0, 0)
    assert rows(served.database, "SELECT max(revision) FROM licet.changes") == revision
    assert count(served.database, "SELECT count(*) FROM audit.imported") == 2
    # Another system may have the same ids.
    assert counts(imported(client, path, zone=zone, name="older"), "capability") == (2, 0, 2, 0)


def test_two_imports_at_the_same_time_grant_nothing_twice(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one has looked before the first one granted anything."""
    path = written(tmp_path / "old", *GOOD)
    imported(client, path, zone=ZoneInfo("UTC"))
    with monkeypatch.context() as patched:
        patched.setattr(client, "capabilities", lambda **_: iter(()))
        imported(client, path, zone=ZoneInfo("UTC"))
    assert len(list(client.capabilities(include_ended=True))) == 2


def test_what_was_revoked_since_does_not_come_back(client: Client, tmp_path: Path) -> None:
    path = written(tmp_path / "old", *GOOD)
    imported(client, path, zone=ZoneInfo("UTC"))
    client.revoke(principal="agent:a")
    again = imported(client, path, zone=ZoneInfo("UTC"))
    assert counts(again, "capability") == (0, 2, 2, 0)
    assert list(client.capabilities()) == []
    late = capability("c-9", parent="c-1")
    found = reasons(imported(client, written(tmp_path / "late", late)))
    assert found[1] == [("parent", "the parent capability has been revoked (PARENT_ENDED)")]


def test_what_has_changed_since_is_told(client: Client, tmp_path: Path) -> None:
    imported(client, written(tmp_path / "old", capability("c-1"), capability("c-2"), row("e-1")))
    (held,) = (c for c in client.capabilities() if c.metadata["imported"]["id"] == "c-1")  # type: ignore[index,call-overload] # a mapping
    report = imported(
        client,
        written(
            tmp_path / "new",
            capability("c-1", revoked_at=BEFORE),
            capability("c-2", actions=["read"]),
            row("e-1", result="deny"),
        ),
    )
    assert reasons(report) == {
        1: [
            ("revoked_at", f"is later than its import: revoke the capability {held.id} in licet"),
        ],
        2: [("id", "was imported before, and was not as it is here")],
        3: [("id", "was imported before, and was not as it is here")],
    }


def test_a_reject_file_is_mended_and_imported(client: Client, tmp_path: Path) -> None:
    path = written(
        tmp_path / "old",
        capability("c-1", delegation_depth=1),
        capability("c-2", parent="c-1", actions=["READ"]),
        capability("c-3", parent="c-2"),
        row("e-1", capability="c-2", occurred_at="then"),
        '{"type": "audit"',
    )
    first = imported(client, path)
    assert counts(first, "capability") == (1, 0, 0, 2)
    assert first.rejects == tmp_path / "old.rejects"
    text = first.rejects.read_text(encoding="utf-8")
    mended = written(
        tmp_path / "mended",
        text.replace('"READ"', '"read"')
        .replace('"parent": "c-2"', '"parent": "c-1"')
        .replace('"then"', f'"{BEFORE}"')
        .rstrip("\n"),
    )
    second = imported(client, mended)
    assert counts(second, "capability") == (2, 0, 0, 0)
    assert counts(second, "audit") == (1, 0, 0, 0)
    assert counts(second, "unknown") == (0, 0, 0, 1)
    parent, *children = client.capabilities()
    assert [child.parent_id for child in children] == [parent.id] * 2
    (event,) = client.audit(event_types=["import.event"])
    assert event.capability_id in {child.id for child in children}


def test_what_the_server_alone_can_refuse_is_rejected(
    served: Served, client: Client, tmp_path: Path
) -> None:
    """The clock of the machine that imports is behind: what is about to end has ended."""
    made = client.callers.create_key("limited", ["admin"], resources=["doc:**"])
    path = written(
        tmp_path / "old",
        capability("c-1", resource="tool:shell", delegation_depth=1),
        capability("c-2", resource="tool:shell", parent="c-1"),
        capability("c-3"),
    )
    with Client(served.address, api_key=made.token, timeout=20) as limited:
        report = imported(limited, path)
    found = reasons(report)
    assert "OUTSIDE_LIMITS" in found[1][0][1]
    assert found[2] == [("parent", "was rejected itself, in line 1")]
    assert counts(report, "capability") == (1, 0, 0, 2)


def test_a_caller_who_is_no_admin_imports_nothing(
    served: Served, client: Client, tmp_path: Path
) -> None:
    made = client.callers.create_key("grants", ["grant", "read"])
    with (
        Client(served.address, api_key=made.token) as other,
        pytest.raises(CommandError, match="needs a caller with the scope admin"),
    ):
        imported(other, written(tmp_path / "old", *GOOD))


def test_what_cannot_be_read_or_written_is_said_before_anything_is_done(
    client: Client, tmp_path: Path
) -> None:
    path = written(tmp_path / "old", capability("c-1"))
    with pytest.raises(CommandError, match="there is such a file"):
        imported(client, path, rejects=path)
    for nowhere in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CommandError, match=r"cannot read|must be a file"):
            imported(client, nowhere)
    assert list(client.capabilities()) == []
