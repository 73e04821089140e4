"""What a host that seals and signs is made of, a step at a time, and what must hold of the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import override

from licet.domain.audit_batch import MAC_KEY_BYTES, MacKeys, batch_of
from licet.domain.canonical_json import JsonValue
from licet.domain.checkpoint import Checkpoint
from licet.domain.merkle import EMPTY_ROOT, Frontier
from licet.replica.clock import SystemClock
from licet.steward.journal import Journal
from licet.steward.sealer import Sealer
from licet.steward.signer import CheckpointSigner
from licet.steward.signing import Ed25519Signer
from licet.steward.state_file import StateFile
from licet.steward.steward import Custody
from licet.storage.audit_shipping import PostgresEventStore
from licet.storage.pool import Database as Pool
from licet.storage.pool import PoolLimits
from licet.storage.sealing import PostgresSealing
from licet.writer.ids import audit_writer_id
from tests.fakes.api import rows
from tests.fakes.audit_log import SEED, recorded
from tests.fakes.postgres import Database
from tests.unit.builders import PATIENT

KEYS = MacKeys(bytes(MAC_KEY_BYTES))
SIGNER = Ed25519Signer("licet.local", SEED)


class Pushy(PostgresSealing):
    """A sealer that does not care who leads: what protects the log is the head's lock then."""

    @override
    def lead(self) -> bool:
        return True


class Writer:
    """Stores events as a shipper does."""

    def __init__(self, database: Pool, writer_id: int | None = None) -> None:
        self.writer_id = audit_writer_id(SystemClock()) if writer_id is None else writer_id
        self._store = PostgresEventStore(database)
        self.sequence = self._store.shipped(self.writer_id, PATIENT)

    def store(
        self,
        count: int = 1,
        event_type: str = "decision",
        *,
        seconds: int = 0,
        metadata: dict[str, JsonValue] | None = None,
    ) -> list[bytes]:
        """Store events in one batch; return their leaves."""
        first = self.sequence + 1
        leaves = [
            recorded(
                self.writer_id, first + i, event_type, seconds=seconds, metadata=metadata or {}
            )
            for i in range(count)
        ]
        batch = KEYS.authenticated(batch_of(self.writer_id, first, leaves))
        assert self._store.store(first, batch, leaves, PATIENT)
        self.sequence += count
        return leaves


@contextmanager
def writing_to(database: Database, writer_id: int | None = None) -> Iterator[Writer]:
    """Provide a writer of the audit log."""
    pool = Pool(database.url, PoolLimits(min_size=1, max_size=1))
    pool.open(30)
    try:
        yield Writer(pool, writer_id)
    finally:
        pool.close()


class Host:
    """A host that seals and signs, by one connection and one folder."""

    def __init__(self, sealing: PostgresSealing, folder: Path) -> None:
        self.sealing = sealing
        self.custody = custody(folder)
        self.state = self.custody.state
        writer_id = audit_writer_id(SystemClock())
        sealing.register(writer_id)
        self.sealer = Sealer(sealing, KEYS, Journal(writer_id, KEYS))
        self.signer = CheckpointSigner(sealing, SIGNER, self.state)

    def seal(self) -> int:
        """Seal all that waits; return how many events that were."""
        sealed = 0
        while more := self.sealer.step():
            sealed += more
        return sealed

    def sign(self) -> Checkpoint | None:
        """Seal all that waits and sign it."""
        self.seal()
        return self.signer.step()


def custody(folder: Path) -> Custody:
    """Return the tests' keys, and the state file of a folder."""
    return Custody(KEYS, SIGNER, StateFile(folder / "signed.json"))


@contextmanager
def hosting(
    database: Database, folder: Path, kind: type[PostgresSealing] = Pushy
) -> Iterator[Host]:
    """Provide a host on a connection of its own."""
    with closing(kind(database.url)) as sealing:
        yield Host(sealing, folder)


def metadata_of(database: Database, event_type: str) -> list[dict[str, Any]]:
    """Return the metadata of all events of a type, in the order of their ids."""
    found = rows(
        database,
        "SELECT metadata FROM audit.events WHERE event_type = %s ORDER BY event_id",
        event_type,
    )
    return [metadata for (metadata,) in found]


def assert_whole(database: Database, *, waiting: int = 0, missing: int = 0) -> int:
    """Check the tree of the present epoch against the events, by SQL; return its size.

    Every event is one leaf of one epoch, leaves follow each other without a gap, their hashes are
    those of the events, the root is the head's, and each checkpoint's is that of its size.

    Args:
        database: which.
        waiting: how many events are stored and not sealed.
        missing: how many events are sealed and gone.
    """
    ((epoch, size, root),) = rows(database, "SELECT epoch, tree_size, root FROM audit.log")
    leaves = rows(
        database,
        """SELECT b.epoch, b.first_leaf, b.n, b.leaf_hashes,
                  (SELECT string_agg(e.leaf_hash, ''::bytea ORDER BY e.event_id)
                   FROM audit.event_leaves AS e
                   WHERE e.event_id BETWEEN b.first_id AND b.last_id
                     AND e.occurred_at BETWEEN b.min_at AND b.max_at)
           FROM audit.batches AS b ORDER BY b.epoch, b.first_leaf""",
    )
    ((events,),) = rows(database, "SELECT count(*) FROM audit.events")
    assert sum(batch[2] for batch in leaves) == events - waiting + missing
    if not missing:
        assert all(stored == found for *_, stored, found in leaves)
    frontiers: dict[int, dict[int, bytes]] = {}
    for number in range(1, epoch + 1):
        frontier, roots = Frontier(), {0: EMPTY_ROOT}
        for of, first, count, hashes, _ in leaves:
            if of != number:
                continue
            assert first == frontier.size
            assert len(hashes) == count * 32
            for start in range(0, len(hashes), 32):
                frontier, _nodes = frontier.grown(hashes[start : start + 32])
                roots[frontier.size] = frontier.root()
        frontiers[number] = roots
    assert (max(frontiers[epoch]), frontiers[epoch][size]) == (size, root)
    signed = rows(database, "SELECT epoch, tree_size, root FROM audit.checkpoints")
    assert all(frontiers[of][at] == said for of, at, said in signed)
    return int(size)
