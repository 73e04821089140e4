"""Events into the audit log: their leaves, the writer's offset and the queue, at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString

from psycopg import Connection, errors
from psycopg.abc import Params

from licet.app.ports import Deadline
from licet.domain.audit_batch import Batch
from licet.domain.audit_event import is_leaf, occurred_at
from licet.domain.errors import ConflictError, UnstorableError
from licet.domain.instant import EARLIEST, LATEST, Instant, rfc3339
from licet.storage.pool import Database

_ADVANCE: Final[LiteralString] = """
UPDATE audit.writers SET shipped_seq = %(last)s
WHERE writer_id = %(writer)s AND shipped_seq = %(first)s - 1
"""
_COPY: Final[LiteralString] = """
COPY audit.events (v, event_id, occurred_at, event_type, actor, principal, action, resource,
                   capability_id, result, reason, policy_id, session_id, trace_id, revision,
                   metadata)
FROM STDIN (FORMAT BINARY)
"""
COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"
# Also for a writer that is known: a database that was restored may not know it any more.
_REGISTER: Final[LiteralString] = (
    "INSERT INTO audit.writers (writer_id) VALUES (%s) ON CONFLICT DO NOTHING"
)
_IS_SIGNED: Final[LiteralString] = "SELECT EXISTS (SELECT FROM audit.checkpoints)"
# A copy of a database has its log's id, and must not be shipped what is the original's.
IDENTITY: Final[LiteralString] = """
SELECT l.log_id::text, concat_ws('-', s.system_identifier, d.oid)
FROM audit.log AS l, pg_control_system() AS s, pg_database AS d
WHERE d.datname = current_database()
"""
_ORIGIN: Final[LiteralString] = "SELECT l.origin FROM audit.log AS l"
# The first leaf of an epoch holds the root in which the former one ended: a checkpoint of the later
# one vouches for all of the former.
_IS_SETTLED: Final[LiteralString] = """
SELECT NOT EXISTS (SELECT FROM audit.queue AS q WHERE q.writer_id = %(writer)s)
   AND NOT EXISTS (
     SELECT FROM audit.batches AS b
     WHERE b.writer_id = %(writer)s AND b.first_leaf + b.n > coalesce(
       (SELECT max(c.tree_size) FROM audit.checkpoints AS c WHERE c.epoch = b.epoch), 0)
       AND NOT EXISTS (SELECT FROM audit.checkpoints AS c WHERE c.epoch > b.epoch))
"""
_ENSURE_PARTITION: Final[LiteralString] = "SELECT audit.ensure_partition(%s::timestamptz)"
_ENSURE_AHEAD: Final[LiteralString] = """
SELECT audit.ensure_partition(clock_timestamp() + days * interval '1 day')
FROM generate_series(0, 3) AS days
"""
_SHIPPED: Final[LiteralString] = "SELECT shipped_seq FROM audit.writers WHERE writer_id = %s"
_SEALED: Final[LiteralString] = """
SELECT b.last_id FROM audit.batches AS b
WHERE b.writer_id = %s AND (b.first_leaf + b.n <= (
  SELECT max(c.tree_size) FROM audit.checkpoints AS c WHERE c.epoch = b.epoch)
  OR EXISTS (SELECT FROM audit.checkpoints AS c WHERE c.epoch > b.epoch))
ORDER BY b.epoch DESC, b.first_leaf DESC LIMIT 1
"""
_NOW: Final[LiteralString] = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_SKIP: Final[LiteralString] = "SELECT audit.pass_over(%s, %s, %s, %s, %b)"
SEQUENCE_BITS: Final = (1 << 62) - 1
_DAY: Final = 86_400_000_000
_QUEUE: Final[LiteralString] = """
INSERT INTO audit.queue (writer_id, first_id, last_id, min_at, max_at, n, digest, mac)
VALUES (%(writer)s, %(first_id)s, %(last_id)s, %(min_at)s::timestamptz, %(max_at)s::timestamptz,
        %(count)s, %(digest)s, %(mac)s)
"""


def store_batch(
    connection: Connection[Any], first: int, batch: Batch, leaves: Sequence[bytes]
) -> bool:
    """Store consecutive events of a writer within the caller's transaction.

    Args:
        connection: in a transaction.
        first: the sequence of the first leaf.
        batch: what they are, authenticated.
        leaves: canonical bytes, which are COPY tuples.

    Returns:
        False when the writer's offset is not `first - 1`: some of these events are stored, and
        nothing was done.
    """
    offsets = {"writer": batch.writer_id, "first": first, "last": first + batch.events - 1}
    if connection.execute(_ADVANCE, offsets).rowcount != 1:
        return False
    with connection.cursor().copy(_COPY) as copy:
        copy.write(b"".join((COPY_HEADER, *leaves, COPY_TRAILER)))
    connection.execute(_QUEUE, _parameters(batch))
    return True


def _parameters(batch: Batch) -> Params:
    return {
        "writer": batch.writer_id,
        "first_id": batch.first_id,
        "last_id": batch.last_id,
        "min_at": rfc3339(batch.min_at),
        "max_at": rfc3339(batch.max_at),
        "count": batch.events,
        "digest": batch.digest,
        "mac": batch.mac,
    }


class PostgresRecording:
    """See `app.sealing.Recording`."""

    def __init__(self, connection: Connection[Any], now: Instant) -> None:
        """Use a connection in a transaction."""
        self._connection = connection
        self._now = now

    @property
    def now(self) -> Instant:
        """See `Recording.now`."""
        return self._now

    def next_sequence(self, writer_id: int) -> int:
        """See `Recording.next_sequence`."""
        row = self._connection.execute(_SHIPPED, [writer_id]).fetchone()
        if row is None:
            raise ConflictError(f"audit writer {writer_id} is not registered")
        return int(row[0]) + 1

    def record(self, first: int, batch: Batch, leaves: Sequence[bytes]) -> None:
        """See `Recording.record`."""
        self._connection.execute(_ENSURE_PARTITION, [rfc3339(batch.max_at)])
        if not store_batch(self._connection, first, batch, leaves):
            raise ConflictError("the audit writer's offset is elsewhere")


class PostgresEventStore:
    """See `spool.shipper.EventStore`."""

    def __init__(self, database: Database) -> None:
        """Write through this pool."""
        self._database = database

    def register(self, writer_id: int, deadline: Deadline) -> None:
        """Make a writer known, and the partitions of the next days.

        Raises:
            UnavailableError, DeadlineError: it may or may not be known.
        """
        with self._database.connection(deadline) as connection:
            connection.execute(_ENSURE_AHEAD)
            connection.execute(_REGISTER, [writer_id])

    def shipped(self, writer_id: int, deadline: Deadline) -> int:
        """See `EventStore.shipped`."""
        with self._database.connection(deadline) as connection:
            connection.execute(_REGISTER, [writer_id])
            row = connection.execute(_SHIPPED, [writer_id]).fetchone()
        if row is None:
            raise RuntimeError(f"audit writer {writer_id} cannot be registered")
        return int(row[0])

    def identity(self, deadline: Deadline) -> tuple[str, str]:
        """Return what names the log, whatever its origin and epoch, and what names the database."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(IDENTITY).fetchone()
        if row is None:
            raise RuntimeError("audit.log has no row")
        return row[0], row[1]

    def origin(self, deadline: Deadline) -> str:
        """Return the log's name."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_ORIGIN).fetchone()
        if row is None:
            raise RuntimeError("audit.log has no row")
        return str(row[0])

    def is_signed(self, deadline: Deadline) -> bool:
        """Say whether any checkpoint was ever signed."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_IS_SIGNED).fetchone()
        return bool(row is not None and row[0])

    def is_settled(self, writer_id: int, deadline: Deadline) -> bool:
        """Say whether all that a writer has stored is under a signed checkpoint."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_IS_SETTLED, {"writer": writer_id}).fetchone()
        return bool(row is not None and row[0])

    def sealed(self, writer_id: int, deadline: Deadline) -> int:
        """See `EventStore.sealed`."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_SEALED, [writer_id]).fetchone()
        return 0 if row is None else row[0].int & SEQUENCE_BITS

    def store(self, first: int, batch: Batch, leaves: Sequence[bytes], deadline: Deadline) -> bool:
        """See `EventStore.store`."""
        if batch.min_at < EARLIEST or batch.max_at > LATEST:
            raise UnstorableError("its time is outside of the calendar")
        try:
            return self._store(first, batch, leaves, deadline)
        except UnstorableError:
            # Perhaps there is no partition for some day: all are made. What is still refused then
            # is refused for what it is.
            days = {occurred_at(leaf) // _DAY for leaf in leaves}
            with self._database.connection(deadline) as connection:
                for day in days:
                    connection.execute(_ENSURE_PARTITION, [rfc3339(Instant(day * _DAY))])
            return self._store(first, batch, leaves, deadline)

    @contextmanager
    def recording(self, deadline: Deadline) -> Iterator[PostgresRecording]:
        """See `steward.records.Recordings`."""
        with self._database.connection(deadline) as connection, connection.transaction():
            row = connection.execute(_NOW).fetchone()
            if row is None:
                raise RuntimeError("the database does not know the time")
            yield PostgresRecording(connection, Instant(row[0]))

    def pass_over(  # noqa: PLR0913, PLR0917 - what the statement takes
        self,
        writer_id: int,
        first: int,
        last: int,
        why: str,
        leaf: bytes | None,
        deadline: Deadline,
    ) -> bool:
        """See `EventStore.pass_over`."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_SKIP, (writer_id, first, last, why, leaf)).fetchone()
        return bool(row is not None and row[0])

    def _store(self, first: int, batch: Batch, leaves: Sequence[bytes], deadline: Deadline) -> bool:
        with self._database.connection(deadline) as connection:
            try:
                with connection.transaction():
                    return store_batch(connection, first, batch, leaves)
            except (errors.DataError, errors.IntegrityError, errors.ProgramLimitExceeded) as exc:
                # What PostgreSQL said may quote the event, which belongs in no log.
                raise UnstorableError(f"SQLSTATE {exc.sqlstate}") from None
            except errors.ProtocolViolation:
                # Of a leaf with a field too short; also of a pooler that has lost its server.
                if all(map(is_leaf, leaves)):
                    raise
                raise UnstorableError("it is no leaf") from None
