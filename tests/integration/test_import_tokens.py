"""Tokens of an old system: keys of licet, whose texts are written down once and never get lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from licet.cli.errors import CommandError
from licet.cli.importing.issuing import LOST
from licet.cli.importing.keys_file import KeysFile
from licet.client import ApiKey, Client
from tests.fakes.api import count, rows
from tests.fakes.importing import BEFORE, LATER, counts, imported, reasons, token, written
from tests.fakes.serving import Served

KEYS = "SELECT count(*) FROM licet.api_keys"


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, timeout=20) as opened:
        yield opened


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the credentials of a keys file."""
    found = map(json.loads, path.read_text(encoding="ascii").splitlines())
    return [line for line in found if "key" in line]


def living(client: Client) -> list[ApiKey]:
    return list(client.callers.list_keys())


def test_a_live_token_becomes_a_key_of_its_owner(
    served: Served, client: Client, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    old = written(
        tmp_path / "old",
        token("t-1", expires_at=LATER),
        token("t-2", revoked_at=BEFORE),
        token("t-3", expires_at=BEFORE),
        token("t-4", principal=None, agent="a-1"),
        token("t-5", name="ä" * 64),
    )
    with pytest.raises(CommandError, match="has 2 live tokens and agents: say with --keys-file"):
        imported(client, old)
    assert counts(imported(client, old, dry_run=True), "token") == (2, 0, 3, 0)
    assert count(served.database, KEYS) == 0
    assert not keys.exists()

    report = imported(client, old, keys_file=keys)
    assert counts(report, "token") == (2, 0, 3, 0)
    assert keys.stat().st_mode & 0o777 == 0o600
    first, second = sorted(lines(keys), key=lambda line: line["token"])
    assert (first["token"], first["caller"], first["name"]) == ("t-1", "service:billing", "gate")
    assert first["expires_at"] == "2099-01-01T00:00:00.000000+00:00"
    assert second["expires_at"] is None
    with Client(served.address, api_key=first["key"]) as gate:
        who = gate.callers.whoami()
    assert (who.caller, sorted(who.scopes)) == ("service:billing", ["authorize", "read"])
    assert who.key_id == first["key_id"]

    # Again, with the same file, with another one, and without changing anything.
    for options in ({"keys_file": keys}, {"keys_file": tmp_path / "other"}, {"dry_run": True}):
        assert counts(imported(client, old, **options), "token") == (0, 2, 3, 0)
    assert len(lines(keys)) == 2
    assert lines(tmp_path / "other") == []
    assert count(served.database, KEYS) == 2


def test_bad_tokens_are_rejected(client: Client, tmp_path: Path) -> None:
    bad: list[tuple[dict[str, Any], str, str]] = [
        (token("t-1", name=""), "name", "is required"),
        (token("t-2", scopes=["root"]), "scopes[0]", "must be one of"),
        (token("t-3", scopes=[]), "scopes", "must be at least one"),
        (token("t-4", principal="key:x"), "principal", "licet's own"),
        (token("t-5", principal=None, user="u-1"), "user", "must be the id of a record"),
        (token("t-6", revoked_at=LATER), "revoked_at", "must not be in the future"),
        (token("t-7", secret="hunter2"), "secret", "is no field of this type"),
    ]
    old = written(tmp_path / "old", *(record for record, _, _ in bad))
    report = imported(client, old, keys_file=tmp_path / "keys")
    for line, (_, field, rule) in enumerate(bad, 1):
        ((its_field, its_rule),) = reasons(report)[line]
        assert (its_field, rule in its_rule) == (field, True), its_rule
    assert living(client) == []


def test_a_key_whose_text_is_lost_is_revoked_and_made_anew(client: Client, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    old = written(tmp_path / "old", token("t-1"), token("t-2"))
    imported(client, old, keys_file=keys)
    before, kept = sorted(lines(keys), key=lambda line: line["token"])

    def lose(identifier: str) -> None:
        """Leave the file as a run does that was killed while it wrote a line."""
        text = keys.read_text(encoding="ascii")
        rest = [line for line in text.splitlines(keepends=True) if identifier not in line]
        keys.write_text("".join(rest) + '{"tok', encoding="ascii")

    lose("t-1")
    assert counts(imported(client, old, keys_file=keys), "token") == (1, 1, 0, 0)
    texts = [line for line in keys.read_text(encoding="ascii").splitlines() if "t-1" in line]
    (after,) = map(json.loads, texts)
    assert after["key_id"] != before["key_id"]
    assert {key.key_id for key in living(client)} == {after["key_id"], kept["key_id"]}
    (ended,) = [key for key in client.callers.list_keys(include_ended=True) if key.ended_at]
    assert (ended.key_id, ended.end_reason) == (before["key_id"], LOST)
    assert counts(imported(client, old, keys_file=keys), "token") == (0, 2, 0, 0)
    # What was made behind a line that was torn is known as well.
    lose("t-1")
    assert counts(imported(client, old, keys_file=keys), "token") == (1, 1, 0, 0)


@pytest.mark.parametrize("how", ["used", "rotated", "revoked", "elsewhere"])
def test_a_key_that_somebody_has_is_left_alone(
    served: Served, client: Client, tmp_path: Path, how: str
) -> None:
    keys = tmp_path / "keys"
    old = written(tmp_path / "old", token("t-1"))
    imported(client, old, keys_file=keys)
    (line,) = lines(keys)
    first = keys.read_text(encoding="ascii").splitlines()[0]
    keys.write_text(f"{first}\n", encoding="ascii")
    if how == "used":
        with Client(served.address, api_key=line["key"]) as owner:
            owner.callers.whoami()
        with served.database.connect() as connection:
            connection.execute(
                "INSERT INTO licet.api_key_uses SELECT id, now() FROM licet.api_keys"
                " ON CONFLICT DO NOTHING"
            )
    elif how == "rotated":
        client.callers.rotate_key(line["key_id"])
    elif how == "revoked":
        client.callers.revoke_key(line["key_id"], reason="it leaked")
    else:
        keys = tmp_path / "other"
    state = rows(served.database, "SELECT id, ended_at FROM licet.api_keys ORDER BY id")
    assert counts(imported(client, old, keys_file=keys), "token") == (0, 1, 0, 0)
    assert rows(served.database, "SELECT id, ended_at FROM licet.api_keys ORDER BY id") == state


def test_an_answer_without_a_text_is_not_the_end_of_it(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a repetition is answered: the key is there, and nobody has its text."""
    create: Callable[..., Any] = client.callers.create_key
    lost: list[str] = []

    def losing(*arguments: Any, **fields: Any) -> Any:  # noqa: ANN401 - as it is
        first = create(*arguments, **fields, request_id=f"r-{len(lost)}")
        if lost:
            return first
        lost.append(first.key.key_id)
        return create(*arguments, **fields, request_id="r-0")

    monkeypatch.setattr(client.callers, "create_key", losing)
    old = written(tmp_path / "old", token("t-1"))
    report = imported(client, old, keys_file=tmp_path / "keys")
    assert counts(report, "token") == (1, 0, 0, 0)
    (line,) = lines(tmp_path / "keys")
    assert [key.key_id for key in living(client)] == [line["key_id"]] != lost


def test_a_key_that_cannot_be_written_down_is_ended(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:  # noqa: ANN401 - as it is
        raise CommandError("cannot write keys: No space left on device")

    monkeypatch.setattr(KeysFile, "add", full)
    old = written(tmp_path / "old", token("t-1"))
    with pytest.raises(CommandError, match="No space left"):
        imported(client, old, keys_file=tmp_path / "keys")
    assert living(client) == []
    monkeypatch.undo()
    assert counts(imported(client, old, keys_file=tmp_path / "keys"), "token") == (1, 0, 0, 0)


def test_a_keys_file_is_nobody_elses_and_holds_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("my shopping list\n", encoding="ascii")
    path.chmod(0o600)
    with pytest.raises(CommandError, match="holds something else"):
        KeysFile(path, "old")
    assert path.read_text(encoding="ascii") == "my shopping list\n"
    path.write_text("", encoding="ascii")
    path.chmod(0o640)
    with pytest.raises(CommandError, match="only you can read"):
        KeysFile(path, "old")
    (tmp_path / "link").symlink_to(path)
    for wrong in ("link", "no folder/keys", "."):
        with pytest.raises(CommandError, match="--keys-file"):
            KeysFile(tmp_path / wrong, "old")


def test_a_token_that_has_changed_since_is_told(client: Client, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    records = [token(f"t-{number}") for number in range(4)]
    imported(client, written(tmp_path / "old", *records), keys_file=keys)
    ids = {line["token"]: line["key_id"] for line in lines(keys)}
    new = written(
        tmp_path / "new",
        token("t-0", scopes=["admin"]),
        token("t-1", principal="service:other"),
        token("t-2", expires_at=LATER),
        token("t-3", revoked_at=BEFORE),
    )
    found = reasons(imported(client, new, keys_file=keys))
    changed = [("id", "was imported before, and was not as it is here")]
    assert [found[line] for line in (1, 2, 3)] == [changed] * 3
    later = f"is later than its import: revoke the API key {ids['t-3']} in licet"
    assert found[4] == [("revoked_at", later)]


def test_nothing_secret_is_printed(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(client, written(tmp_path / "old", token("t-1")), keys_file=tmp_path / "keys")
    (line,) = lines(tmp_path / "keys")
    printed = capsys.readouterr()
    assert line["key"][23:] not in printed.out + printed.err
