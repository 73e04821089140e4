"""`LICET_POLICY_FILE`: what a file says holds, at once and whenever it is changed."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from licet.client import Client
from licet.config import ConfigurationError, load
from licet.domain.errors import UnavailableError
from tests.fakes.api import rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.fakes.terminal import run, running
from tests.unit.policies import document


def denying(resource: str) -> str:
    return document(f"name: gone, match: {{resources: ['{resource}']}}, deny: not here")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(denying("doc:a"), encoding="utf-8")
    return path


@contextmanager
def followed(database: Database, file: Path) -> Iterator[Served]:
    with serving(database, policy_file=file) as served:
        served.grant("agent:a", "read", "doc:**")
        yield served


def denied(served: Served) -> set[str]:
    """Return which of two resources are denied."""
    names = ("doc:a", "doc:b")
    return {name for name in names if served.authorize("agent:a", "read", name).policy_id}


def puts(database: Database) -> list[tuple[str, str, str, str]]:
    """Return actor, result, reason and comment of each attempt to put a set."""
    return [
        (actor, result, reason, metadata["comment"])
        for actor, result, reason, metadata in rows(
            database,
            "SELECT actor, result, reason, metadata FROM audit.events"
            " WHERE event_type = 'policy.put' ORDER BY occurred_at",
        )
    ]


def test_the_file_holds_from_the_first_decision_on_and_when_it_is_saved(
    database: Database, file: Path
) -> None:
    with followed(database, file) as served:
        assert denied(served) == {"doc:a"}

        fresh = file.with_suffix(".swp")
        fresh.write_text(denying("doc:b"), encoding="utf-8")
        fresh.replace(file)
        assert eventually(lambda: denied(served) == {"doc:b"})

    who = ("caller:policy-file", "done", "", f"the file {file}")
    assert puts(database) == [who, who]


def test_nothing_is_put_when_it_holds_already(database: Database, file: Path) -> None:
    for _ in range(2):
        with followed(database, file) as served:
            assert denied(served) == {"doc:a"}

    assert len(puts(database)) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "version: 1\npolicies:\n  - {name: x, denny: y}\n",
            ":3:15: policies[0].denny is no field",
        ),
        ("version: 1\n", "has no policies: a file does not lift them"),
        ("", "is empty"),
    ],
)
def test_what_cannot_be_put_is_told_with_its_place_and_what_held_still_holds(
    database: Database, file: Path, caplog: pytest.LogCaptureFixture, text: str, why: str
) -> None:
    with followed(database, file) as served, caplog.at_level(logging.ERROR):
        file.write_text(text, encoding="utf-8")
        assert eventually(lambda: why in caplog.text), caplog.text
        assert denied(served) == {"doc:a"}

    assert len(puts(database)) == 1


@pytest.mark.parametrize("text", [None, "", "version: 1", "version: 9", "policies: ["])
def test_without_a_file_that_can_be_used_nobody_serves(
    database: Database, file: Path, text: str | None
) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text, encoding="utf-8")

    with (
        pytest.raises(UnavailableError, match=f"LICET_POLICY_FILE: {file}"),
        serving(database, policy_file=file),
    ):
        pass
    assert puts(database) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"authentication": "required"},
        {"listen": "0.0.0.0:0", "insecure_bind": True},
    ],
)
def test_only_development_follows_a_file(file: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="LICET_POLICY_FILE is for development"):
        load(policy_file=file, **settings)


def test_of_two_workers_and_a_steward_one_puts_it(database: Database, file: Path) -> None:
    arguments = ("serve", "--workers", "2", "--listen", "127.0.0.1:0", "--policy-file", str(file))
    good = file.read_text(encoding="utf-8")
    file.write_text("version: 9", encoding="utf-8")
    refused = run(*arguments, variables={"LICET_DATABASE_URL": database.url})
    assert refused.status == 2
    assert f"LICET_POLICY_FILE: {file}:1:10: version must be" in refused.err
    file.write_text(good, encoding="utf-8")

    with running(*arguments, variables={"LICET_DATABASE_URL": database.url}) as server:
        found = re.search(r"serves on (\S+)$", server.lines_until("Ctrl-C")[0])
        assert found is not None
        with Client(found[1]) as client:
            client.grant("agent:a", ["read"], "doc:**")
            assert client.authorize("agent:a", "read", "doc:a").policy_id == "gone"

            file.write_text("version: 1\npolicies: [", encoding="utf-8")
            assert eventually(lambda: f"{file}:3:1: it is no YAML" in server.errors), server.errors
            file.unlink()
            assert eventually(lambda: "No such file" in server.errors), server.errors
            assert client.authorize("agent:a", "read", "doc:a").policy_id == "gone"

            file.write_text(denying("doc:b"), encoding="utf-8")
            assert eventually(lambda: not client.authorize("agent:a", "read", "doc:b").allowed)
            assert client.authorize("agent:a", "read", "doc:a").allowed
        assert server.finish(signal.SIGTERM).status == 0

    assert [put[:2] for put in puts(database)] == [("caller:policy-file", "done")] * 2
    assert server.errors.count("cannot be used") == 2
