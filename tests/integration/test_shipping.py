"""What a spool takes while it is shipped: kept for its time, and gone early where room is short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from licet.spool.folder import SpoolFolder
from licet.spool.shipper import Retention, Shipper
from licet.spool.writer import Durability, SpoolWriter
from licet.storage.audit_shipping import PostgresEventStore
from tests.fakes.postgres import Database
from tests.fakes.sealed_log import KEYS, SealedLog, sealed_log
from tests.fakes.shipping import event_store, good_body

SEGMENT = 8 * 4096
LARGE = 1 << 40


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[SealedLog]:
    with sealed_log(database, tmp_path) as running:
        yield running


@pytest.fixture
def store(database: Database) -> Iterator[PostgresEventStore]:
    with event_store(database) as found:
        yield found


class Shipped:
    """A spool of small segments, shipped and tidied by hand."""

    def __init__(self, writer: SpoolWriter, shipper: Shipper) -> None:
        self._writer, self._shipper = writer, shipper
        self._begin = monotonic()

    def ship(self) -> None:
        """Record some segments, and store them."""
        for number in range(500):
            self._writer.append(good_body(number))
        while self._shipper.step():
            pass

    def left(self, seconds: float) -> bool:
        """Tidy so long after the beginning; say whether what was shipped is still there."""
        self._shipper.tidy(now=self._begin + seconds)
        return len(self._shipper.folder.segments()) > 2


@contextmanager
def shipping(root: Path, store: PostgresEventStore, retention: Retention) -> Iterator[Shipped]:
    folder = SpoolFolder.create(root, 5)
    writer = SpoolWriter(folder, Durability.NONE, max_bytes=1 << 30, segment_bytes=SEGMENT)
    shipper = Shipper(folder, store, KEYS, retention, lambda: writer.appended)
    try:
        yield Shipped(writer, shipper)
    finally:
        shipper.close()
        writer.close()
        folder.close()


def test_what_is_shipped_stays_for_its_time_and_until_it_is_signed(
    log: SealedLog, store: PostgresEventStore, tmp_path: Path
) -> None:
    with shipping(tmp_path / "spool", store, Retention(100.0, LARGE)) as shipped:
        shipped.ship()
        assert shipped.left(20)
        assert shipped.left(115)
        assert shipped.left(135)  # long enough, and not sealed
        log.seal()
        assert shipped.left(150)
        log.sign()
        assert not shipped.left(165)


def test_a_crowded_spool_is_tidied_at_once_and_again_soon(
    store: PostgresEventStore, tmp_path: Path
) -> None:
    with shipping(tmp_path / "spool", store, Retention(3600.0, 3 * SEGMENT)) as shipped:
        shipped.ship()
        assert not shipped.left(11)
        # Decisions may wait for the room: not for another ten seconds.
        shipped.ship()
        assert shipped.left(11.4)
        assert not shipped.left(11.6)
