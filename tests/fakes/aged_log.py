"""An audit log with events of past days in a real database, sealed and signed by licet itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from time import time_ns
from typing import Final

from licet.app.archiving import Archive, Partition, Partitions
from licet.domain.audit_batch import MacKeys, batch_of
from licet.domain.audit_event import EventType, Result, event_id, leaf
from licet.domain.checkpoint import Checkpoint
from licet.domain.instant import Instant, to_datetime
from licet.domain.merkle_proof import StoredTree
from licet.domain.tlog_proof import InclusionProof, cover_text
from licet.steward.archive import Archiver
from licet.steward.archive_folder import ArchiveFolder
from licet.steward.journal import Journal
from licet.steward.retention import ArchiveJournal
from licet.steward.sealer import Sealer
from licet.steward.signer import CheckpointSigner
from licet.steward.signing import Ed25519Signer
from licet.steward.state_file import StateFile
from licet.storage.audit_shipping import store_batch
from licet.storage.partitions import PostgresPartitions
from licet.storage.sealing import PostgresSealing
from tests.fakes.audit_log import ORIGIN, SEED
from tests.fakes.postgres import Database
from tests.unit.builders import event

DAY: Final = 86_400_000_000
KEYS: Final = MacKeys(bytes(32))
STEWARD: Final = 9
PATIENCE: Final = 0.5


class AgedLog:
    """A log of a test's database, and a steward and an archiver that work when they are told to."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.admin = database.connect()
        self.sealing = PostgresSealing(database.url)
        self.sealing.open_log(ORIGIN)
        self.sealing.register(STEWARD)
        self.signer = Ed25519Signer(ORIGIN, SEED)
        self.state = StateFile(folder / "state.json")
        self.folder = ArchiveFolder(folder / "archive")
        self.today = time_ns() // 1000 // DAY
        self.leaves: dict[int, list[bytes]] = {}
        self._sequences: dict[int, int] = {}
        self._writers = count(100)

    def close(self) -> None:
        self.sealing.close()
        self.admin.close()

    def instant(self, days_ago: int, microseconds: int = 0) -> Instant:
        return Instant((self.today - days_ago) * DAY + microseconds)

    def name(self, days_ago: int) -> str:
        return f"events_{to_datetime(self.instant(days_ago)):%Y%m%d}"

    def ship(self, *instants: Instant, writer: int = 1) -> list[bytes]:
        """Store events that occurred then, in one batch, and return their leaves."""
        if writer not in self._sequences:
            self._sequences[writer] = 0
            self.admin.execute("INSERT INTO audit.writers (writer_id) VALUES (%s)", [writer])
        first = self._sequences[writer] + 1
        self._sequences[writer] += len(instants)
        leaves = [
            leaf(
                event_id(writer, sequence),
                event(
                    event_type=EventType.DECISION,
                    occurred_at=instant,
                    result=Result.ALLOW,
                    metadata="{}",
                ),
            )
            for sequence, instant in enumerate(instants, first)
        ]
        for instant in instants:
            self.admin.execute("SELECT audit.ensure_partition(%s)", [to_datetime(instant)])
        with self.admin.transaction():
            batch = KEYS.authenticated(batch_of(writer, first, leaves))
            assert store_batch(self.admin, first, batch, leaves)
        return leaves

    def ship_day(self, days_ago: int, events: int, writer: int = 1) -> list[bytes]:
        """Store so many events of a day, in batches of ten."""
        instants = [self.instant(days_ago, 1000 * n) for n in range(events)]
        batches = [instants[at : at + 10] for at in range(0, events, 10)]
        return [found for batch in batches for found in self.ship(*batch, writer=writer)]

    def seal(self) -> None:
        sealer = Sealer(self.sealing, KEYS, Journal(STEWARD, KEYS))
        while sealer.step():
            pass

    def sign(self) -> Checkpoint | None:
        return CheckpointSigner(self.sealing, self.signer, self.state).step()

    def settle(self) -> None:
        """Seal and sign what waits."""
        self.seal()
        self.sign()

    def note(self) -> str:
        row = self.admin.execute(
            "SELECT note FROM audit.checkpoints ORDER BY epoch DESC, tree_size DESC LIMIT 1"
        ).fetchone()
        assert row is not None
        return str(row[0])

    def signed(self) -> bool:
        """Say whether all that was stored up to now is under a checkpoint."""
        row = self.admin.execute(
            "SELECT NOT EXISTS (SELECT FROM audit.queue) AND l.tree_size ="
            " (SELECT max(c.tree_size) FROM audit.checkpoints AS c) FROM audit.log AS l"
        ).fetchone()
        return row is not None and bool(row[0])

    def inclusion(self, index: int) -> str:
        """Return the proof of a leaf, which the database has no more, from what it still has."""
        head = self.sealing.head()
        hashes = StoredTree(head.size, self.sealing.reader(1)).inclusion_proof(index)
        return InclusionProof(index, hashes, self.note()).text()

    def cover(self, ranges: Sequence[tuple[int, int]]) -> str:
        """Return the hashes that stand for all leaves but these ranges."""
        size = self.sealing.head().size
        tree = StoredTree(size, self.sealing.reader(1))
        gaps, at = [], 0
        for first, end in (*ranges, (size, size)):
            gaps.append((at, first))
            at = end
        return cover_text(subtree for a, b in gaps for subtree in tree.cover(a, b))

    def partitions(self) -> set[str]:
        rows = self.admin.execute(
            "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'audit.events'::regclass"
        ).fetchall()
        return {name for (name,) in rows}

    def recorded(self) -> int:
        """Return how many events say that a partition is archived."""
        row = self.admin.execute(
            "SELECT count(*) FROM audit.events WHERE event_type = 'audit.partition_archived'"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def archiver(
        self,
        partitions: Partitions,
        wait: Callable[[float], bool] | None = None,
        folder: ArchiveFolder | None = None,
    ) -> Archiver:
        """Return an archiver; while it waits, the steward works."""

        def settled(_seconds: float) -> bool:
            self.settle()
            return False

        journal = ArchiveJournal(partitions, lambda: next(self._writers), KEYS)
        return Archiver(partitions, folder or self.folder, journal, wait or settled)

    def archive(
        self, days_ago: int, wait: Callable[[float], bool] | None = None
    ) -> Sequence[Archive]:
        """Archive the partition of a day."""
        with opened(self.database) as partitions:
            archiver = self.archiver(partitions, wait)
            return archiver.archive(self.find(days_ago), PATIENCE, lambda _w, _e: None)

    def find(self, days_ago: int) -> Partition:
        with opened(self.database) as partitions:
            found = partitions.find(self.name(days_ago))
        assert found is not None
        return found[0]


@contextmanager
def opened(database: Database) -> Iterator[PostgresPartitions]:
    """Provide a connection for an archiver."""
    partitions = PostgresPartitions(database.url)
    try:
        yield partitions
    finally:
        partitions.close()


@contextmanager
def aged_log(database: Database, folder: Path) -> Iterator[AgedLog]:
    """Provide an audit log."""
    log = AgedLog(database, folder)
    try:
        yield log
    finally:
        log.close()
