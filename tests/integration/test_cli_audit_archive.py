"""`licet audit archive`, and the steward that archives by age, beside a running service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from licet.v1 import authorization_pb2 as pb
from tests.fakes.aged_log import AgedLog, aged_log
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import serving
from tests.fakes.terminal import Finished, run

OLD = 40


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Provide the key that the tests' log authenticates its batches by."""
    path = tmp_path / "mac.key"
    path.write_text(f"{bytes(32).hex()}\n", encoding="ascii")
    path.chmod(0o600)
    return path


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[AgedLog]:
    with aged_log(database, tmp_path) as made:
        yield made


def archive(database: Database, *arguments: str, **variables: str) -> Finished:
    kept = {"LICET_DATABASE_URL": database.url, "LICET_STATE_DIR": os.environ["LICET_STATE_DIR"]}
    return run("audit", "archive", *arguments, variables=kept | variables)


def test_a_partition_is_archived_by_its_name_and_all_old_ones_by_their_age(
    database: Database, log: AgedLog, key_file: Path, tmp_path: Path
) -> None:
    for days_ago in (OLD, OLD + 1, OLD + 2, 3):
        log.ship_day(days_ago, 20)
    folder = tmp_path / "kept"
    variables = {
        "LICET_AUDIT_MAC_KEY_FILE": str(key_file),
        "LICET_AUDIT_ARCHIVE_DIR": str(folder),
    }
    with serving(database, audit_mac_key_file=key_file):
        assert eventually(lambda: log.sealing.head().size > 80 and bool(log.signed()), 30)
        one = archive(database, log.name(OLD + 1), "--json", **variables)
        assert (one.status, one.err) == (0, "")
        found = one.object
        assert (found["partition"], found["events"]) == (log.name(OLD + 1), 20)
        assert [path.name for path in folder.iterdir()] == [found["file"]]
        rest = archive(database, "--older-than", "30", **variables)
        assert (rest.status, rest.err) == (0, "")
        assert [line.split(":")[0] for line in rest.out.splitlines()] == [
            log.name(OLD + 2),
            log.name(OLD),
        ]
        again = archive(database, "--older-than", "30", **variables)
        assert (again.status, again.out) == (0, "nothing to archive\n")
        gone = archive(database, log.name(OLD), **variables)
        assert (gone.status, gone.out) == (2, "")
        assert gone.err == f"licet: there is no partition {log.name(OLD)}\n"
    assert not {log.name(OLD), log.name(OLD + 1), log.name(OLD + 2)} & log.partitions()
    assert log.name(3) in log.partitions()
    # Whoever archives writes as the log's own: nothing was taken for a forgery.
    row = log.admin.execute("SELECT count(*) FROM audit.events WHERE event_type = 'audit.incident'")
    assert row.fetchone() == (0,)


def test_what_cannot_be_archived_is_said_in_one_line(
    database: Database, log: AgedLog, key_file: Path, tmp_path: Path
) -> None:
    log.ship_day(0, 5)
    log.ship_day(OLD, 5)
    log.seal()
    archive_dir = {"LICET_AUDIT_ARCHIVE_DIR": str(tmp_path / "kept")}
    with_key = archive_dir | {"LICET_AUDIT_MAC_KEY_FILE": str(key_file)}

    def said(*arguments: str, **variables: str) -> str:
        done = archive(database, *arguments, **variables)
        assert (done.status, done.out) == (2, "")
        return done.err

    assert said(log.name(0)) == (
        f"licet: {log.name(0)} is not over: events of its day may still come\n"
    )
    assert "and not both" in said()
    assert "and not both" in said(log.name(OLD), "--older-than", "1")
    assert "cannot read the key file" in said(log.name(OLD), **archive_dir)
    assert said(log.name(OLD), **with_key) == (
        f"licet: {log.name(OLD)} stays: 5 of the events of {log.name(OLD)} are not sealed under a"
        " checkpoint\n"
    )
    with log.database.connect() as other:
        other.execute("SELECT pg_advisory_lock(20012)")
        assert "another process archives" in said(log.name(OLD), **with_key)
    done = run("audit", "archive", "--older-than", "1")
    assert (done.status, done.out) == (2, "")
    assert "this needs LICET_DATABASE_URL" in done.err


def test_the_steward_archives_what_is_older_than_wanted(
    database: Database, log: AgedLog, key_file: Path, tmp_path: Path
) -> None:
    for days_ago in (OLD, OLD + 1, 3):
        log.ship_day(days_ago, 20)
    folder = tmp_path / "kept"
    settings = {
        "audit_mac_key_file": key_file,
        "audit_retention_days": 30,
        "audit_archive_dir": folder,
    }
    with serving(database) as served:
        first = served.stub.QueryAudit(pb.QueryAuditRequest(page_size=30), timeout=10)
    with serving(database, **settings) as served:
        assert eventually(lambda: len(log.partitions() & old(log)) == 0, 40)
        # The query goes on where it was, and what is archived is not in its answers.
        rest = pb.QueryAuditRequest(page_size=100, page_token=first.next_page_token)
        answer = served.stub.QueryAudit(rest, timeout=10)
        assert answer.next_page_token == ""
        assert all(event.event_type != "decision" for event in answer.events)
        served.grant("agent:a", "read", "doc:x")
        assert served.authorize("agent:a", "read", "doc:x").decision_id
    assert log.name(3) in log.partitions()
    assert len(list(folder.iterdir())) == 2


def test_without_the_setting_nothing_is_archived(
    database: Database, log: AgedLog, key_file: Path
) -> None:
    log.ship_day(OLD, 20)
    with serving(database, audit_mac_key_file=key_file):
        assert eventually(lambda: bool(log.signed()), 30)
    assert log.name(OLD) in log.partitions()
    assert log.recorded() == 0


def old(log: AgedLog) -> set[str]:
    return {log.name(OLD), log.name(OLD + 1)}
