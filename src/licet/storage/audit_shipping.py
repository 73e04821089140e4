"""Events into the audit log: their leaves, the writer's offset and the queue, at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from psycopg import Connection
from psycopg.abc import Params

from licet.domain.audit_batch import Batch
from licet.domain.instant import rfc3339

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
