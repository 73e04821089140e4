"""The audit log as stored, read for verification: see `app.sealed_log.AuditLogReader`.

On a connection of its own, in the role of an auditor, which can only read. With a snapshot, all
reads see one state of the log, however long they take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, LiteralString
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from licet.app.sealed_log import Incident, SealedBatch
from licet.app.sealing import Head
from licet.domain.audit_batch import Batch
from licet.domain.instant import Instant
from licet.domain.merkle import leaf_hashes
from licet.storage import verification_sql as sql
from licet.storage.errors import translated
from licet.storage.tree import copied_leaves, read_hashes

_SET_ROLE: Final[LiteralString] = "SET ROLE licet_auditor"
_BEGIN: Final[LiteralString] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_END: Final[LiteralString] = "ROLLBACK"
# Rows are found by the index that is meant for it, batch by batch, and sorted in memory.
_SETTINGS: Final[LiteralString] = """
SELECT set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false),
       set_config('work_mem', '64MB', false),
       set_config('jit', 'off', false), set_config('timezone', 'UTC', false)
"""


@contextmanager
def opened_log(conninfo: str, *, snapshot: bool) -> Iterator[PostgresAuditLog]:
    """Open the log for verification.

    Raises:
        UnavailableError: the database cannot be reached, or is not one of this release.
    """
    with translated(deadline_bound=False):
        connection: Connection[TupleRow] = psycopg.connect(
            conninfo,
            autocommit=True,
            application_name="licet audit verifier",
            connect_timeout=5,
            row_factory=tuple_row,
        )
    try:
        with translated(deadline_bound=False):
            connection.execute(_SET_ROLE)
            connection.execute(_SETTINGS)
            if snapshot:
                connection.execute(_BEGIN)
            yield PostgresAuditLog(connection)
    finally:
        with suppress(psycopg.Error):
            connection.close()


class PostgresAuditLog:
    """See the module."""

    def __init__(self, connection: Connection[TupleRow]) -> None:
        """Read on this connection."""
        self._connection = connection

    def head(self) -> Head:
        """See `SealedLogReader.head`."""
        rows = self._rows(sql.HEAD)
        if not rows:
            return Head("", 1, 0, b"")
        origin, epoch, size, root = rows[0]
        return Head(origin, epoch, size, bytes(root))

    def origin(self, epoch: int) -> str:
        """See `SealedLogReader.origin`."""
        rows = self._rows(sql.FIRST_NOTE, {"epoch": epoch})
        return str(rows[0][0]).partition("\n")[0] if rows else self.head().origin

    def last_leaf(self, epoch: int) -> int:
        """See `SealedLogReader.last_leaf`."""
        return self._number(sql.LAST_LEAF, {"epoch": epoch})

    def newest_checkpoint(self, epoch: int) -> tuple[int, bytes, str] | None:
        """See `SealedLogReader.newest_checkpoint`."""
        rows = self._rows(sql.NEWEST_CHECKPOINT, {"epoch": epoch})
        return (rows[0][0], bytes(rows[0][1]), rows[0][2]) if rows else None

    def is_unsigned(self, epoch: int, size: int) -> bool:
        """See `SealedLogReader.is_unsigned`."""
        return bool(self._rows(sql.IS_UNSIGNED, {"epoch": epoch, "size": size}))

    def batch_start(self, epoch: int, leaf: int) -> int:
        """See `SealedLogReader.batch_start`."""
        return self._number(sql.BATCH_START, {"epoch": epoch, "leaf": leaf})

    def batches(self, epoch: int, first: int, end: int) -> Sequence[SealedBatch]:
        """See `SealedLogReader.batches`."""
        rows = self._rows(sql.BATCHES, {"epoch": epoch, "first": first, "end": end})
        return [SealedBatch(row[0], row[1], row[2], row[3], bytes(row[4])) for row in rows]

    def row_hashes(self, epoch: int, first: int, end: int) -> bytes:
        """See `SealedLogReader.row_hashes`."""
        parameters = {"epoch": epoch, "first": first, "end": end}
        return leaf_hashes(copied_leaves(self._connection, sql.ROWS_OF_BATCHES, parameters))

    def rows(self, first_id: UUID, last_id: UUID) -> Sequence[bytes]:
        """See `SealedLogReader.rows`."""
        parameters = {"first": first_id, "last": last_id}
        return list(copied_leaves(self._connection, sql.ROWS_OF_IDS, parameters))

    def hashes(self, epoch: int, level: int, first: int, count: int) -> bytes:
        """See `SealedLogReader.hashes`."""
        return read_hashes(self._connection, epoch, level, first, count)

    def checkpoints(self, epoch: int, above: int, up_to: int) -> Sequence[tuple[int, bytes, str]]:
        """See `SealedLogReader.checkpoints`."""
        parameters = {"epoch": epoch, "above": above, "up_to": up_to}
        rows = self._rows(sql.CHECKPOINTS, parameters)
        return [(size, bytes(root), note) for size, root, note in rows]

    def passed_over(self, writer_id: int) -> Sequence[tuple[int, int]]:
        """See `SealedLogReader.passed_over`."""
        return [(r[0], r[1]) for r in self._rows(sql.PASSED_OVER, {"writer": writer_id})]

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See `AuditLogReader.snapshot`."""
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            yield  # all is one
            return
        with translated(deadline_bound=False):
            self._connection.execute(_BEGIN)
            try:
                yield
            finally:
                self._connection.execute(_END)

    def epochs(self) -> Sequence[int]:
        """See `AuditLogReader.epochs`."""
        return [row[0] for row in self._rows(sql.EPOCHS)]

    def row_count(self) -> int:
        """See `AuditLogReader.row_count`."""
        return self._number(sql.ROW_COUNT, {})

    def strays(self, limit: int) -> Sequence[str]:
        """See `AuditLogReader.strays`."""
        return [str(row[0]) for row in self._rows(sql.STRAYS, {"limit": limit})]

    def queued(self) -> Iterator[tuple[Batch, Sequence[bytes]]]:
        """See `AuditLogReader.queued`."""
        after = 0
        while rows := self._rows(sql.QUEUED, {"after": after}):
            for number, writer, first, last, since, until, count, digest in rows:
                after = number
                batch = Batch(
                    *(writer, first, last, Instant(since), Instant(until), count, bytes(digest))
                )
                yield batch, self._queued_leaves(number)

    def _queued_leaves(self, number: int) -> Sequence[bytes]:
        return list(copied_leaves(self._connection, sql.ROWS_OF_QUEUED, {"number": number}))

    def shipped(self) -> Sequence[tuple[int, int]]:
        """See `AuditLogReader.shipped`."""
        return [(row[0], row[1]) for row in self._rows(sql.SHIPPED)]

    def capability_faults(self, limit: int) -> Sequence[tuple[str, str]]:
        """See `AuditLogReader.capability_faults`."""
        return [(str(r[0]), r[1]) for r in self._rows(sql.CAPABILITY_FAULTS, {"limit": limit})]

    def event_faults(self, limit: int) -> Sequence[tuple[str, str]]:
        """See `AuditLogReader.event_faults`."""
        return [(str(r[0]), r[1]) for r in self._rows(sql.EVENT_FAULTS, {"limit": limit})]

    def capability_count(self) -> int:
        """See `AuditLogReader.capability_count`."""
        return self._number(sql.CAPABILITY_COUNT, {})

    def incidents(self, limit: int) -> Sequence[Incident]:
        """See `AuditLogReader.incidents`."""
        return [
            Incident(str(r[0]), r[1], r[2]) for r in self._rows(sql.INCIDENTS, {"limit": limit})
        ]

    def recent_leaf(self, seconds: float) -> int:
        """Return the first leaf of the current epoch's batches with events of late."""
        return self._number(sql.RECENT_LEAF, {"seconds": seconds})

    def has_incident(self, key: str) -> bool:
        """Tell whether a finding is on record."""
        return bool(self._number(sql.HAS_INCIDENT, {"key": key}))

    def _rows(
        self, statement: LiteralString, parameters: Mapping[str, object] | None = None
    ) -> list[TupleRow]:
        with translated(deadline_bound=False):
            return self._connection.execute(statement, parameters, binary=True).fetchall()

    def _number(self, statement: LiteralString, parameters: Mapping[str, object]) -> int:
        row = self._rows(statement, parameters)[0]
        return int(row[0] or 0)
