"""An audit log in a real database: events shipped, sealed and signed by the product's own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Final
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row

from licet.app.findings import Report
from licet.app.sealed_log import Trust
from licet.app.verify import verify_whole
from licet.domain.audit_batch import Batch, MacKeys, digest
from licet.domain.audit_event import AuditEvent, EventType, Result, event_id, leaf
from licet.domain.canonical_json import canonical
from licet.domain.checkpoint import Checkpoint
from licet.domain.instant import Instant, to_datetime
from licet.domain.signed_note import VerifierKey
from licet.steward.journal import Journal
from licet.steward.sealer import Sealer
from licet.steward.signer import CheckpointSigner
from licet.steward.signing import Ed25519Signer, verify_ed25519
from licet.steward.state_file import StateFile
from licet.storage.audit_shipping import store_batch
from licet.storage.sealing import PostgresSealing
from licet.storage.verification import opened_log
from tests.fakes.postgres import Database
from tests.unit.builders import NOW, event

ORIGIN: Final = "licet.example/audit"
SIGNER: Final = Ed25519Signer(ORIGIN, bytes(range(32)))
KEYS: Final = MacKeys(bytes(32))
STEWARD: Final = 9
"""The writer id of the tests' steward."""


class SealedLog:
    """The audit log of a test's database, and a steward that works when it is told to."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.admin = database.connect()
        self._sealing = PostgresSealing(database.url)
        self._sealing.open_log(ORIGIN)
        self._sealing.register(STEWARD)
        self.journal = Journal(STEWARD, KEYS)
        self.state = StateFile(folder / "state.json")
        self.sealing = self._sealing
        self._sequences: dict[int, Iterator[int]] = {}

    def close(self) -> None:
        self._sealing.close()
        self.admin.close()

    def ship(
        self, events: Sequence[AuditEvent], writer: int = 1, *, keys: MacKeys = KEYS
    ) -> list[UUID]:
        """Store events as a writer's shipper does, in one batch, and return their ids."""
        sequences = list(islice(self.sequences(writer), len(events)))
        identifiers = [event_id(writer, sequence) for sequence in sequences]
        leaves = [leaf(i, event) for i, event in zip(identifiers, events, strict=True)]
        instants = [event.occurred_at for event in events]
        for instant in {min(instants), max(instants)}:
            self.admin.execute("SELECT audit.ensure_partition(%s)", [to_datetime(instant)])
        batch = Batch(
            writer,
            UUID(int=identifiers[0]),
            UUID(int=identifiers[-1]),
            min(instants),
            max(instants),
            len(leaves),
            digest(leaves),
        )
        with self.admin.transaction():
            assert store_batch(self.admin, sequences[0], keys.authenticated(batch), leaves)
        return [UUID(int=i) for i in identifiers]

    def sequences(self, writer: int) -> Iterator[int]:
        """Return what numbers a writer's events; it is registered with the first."""
        if writer not in self._sequences:
            self._sequences[writer] = count(1)
            self.admin.execute("INSERT INTO audit.writers (writer_id) VALUES (%s)", [writer])
        return self._sequences[writer]

    def seal(self) -> int:
        """Seal all that waits, and return how many leaves that were."""
        sealer = Sealer(self._sealing, KEYS, self.journal)
        sealed = 0
        while step := sealer.step():
            sealed += step
        return sealed

    def sign(self) -> Checkpoint | None:
        """Sign the head if it has grown."""
        return CheckpointSigner(self._sealing, SIGNER, self.state).step()

    def grow(self, events: int, writer: int = 1, *, batch: int = 10) -> list[UUID]:
        """Ship, seal and sign so many events, and return their ids."""
        identifiers: list[UUID] = []
        while len(identifiers) < events:
            size = min(batch, events - len(identifiers))
            identifiers += self.ship(some_events(size, len(identifiers)), writer)
        self.seal()
        self.sign()
        return identifiers

    def note(self) -> str:
        """Return the latest checkpoint."""
        row = self.admin.execute(
            "SELECT note FROM audit.checkpoints ORDER BY epoch DESC, tree_size DESC LIMIT 1"
        ).fetchone()
        assert row is not None
        return str(row[0])

    def tamper(self, *statements: str) -> None:
        """Run statements as a superuser does who has turned off what is in the way."""
        with psycopg.connect(self.database.url, row_factory=tuple_row) as connection:
            tables = connection.execute(
                "SELECT c.oid::regclass::text FROM pg_trigger AS t JOIN pg_class AS c"
                " ON c.oid = t.tgrelid WHERE NOT t.tgisinternal AND c.relnamespace ="
                " ANY (ARRAY['audit', 'licet']::regnamespace[]) AND c.relkind IN ('r', 'p')"
            ).fetchall()
            names = sorted({name for (name,) in tables})
            for name in names:
                connection.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER".encode())
            for statement in statements:
                connection.execute(statement.encode())
            for name in names:
                # What was dropped has none.
                connection.execute(f"ALTER TABLE IF EXISTS {name} ENABLE TRIGGER USER".encode())

    def verify(self, kept: Checkpoint | None = None, *, key: VerifierKey = SIGNER.key) -> Report:
        """Verify everything against a key."""
        report = Report()
        with opened_log(self.database.url, snapshot=True) as log:
            for _ in verify_whole(log, Trust(key, verify_ed25519, kept), report):
                pass
        return report


@contextmanager
def sealed_log(database: Database, folder: Path) -> Iterator[SealedLog]:
    """Provide an audit log, and a steward for it."""
    log = SealedLog(database, folder)
    try:
        yield log
    finally:
        log.close()


def some_events(number: int, first: int = 0) -> list[AuditEvent]:
    """Return decisions, a millisecond after each other."""
    return [
        event(
            event_type=EventType.DECISION,
            occurred_at=Instant(NOW + (first + position) * 1000),
            result=Result.ALLOW,
            metadata=canonical({"n": first + position}),
        )
        for position in range(number)
    ]
