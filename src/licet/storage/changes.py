"""Changes of authorization state as stored: read by watches, trimmed when they are old."""

from __future__ import annotations

from typing import Final, LiteralString

from licet.app.ports import Deadline
from licet.app.replication import Change
from licet.app.watch import Retained
from licet.domain.instant import Instant
from licet.storage.pool import Database
from licet.storage.replicas import principals

_PAGE_CHANGES: Final = 500
_PAGE_NAMES: Final = 10_000
"""A page ends with the change with which it names so many principals."""

# One snapshot: what is kept, where history stands, and the page. The page ends early when it names
# very many principals.
_AFTER: Final[LiteralString] = """
SELECT m.trimmed_through, (SELECT max(revision) FROM licet.changes), m.epoch,
       page.revision, CASE WHEN page.kind = 0 THEN page.principals END,
       (extract(epoch FROM page.at) * 1000000)::bigint
FROM licet.meta AS m
LEFT JOIN LATERAL (
  SELECT c.*, sum(cardinality(c.principals)) OVER (ORDER BY c.revision)
              - cardinality(c.principals) AS names_before
  FROM (SELECT * FROM licet.changes
        WHERE revision > %(after)s ORDER BY revision LIMIT %(changes)s) AS c
) AS page ON page.revision > m.trimmed_through AND page.names_before < %(names)s
ORDER BY page.revision
"""

_TRIM: Final[LiteralString] = """
SELECT licet.trim_history(make_interval(hours => %(hours)s), %(batch)s)
"""


class PostgresChanges:
    """See `app.watch.RetainedChanges`, and `replica.retention.History`."""

    def __init__(self, database: Database) -> None:
        """Use this pool."""
        self._database = database

    def after(self, revision: int, deadline: Deadline) -> Retained:
        """See `RetainedChanges.after`."""
        parameters = {"after": revision, "changes": _PAGE_CHANGES, "names": _PAGE_NAMES}
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_AFTER, parameters).fetchall()
        oldest, latest, epoch = rows[0][:3]
        changes = () if revision < oldest else [_change(*row[3:]) for row in rows if row[3]]
        return Retained(changes, oldest, latest, epoch)

    def trim(self, keep_hours: int, batch: int, deadline: Deadline) -> int:
        """See `History.trim`."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_TRIM, {"hours": keep_hours, "batch": batch}).fetchone()
        return 0 if row is None else int(row[0])


def _change(revision: int, names: list[str] | None, at: int) -> Change:
    return Change(revision, principals(names), Instant(at))
