"""`licet import` as a process: what it prints, its status, and that what it did verifies."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from pathlib import Path

import pytest

from licet.cli.errors import CommandError
from licet.cli.importing.run import source_name, zone
from licet.client import Client
from tests.fakes.api import count
from tests.fakes.importing import BEFORE, capability, row, written
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.fakes.terminal import COMMAND, Finished, environment, run


@pytest.fixture
def served(database: Database) -> Iterator[Served]:
    """Provide a server whose audit log can be verified."""
    with serving(database, audit_origin="licet.test") as running_server:
        yield running_server


@pytest.fixture
def old(tmp_path: Path) -> Path:
    roots = [capability(f"c-{n}", delegation_depth=1) for n in range(5)]
    children = [capability(f"d-{n}", parent=f"c-{n}") for n in range(5)]
    rows = [row(f"e-{n}", principal="agent:a", result="allow") for n in range(20)]
    return written(tmp_path / "old.jsonl", *children, *roots, *rows, capability("x", actions=[]))


def licet_import(served: Served, *arguments: str) -> Finished:
    variables = {"LICET_ADDRESS": served.address, "LICET_DATABASE_URL": served.database.url}
    return run(*arguments, variables=variables)


def test_an_import_says_what_it_did_and_what_it_did_verifies(served: Served, old: Path) -> None:
    done = licet_import(served, "import", str(old), "--source", "old")
    assert done.status == 1
    assert "licet: importing audit records: 20 of 20\n" in done.err
    rejects = old.with_name("old.jsonl.rejects")
    assert f"what was rejected is in {rejects}: mend it and import that file\n" in done.err
    assert [line.split() for line in done.out.splitlines()[2:]] == [
        ["capability", "10", "0", "0", "1"],
        ["audit", "20", "0", "0", "0"],
    ]
    again = licet_import(served, "import", str(old), "--source", "old", "--json")
    assert again.object == {
        "dry_run": False,
        "records": {
            "capability": {"imported": 0, "present": 10, "ended": 0, "rejected": 1},
            "audit": {"imported": 0, "present": 20, "ended": 0, "rejected": 0},
        },
        "rejects": f"{rejects}.2",
    }

    def is_sealed() -> bool:
        return not count(served.database, "SELECT count(*) FROM audit.queue")

    assert eventually(is_sealed, timeout_seconds=30)
    verified = licet_import(served, "audit", "verify", "--json")
    assert verified.status == 0, verified.out + verified.err
    assert verified.object["leaves"] >= 30
    assert verified.object["capabilities"] == 10
    # An event of them is proved like any other.
    query = licet_import(served, "audit", "query", "--type", "import.event", "--json")
    proof = licet_import(served, "audit", "prove", query.objects[0]["event_id"])
    assert proof.status == 0, proof.err


def test_progress_is_a_bar_where_somebody_looks(served: Served, old: Path) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "import", str(old), "--source", "old", "--dry-run"],
        env=environment(LICET_ADDRESS=served.address, TERM="xterm", FORCE_COLOR="1"),
        stdout=subprocess.PIPE,
        stderr=follower,
    ) as process:
        os.close(follower)
        shown = b""
        with suppress(OSError):  # the other end was closed
            while data := os.read(leader, 65_536):
                shown += data
        assert process.wait(30) == 1
    os.close(leader)
    assert "━" in shown.decode()
    assert b"importing audit records: 20" not in shown


def test_a_wrong_option_is_one_line(tmp_path: Path) -> None:
    old = written(tmp_path / "old", row("e-1"))
    variables = {"LICET_ADDRESS": "127.0.0.1:1"}
    failed = run("import", str(old), "--source", "old", "--rejects", ".", variables=variables)
    assert (failed.status, failed.out, failed.err.count("\n")) == (2, "", 1)
    assert "there is such a file" in failed.err
    for name in ("", "a\nb", "a" * 65):
        with pytest.raises(CommandError, match="--source"):
            source_name(name)
    for text in ("Mars/Olympus", "+25:00", "+2", "", "../../etc/passwd", "x" * 5000):
        with pytest.raises(CommandError, match="--timezone must be a name"):
            zone(text)
    assert zone(None) is None
    assert zone("z") is zone("UTC") is UTC


def test_times_without_an_offset_are_read_in_the_zone_that_was_said(
    served: Served, tmp_path: Path
) -> None:
    summer = row("e-1", occurred_at="2020-07-01 12:00:00")
    old = written(tmp_path / "old", summer, row("e-2", occurred_at=BEFORE))
    done = licet_import(
        served, "import", str(old), "--source", "old", "--timezone", "Europe/Berlin"
    )
    assert done.status == 0, done.err
    with Client(served.address, timeout=20) as client:
        events = client.audit(event_types=["import.event"])
        found = [event.metadata for event in events]
    assert "2020-07-01T10:00:00.000000+00:00" in str(found)
    assert "2020-01-01T00:00:00.000000+00:00" in str(found)
