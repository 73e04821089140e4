"""How commands fail: one line, and never the exit status of a DENY.

They run in this process, where a hundred of them cost less than one process does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from licet.cli.main import main
from tests.fakes.postgres import Cluster, Database
from tests.fakes.serving import serving
from tests.fakes.terminal import Finished

UNKNOWN_ID = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"

Call: TypeAlias = Callable[..., Finished]


@pytest.fixture(scope="module")
def address(cluster: Cluster, migrated_template: Database) -> Iterator[str]:
    with cluster.database(migrated_template) as database, serving(database) as served:
        yield served.address


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.delenv("LICET_ADDRESS", raising=False)

    def run(*arguments: str) -> Finished:
        status = main(arguments)
        written = capsys.readouterr()
        return Finished(status, written.out, written.err)

    return run


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("authorize", "", "read", "doc:x"), "principal is required (INVALID_ARGUMENT)"),
        (("authorize", "agent:a", "read", "doc:*"), "resource must be"),
        (("authorize", "agent:\udcff", "read", "doc:x"), "principal must be valid UTF-8"),
        (("authorize", "agent:a", "read", "doc:x", "--context", "[]"), "--context must be a JSON"),
        (("grant", "agent:a", "read", "doc:x", "--ttl", "soon"), "--ttl must be a duration"),
        (("grant", "agent:a", "", "doc:x"), "actions must have 1 to 32"),
        (("capabilities", "show", UNKNOWN_ID), f"no capability {UNKNOWN_ID} (NOT_FOUND)"),
        (("revoke",), "capability_id or filter must be set"),
        (("audit", "query", "--decision", "maybe"), "--decision must be allow or deny"),
        (("audit", "trail"), "name one capability, --principal, --session or --trace"),
        (("audit", "trail", "x", "--trace", "t"), "name one capability, --principal,"),
        (("audit", "trail", "x"), "capability_id must"),
        (("audit", "query", "--type", "x"), "event_types[0] must be one of"),
        (("audit", "follow", "--type", "x"), "event_types[0] must be one of"),
    ],
)
def test_an_error_is_one_line_that_names_the_field_and_the_rule(
    address: str, call: Call, arguments: tuple[str, ...], part: str
) -> None:
    failed = call("--address", address, *arguments)
    assert (failed.status, failed.out) == (2, "")
    assert failed.err.startswith("licet: ")
    assert failed.err.count("\n") == 1
    assert part in failed.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("authorize", "agent:a"), "Missing argument"),
        (("nonsense",), "No such command"),
        (("health", "--nonsense"), "No such option"),
        (("health", "--timeout", "-1"), "--timeout"),
        (("health", "--address", "somewhere"), "--address must be host:port"),
        (("health", "--address", "127.0.0.1:1"), "no licet answers at 127.0.0.1:1"),
        (("authorize", "agent:a", "read", "doc:x", "--address", "127.0.0.1:1"), "no licet answers"),
    ],
)
def test_wrong_usage_and_nobody_there_are_errors_and_no_denials(
    call: Call, arguments: tuple[str, ...], part: str
) -> None:
    failed = call(*arguments)
    assert (failed.status, failed.out) == (2, "")
    assert failed.err.count("\n") == 1
    assert part in failed.err


def test_an_address_from_the_environment_is_checked_too(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LICET_ADDRESS", "somewhere")
    failed = call("health")
    assert (failed.status, failed.out) == (2, "")
    assert failed.err.startswith("licet: LICET_ADDRESS must be host:port")


def test_a_bug_is_no_denial() -> None:
    script = """
import sys
from licet.cli.main import app, main

@app.command()
def broken() -> None:
    raise ZeroDivisionError

sys.exit(main(["broken"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr
