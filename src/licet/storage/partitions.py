"""The partitions of the audit log: their leaves, what is archived of them, and their end.

The partitions of the next days are made by `sealing` and `audit_shipping`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, LiteralString

import psycopg

from licet.app.archiving import (
    Archive,
    ArchiveRefusedError,
    LeafPage,
    Partition,
    PlacedBatch,
    RecordedArchive,
    ToldArchive,
)
from licet.app.sealing import SealingTransaction
from licet.domain.instant import Instant, to_datetime
from licet.domain.names import EventId
from licet.storage.errors import translated
from licet.storage.sealing import (
    register_writer,
    sealer_connection,
    sealing_transaction,
)
from licet.storage.tree import copied_leaves, read_hashes

PAGE_LEAVES: Final = 1 << 15
"""About how many leaves are in memory at once; a batch is never divided."""
_PAGE_BATCHES: Final = 512

# Counting the rows of a large partition takes its time.
_SET_LIMITS: Final[LiteralString] = "SELECT set_config('statement_timeout', '600s', false)"
_LOCK: Final[LiteralString] = "SELECT pg_try_advisory_lock(20012)"
_BOUNDS: Final[LiteralString] = """
SELECT p.relname, p.oid, (extract(epoch FROM p.lower) * 1000000)::bigint,
       (extract(epoch FROM p.upper) * 1000000)::bigint, p.upper <= clock_timestamp()
FROM (
  SELECT c.relname, c.oid, b.bounds[1]::timestamptz AS lower, b.bounds[2]::timestamptz AS upper
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  CROSS JOIN LATERAL regexp_match(
    pg_get_expr(c.relpartbound, c.oid), $$FROM \\('(.*)'\\) TO \\('(.*)'\\)$$) AS b (bounds)
  WHERE i.inhparent = 'audit.events'::regclass AND b.bounds IS NOT NULL) AS p
"""
_PARTITIONS: Final[LiteralString] = (
    _BOUNDS + "WHERE p.upper <= clock_timestamp() - make_interval(days => %s) ORDER BY p.lower"
)
_FIND: Final[LiteralString] = _BOUNDS + "WHERE p.relname = %s"
_COUNT: Final[LiteralString] = """
SELECT count(*) FROM audit.events AS e
WHERE e.occurred_at >= %(lower)s AND e.occurred_at < %(upper)s
"""
# A batch may have events of two days. One whose leaves are in an archive of a table of this name
# that was dropped has none here, or only what came late.
_BATCHES: Final[LiteralString] = """
SELECT b.epoch, b.first_leaf, b.n, b.leaf_hashes,
       b.min_at >= %(lower)s AND b.max_at < %(upper)s AND NOT EXISTS (
         SELECT FROM audit.archives AS a
         WHERE a.partition = %(name)s AND a.relation <> %(relation)s AND a.epoch = b.epoch
           AND a.leaf_ranges && int8range(b.first_leaf, b.first_leaf + b.n))
FROM audit.batches AS b
WHERE (b.epoch, b.first_leaf) > (%(epoch)s, %(after)s)
  AND b.max_at >= %(lower)s AND b.min_at < %(upper)s
  AND b.first_leaf + b.n <= (
    SELECT max(c.tree_size) FROM audit.checkpoints AS c WHERE c.epoch = b.epoch)
ORDER BY b.epoch, b.first_leaf LIMIT %(limit)s
"""
# The rows of each batch are found by the key, and the limits of the time leave out all other
# partitions.
_LEAVES: Final[LiteralString] = """
COPY (
  SELECT e.v, e.event_id, e.occurred_at, e.event_type, e.actor, e.principal, e.action, e.resource,
         e.capability_id, e.result, e.reason, e.policy_id, e.session_id, e.trace_id, e.revision,
         e.metadata
  FROM audit.batches AS b
  CROSS JOIN LATERAL (
    SELECT * FROM audit.events AS e
    WHERE e.event_id BETWEEN b.first_id AND b.last_id
      AND e.occurred_at BETWEEN b.min_at AND b.max_at
      AND e.occurred_at >= %(lower)s AND e.occurred_at < %(upper)s) AS e
  WHERE b.epoch = %(epoch)s AND b.first_leaf BETWEEN %(first)s AND %(last)s
    AND b.max_at >= %(lower)s AND b.min_at < %(upper)s
  ORDER BY b.first_leaf, e.event_id
) TO STDOUT (FORMAT BINARY)
"""
_ORIGIN: Final[LiteralString] = """
SELECT split_part(c.note, chr(10), 1) FROM audit.checkpoints AS c
WHERE c.epoch = %s ORDER BY c.tree_size LIMIT 1
"""
_LOG_ID: Final[LiteralString] = "SELECT l.log_id::text FROM audit.log AS l"
_EPOCH: Final[LiteralString] = "SELECT l.epoch FROM audit.log AS l"
_ARCHIVES: Final[LiteralString] = """
SELECT a.file, a.sha256, a.epoch,
       ARRAY(SELECT ARRAY[lower(r.leaves), upper(r.leaves)]
             FROM unnest(a.leaf_ranges) AS r (leaves) ORDER BY r.leaves),
       audit.is_under_checkpoint(a.event_id)
FROM audit.archives AS a WHERE a.relation = %s ORDER BY a.created_at
"""
# The event that tells of an archive, by its place among what is sealed and signed.
_TOLD: Final[LiteralString] = """
SELECT a.file, a.sha256, a.epoch,
       ARRAY(SELECT ARRAY[lower(r.leaves), upper(r.leaves)]
             FROM unnest(a.leaf_ranges) AS r (leaves) ORDER BY r.leaves),
       b.epoch, b.first_leaf, b.first_id, a.event_id, e.metadata
FROM audit.archives AS a
CROSS JOIN LATERAL (
  SELECT b.epoch, b.first_leaf, b.first_id, b.last_id, b.min_at, b.max_at FROM audit.batches AS b
  WHERE b.first_id <= a.event_id ORDER BY b.first_id DESC LIMIT 1) AS b
LEFT JOIN audit.events AS e
  ON e.event_id = a.event_id AND e.occurred_at BETWEEN b.min_at AND b.max_at
 AND e.event_type = 'audit.partition_archived'
WHERE b.last_id >= a.event_id AND audit.is_under_checkpoint(a.event_id)
"""
_RECORD: Final[LiteralString] = """
INSERT INTO audit.archives (partition, relation, file, sha256, events, event_id, epoch, leaf_ranges)
VALUES (%s, %s, %s, %s, %s, %s, %s,
        (SELECT coalesce(range_agg(int8range(r.low, r.high)), '{}')
         FROM unnest(%s::bigint[], %s::bigint[]) AS r (low, high)))
"""
_DROP: Final[LiteralString] = "SELECT audit.drop_archived_partition(%s)"


class PostgresPartitions:
    """See `app.archiving.Partitions`."""

    def __init__(self, conninfo: str) -> None:
        """Connect.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        self._connection = sealer_connection(conninfo, "licet archiver")
        with translated(deadline_bound=False):
            self._connection.execute(_SET_LIMITS)

    def log_id(self) -> str:
        """Return what names the log, whatever its origin and epoch."""
        return str(self._single(_LOG_ID))

    def lock(self) -> bool:
        """See `Partitions.lock`."""
        with translated(deadline_bound=False):
            row = self._connection.execute(_LOCK).fetchone()
        return row is not None and bool(row[0])

    def partitions(self, older_than_days: int) -> Sequence[Partition]:
        """See `Partitions.partitions`."""
        with translated(deadline_bound=False):
            rows = self._connection.execute(_PARTITIONS, [older_than_days]).fetchall()
        return [_partition(*row[:4]) for row in rows]

    def find(self, name: str) -> tuple[Partition, bool] | None:
        """See `Partitions.find`."""
        with translated(deadline_bound=False):
            row = self._connection.execute(_FIND, [name]).fetchone()
        return None if row is None else (_partition(*row[:4]), row[4])

    def count(self, partition: Partition) -> int:
        """See `Partitions.count`."""
        with translated(deadline_bound=False):
            row = self._connection.execute(_COUNT, _bounds(partition)).fetchone()
        return 0 if row is None else int(row[0])

    def pages(self, partition: Partition) -> Iterator[LeafPage]:
        """See `Partitions.pages`."""
        origins: dict[int, str] = {}
        epoch, after = 0, -1
        while True:
            page = self._batches(partition, epoch, after)
            if page is None:
                return
            epoch, firsts, batches = page
            after = firsts[-1]
            if epoch not in origins:
                origins[epoch] = self._origin(epoch)
            places = {"epoch": epoch, "first": firsts[0], "last": after}
            with translated(deadline_bound=False):
                parameters = _bounds(partition) | places
                leaves = list(copied_leaves(self._connection, _LEAVES, parameters))
            yield LeafPage(epoch, origins[epoch], batches, leaves)

    def _batches(
        self, partition: Partition, epoch: int, after: int
    ) -> tuple[int, list[int], list[PlacedBatch]] | None:
        parameters = _bounds(partition) | {
            "name": partition.name,
            "relation": partition.relation,
            "epoch": epoch,
            "after": after,
            "limit": _PAGE_BATCHES,
        }
        with translated(deadline_bound=False):
            rows = self._connection.execute(_BATCHES, parameters, binary=True).fetchall()
        if not rows:
            return None
        firsts: list[int] = []
        batches: list[PlacedBatch] = []
        leaves = 0
        for found, first_leaf, count, hashes, is_whole in rows:
            if found != rows[0][0] or leaves >= PAGE_LEAVES:
                break
            leaves += count
            firsts.append(first_leaf)
            batches.append(PlacedBatch(first_leaf, bytes(hashes), is_whole))
        return rows[0][0], firsts, batches

    def _origin(self, epoch: int) -> str:
        with translated(deadline_bound=False):
            row = self._connection.execute(_ORIGIN, [epoch]).fetchone()
        if row is None:
            raise RuntimeError(f"epoch {epoch} has no checkpoint")
        return str(row[0])

    def stored_hashes(self, epoch: int, first: int, count: int) -> bytes:
        """See `Partitions.stored_hashes`."""
        with translated(deadline_bound=False):
            return read_hashes(self._connection, epoch, 0, first, count)

    def archives(self, partition: Partition) -> Sequence[RecordedArchive]:
        """See `Partitions.archives`."""
        with translated(deadline_bound=False):
            rows = self._connection.execute(_ARCHIVES, [partition.relation]).fetchall()
        return [
            RecordedArchive(
                Archive(file, bytes(sha256), epoch, [(low, high) for low, high in ranges]), proved
            )
            for file, sha256, epoch, ranges, proved in rows
        ]

    def told(self) -> Sequence[ToldArchive]:
        """Return all archives whose event is sealed and under a checkpoint."""
        with translated(deadline_bound=False):
            rows = self._connection.execute(_TOLD).fetchall()
        return [
            ToldArchive(
                Archive(file, bytes(sha256), of, [(low, high) for low, high in ranges]),
                epoch,
                first_leaf + event_id.int - first_id.int,
                metadata,
            )
            for file, sha256, of, ranges, epoch, first_leaf, first_id, event_id, metadata in rows
        ]

    def current_epoch(self) -> int:
        """See `Partitions.current_epoch`."""
        return int(self._single(_EPOCH))

    def register(self, writer_id: int) -> None:
        """See `Partitions.register`."""
        register_writer(self._connection, writer_id)

    def transaction(self) -> AbstractContextManager[SealingTransaction]:
        """See `Partitions.transaction`."""
        return sealing_transaction(self._connection)

    def record(self, partition: Partition, archive: Archive, event_id: EventId) -> None:
        """See `Partitions.record`."""
        self._connection.execute(
            _RECORD,
            (
                *(partition.name, partition.relation, archive.file, archive.sha256),
                *(archive.events, event_id, archive.epoch),
                [first for first, _ in archive.ranges],
                [end for _, end in archive.ranges],
            ),
        )

    def drop(self, name: str) -> bool:
        """See `Partitions.drop`."""
        with translated(deadline_bound=False):
            try:
                row = self._connection.execute(_DROP, [name]).fetchone()
            except psycopg.errors.ObjectNotInPrerequisiteState as exc:
                raise ArchiveRefusedError(exc.diag.message_primary or "not archived") from exc
        return row is not None and bool(row[0])

    def _single(self, statement: LiteralString) -> Any:  # noqa: ANN401 - a column
        with translated(deadline_bound=False):
            row = self._connection.execute(statement).fetchone()
        if row is None:
            raise RuntimeError("audit.log has no row")
        return row[0]

    def close(self) -> None:
        """See `Partitions.close`."""
        with suppress(psycopg.Error):
            self._connection.close()


def _partition(name: str, relation: int, lower: int, upper: int) -> Partition:
    return Partition(name, relation, Instant(lower), Instant(upper))


def _bounds(partition: Partition) -> dict[str, object]:
    return {"lower": to_datetime(partition.lower), "upper": to_datetime(partition.upper)}
