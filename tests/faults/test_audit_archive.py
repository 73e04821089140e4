"""Archiving that is interrupted at any point, before or after what it did there, is begun anew."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from typing_extensions import override

from licet.app.archiving import ArchiveRefusedError, Partition
from licet.app.sealing import SealingTransaction
from licet.domain.archive import read_archive, segment
from licet.domain.errors import UnavailableError
from licet.domain.merkle import leaf_hashes
from licet.steward.archive_folder import ArchiveFolder
from licet.storage.partitions import PostgresPartitions
from tests.fakes.aged_log import AgedLog, aged_log, opened
from tests.fakes.postgres import Database, eventually

OLD = 90
EVENTS = 12


class Trap:
    """Interrupts one of the calls that it counts: before it, or when it has happened."""

    def __init__(self, at: int, *, happened: bool) -> None:
        self._left = at
        self._happened = happened
        self.sprung = ""

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        self._left -= 1
        springs = self._left == 0
        if springs:
            self.sprung = what
        if springs and not self._happened:
            raise UnavailableError("it failed")
        yield
        if springs:
            raise UnavailableError("it happened, and the answer was lost")


class TrappedPartitions(PostgresPartitions):
    """A connection whose calls may be interrupted."""

    def __init__(self, url: str, trap: Trap) -> None:
        super().__init__(url)
        self._trap = trap

    @override
    def transaction(self) -> Any:
        @contextmanager
        def trapped() -> Iterator[SealingTransaction]:
            with (
                self._trap.around("transaction"),
                super(TrappedPartitions, self).transaction() as t,
            ):
                yield t

        return trapped()

    @override
    def pages(self, partition: Partition) -> Any:
        for page in super().pages(partition):
            with self._trap.around("pages"):
                pass
            yield page


def _trapped(name: str) -> Callable[..., Any]:
    def call(self: TrappedPartitions, *arguments: object) -> object:
        with self._trap.around(name):
            return getattr(PostgresPartitions, name)(self, *arguments)

    return call


for _name in ("count", "stored_hashes", "archives", "register", "record", "drop"):
    setattr(TrappedPartitions, _name, _trapped(_name))


class TrappedFolder(ArchiveFolder):
    """A folder whose calls may be interrupted."""

    def __init__(self, path: Path, trap: Trap) -> None:
        super().__init__(path)
        self._trap = trap

    @override
    def write(self, *arguments: Any) -> Any:
        with self._trap.around("write"):
            return super().write(*arguments)


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[AgedLog]:
    with aged_log(database, tmp_path) as made:
        yield made


def leaves_in(log: AgedLog, days_ago: int) -> list[list[bytes]]:
    """Return the leaves of each recorded file of a day; each is here and what was recorded."""
    rows = log.admin.execute(
        "SELECT file, sha256 FROM audit.archives WHERE partition = %s", [log.name(days_ago)]
    ).fetchall()
    found = []
    for file, digest in rows:
        assert digest.hex().startswith(file.removesuffix(".archive")[-16:])
        with (log.folder.path / file).open("rb") as stream:
            found.append([leaf for _, leaves in read_archive(stream) for leaf in leaves])
    return found


def stored(log: AgedLog, days_ago: int) -> int:
    name = log.name(days_ago)
    if name not in log.partitions():
        return 0
    count = sql.SQL("SELECT count(*) FROM audit.{}").format(sql.Identifier(name))
    row = log.admin.execute(count).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("happened", [False, True], ids=["failed", "failed-but-happened"])
def test_whatever_is_interrupted_nothing_is_lost_and_the_next_one_ends_it(
    log: AgedLog, happened: bool
) -> None:
    sprung: list[str] = []
    for at in range(1, 100):
        days_ago = OLD + at
        leaves = log.ship_day(days_ago, EVENTS, writer=1000 + at)
        log.settle()
        trap = Trap(at, happened=happened)
        partitions = TrappedPartitions(log.database.url, trap)
        archiver = log.archiver(partitions, folder=TrappedFolder(log.folder.path, trap))
        try:
            archiver.archive(log.find(days_ago), 1, lambda _w, _e: None)
        except UnavailableError:
            sprung.append(trap.sprung)
        finally:
            partitions.close()
        if not trap.sprung:
            break
        if stored(log, days_ago) == 0:
            assert leaves_in(log, days_ago) == [leaves]
        else:
            assert stored(log, days_ago) == EVENTS
            log.archive(days_ago)
        assert leaves_in(log, days_ago) == [leaves]
        assert stored(log, days_ago) == 0
    assert set(sprung) == {
        *("count", "stored_hashes", "archives", "register", "record", "drop"),
        *("pages", "write", "transaction"),
    }
    # Nothing is recorded twice, and nothing unfinished is left.
    row = log.admin.execute("SELECT count(*) FROM audit.archives").fetchone()
    assert row == (log.recorded(),)
    assert log.recorded() == len(sprung) + 1
    assert not list(log.folder.path.glob(".*"))


def test_what_a_killed_archiver_left_is_removed_and_what_another_writes_is_not(
    log: AgedLog,
) -> None:
    log.ship_day(OLD, EVENTS)
    log.settle()
    log.folder.path.mkdir(mode=0o700)
    dead = log.folder.path / ".events_20000101-x.unfinished"
    alive = log.folder.path / ".events_20000102-x.unfinished"
    dead.write_bytes(b"half")
    with alive.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        log.archive(OLD)
        assert alive.exists()
    assert not dead.exists()


def test_a_folder_that_cannot_be_written_leaves_the_partition(log: AgedLog) -> None:
    log.ship_day(OLD, EVENTS)
    log.settle()
    with opened(log.database) as partitions:
        nowhere = ArchiveFolder(Path("/dev/null/archive"))
        archiver = log.archiver(partitions, folder=nowhere)
        with pytest.raises(ArchiveRefusedError, match="cannot write"):
            archiver.archive(log.find(OLD), 1, lambda _w, _e: None)
    assert stored(log, OLD) == EVENTS
    assert log.recorded() == 0


def test_the_wait_for_the_lock_of_the_drop_is_bounded(log: AgedLog) -> None:
    log.ship_day(OLD, EVENTS)
    log.settle()
    with log.database.connect() as reader, reader.transaction():
        reader.execute("SELECT FROM audit.events LIMIT 1")
        with pytest.raises(UnavailableError):
            log.archive(OLD)
        assert stored(log, OLD) == EVENTS
    log.archive(OLD)
    assert stored(log, OLD) == 0


def test_an_insert_that_is_not_committed_yet_is_waited_for_and_counted(log: AgedLog) -> None:
    log.ship_day(OLD, EVENTS)
    log.settle()
    with pytest.raises(ArchiveRefusedError):
        log.archive(OLD, lambda _seconds: False)
    log.settle()

    def drop() -> str:
        with log.database.connect() as sealer:
            try:
                sealer.execute("SELECT audit.drop_archived_partition(%s)", [log.name(OLD)])
            except psycopg.Error as exc:
                return exc.sqlstate or ""
        return "dropped"

    def waits() -> bool:
        row = log.admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock' AND query LIKE '%drop_archived_partition%'"
        ).fetchone()
        return row == (1,)

    with ThreadPoolExecutor(1) as thread, log.database.connect() as other:
        with other.transaction():
            other.execute(
                "INSERT INTO audit.events SELECT 1, gen_random_uuid(), occurred_at, event_type,"
                " actor, principal, action, resource, capability_id, result, reason, policy_id,"
                " session_id, trace_id, revision, metadata FROM audit.events"
                " WHERE occurred_at < clock_timestamp() - interval '10 days' LIMIT 1"
            )
            dropping = thread.submit(drop)
            assert eventually(lambda: waits() or dropping.done(), 30)
        # It counted the 13 that there are then, or its time was over.
        assert dropping.result(30) in {"55000", "55P03"}
    assert stored(log, OLD) == EVENTS + 1
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="13 events"):
        log.admin.execute("SELECT audit.drop_archived_partition(%s)", [log.name(OLD)])


def test_a_file_that_does_not_read_as_the_tree_is_not_there(tmp_path: Path) -> None:
    leaves = [b"one", b"two"]
    header = segment("licet.example/audit", 0, leaf_hashes(leaves))
    folder = ArchiveFolder(tmp_path / "archive")
    other = leaf_hashes([b"one", b"three"])
    with pytest.raises(ArchiveRefusedError, match="are not those that were sealed"):
        folder.write("events_20260101", 1, [(header, leaves)], lambda _first, _count: other)
    assert list(folder.path.iterdir()) == []
