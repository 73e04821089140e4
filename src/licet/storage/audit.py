"""Who asked lately, by the audit log; its pages are in `audit_pages.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, LiteralString

from licet.app.ports import Deadline
from licet.domain.names import Principal
from licet.storage.pool import Database

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
    """See `app.prefetch.RecentPrincipals`."""

    def __init__(self, database: Database) -> None:
        """Read through this pool."""
        self._database = database

    def recent_principals(self, limit: int, deadline: Deadline) -> Sequence[Principal]:
        """See `app.prefetch.RecentPrincipals`."""
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_RECENT, {"limit": limit}).fetchall()
        return [Principal(row[0]) for row in rows]
