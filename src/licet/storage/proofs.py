"""The sealed audit log, read for proofs: a proof is a few small reads on one connection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import TupleRow

from licet.app.ports import Deadline
from licet.app.prove import Place, StoredCheckpoint
from licet.domain.instant import Instant
from licet.domain.merkle import ReadHashes
from licet.storage.pool import Database
from licet.storage.tree import copied_leaves, read_hashes

_LATEST: Final[LiteralString] = """
SELECT c.epoch, c.tree_size, c.root, c.note, (extract(epoch FROM c.created_at) * 1000000)::bigint
FROM audit.checkpoints AS c
WHERE c.epoch = coalesce(nullif(%(epoch)s::smallint, 0), (SELECT l.epoch FROM audit.log AS l))
ORDER BY c.tree_size DESC LIMIT 1
"""
_OF_SIZE: Final[LiteralString] = """
SELECT c.epoch, c.tree_size, c.root, c.note, (extract(epoch FROM c.created_at) * 1000000)::bigint
FROM audit.checkpoints AS c
WHERE c.epoch = coalesce(nullif(%(epoch)s::smallint, 0), (SELECT l.epoch FROM audit.log AS l))
  AND c.tree_size = %(size)s
"""
_BATCH: Final[LiteralString] = """
SELECT b.epoch, b.first_leaf, b.n, b.first_id, b.last_id, b.min_at, b.max_at
FROM audit.batches AS b WHERE b.first_id <= %s ORDER BY b.first_id DESC LIMIT 1
"""
# A batch has the events of these ids and times, in the order of the ids.
_LEAF: Final[LiteralString] = """
SELECT e.leaf FROM audit.event_leaves AS e
WHERE e.event_id = %(id)s AND e.occurred_at BETWEEN %(since)s AND %(until)s
"""
_BEFORE: Final[LiteralString] = """
SELECT count(*) FROM audit.events AS e
WHERE e.event_id >= %(first)s AND e.event_id < %(id)s
  AND e.occurred_at BETWEEN %(since)s AND %(until)s
"""
_IS_STORED: Final[LiteralString] = (
    "SELECT EXISTS (SELECT FROM audit.events AS e WHERE e.event_id = %s)"
)
_LEAVES: Final[LiteralString] = """
COPY (SELECT e.*
      FROM (SELECT b.* FROM audit.batches AS b
            WHERE b.epoch = %(epoch)s AND b.first_leaf < %(end)s
              AND b.first_leaf >= (SELECT max(first_leaf) FROM audit.batches
                                   WHERE epoch = %(epoch)s AND first_leaf <= %(first)s)
            ORDER BY b.first_leaf) AS b
      CROSS JOIN LATERAL (
        SELECT e.v, e.event_id, e.occurred_at, e.event_type, e.actor, e.principal, e.action,
               e.resource, e.capability_id, e.result, e.reason, e.policy_id, e.session_id,
               e.trace_id, e.revision, e.metadata
        FROM audit.events AS e
        WHERE e.event_id BETWEEN b.first_id AND b.last_id
          AND e.occurred_at BETWEEN b.min_at AND b.max_at
        ORDER BY e.event_id
        OFFSET greatest(%(first)s - b.first_leaf, 0)
        LIMIT least(%(end)s, b.first_leaf + b.n) - greatest(%(first)s, b.first_leaf)) AS e)
TO STDOUT (FORMAT BINARY)
"""
_UNSEALED: Final[LiteralString] = """
SELECT count(*) FROM unnest(%(ids)s::uuid[]) AS i (id)
WHERE NOT EXISTS (
  SELECT FROM (SELECT b.last_id, b.epoch, b.first_leaf + b.n AS end_leaf
               FROM audit.batches AS b
               WHERE b.first_id <= i.id ORDER BY b.first_id DESC LIMIT 1) AS s
  WHERE s.last_id >= i.id AND (s.epoch, s.end_leaf) <= (%(epoch)s::smallint, %(size)s::bigint))
"""


class PostgresSealedLogs:
    """See `app.prove.SealedLogs`."""

    def __init__(self, database: Database) -> None:
        """Read through this pool."""
        self._database = database

    @contextmanager
    def reading(self, deadline: Deadline) -> Iterator[PostgresSealedLog]:
        """See `SealedLogs.reading`."""
        with self._database.connection(deadline) as connection:
            yield PostgresSealedLog(connection)

    def unsealed(
        self, event_ids: Sequence[str], checkpoint: StoredCheckpoint | None, deadline: Deadline
    ) -> int:
        """See `SealedLogs.unsealed`."""
        if checkpoint is None:
            return len(event_ids)
        parameters = {
            "ids": list(event_ids),
            "epoch": checkpoint.epoch,
            "size": checkpoint.size,
        }
        with self._database.connection(deadline) as connection:
            row = connection.execute(_UNSEALED, parameters).fetchone()
        return 0 if row is None else int(row[0])

    def latest_checkpoint(self, deadline: Deadline) -> StoredCheckpoint | None:
        """See `replica.latest_checkpoint.Checkpoints`."""
        with self.reading(deadline) as log:
            return log.checkpoint(0, 0)


class PostgresSealedLog:
    """See `app.prove.SealedLog`."""

    def __init__(self, connection: Connection[TupleRow]) -> None:
        """Read on this connection."""
        self._connection = connection

    def checkpoint(self, epoch: int, size: int) -> StoredCheckpoint | None:
        """See `SealedLog.checkpoint`."""
        statement = _OF_SIZE if size else _LATEST
        parameters = {"epoch": epoch, "size": size}
        row = self._connection.execute(statement, parameters).fetchone()
        return None if row is None else _checkpoint(*row)

    def place(self, event_id: UUID) -> Place | None:
        """See `SealedLog.place`."""
        row = self._connection.execute(_BATCH, [event_id]).fetchone()
        if row is None or event_id > row[4]:
            return None
        epoch, first_leaf, count, first_id, last_id, since, until = row
        parameters = {"id": event_id, "first": first_id, "since": since, "until": until}
        found = self._connection.execute(_LEAF, parameters, binary=True).fetchone()
        leaf = None if found is None else bytes(found[0])
        if last_id.int - first_id.int + 1 == count:
            return Place(epoch, first_leaf + event_id.int - first_id.int, leaf)
        # A transaction that was rolled back took numbers along: only the stored events tell.
        before = self._connection.execute(_BEFORE, parameters).fetchone()
        if leaf is None or before is None:
            return None
        return Place(epoch, first_leaf + before[0], leaf)

    def is_stored(self, event_id: UUID) -> bool:
        """See `SealedLog.is_stored`."""
        row = self._connection.execute(_IS_STORED, [event_id]).fetchone()
        return row is not None and row[0]

    def reader(self, epoch: int) -> ReadHashes:
        """See `SealedLog.reader`."""

        def read(level: int, first: int, count: int) -> bytes:
            return read_hashes(self._connection, epoch, level, first, count)

        return read

    def leaves(self, epoch: int, first: int, end: int) -> Sequence[bytes]:
        """See `SealedLog.leaves`."""
        parameters = {"epoch": epoch, "first": first, "end": end}
        return list(copied_leaves(self._connection, _LEAVES, parameters))


def _checkpoint(epoch: int, size: int, root: bytes, note: str, at: int) -> StoredCheckpoint:
    return StoredCheckpoint(epoch, size, bytes(root), note, Instant(at))
