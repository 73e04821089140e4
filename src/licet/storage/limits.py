"""Token buckets as stored; the migration says what an exchange is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, LiteralString

from licet.app.limit_ports import Exchange, Exchanged
from licet.app.ports import Deadline
from licet.storage.pool import Database

_EXCHANGE: Final[LiteralString] = """
SELECT e.granted, e.wait FROM licet.exchange_slices(
  %s::bytea[], %s::bigint[], %s::boolean[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
  %s::bigint[], %s::bigint[], %s::bigint[], %s) AS e
ORDER BY e.item
"""
_TRIM: Final[LiteralString] = "SELECT licet.trim_buckets(%s)"
_AT_ONCE: Final = 1000
_MAX_ITEMS: Final = 4096
"""What the database takes in one statement; a batch under several limits has more."""


class PostgresBuckets:
    """See `app.limit_ports.BucketStore` and `steward.buckets.FullBuckets`."""

    def __init__(self, database: Database) -> None:
        """Use this pool."""
        self._database = database

    def exchange(
        self, items: Sequence[Exchange], hold: int, deadline: Deadline
    ) -> Sequence[Exchanged]:
        """See `BucketStore.exchange`."""
        if not items:
            return []
        answers: list[Exchanged] = []
        with self._database.connection(deadline) as connection:
            # Each is a transaction of its own, so none holds a row while it waits for another's.
            for begin in range(0, len(items), _MAX_ITEMS):
                values = (*_columns(items[begin : begin + _MAX_ITEMS]), hold)
                rows = connection.execute(_EXCHANGE, values).fetchall()
                answers += [Exchanged(*row) for row in rows]
        return answers

    def trim(self, deadline: Deadline) -> int:
        """See `FullBuckets.trim`."""
        trimmed = 0
        with self._database.connection(deadline) as connection:
            while True:
                row = connection.execute(_TRIM, [_AT_ONCE]).fetchone()
                now = 0 if row is None else int(row[0])
                trimmed += now
                if now < _AT_ONCE:
                    return trimmed


def _columns(items: Sequence[Exchange]) -> tuple[list[object], ...]:
    return (
        [item.bucket.digest() for item in items],
        [item.slice_id for item in items],
        [item.is_new for item in items],
        [item.used for item in items],
        [item.age for item in items],
        [item.needed for item in items],
        [item.wanted for item in items],
        [item.bucket.tokens for item in items],
        [item.bucket.period for item in items],
        [item.bucket.burst for item in items],
    )
