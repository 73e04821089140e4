"""What becomes of the spools of writers that are gone: shipped, kept for a while, removed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from licet.domain.errors import UnavailableError
from licet.spool.adoption import Adoption
from licet.spool.shipper import Retention, Shipper
from licet.spool.writer import SEGMENT_BYTES
from licet.storage.audit_shipping import PostgresEventStore
from tests.fakes.api import count, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.sealed_log import KEYS, SealedLog, sealed_log
from tests.fakes.serving import serving
from tests.fakes.shipping import Spool, event_store, good_body
from tests.unit.builders import PATIENT

HOUR: Final = Retention(3600.0, 1 << 40)
LEFT: Final = 30
"""How many events a writer leaves, of which it has shipped a third."""
LOSE_ALL: Final = (
    "TRUNCATE audit.events, audit.batches, audit.nodes, audit.checkpoints, audit.queue",
    "DELETE FROM audit.writers WHERE writer_id <> 9",
    "UPDATE audit.writers SET shipped_seq = 0",
    "UPDATE audit.log SET tree_size = 0, root = sha256('')",
)


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[SealedLog]:
    with sealed_log(database, tmp_path) as running:
        yield running


@pytest.fixture
def store(database: Database) -> Iterator[PostgresEventStore]:
    with event_store(database) as found:
        yield found


class Adopter:
    """One process that adopts, when it is told to look."""

    def __init__(self, root: Path, store: PostgresEventStore, retention: Retention) -> None:
        self.root = root
        self.recovered: list[tuple[int, int]] = []
        """Of whom it said that all is stored, and how far that went."""
        self.adoption = Adoption(
            root,
            lambda folder: Shipper(folder, store, KEYS, retention),
            lambda writer_id: store.is_settled(writer_id, PATIENT),
            lambda shipper: self.recovered.append((shipper.folder.writer_id, shipper.shipped)),
            retention,
        )

    def look(self) -> list[str]:
        """Look once, and return what folders there are then; a star is for those settled."""
        self.adoption.look()
        return folders(self.root)


def folders(root: Path) -> list[str]:
    return [
        f"{int(path.name, 16)}{'*' if (path / 'settled').exists() else ''}"
        for path in sorted(root.iterdir())
    ]


@contextmanager
def adopting(
    root: Path, store: PostgresEventStore, retention: Retention = HOUR
) -> Iterator[Adopter]:
    adopter = Adopter(root, store, retention)
    try:
        yield adopter
    finally:
        adopter.adoption.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spools"


def leave(root: Path, store: PostgresEventStore, *writers: int) -> None:
    """Be writers that die when they have shipped some of what they recorded."""
    for writer in writers:
        spool = Spool(root, writer, store)
        spool.writer.append_all([good_body(number) for number in range(LEFT // 3)])
        spool.ship()
        spool.writer.append_all([good_body(number) for number in range(LEFT // 3, LEFT)])
        spool.die()


def age(root: Path, writer: int, seconds: float) -> None:
    """Let it be longer ago that a folder was found settled."""
    then = time.time() - seconds
    os.utime(root / f"{writer:012x}" / "settled", (then, then))


def stored(database: Database) -> dict[int, int]:
    """Return how many events of each writer are stored, all different."""
    found = rows(
        database,
        "SELECT ('x' || left(replace(event_id::text, '-', ''), 12))::bit(48)::bigint, count(*)"
        " FROM audit.events WHERE event_type = 'decision' GROUP BY 1",
    )
    return dict(found)


def settle(log: SealedLog) -> None:
    log.seal()
    log.sign()


def test_what_a_dead_writer_left_is_stored_and_its_folder_stays_for_a_while(
    log: SealedLog, store: PostgresEventStore, root: Path
) -> None:
    leave(root, store, 5)
    with adopting(root, store) as adopter:
        # Stored at once. It counts as settled when it is sealed and signed, and not before.
        assert adopter.look() == ["5"]
        assert (stored(log.database), adopter.recovered) == ({5: LEFT}, [(5, LEFT)])
        log.seal()
        assert adopter.look() == ["5"]
        log.sign()
        assert adopter.look() == ["5*"]
        age(root, 5, 3590)
        assert adopter.look() == ["5*"]
        age(root, 5, 3601)
        assert adopter.look() == []
        assert adopter.recovered == [(5, LEFT)]
    assert log.verify().is_clean


def test_whoever_adopts_next_goes_on_where_the_last_one_was(
    log: SealedLog, store: PostgresEventStore, root: Path
) -> None:
    leave(root, store, 5)
    with adopting(root, store) as first:
        first.look()
        settle(log)
        assert first.look() == ["5*"]
        age(root, 5, 3000)
        # It has the folder for itself.
        with adopting(root, store) as other:
            assert other.look() == ["5*"]
            assert other.recovered == []
    with adopting(root, store) as second:
        assert second.look() == ["5*"]
        assert second.recovered == []  # that is on record
        age(root, 5, 3601)
        assert second.look() == []


def test_what_is_not_settled_stays_however_old_and_crowded_it_is(
    log: SealedLog, store: PostgresEventStore, root: Path
) -> None:
    leave(root, store, 5, 6)
    with adopting(root, store, Retention(0.0, 0)) as adopter:
        assert adopter.look() == ["5", "6"]
        log.seal()
        assert adopter.look() == ["5", "6"]
        log.sign()
        assert adopter.look() == []
    assert stored(log.database) == {5: LEFT, 6: LEFT}


def test_the_oldest_go_early_when_all_take_too_much(
    log: SealedLog, store: PostgresEventStore, root: Path
) -> None:
    leave(root, store, 5, 6, 7)
    # A folder has one segment, or two when its writer had made the next one.
    room = Retention(3600.0, sum(path.stat().st_size for path in root.rglob("*7/*.segment")))
    assert room.crowded_bytes >= SEGMENT_BYTES
    with adopting(root, store, room) as adopter:
        assert adopter.look() == ["5", "6", "7"]
        settle(log)
        assert adopter.look() == ["7*"]
        assert adopter.look() == ["7*"]
    assert stored(log.database) == {5: LEFT, 6: LEFT, 7: LEFT}


@pytest.mark.parametrize("same", [True, False], ids=["the same adopter", "another one"])
def test_a_database_that_has_lost_it_all_is_sent_it_again(
    log: SealedLog, store: PostgresEventStore, root: Path, same: bool
) -> None:
    leave(root, store, 5)
    adopter = Adopter(root, store, HOUR)
    adopter.look()
    settle(log)
    assert adopter.look() == ["5*"]
    age(root, 5, 3590)
    log.tamper(*LOSE_ALL)
    log.state.path.unlink()
    if not same:
        adopter.adoption.close()
        adopter = Adopter(root, store, HOUR)
    adopter.recovered.clear()
    assert adopter.look() == ["5"]
    assert (stored(log.database), adopter.recovered) == ({5: LEFT}, [(5, LEFT)])
    settle(log)
    assert adopter.look() == ["5*"]
    # It is kept for as long again.
    assert time.time() - (root / f"{5:012x}" / "settled").stat().st_mtime < 60
    adopter.adoption.close()
    assert log.verify().is_clean


def test_a_database_that_has_lost_what_was_sealed_begins_the_time_anew(
    log: SealedLog, store: PostgresEventStore, root: Path
) -> None:
    leave(root, store, 5)
    with adopting(root, store) as adopter:
        adopter.look()
        settle(log)
        assert adopter.look() == ["5*"]
        age(root, 5, 3590)
        log.tamper("DELETE FROM audit.checkpoints")
        log.state.path.unlink()
        assert adopter.look() == ["5"]
        log.sign()
        assert adopter.look() == ["5*"]
        assert time.time() - (root / f"{5:012x}" / "settled").stat().st_mtime < 60
        assert adopter.recovered == [(5, LEFT)]


def test_one_folder_that_cannot_be_shipped_holds_up_no_other(
    log: SealedLog, store: PostgresEventStore, root: Path
) -> None:
    leave(root, store, 5, 6)
    with adopting(root, store) as adopter, log.database.connect() as stranger:
        stranger.execute("BEGIN")
        stranger.execute("SELECT FROM audit.writers WHERE writer_id = 5 FOR UPDATE")
        stranger.execute("SET LOCAL idle_in_transaction_session_timeout = '30s'")
        assert adopter.look() == ["5", "6"]
        assert adopter.recovered == [(6, LEFT)]
        stranger.execute("ROLLBACK")
        adopter.look()
        assert adopter.recovered == [(6, LEFT), (5, LEFT)]
    assert stored(log.database) == {5: LEFT, 6: LEFT}


def test_what_cannot_be_put_on_record_is_told_again(
    log: SealedLog, store: PostgresEventStore, root: Path
) -> None:
    leave(root, store, 5)
    told: list[int] = []

    def recovered(shipper: Shipper) -> None:
        told.append(shipper.shipped)
        if len(told) == 1:
            raise UnavailableError("the spool is full")

    adoption = Adoption(
        root,
        lambda folder: Shipper(folder, store, KEYS, HOUR),
        lambda writer_id: store.is_settled(writer_id, PATIENT),
        recovered,
        HOUR,
    )
    for _ in range(3):
        adoption.look()
        settle(log)
    adoption.close()
    assert told == [LEFT, LEFT]
    assert folders(root) == ["5*"]


def test_a_service_leaves_a_folder_that_the_next_one_removes(
    database: Database, tmp_path: Path
) -> None:
    with serving(database, state_dir=tmp_path) as served:
        served.authorize("agent:a", "read", "doc:x")
    [root] = tmp_path.glob("*/spool-*")
    [left] = folders(root)
    assert left.endswith("*")  # all of it was stored, sealed and signed before
    with serving(database, state_dir=tmp_path, spool_retain_seconds=0):
        assert eventually(lambda: left not in folders(root), 30)
    recovered = "SELECT count(*) FROM audit.events WHERE event_type = 'audit.writer_recovered'"
    assert count(database, recovered) == 0
