"""Reads the sealed audit log back: its leaves, and the hashes of its tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, LiteralString

import psycopg
from psycopg import Connection

from licet.domain.merkle import HASH_BYTES
from licet.storage.audit_shipping import COPY_HEADER, COPY_TRAILER

# Of each batch only the part that is asked for is read: the column is stored uncompressed.
_LEAF_HASHES: Final[LiteralString] = """
SELECT substring(b.leaf_hashes
                 FROM (greatest(%(first)s - b.first_leaf, 0) * 32 + 1)::integer
                 FOR (least(%(end)s - b.first_leaf, b.n) * 32)::integer
                     - (greatest(%(first)s - b.first_leaf, 0) * 32)::integer)
FROM audit.batches AS b
WHERE b.epoch = %(epoch)s AND b.first_leaf < %(end)s
  AND b.first_leaf >= (SELECT max(first_leaf) FROM audit.batches
                       WHERE epoch = %(epoch)s AND first_leaf <= %(first)s)
ORDER BY b.first_leaf
"""
_NODES: Final[LiteralString] = """
SELECT n.hash FROM audit.nodes AS n
WHERE n.epoch = %(epoch)s AND n.level = %(level)s AND n.idx >= %(first)s AND n.idx < %(end)s
ORDER BY n.idx
"""


def read_hashes(
    connection: Connection[Any], epoch: int, level: int, first: int, count: int
) -> bytes:
    """Read stored hashes of an epoch's tree; see `merkle.ReadHashes`.

    Fewer are returned when fewer are stored.
    """
    parameters = {"epoch": epoch, "level": level, "first": first, "end": first + count}
    statement = _LEAF_HASHES if level == 0 else _NODES
    rows = connection.execute(statement, parameters, binary=True).fetchall()
    return b"".join(bytes(row[0]) for row in rows)[: count * HASH_BYTES]


def copied_leaves(
    connection: Connection[Any], statement: LiteralString, parameters: Mapping[str, object]
) -> Iterator[bytes]:
    """Yield the leaves that a COPY TO STDOUT (FORMAT BINARY) sends, one at a time."""
    # COPY takes no parameters of the protocol; these are numbers, ids and times that psycopg
    # quotes.
    with psycopg.ClientCursor(connection) as cursor, cursor.copy(statement, parameters) as copy:
        is_first = True
        for data in copy:
            row = bytes(data)
            if is_first:
                row, is_first = row.removeprefix(COPY_HEADER), False
            if row and row != COPY_TRAILER:
                yield row
