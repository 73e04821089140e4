"""`licet agents`, as processes: what operators and agents do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.agents import make_bootstrap, register
from tests.fakes.api import count
from tests.fakes.callers import calling
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.fakes.terminal import Finished, run

TOKEN = re.compile(r"licet_[0-9a-z]{16}_[0-9a-z]{59}\n")

Licet = Callable[..., Finished]


@pytest.fixture
def served(database: Database) -> Iterator[Served]:
    """Provide a server on loopback; whoever has no credential is admin."""
    with serving(database, audit_origin="licet.test") as running:
        yield running


@pytest.fixture
def licet(served: Served) -> Licet:
    """Provide the command line of an admin, or with LICET_API_KEY of somebody else."""

    def call(*arguments: str, **variables: str) -> Finished:
        return run(*arguments, variables={"LICET_ADDRESS": served.address} | variables)

    return call


@pytest.mark.timeout(90)  # a dozen processes
def test_an_agent_is_made_and_looks_after_its_token(
    served: Served, licet: Licet, tmp_path: Path
) -> None:
    made = licet("agents", "bootstrap", "create", "farm", "--uses", "2", "--ttl", "2h")
    assert made.status == 0
    assert TOKEN.fullmatch(made.out)
    token_id = made.out[6:22]
    assert f"licet: bootstrap token {token_id}:" in made.err
    boot = {"LICET_API_KEY": made.out.strip()}

    arguments = ("agents", "register", "workers/1", "--hostname", "one", "--reached-at", "10.0.0.1")
    missing = licet(*arguments, "--public-key-file", str(tmp_path / "none"), **boot)
    assert (missing.status, missing.out) == (2, "")
    assert "--public-key-file" in missing.err
    registered = licet(*arguments, "--request-id", "r1", **boot)
    assert registered.status == 0
    assert TOKEN.fullmatch(registered.out)
    again = licet(*arguments, "--request-id", "r1", **boot)
    assert (again.status, again.out) == (0, "")
    assert "was made by an earlier call, which had its text" in again.err

    agent = {"LICET_API_KEY": registered.out.strip()}
    beat = licet("agents", "heartbeat", **agent)
    assert beat.out.startswith("again within 30 s; the token ends ")
    rotated = licet("agents", "rotate", "--json", **agent).object
    assert TOKEN.fullmatch(rotated["token"] + "\n")
    assert "workers/1" in licet("agents", "list", "--status", "active").out
    shown = licet("agents", "show", "workers/1")
    assert "agent:workers/1" in shown.out
    assert f"by bootstrap:{token_id}" in shown.out
    assert "1 of 2" in licet("agents", "bootstrap", "list").out

    def is_sealed() -> bool:
        return not count(served.database, "SELECT count(*) FROM audit.queue")

    # The record of all that is sealed, and verifies.
    assert eventually(is_sealed, timeout_seconds=30)
    verified = licet("audit", "verify", "--json", LICET_DATABASE_URL=served.database.url)
    assert verified.object["verified"], verified.out + verified.err


@pytest.mark.timeout(90)  # a dozen processes
def test_operators_stop_agents_and_tokens(served: Served, licet: Licet) -> None:
    with calling(served.address) as admin:
        boot = make_bootstrap(admin, name="farm")
        given = register(served.address, boot.token, "one")
    done = licet("agents", "deactivate", "one", "--reason", "stolen")
    assert re.fullmatch(r"inactive at revision \d+; replicas: 1 confirmed, 0 fenced\n", done.out)
    assert licet("agents", "heartbeat", LICET_API_KEY=given.token).status == 2
    assert "was inactive before" in licet("agents", "deactivate", "one").out
    [listed] = licet("agents", "list", "--json").objects
    assert (listed["status"], listed["deactivation_reason"]) == ("inactive", "stolen")
    assert licet("agents", "activate", "one").out.startswith("may register again")
    ended = licet(
        "agents", "bootstrap", "revoke", boot.bootstrap_token.token_id, "--reason", "done"
    )
    assert ended.out.startswith("ended at revision")
    assert licet("agents", "bootstrap", "list", "--json").objects == []
    assert "farm" in licet("agents", "bootstrap", "list", "--include-ended").out
    assert "must be active, inactive or offline" in licet("agents", "list", "--status", "x").err


def test_only_the_right_token_does_it(licet: Licet) -> None:
    for command in (("register", "one"), ("rotate",)):
        refused = licet("agents", *command)
        assert (refused.status, refused.out) == (2, "")
        assert "this is called with a" in refused.err
