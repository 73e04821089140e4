"""A spool and a shipper into a test's database, driven by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from licet.domain.audit_batch import MacKeys
from licet.domain.audit_event import POSTGRES_EPOCH, leaf_body
from licet.domain.canonical_json import canonical
from licet.domain.instant import Instant
from licet.spool.folder import SpoolFolder
from licet.spool.shipper import Retention, Shipper
from licet.spool.writer import Durability, SpoolWriter
from licet.storage.audit_shipping import PostgresEventStore
from licet.storage.pool import Database as Pool
from licet.storage.pool import PoolLimits
from tests.fakes.postgres import Database
from tests.fakes.sealed_log import KEYS
from tests.unit.builders import NOW, event

KEEP: Final = Retention(3600.0, 1 << 40)


@contextmanager
def event_store(database: Database) -> Iterator[PostgresEventStore]:
    """Provide the product's way into the database."""
    pool = Pool(database.url, PoolLimits(min_size=1, max_size=2))
    pool.open(30.0)
    try:
        yield PostgresEventStore(pool)
    finally:
        pool.close()


def good_body(number: int) -> bytes:
    """Return the body of an event that nothing is wrong with."""
    return leaf_body(
        event(occurred_at=Instant(NOW + number * 1000), metadata=canonical({"n": number}))
    )


def raw_body(*, occurred_at: int = NOW, metadata: bytes = b"{}", **texts: bytes) -> bytes:
    """Return a body that no encoder of licet would make."""
    names = "event_type actor principal action resource capability_id result reason policy_id"
    fields = [(occurred_at - POSTGRES_EPOCH).to_bytes(8, "big", signed=True)]
    fields += [texts.get(name, b"") for name in f"{names} session_id trace_id".split()]
    fields += [bytes(8), b"\x01" + metadata]
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


class Spool:
    """The spool of one writer, and what ships it."""

    def __init__(
        self, root: Path, writer_id: int, store: PostgresEventStore, keys: MacKeys = KEYS
    ) -> None:
        self.writer = SpoolWriter(
            SpoolFolder.create(root, writer_id), Durability.NONE, max_bytes=1 << 30
        )
        self.folder = self.writer.folder
        self.shipper = Shipper(self.folder, store, keys, KEEP, lambda: self.writer.appended)

    def ship(self) -> None:
        """Ship all that there is."""
        while self.shipper.step():
            pass

    def die(self) -> None:
        """Leave the folder to whoever adopts it."""
        self.shipper.close()
        self.writer.close()
        self.folder.close()


@contextmanager
def spooling(root: Path, writer_id: int, store: PostgresEventStore) -> Iterator[Spool]:
    """Provide a spool; its writer is gone afterwards."""
    spool = Spool(root, writer_id, store)
    try:
        yield spool
    finally:
        spool.die()
