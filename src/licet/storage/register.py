"""The register of replicas, read by people: with any role that may SELECT it, and changing nothing.

Not from the pool, which takes the server's role.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, LiteralString, NamedTuple
from uuid import UUID

import psycopg
from psycopg import Connection, errors
from psycopg.rows import TupleRow

from licet.domain.errors import UnavailableError
from licet.storage.errors import translated

_TIMEOUT: Final[LiteralString] = "SET LOCAL statement_timeout = '5s'"
# One snapshot, and a row also where there is no replica.
_REGISTER: Final[LiteralString] = """
SELECT n.revision, r.incarnation, r.host, r.started, r.lease_seconds, r.applied, r.beat
FROM (SELECT max(revision) AS revision FROM licet.changes) AS n
LEFT JOIN licet.replicas AS r ON true
ORDER BY r.started, r.incarnation
"""


class RegisteredReplica(NamedTuple):
    """A replica's row; `beat` changes with every renewal."""

    incarnation: UUID
    host: str
    started: datetime
    lease_seconds: float
    applied: int
    beat: int


class Register(NamedTuple):
    """The newest revision, and every replica's row at that moment."""

    revision: int
    replicas: Sequence[RegisteredReplica]


class PostgresRegister:
    """One connection that looks at the register."""

    def __init__(self, connection: Connection[TupleRow]) -> None:
        """Look by this connection; see `opened_register`."""
        self._connection = connection

    def look(self) -> Register:
        """Return what there is now.

        Raises:
            UnavailableError: the database does not answer, or this login may not read it.
        """
        try:
            with translated(deadline_bound=False), self._connection.transaction():
                self._connection.execute(_TIMEOUT)
                rows = self._rows()
        except _NotAllowedError:
            message = (
                "this login may not read the register of replicas: it needs the rights of "
                "licet_auditor or licet_server"
            )
            raise UnavailableError(message) from None
        replicas = [RegisteredReplica(*row[1:]) for row in rows if row[1] is not None]
        return Register(rows[0][0], replicas)

    def _rows(self) -> list[TupleRow]:
        try:
            return self._connection.execute(_REGISTER).fetchall()
        except errors.InsufficientPrivilege as exc:
            raise _NotAllowedError from exc


class _NotAllowedError(Exception):
    pass


_NEWEST: Final[LiteralString] = "SELECT max(revision) FROM licet.changes"


def newest_revision(connection: Connection[TupleRow]) -> int:
    """Return the revision of the database now."""
    row = connection.execute(_NEWEST).fetchone()
    return 0 if row is None else int(row[0])


@contextmanager
def opened_register(conninfo: str) -> Iterator[PostgresRegister]:
    """Provide the register of the database at an address.

    Raises:
        UnavailableError: it cannot be reached.
    """
    with translated(deadline_bound=False):
        connection = psycopg.connect(
            conninfo, autocommit=True, application_name="licet replicas", connect_timeout=5
        )
    with connection:
        connection.read_only = True
        yield PostgresRegister(connection)
