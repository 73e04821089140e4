"""Replicas in the database: the connection that keeps one current, and the one that watches all.

These connections are not from the pool: they must be direct or session pooled, one that listens and
one whose observations are of one session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from psycopg import Connection, Cursor
from psycopg.rows import TupleRow

from licet.app.replication import Change, Registration, ReplicaEntry
from licet.domain.instant import Instant
from licet.domain.names import Principal
from licet.storage.errors import translated
from licet.storage.pool import READ_WRITE
from licet.storage.watchdog import GRACE_SECONDS, Watchdog

_SET_ROLE: Final[LiteralString] = "SET ROLE licet_server"
_LISTEN: Final[LiteralString] = "LISTEN licet_changes"
# A renewal may be lost with the server: those who watch begin their observations anew with their
# session. A registration may not: it must be seen by whoever commits a change after it.
_ASYNCHRONOUS: Final[LiteralString] = "SET synchronous_commit = off"
_SYNCHRONOUS: Final[LiteralString] = "SET LOCAL synchronous_commit = on"
# Whose answer was lost, or whose process began anew: it uses none of them, and nobody need wait.
_WITHDRAW: Final[LiteralString] = "DELETE FROM licet.replicas WHERE incarnation = ANY(%s)"
_OBSERVE: Final[LiteralString] = "SELECT licet.observe_history(%(epoch)s, %(revision)s)"
_REGISTER: Final[LiteralString] = """
INSERT INTO licet.replicas (incarnation, applied, host, lease_seconds)
SELECT %(incarnation)s, max(revision), %(host)s, %(lease)s FROM licet.changes
"""
# In a statement of its own: the entry must be visible to others before the revision is read.
_POSITION: Final[LiteralString] = """
SELECT (SELECT max(revision) FROM licet.changes), epoch,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, licet.history()
FROM licet.meta
"""
# With what is kept and how far it goes, in the same snapshot; one row even if nothing is new.
_CHANGES: Final[LiteralString] = """
SELECT m.trimmed_through, (SELECT max(revision) FROM licet.changes),
       (SELECT licet.history()) = %(history)s,
       c.revision, CASE WHEN c.kind = 0 THEN c.principals END,
       (extract(epoch FROM c.at) * 1000000)::bigint
FROM licet.meta AS m LEFT JOIN licet.changes AS c ON c.revision > %(after)s ORDER BY c.revision
"""
# The conditions are in the statement: nothing is acknowledged in a history that is another one, or
# that lacks what was applied.
_RENEW: Final[LiteralString] = """
UPDATE licet.replicas SET beat = beat + 1, applied = %(applied)s
WHERE incarnation = %(incarnation)s AND (SELECT licet.history()) = %(history)s
  AND %(applied)s <= (SELECT max(revision) FROM licet.changes)
RETURNING (SELECT epoch FROM licet.meta), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
"""
_EPOCH: Final[LiteralString] = "SELECT epoch FROM licet.meta"
_DEREGISTER: Final[LiteralString] = "DELETE FROM licet.replicas WHERE incarnation = %s"
_ENTRIES: Final[LiteralString] = """
SELECT incarnation, beat, applied, lease_seconds, (SELECT licet.history()) FROM licet.replicas
"""
_FENCE: Final[LiteralString] = "DELETE FROM licet.replicas WHERE incarnation = %s AND beat = %s"


_SET_TIMEOUT: Final[LiteralString] = "SELECT set_config('statement_timeout', %s, false)"

_LEASES: Final = 2.0
"""How many leases a statement of a replica may take: by then its own is over in any case."""
_LEAST_SECONDS: Final = 1.0
_OBSERVER_SECONDS: Final = 2.0
"""The same for the connection that watches all."""


class _Session:
    """A connection on which every statement is bounded in time, whatever the server does."""

    def __init__(self, conninfo: str, purpose: str, seconds: float) -> None:
        self._seconds = seconds
        # A half-open connection must be noticed well within a few leases.
        with translated(deadline_bound=False):
            self._connection: Connection[TupleRow] = psycopg.connect(
                conninfo,
                autocommit=True,
                application_name=f"licet {purpose}",
                target_session_attrs=READ_WRITE,
                connect_timeout=2,
                keepalives_idle=2,
                keepalives_interval=1,
                keepalives_count=2,
                tcp_user_timeout=1500,
            )
        self._watchdog = Watchdog()
        try:
            self.execute(_SET_ROLE)
            self.execute(_SET_TIMEOUT, [str(int(seconds * 1000))])
        except BaseException:
            self.close()
            raise

    def execute(self, statement: LiteralString, parameters: Any = None) -> Cursor[TupleRow]:  # noqa: ANN401 - psycopg's
        """Execute a statement. Raises UnavailableError."""
        with (
            translated(deadline_bound=False),
            self._watchdog.watching(self._connection, self._seconds + GRACE_SECONDS),
        ):
            return self._connection.execute(statement, parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block executes. Raises UnavailableError."""
        self.execute("BEGIN")
        yield
        self.execute("COMMIT")

    def wait(self, seconds: float) -> bool:
        """Say whether a notification came before the time was over. Raises UnavailableError."""
        with translated(deadline_bound=False):
            # All that have come by then: one reading of the changes answers them.
            return bool(list(self._connection.notifies(timeout=max(seconds, 0.0), stop_after=1)))

    def close(self) -> None:
        self._watchdog.close()
        with suppress(psycopg.Error):
            self._connection.close()


@dataclass(slots=True)
class EarlierSessions:
    """What the replica's sessions leave to the next one; used by the replica's thread alone.

    Attributes:
        history: in which the replica is registered.
        epoch: the name of that history, as others are told it.
        revision: the latest that was seen in it.
        incarnations: those that the process has entered and, but for the last, uses no more.
    """

    history: UUID | None = None
    epoch: UUID | None = None
    revision: int = 0
    incarnations: list[UUID] = field(default_factory=list)


class PostgresReplicaSession:
    """See `app.replication.ReplicaSession`."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a session is made of
        self,
        conninfo: str,
        host: str,
        lease_seconds: float,
        host_clock: Callable[[], float],
        sampled: Callable[[float, float, Instant], None],
        earlier: EarlierSessions | None = None,
    ) -> None:
        """Connect and listen.

        Args:
            conninfo: of a direct or session pooled connection.
            host: a name for people.
            lease_seconds: how long this replica's lease lasts; others wait by it.
            host_clock: seconds that never step.
            sampled: told the database's time, and `host_clock` before and after it was asked.
            earlier: of the same process; None: there were none.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        self._host = host
        self._lease_seconds = lease_seconds
        self._host_clock = host_clock
        self._sampled = sampled
        self._earlier = EarlierSessions() if earlier is None else earlier
        self._session = _Session(conninfo, "replica", max(_LEASES * lease_seconds, _LEAST_SECONDS))
        try:
            self._session.execute(_ASYNCHRONOUS)
            self._session.execute(_LISTEN)
        except BaseException:
            self.close()
            raise

    def register(self, incarnation: UUID) -> Registration:
        """See `ReplicaSession.register`."""
        earlier = self._earlier
        self._observe()
        withdrawn = list(earlier.incarnations)
        earlier.incarnations.append(incarnation)
        with self._session.transaction():
            self._session.execute(_SYNCHRONOUS)
            self._session.execute(_WITHDRAW, [withdrawn])
            self._session.execute(
                _REGISTER,
                {"incarnation": incarnation, "host": self._host, "lease": self._lease_seconds},
            )
        before = self._host_clock()
        row = self._session.execute(_POSITION).fetchone()
        after = self._host_clock()
        if row is None:
            raise RuntimeError("licet.meta has no row")
        earlier.revision, earlier.epoch, _, earlier.history = row
        earlier.incarnations = [incarnation]
        self._sampled(before, after, Instant(row[2]))
        return Registration(row[0], row[1])

    def changes_after(self, revision: int) -> Sequence[Change]:
        """See `ReplicaSession.changes_after`."""
        parameters = {"after": revision, "history": self._earlier.history}
        rows = self._session.execute(_CHANGES, parameters).fetchall()
        trimmed, latest, is_same = rows[0][:3]
        if not is_same or latest < revision:
            return []  # another history: the renewal that follows is refused, and finds it out
        self._earlier.revision = latest
        if rows[0][3] == revision + 1:
            return [
                Change(number, principals(names), Instant(at)) for *_, number, names, at in rows
            ]
        # A gap: changes are numbered without one, so some are not retained.
        has_gap = rows[0][3] is not None or trimmed > revision
        return [Change(latest, None)] if has_gap else []

    def renew(self, incarnation: UUID, applied: int) -> UUID | None:
        """See `ReplicaSession.renew`."""
        parameters = {
            "incarnation": incarnation,
            "applied": applied,
            "history": self._earlier.history,
        }
        before = self._host_clock()
        row = self._session.execute(_RENEW, parameters).fetchone()
        after = self._host_clock()
        if row is None:
            return self._other_epoch()
        epoch: UUID = row[0]
        self._sampled(before, after, Instant(row[1]))
        return epoch

    def _other_epoch(self) -> UUID | None:
        """Return the epoch if it is another than that of the entry; None: the entry is gone."""
        self._observe()
        row = self._session.execute(_EPOCH).fetchone()
        return None if row is None or row[0] == self._earlier.epoch else row[0]

    def _observe(self) -> None:
        """Let the database compare with what this process knows; it then names its history anew."""
        self._session.execute(
            _OBSERVE, {"epoch": self._earlier.epoch, "revision": self._earlier.revision}
        )

    def wait(self, seconds: float) -> bool:
        """See `ReplicaSession.wait`."""
        return self._session.wait(seconds)

    def deregister(self, incarnation: UUID) -> None:
        """See `ReplicaSession.deregister`."""
        self._session.execute(_DEREGISTER, [incarnation])

    def close(self) -> None:
        """See `ReplicaSession.close`."""
        self._session.close()


class PostgresReplicaObserver:
    """See `app.replication.ReplicaObserver`."""

    def __init__(self, conninfo: str) -> None:
        """Connect.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        self._session = _Session(conninfo, "acknowledgements", _OBSERVER_SECONDS)

    def entries(self) -> Sequence[ReplicaEntry]:
        """See `ReplicaObserver.entries`."""
        return [ReplicaEntry(*row) for row in self._session.execute(_ENTRIES).fetchall()]

    def fence(self, incarnation: UUID, beat: int) -> bool:
        """See `ReplicaObserver.fence`."""
        return self._session.execute(_FENCE, [incarnation, beat]).rowcount == 1

    def close(self) -> None:
        """See `ReplicaObserver.close`."""
        self._session.close()


def principals(names: list[str] | None) -> tuple[Principal, ...] | None:
    """Return what a change touched from its column; NULL: everything."""
    return None if names is None else tuple(Principal(name) for name in names)
