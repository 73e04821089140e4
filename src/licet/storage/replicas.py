"""Replicas in the database: the connection that keeps one current, and the one that watches all.

These connections are not from the pool: they must be direct or session pooled, one that listens and
one whose observations are of one session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, LiteralString
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from licet.app.replication import Change, Registration, ReplicaEntry
from licet.domain.instant import Instant
from licet.domain.names import Principal
from licet.storage.errors import translated

_SET_ROLE: Final[LiteralString] = "SET ROLE licet_server"
_LISTEN: Final[LiteralString] = "LISTEN licet_changes"
# A renewal may be lost with the server: those who watch begin their observations anew with their
# session. A registration may not: it must be seen by whoever commits a change after it.
_ASYNCHRONOUS: Final[LiteralString] = "SET synchronous_commit = off"
_SYNCHRONOUS: Final[LiteralString] = "SET LOCAL synchronous_commit = on"
_REGISTER: Final[LiteralString] = """
INSERT INTO licet.replicas (incarnation, applied, host, lease_seconds)
SELECT %(incarnation)s, max(revision), %(host)s, %(lease)s FROM licet.changes
"""
# In a statement of its own: the entry must be visible to others before the revision is read.
_POSITION: Final[LiteralString] = """
SELECT (SELECT max(revision) FROM licet.changes), epoch,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM licet.meta
"""
_CHANGES: Final[LiteralString] = """
SELECT revision, CASE WHEN kind = 0 THEN principals END,
       (extract(epoch FROM at) * 1000000)::bigint
FROM licet.changes WHERE revision > %(after)s ORDER BY revision
"""
_RETAINED: Final[LiteralString] = """
SELECT trimmed_through, (SELECT max(revision) FROM licet.changes) FROM licet.meta
"""
_RENEW: Final[LiteralString] = """
UPDATE licet.replicas SET beat = beat + 1, applied = %(applied)s
WHERE incarnation = %(incarnation)s
RETURNING (SELECT epoch FROM licet.meta), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
"""
_DEREGISTER: Final[LiteralString] = "DELETE FROM licet.replicas WHERE incarnation = %s"
_ENTRIES: Final[LiteralString] = """
SELECT incarnation, beat, applied, lease_seconds FROM licet.replicas
"""
_FENCE: Final[LiteralString] = "DELETE FROM licet.replicas WHERE incarnation = %s AND beat = %s"


def _connect(conninfo: str, purpose: str) -> Connection[TupleRow]:
    # A half-open connection must be noticed well within a few leases.
    connection = psycopg.connect(
        conninfo,
        autocommit=True,
        application_name=f"licet {purpose}",
        connect_timeout=2,
        keepalives_idle=2,
        keepalives_interval=1,
        keepalives_count=2,
        tcp_user_timeout=1500,
    )
    connection.execute(_SET_ROLE)
    return connection


class PostgresReplicaSession:
    """See `app.replication.ReplicaSession`."""

    def __init__(
        self,
        conninfo: str,
        host: str,
        lease_seconds: float,
        host_clock: Callable[[], float],
        sampled: Callable[[float, float, Instant], None],
    ) -> None:
        """Connect and listen.

        Args:
            conninfo: of a direct or session pooled connection.
            host: a name for people.
            lease_seconds: how long this replica's lease lasts; others wait by it.
            host_clock: seconds that never step.
            sampled: told the database's time, and `host_clock` before and after it was asked.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        self._host = host
        self._lease_seconds = lease_seconds
        self._host_clock = host_clock
        self._sampled = sampled
        with translated(deadline_bound=False):
            self._connection = _connect(conninfo, "replica")
            self._connection.execute(_ASYNCHRONOUS)
            self._connection.execute(_LISTEN)

    def register(self, incarnation: UUID) -> Registration:
        """See `ReplicaSession.register`."""
        with translated(deadline_bound=False):
            with self._connection.transaction():
                self._connection.execute(_SYNCHRONOUS)
                self._connection.execute(
                    _REGISTER,
                    {"incarnation": incarnation, "host": self._host, "lease": self._lease_seconds},
                )
            before = self._host_clock()
            row = self._connection.execute(_POSITION).fetchone()
            after = self._host_clock()
        if row is None:
            raise RuntimeError("licet.meta has no row")
        self._sampled(before, after, Instant(row[2]))
        return Registration(row[0], row[1])

    def changes_after(self, revision: int) -> Sequence[Change]:
        """See `ReplicaSession.changes_after`."""
        with translated(deadline_bound=False):
            rows = self._connection.execute(_CHANGES, {"after": revision}).fetchall()
            if rows and rows[0][0] == revision + 1:
                return [
                    Change(number, principals(names), Instant(at)) for number, names, at in rows
                ]
            # Nothing new, or a gap: changes are numbered without one, so some are not retained.
            trimmed, latest = self._connection.execute(_RETAINED).fetchone() or (0, 0)
        # Less than was applied: history went backwards, and nothing that is remembered counts.
        is_other = latest < revision
        return [Change(latest, None)] if rows or trimmed > revision or is_other else []

    def renew(self, incarnation: UUID, applied: int) -> UUID | None:
        """See `ReplicaSession.renew`."""
        parameters = {"incarnation": incarnation, "applied": applied}
        with translated(deadline_bound=False):
            before = self._host_clock()
            row = self._connection.execute(_RENEW, parameters).fetchone()
            after = self._host_clock()
        if row is None:
            return None
        epoch: UUID = row[0]
        self._sampled(before, after, Instant(row[1]))
        return epoch

    def wait(self, seconds: float) -> None:
        """See `ReplicaSession.wait`."""
        with translated(deadline_bound=False):
            for _ in self._connection.notifies(timeout=max(seconds, 0.0), stop_after=1):
                pass

    def deregister(self, incarnation: UUID) -> None:
        """See `ReplicaSession.deregister`."""
        with translated(deadline_bound=False):
            self._connection.execute(_DEREGISTER, [incarnation])

    def close(self) -> None:
        """See `ReplicaSession.close`."""
        with suppress(psycopg.Error):
            self._connection.close()


class PostgresReplicaObserver:
    """See `app.replication.ReplicaObserver`."""

    def __init__(self, conninfo: str) -> None:
        """Connect.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        with translated(deadline_bound=False):
            self._connection = _connect(conninfo, "acknowledgements")

    def entries(self) -> Sequence[ReplicaEntry]:
        """See `ReplicaObserver.entries`."""
        with translated(deadline_bound=False):
            return [ReplicaEntry(*row) for row in self._connection.execute(_ENTRIES).fetchall()]

    def fence(self, incarnation: UUID, beat: int) -> bool:
        """See `ReplicaObserver.fence`."""
        with translated(deadline_bound=False):
            return self._connection.execute(_FENCE, [incarnation, beat]).rowcount == 1

    def close(self) -> None:
        """See `ReplicaObserver.close`."""
        with suppress(psycopg.Error):
            self._connection.close()


def principals(names: list[str] | None) -> tuple[Principal, ...] | None:
    """Return what a change touched from its column; NULL: everything."""
    return None if names is None else tuple(Principal(name) for name in names)
