"""The tree of the audit log as stored, and the transaction by which it grows.

Safe with any number of sealers: the transaction holds the head's row, and moves it by comparing
with what it was. The advisory lock only spares the others the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final, LiteralString

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow, tuple_row

from licet.app.sealing import Head, LatestCheckpoint, QueuedBatch, SealedBatch
from licet.domain.audit_batch import Batch
from licet.domain.instant import Instant, to_datetime
from licet.domain.merkle import EMPTY_ROOT, Node, ReadHashes
from licet.storage.audit_shipping import (
    IDENTITY,
    SEQUENCE_BITS,
    store_batch,
)
from licet.storage.errors import translated
from licet.storage.pool import READ_WRITE
from licet.storage.tree import copied_leaves, read_hashes

_SET_ROLE: Final[LiteralString] = "SET ROLE licet_sealer"
# A hung statement must not hold the head for long; a sealer that is stopped must lose it, and the
# lead as well: one that lives has a statement many times a second.
_SET_LIMITS: Final[LiteralString] = """
SELECT set_config('statement_timeout', '30s', false),
       set_config('idle_in_transaction_session_timeout', '30s', false),
       set_config('idle_session_timeout', '60s', false)
"""
_LEAD: Final[LiteralString] = "SELECT pg_try_advisory_lock(20013)"
_HEAD: Final[LiteralString] = """
SELECT l.origin, l.epoch, l.tree_size, l.root,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM audit.log AS l FOR UPDATE
"""
_REGISTER: Final[LiteralString] = "INSERT INTO audit.writers (writer_id) VALUES (%s)"
_NAME: Final[LiteralString] = """
UPDATE audit.log SET origin = %(origin)s
WHERE origin <> %(origin)s AND epoch = 1 AND NOT EXISTS (SELECT FROM audit.checkpoints)
"""
_ENSURE_AHEAD: Final[LiteralString] = """
SELECT audit.ensure_partition(clock_timestamp() + days * interval '1 day')
FROM generate_series(0, 3) AS days
"""
_OFFSET: Final[LiteralString] = """
SELECT shipped_seq + 1 FROM audit.writers WHERE writer_id = %s FOR UPDATE
"""
_ENSURE_PARTITION: Final[LiteralString] = "SELECT audit.ensure_partition(%s)"
_QUEUED: Final[LiteralString] = """
SELECT q.batch_id, q.writer_id, q.first_id, q.last_id,
       (extract(epoch FROM q.min_at) * 1000000)::bigint,
       (extract(epoch FROM q.max_at) * 1000000)::bigint, q.n, q.digest, q.mac
FROM audit.queue AS q ORDER BY q.batch_id LIMIT %(limit)s
"""
_QUEUED_OF: Final[LiteralString] = """
SELECT q.batch_id, q.writer_id, q.first_id, q.last_id,
       (extract(epoch FROM q.min_at) * 1000000)::bigint,
       (extract(epoch FROM q.max_at) * 1000000)::bigint, q.n, q.digest, q.mac
FROM audit.queue AS q WHERE q.writer_id = %(writer)s ORDER BY q.batch_id
"""
_LEAVES: Final[LiteralString] = """
COPY (SELECT e.v, e.event_id, e.occurred_at, e.event_type, e.actor, e.principal, e.action,
             e.resource, e.capability_id, e.result, e.reason, e.policy_id, e.session_id,
             e.trace_id, e.revision, e.metadata
      FROM audit.events AS e
      WHERE e.event_id BETWEEN %(first)s AND %(last)s
        AND e.occurred_at BETWEEN %(since)s AND %(until)s
      ORDER BY e.event_id)
TO STDOUT (FORMAT BINARY)
"""
_INSERT_BATCH: Final[LiteralString] = """
INSERT INTO audit.batches (epoch, first_leaf, n, writer_id, first_id, last_id, min_at, max_at,
                           leaf_hashes)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %b)
"""
_INSERT_NODE: Final[LiteralString] = """
INSERT INTO audit.nodes (epoch, level, idx, hash) VALUES (%s, %s, %s, %b)
"""
_MOVE: Final[LiteralString] = """
UPDATE audit.log SET tree_size = %(size)s, root = %(root)s
WHERE epoch = %(epoch)s AND tree_size = %(old_size)s AND root = %(old_root)s
"""
_BEGIN_EPOCH: Final[LiteralString] = """
UPDATE audit.log SET origin = %(origin)s, epoch = %(epoch)s, tree_size = 0, root = %(empty)s
WHERE epoch = %(old_epoch)s AND tree_size = %(old_size)s AND root = %(old_root)s
"""
_LATEST_OF_ALL: Final[LiteralString] = """
SELECT split_part(c.note, chr(10), 1), c.tree_size, c.root
FROM audit.checkpoints AS c ORDER BY c.epoch DESC, c.tree_size DESC LIMIT 1
"""
# A writer's batches are sealed in their order.
_STANDINGS: Final[LiteralString] = """
SELECT w.writer_id, b.last_id
FROM audit.writers AS w CROSS JOIN LATERAL (
  SELECT b.last_id, b.min_at, b.max_at FROM audit.batches AS b WHERE b.writer_id = w.writer_id
  ORDER BY b.epoch DESC, b.first_leaf DESC LIMIT 1) AS b
WHERE w.writer_id <> 0 AND NOT EXISTS (
  SELECT FROM audit.events AS e
  WHERE e.event_id = b.last_id AND e.occurred_at BETWEEN b.min_at AND b.max_at
    AND e.event_type = 'audit.writer_closed')
ORDER BY w.writer_id DESC LIMIT %(limit)s
"""
_READ_HEAD: Final[LiteralString] = (
    "SELECT l.origin, l.epoch, l.tree_size, l.root FROM audit.log AS l"
)
_LATEST: Final[LiteralString] = "SELECT max(tree_size) FROM audit.checkpoints WHERE epoch = %s"
_PUBLISH: Final[LiteralString] = """
INSERT INTO audit.checkpoints (epoch, tree_size, root, note) VALUES (%s, %s, %b, %s)
ON CONFLICT (epoch, tree_size) DO NOTHING
"""
_DONE: Final[LiteralString] = "DELETE FROM audit.queue WHERE batch_id = ANY (%s)"


def sealer_connection(conninfo: str, name: str) -> Connection[TupleRow]:
    """Open a connection in the sealer's role, in autocommit.

    Raises:
        UnavailableError: the database cannot be reached.
    """
    with translated(deadline_bound=False):
        connection: Connection[TupleRow] = psycopg.connect(
            conninfo,
            autocommit=True,
            application_name=name,
            target_session_attrs=READ_WRITE,
            connect_timeout=5,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10_000,
            row_factory=tuple_row,
        )
        connection.execute(_SET_ROLE)
        connection.execute(_SET_LIMITS)
        return connection


class PostgresSealing:
    """See `app.sealing.Sealing` and `app.sealing.Checkpoints`."""

    def __init__(self, conninfo: str) -> None:
        """Connect.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        self._connection = sealer_connection(conninfo, "licet sealer")
        self._leads = False

    def register(self, writer_id: int) -> None:
        """See `Sealing.register`."""
        register_writer(self._connection, writer_id)

    def open_log(self, origin: str | None) -> None:
        """See `steward.Connection.open_log`."""
        with translated(deadline_bound=False):
            if origin is not None:
                self._connection.execute(_NAME, {"origin": origin})
            self._connection.execute(_ENSURE_AHEAD)

    def lead(self) -> bool:
        """See `Sealing.lead`."""
        if not self._leads:
            with translated(deadline_bound=False):
                row = self._connection.execute(_LEAD).fetchone()
            self._leads = row is not None and row[0]
        return self._leads

    @contextmanager
    def transaction(self) -> Iterator[PostgresSealingTransaction]:
        """See `Sealing.transaction`."""
        with sealing_transaction(self._connection) as transaction:
            yield transaction

    def head(self) -> Head:
        """See `app.sealing.Checkpoints.head`."""
        with translated(deadline_bound=False):
            row = self._connection.execute(_READ_HEAD).fetchone()
        if row is None:
            raise RuntimeError("audit.log has no row")
        return Head(*row)

    def latest_size(self, epoch: int) -> int | None:
        """See `app.sealing.Checkpoints.latest_size`."""
        with translated(deadline_bound=False):
            row = self._connection.execute(_LATEST, [epoch]).fetchone()
        return None if row is None else row[0]

    def latest(self) -> LatestCheckpoint | None:
        """See `app.sealing.Checkpoints.latest`."""
        with translated(deadline_bound=False):
            row = self._connection.execute(_LATEST_OF_ALL).fetchone()
        return None if row is None else LatestCheckpoint(*row)

    def standings(self, limit: int) -> Mapping[int, int]:
        """See `app.sealing.Checkpoints.standings`."""
        with translated(deadline_bound=False):
            rows = self._connection.execute(_STANDINGS, {"limit": limit}).fetchall()
        return {writer_id: last_id.int & SEQUENCE_BITS for writer_id, last_id in rows}

    def identity(self) -> tuple[str, str]:
        """Return what names the log, whatever its origin and epoch, and what names the database."""
        with translated(deadline_bound=False):
            row = self._connection.execute(IDENTITY).fetchone()
        if row is None:
            raise RuntimeError("audit.log has no row")
        return row[0], row[1]

    def reader(self, epoch: int) -> ReadHashes:
        """See `app.sealing.Checkpoints.reader`."""

        def read(level: int, first: int, count: int) -> bytes:
            with translated(deadline_bound=False):
                return read_hashes(self._connection, epoch, level, first, count)

        return read

    def publish(self, head: Head, note: str) -> None:
        """See `app.sealing.Checkpoints.publish`."""
        with translated(deadline_bound=False):
            self._connection.execute(_PUBLISH, (head.epoch, head.size, head.root, note))

    def close(self) -> None:
        """See `Sealing.close`."""
        with suppress(psycopg.Error):
            self._connection.close()


class PostgresSealingTransaction:
    """See `app.sealing.SealingTransaction`."""

    def __init__(self, connection: Connection[TupleRow], head: Head, now: Instant) -> None:
        """Use a connection in a transaction that holds the head."""
        self._connection = connection
        self._head = head
        self._now = now

    @property
    def head(self) -> Head:
        """See `SealingTransaction.head`."""
        return self._head

    @property
    def now(self) -> Instant:
        """See `SealingTransaction.now`."""
        return self._now

    def queued(self, limit: int) -> Sequence[QueuedBatch]:
        """See `SealingTransaction.queued`."""
        return self._queued(_QUEUED, {"limit": limit})

    def queued_of(self, writer_id: int) -> Sequence[QueuedBatch]:
        """See `SealingTransaction.queued_of`."""
        return self._queued(_QUEUED_OF, {"writer": writer_id})

    def _queued(
        self, statement: LiteralString, parameters: Mapping[str, int]
    ) -> Sequence[QueuedBatch]:
        rows = self._connection.execute(statement, parameters, binary=True).fetchall()
        return [
            QueuedBatch(
                row[0],
                Batch(row[1], row[2], row[3], Instant(row[4]), Instant(row[5]), *row[6:9]),
            )
            for row in rows
        ]

    def begin_epoch(self, origin: str, epoch: int) -> None:
        """See `SealingTransaction.begin_epoch`."""
        old = self._head
        moved = self._connection.execute(
            _BEGIN_EPOCH,
            {
                "origin": origin,
                "epoch": epoch,
                "empty": EMPTY_ROOT,
                "old_epoch": old.epoch,
                "old_size": old.size,
                "old_root": old.root,
            },
        )
        if moved.rowcount != 1:
            raise RuntimeError("the head of the audit log moved under its lock")
        self._head = Head(origin, epoch, 0, EMPTY_ROOT)

    def leaves(self, batch: Batch) -> Sequence[bytes]:
        """See `SealingTransaction.leaves`."""
        return read_leaves(self._connection, batch)

    def read_hashes(self, level: int, first: int, count: int) -> bytes:
        """See `SealingTransaction.read_hashes`."""
        return read_hashes(self._connection, self._head.epoch, level, first, count)

    def grow(
        self,
        head: Head,
        batches: Sequence[SealedBatch],
        nodes: Sequence[Node],
        done: Sequence[int],
    ) -> None:
        """See `SealingTransaction.grow`."""
        old, epoch = self._head, head.epoch
        with self._connection.cursor() as cursor:
            for first_leaf, batch, hashes in batches:
                low, high = _bounds(batch)
                cursor.execute(
                    _INSERT_BATCH,
                    (
                        *(epoch, first_leaf, len(hashes) // 32, batch.writer_id),
                        *(batch.first_id, batch.last_id, low, high, hashes),
                    ),
                )
            cursor.executemany(
                _INSERT_NODE, [(epoch, node.level, node.index, node.hash) for node in nodes]
            )
            moved = cursor.execute(
                _MOVE,
                {
                    "size": head.size,
                    "root": head.root,
                    "epoch": epoch,
                    "old_size": old.size,
                    "old_root": old.root,
                },
            )
            if moved.rowcount != 1:
                raise RuntimeError("the head of the audit log moved under its lock")
            cursor.execute(_DONE, [list(done)])
        self._head = head

    def next_sequence(self, writer_id: int) -> int:
        """See `SealingTransaction.next_sequence`."""
        row = self._connection.execute(_OFFSET, [writer_id]).fetchone()
        if row is None:
            raise RuntimeError(f"audit writer {writer_id} is not registered")
        return int(row[0])

    def record(self, first: int, batch: Batch, leaves: Sequence[bytes]) -> None:
        """See `SealingTransaction.record`."""
        self._connection.execute(_ENSURE_PARTITION, [to_datetime(batch.max_at)])
        if not store_batch(self._connection, first, batch, leaves):
            raise RuntimeError("the steward's own offset in the audit log moved")


@contextmanager
def sealing_transaction(
    connection: Connection[TupleRow],
) -> Iterator[PostgresSealingTransaction]:
    """Begin a transaction that holds the head, and commit it at the end of the block."""
    with translated(deadline_bound=False), connection.transaction():
        row = connection.execute(_HEAD).fetchone()
        if row is None:
            raise RuntimeError("audit.log has no row")
        *head, now = row
        yield PostgresSealingTransaction(connection, Head(*head), Instant(now))


def register_writer(connection: Connection[TupleRow], writer_id: int) -> None:
    """Make a writer known."""
    with translated(deadline_bound=False):
        connection.execute(_REGISTER, [writer_id])


def read_leaves(connection: Connection[TupleRow], batch: Batch) -> list[bytes]:
    """Return the canonical bytes of a batch's events as they are stored, in the order of ids."""
    low, high = _bounds(batch)
    parameters = {"first": batch.first_id, "last": batch.last_id, "since": low, "until": high}
    return list(copied_leaves(connection, _LEAVES, parameters))


def _bounds(batch: Batch) -> tuple[datetime, datetime]:
    return to_datetime(batch.min_at), to_datetime(batch.max_at)
