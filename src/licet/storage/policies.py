"""Policy sets as stored; the migration says how they are put."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, LiteralString

from psycopg.sql import SQL

from licet.app.policy_ports import StoredPolicySet
from licet.app.ports import Deadline
from licet.domain.instant import Instant
from licet.domain.names import Caller
from licet.storage.pool import Database

_COLUMNS: Final[LiteralString] = """
  s.comment, s.rollback_of, (extract(epoch FROM s.put_at) * 1000000)::bigint, s.put_by,
  s.put_revision
"""

# One row, with the revision; the set of the same snapshot beside it, if there is one.
_HELD: Final[LiteralString] = """
SELECT (SELECT max(c.revision) FROM licet.changes AS c), s.version, s.source
FROM (VALUES (1)) AS one
LEFT JOIN licet.policy_sets AS s ON s.version = (SELECT max(version) FROM licet.policy_sets)
"""

_FIND: Final = SQL("""
SELECT s.version, s.source, {columns} FROM licet.policy_sets AS s
WHERE s.version = coalesce(%(version)s, (SELECT max(version) FROM licet.policy_sets))
""").format(columns=SQL(_COLUMNS))

_PAGE: Final = SQL("""
SELECT s.version, '', {columns} FROM licet.policy_sets AS s
WHERE s.version < coalesce(%(before)s, 9223372036854775807) ORDER BY s.version DESC LIMIT %(limit)s
""").format(columns=SQL(_COLUMNS))


class PostgresPolicySets:
    """See `app.policy_ports.PolicySetStore`."""

    def __init__(self, database: Database) -> None:
        """Use this pool."""
        self._database = database

    def held(self, deadline: Deadline) -> tuple[int, int | None, str]:
        """Return the revision and, of one snapshot, version and document of the set that holds.

        Raises:
            UnavailableError, DeadlineError: nothing is known.
        """
        with self._database.connection(deadline) as connection:
            row = connection.execute(_HELD).fetchone()
        if row is None:
            raise RuntimeError("the query returns a row")
        return row[0], row[1], row[2] or ""

    def find(self, version: int | None, deadline: Deadline) -> StoredPolicySet | None:
        """See `PolicySetStore.find`."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_FIND, {"version": version}).fetchone()
        return None if row is None else _stored(*row)

    def page(self, before: int | None, limit: int, deadline: Deadline) -> Sequence[StoredPolicySet]:
        """See `PolicySetStore.page`."""
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_PAGE, {"before": before, "limit": limit}).fetchall()
        return [_stored(*row) for row in rows]


def _stored(  # noqa: PLR0913, PLR0917 - one argument per column
    version: int,
    source: str,
    comment: str,
    rollback_of: int | None,
    put_at: int,
    put_by: str,
    revision: int,
) -> StoredPolicySet:
    return StoredPolicySet(
        version, source, comment, rollback_of, Instant(put_at), Caller(put_by), revision
    )
