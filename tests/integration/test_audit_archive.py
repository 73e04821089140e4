"""Partitions become files: whole, verified, on record, and only then gone from the database."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from licet.app.archiving import ArchiveRefusedError
from licet.domain.archive import read_archive
from tests.fakes.aged_log import AgedLog, aged_log, opened
from tests.fakes.audit_verifier import run
from tests.fakes.postgres import Database
from tests.fakes.terminal import Finished
from tests.fakes.terminal import run as terminal

OLD = 40
NEXT = OLD - 1


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[AgedLog]:
    with aged_log(database, tmp_path) as made:
        yield made


def archived_leaves(path: Path) -> dict[int, bytes]:
    with path.open("rb") as file:
        return {
            index: leaf
            for header, leaves in read_archive(file)
            for index, leaf in enumerate(leaves, header.first)
        }


def never(_seconds: float) -> bool:
    """Wait for nothing: the steward does not work meanwhile."""
    return False


def test_a_partition_becomes_a_file_and_its_table_is_gone(log: AgedLog) -> None:
    before = log.ship_day(NEXT, 15)
    leaves = log.ship_day(OLD, 25)
    log.settle()
    [archive] = log.archive(OLD)
    path = log.folder.path / archive.file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.folder.path.stat().st_mode) == 0o700
    assert archived_leaves(path) == dict(enumerate(leaves, len(before)))
    assert (archive.events, list(archive.ranges)) == (25, [(15, 40)])
    assert log.name(OLD) not in log.partitions()
    assert log.name(NEXT) in log.partitions()
    assert sorted(path.parent.iterdir()) == [path]
    row = log.admin.execute(
        "SELECT a.events, a.leaf_ranges::text, e.metadata ->> 'sha256', e.metadata ->> 'leaves'"
        " FROM audit.archives AS a JOIN audit.events AS e USING (event_id)"
    ).fetchall()
    assert row == [(25, "{[15,40)}", archive.sha256.hex(), "{[15,40)}")]


def test_what_is_archived_stays_provable_and_without_its_file_is_missed(
    log: AgedLog, tmp_path: Path
) -> None:
    leaves = log.ship_day(OLD, 30)
    log.ship_day(NEXT, 30)
    log.settle()
    [archive] = log.archive(OLD)
    [other] = log.archive(NEXT)
    log.settle()
    paths = [log.folder.path / each.file for each in (archive, other)]
    (tmp_path / "checkpoint").write_text(log.note(), encoding="utf-8")
    key = ("--key", log.signer.key.text())
    (tmp_path / "proof").write_text(log.inclusion(7), encoding="utf-8")
    proved = run("inclusion", "--json", *key, "--archive", paths[0], tmp_path / "proof")
    assert proved.status == 0
    identifier = UUID(bytes=leaves[7][12:28])
    assert proved.report["event"]["event_id"] == str(identifier)
    (tmp_path / "cover").write_text(log.cover([(0, 60)]), encoding="utf-8")
    given = ("--checkpoint", tmp_path / "checkpoint", "--cover", tmp_path / "cover")
    assert run("archive", "--json", *key, *given, *paths).status == 0
    without = run("archive", "--json", *key, *given, paths[0])
    assert without.codes == {"archive.missing"}
    [finding] = [f for f in without.report["findings"] if f["code"] == "archive.missing"]
    assert "leaves 30 to 59" in finding["message"]


def test_an_archive_does_not_hold_another_leaf(log: AgedLog, tmp_path: Path) -> None:
    log.ship_day(OLD, 10)
    log.ship_day(NEXT, 10)
    log.settle()
    [archive] = log.archive(OLD)
    (tmp_path / "proof").write_text(log.inclusion(15), encoding="utf-8")
    key = ("--key", log.signer.key.text())
    path = log.folder.path / archive.file
    refused = run("inclusion", "--json", *key, "--archive", path, tmp_path / "proof")
    assert (refused.status, refused.codes) == (1, {"inclusion.leaf"})


def test_batches_of_two_days_are_divided_and_both_parts_are_provable(
    log: AgedLog, tmp_path: Path
) -> None:
    midnight = [log.instant(NEXT, offset) for offset in (-2, -1, 0, 1)]
    # Of several writers, and with a clock that stepped back over midnight.
    log.ship(*midnight, writer=1)
    log.ship(midnight[2], midnight[0], midnight[3], writer=2)
    log.ship(*midnight[2:], writer=1)
    log.settle()
    [old] = log.archive(OLD)
    assert list(old.ranges) == [(0, 2), (5, 6)]
    [new] = log.archive(NEXT)
    assert list(new.ranges) == [(2, 5), (6, 9)]
    log.settle()
    (tmp_path / "checkpoint").write_text(log.note(), encoding="utf-8")
    (tmp_path / "cover").write_text(log.cover([(0, 9)]), encoding="utf-8")
    given = ("--checkpoint", tmp_path / "checkpoint", "--cover", tmp_path / "cover")
    paths = [log.folder.path / each.file for each in (old, new)]
    assert run("archive", "--key", log.signer.key.text(), *given, *paths).status == 0


def test_what_is_not_sealed_or_not_signed_is_counted_and_nothing_is_done(log: AgedLog) -> None:
    log.ship_day(OLD, 20)
    log.settle()
    log.ship_day(OLD, 7, writer=2)
    with pytest.raises(ArchiveRefusedError, match="7 of the events of events_"):
        log.archive(OLD, never)
    log.seal()
    with pytest.raises(ArchiveRefusedError, match="7 of the events of events_"):
        log.archive(OLD, never)
    assert log.recorded() == 0
    assert list(log.folder.path.iterdir()) == []
    log.sign()
    assert [archive.events for archive in log.archive(OLD)] == [27]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET actor = 'user:mallory' WHERE event_id = %s",
        "DELETE FROM {} WHERE event_id = %s",
        "UPDATE {} SET occurred_at = occurred_at - interval '1 microsecond' WHERE event_id = %s",
    ],
)
def test_what_was_tampered_with_is_not_archived(log: AgedLog, statement: str) -> None:
    leaves = log.ship_day(OLD, 20)
    log.settle()
    name = f"audit.{log.name(OLD)}"
    victim = UUID(bytes=leaves[13][12:28])
    log.admin.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER".encode())
    log.admin.execute(statement.format(name).encode(), [victim])
    log.admin.execute(f"ALTER TABLE {name} ENABLE TRIGGER USER".encode())
    with pytest.raises(ArchiveRefusedError, match="verify the log"):
        log.archive(OLD)
    assert log.recorded() == 0
    assert list(log.folder.path.iterdir()) == []
    assert log.name(OLD) in log.partitions()


def test_a_partition_without_events_is_archived_too(log: AgedLog) -> None:
    log.ship_day(NEXT, 5)
    log.admin.execute("SELECT audit.ensure_partition(%s)", ["2000-01-01T00:00:00Z"])
    log.settle()
    with opened(log.database) as partitions:
        [empty, *_] = partitions.partitions(30)
        assert empty.name == "events_20000101"
        archiver = log.archiver(partitions)
        [archive] = archiver.archive(empty, 1, lambda _w, _e: None)
    assert (archive.events, list(archive.ranges)) == (0, [])
    assert empty.name not in log.partitions()


def test_an_event_that_comes_late_makes_the_partition_anew_and_is_archived_by_itself(
    log: AgedLog,
) -> None:
    log.ship_day(OLD, 10)
    log.settle()
    log.archive(OLD)
    late = log.ship(log.instant(OLD, 5), writer=3)
    log.settle()
    [second] = log.archive(OLD)
    assert list(archived_leaves(log.folder.path / second.file).values()) == late
    assert log.name(OLD) not in log.partitions()
    assert log.recorded() == 2


def test_an_event_that_comes_between_archive_and_drop_is_not_dropped(log: AgedLog) -> None:
    log.ship_day(OLD, 10)
    log.settle()
    late: list[bytes] = []

    def one_more(_seconds: float) -> bool:
        if not late and log.recorded():
            late.extend(log.ship(log.instant(OLD, 77), writer=3))
        log.settle()
        return False

    with pytest.raises(ArchiveRefusedError, match="has 11 events, and 10 are archived"):
        log.archive(OLD, one_more)
    [archive] = log.archive(OLD)
    assert archive.events == 11
    assert log.name(OLD) not in log.partitions()


def test_the_database_drops_nothing_that_is_not_archived_under_a_checkpoint(log: AgedLog) -> None:
    log.ship_day(OLD, 10)
    log.settle()
    name = log.name(OLD)
    drop = "SELECT audit.drop_archived_partition(%s)"
    with log.database.connect() as sealer:
        sealer.execute("SET ROLE licet_sealer")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not archived"):
            sealer.execute(drop, [name])
        with pytest.raises(ArchiveRefusedError, match="archived and not dropped"):
            log.archive(OLD, never)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no checkpoint"):
            sealer.execute(drop, [name])
        log.settle()
        sealer.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(psycopg.errors.ActiveSqlTransaction), sealer.transaction():
            sealer.execute(drop, [name])
        sealer.isolation_level = None
        for role in ("licet_server", "licet_auditor"):
            sealer.execute("RESET ROLE")
            sealer.execute(f"SET ROLE {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                sealer.execute(drop, [name])
        sealer.execute("RESET ROLE")
        sealer.execute("SET ROLE licet_sealer")
        for statement in (f"DROP TABLE audit.{name}", f"TRUNCATE audit.{name}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                sealer.execute(statement.encode())
        assert sealer.execute(drop, [name]).fetchone() == (True,)
        assert sealer.execute(drop, [name]).fetchone() == (False,)
        assert sealer.execute(drop, ["archives"]).fetchone() == (False,)


def test_whoever_drops_has_the_file(log: AgedLog) -> None:
    log.ship_day(OLD, 10)
    log.settle()
    with pytest.raises(ArchiveRefusedError, match="archived and not dropped"):
        log.archive(OLD, never)
    [lost] = log.folder.path.iterdir()
    lost.write_bytes(lost.read_bytes()[:-1])
    [archive] = log.archive(OLD)
    assert archived_leaves(log.folder.path / archive.file).keys() == set(range(10))
    assert log.recorded() == 1


def test_partitions_are_old_when_their_last_instant_is(log: AgedLog) -> None:
    for days_ago in (0, 1, 2, 3):
        log.ship_day(days_ago, 1)
    with opened(log.database) as partitions:
        aged = [partition.name for partition in partitions.partitions(1)]
        assert aged == [log.name(3), log.name(2)]
        over = [partition.name for partition in partitions.partitions(0)]
        assert over == [log.name(3), log.name(2), log.name(1)]
        assert partitions.find(log.name(0)) is not None
        found = partitions.find(log.name(0))
        assert found is not None
        assert not found[1]
        assert partitions.find("archives") is None


def test_a_log_with_archives_verifies_with_their_files_and_names_what_it_lacks(
    log: AgedLog,
) -> None:
    log.ship_day(OLD, 30)
    log.ship_day(NEXT, 20)
    log.ship_day(1, 10)
    log.settle()
    [oldest] = log.archive(OLD)
    [next_one] = log.archive(NEXT)
    log.settle()

    def verified(*archives: str) -> Finished:
        given = [word for file in archives for word in ("--archive", str(log.folder.path / file))]
        variables = {"LICET_DATABASE_URL": log.database.url}
        key = log.signer.key.text()
        return terminal("audit", "verify", "--json", "--key", key, *given, variables=variables)

    whole = verified(oldest.file, next_one.file)
    assert (whole.status, whole.object["archived_leaves"]) == (0, 50)
    without = verified(oldest.file)
    [finding] = without.object["findings"]
    assert (without.status, finding["code"], finding["leaf"]) == (1, "leaf.missing", 30)
    neither = verified()
    [finding] = neither.object["findings"]
    assert (neither.status, finding["code"], finding["leaf"]) == (1, "leaf.missing", 0)
