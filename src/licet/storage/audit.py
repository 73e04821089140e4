"""The audit log as writers store it, in batches; `audit_pages.py` reads it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, LiteralString

from psycopg import errors

from licet.app.ports import Deadline
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import Principal
from licet.storage.pool import Database

_ENSURE_PARTITION: Final[LiteralString] = "SELECT audit.ensure_partition(%s::timestamptz)"
_ENSURE_AHEAD: Final[LiteralString] = """
SELECT audit.ensure_partition(%(now)s::timestamptz + days * interval '1 day')
FROM generate_series(0, 3) AS days
"""

_REGISTER: Final[LiteralString] = "INSERT INTO audit.writers (writer_id) VALUES (%s)"
_SHIPPED: Final[LiteralString] = "SELECT shipped_seq FROM audit.writers WHERE writer_id = %s"
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
_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER: Final = b"\xff\xff"

# Bounded by the rows looked at, not by time: a busy hour and a quiet day cost the same.
_RECENT: Final[LiteralString] = """
WITH latest AS (
  SELECT e.principal, e.occurred_at FROM audit.events AS e
  WHERE e.event_type = 'decision' ORDER BY e.occurred_at DESC LIMIT 20000
)
SELECT latest.principal FROM latest
GROUP BY latest.principal ORDER BY max(latest.occurred_at) DESC LIMIT %(limit)s
"""


class PostgresAuditEvents:
    """Takes what writers ship; see also `app.prefetch.RecentPrincipals`."""

    def __init__(self, database: Database) -> None:
        """Read and write through this pool."""
        self._database = database

    def register(self, writer_id: int, now: Instant, deadline: Deadline) -> None:
        """Make a writer known, and the partitions of the next days.

        Raises:
            UnavailableError, DeadlineError: it may or may not be known; draw another number.
        """
        with self._database.connection(deadline) as connection:
            connection.execute(_ENSURE_AHEAD, {"now": rfc3339(now)})
            connection.execute(_REGISTER, [writer_id])

    def shipped(self, writer_id: int, deadline: Deadline) -> int:
        """Return the sequence of the writer's last stored event.

        Raises:
            UnavailableError, DeadlineError: nothing is known.
        """
        with self._database.connection(deadline) as connection:
            row = connection.execute(_SHIPPED, [writer_id]).fetchone()
        if row is None:
            message = f"audit writer {writer_id} is not registered"
            raise RuntimeError(message)
        return int(row[0])

    def store(
        self,
        writer_id: int,
        first: int,
        leaves: Sequence[bytes],
        instants: Collection[Instant],
        deadline: Deadline,
    ) -> bool:
        """Store consecutive events of a writer, all or none.

        Args:
            writer_id: the writer.
            first: the sequence of the first leaf.
            leaves: canonical bytes, which are COPY tuples.
            instants: when events occurred, each at least once.
            deadline: bounds each statement.

        Returns:
            False when the writer's offset is not `first - 1`: some of these events are stored.

        Raises:
            UnavailableError, DeadlineError: nothing is known; ask `shipped`.
        """
        try:
            return self._store(writer_id, first, leaves, deadline)
        except errors.CheckViolation:
            # No partition for some day: all are made. A valid leaf can violate nothing else.
            with self._database.connection(deadline) as connection:
                for instant in {instant - instant % 86_400_000_000 for instant in instants}:
                    connection.execute(_ENSURE_PARTITION, [rfc3339(Instant(instant))])
            return self._store(writer_id, first, leaves, deadline)

    def _store(
        self, writer_id: int, first: int, leaves: Sequence[bytes], deadline: Deadline
    ) -> bool:
        offsets = {"writer": writer_id, "first": first, "last": first + len(leaves) - 1}
        with self._database.connection(deadline) as connection, connection.transaction():
            if connection.execute(_ADVANCE, offsets).rowcount != 1:
                return False
            with connection.cursor().copy(_COPY) as copy:
                copy.write(b"".join((_COPY_HEADER, *leaves, _COPY_TRAILER)))
        return True

    def recent_principals(self, limit: int, deadline: Deadline) -> Sequence[Principal]:
        """See `app.prefetch.RecentPrincipals`."""
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_RECENT, {"limit": limit}).fetchall()
        return [Principal(row[0]) for row in rows]
