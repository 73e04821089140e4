"""Connections: pooled, checked, recycled, in the server's role, and every use bounded in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg import Connection
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import ConnectionPool

from licet.app.ports import Deadline
from licet.domain.errors import DeadlineError
from licet.storage.errors import translated
from licet.storage.watchdog import GRACE_SECONDS, Watchdog

READ_WRITE: Final = "read-write"
"""Of several hosts the one that takes changes; a standby is never read, whatever the URL says."""
_CHECK_SECONDS: Final = 1.0
_SET_ROLE: LiteralString = "SET ROLE licet_server"
_SET_TIMEOUT: LiteralString = "SELECT set_config('statement_timeout', %s, false)"


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The pool's bounds.

    Attributes:
        min_size: connections kept open.
        max_size: connections at most.
        acquire_seconds: how long a request waits for a free connection.
        statement_seconds: how long a statement may run when the caller set no earlier deadline.
        max_waiting: requests that may wait at once; further ones are refused without waiting.
    """

    min_size: int = 2
    max_size: int = 16
    acquire_seconds: float = 2.0
    statement_seconds: float = 5.0
    max_waiting: int = 256


class _Pooled(Connection[TupleRow]):
    """A connection of the pool, which knows what a statement on it may take."""

    limit: int | None = None
    """The session's statement_timeout in milliseconds; None: not known."""


class Database:
    """A pool of connections in autocommit mode."""

    def __init__(self, conninfo: str, limits: PoolLimits) -> None:
        """Prepare the pool; `open` starts it."""
        self._limits = limits
        self._watchdog = Watchdog()
        self._pool: ConnectionPool[_Pooled] = ConnectionPool(
            conninfo,
            connection_class=_Pooled,
            kwargs={
                "autocommit": True,
                "row_factory": tuple_row,
                "application_name": "licet",
                "target_session_attrs": READ_WRITE,
                "connect_timeout": 5,
                # A peer that is gone without a word is noticed while nothing is sent, too.
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": 10_000,
            },
            min_size=limits.min_size,
            max_size=limits.max_size,
            max_waiting=limits.max_waiting,
            timeout=limits.acquire_seconds,
            # A connection is replaced after an hour so that a server behind a moved address is
            # found again.
            max_lifetime=3600.0,
            max_idle=600.0,
            reconnect_timeout=30.0,
            configure=self._configure,
            check=self._check,
            name="licet",
            open=False,
        )

    def open(self, timeout: float) -> None:
        """Open the first connections.

        Raises:
            UnavailableError: the database could not be reached within `timeout` seconds.
        """
        with translated(deadline_bound=False):
            self._pool.open(wait=True, timeout=timeout)

    def close(self) -> None:
        """Close every connection; requests that wait for one fail."""
        self._pool.close(timeout=5.0)
        self._watchdog.close()

    @contextmanager
    def connection(self, deadline: Deadline) -> Iterator[Connection[TupleRow]]:
        """Lend a connection whose statements end with the deadline.

        Raises:
            DeadlineError: the deadline passed first.
            UnavailableError: no connection in time, or the database cannot be used.
            ConflictError: a statement lost a race.
        """
        limits = self._limits
        acquire = deadline.remaining(limits.acquire_seconds)
        if acquire <= 0:
            message = "the deadline passed"
            raise DeadlineError(message)
        with (
            translated(deadline_bound=acquire < limits.acquire_seconds),
            self._pool.connection(timeout=acquire) as connection,
        ):
            left = deadline.remaining(limits.statement_seconds)
            with self._watchdog.watching(connection, left + GRACE_SECONDS):
                self._limit(connection, max(1, int(left * 1000)))  # 0 would mean: no limit
                with translated(deadline_bound=left < limits.statement_seconds):
                    yield connection

    def _limit(self, connection: _Pooled, milliseconds: int) -> None:
        """Let a statement run so long; mostly it is what the last one was allowed."""
        if connection.limit != milliseconds:
            connection.limit = None  # what a statement that fails has set is not known
            connection.execute(_SET_TIMEOUT, [str(milliseconds)])
            connection.limit = milliseconds

    def _configure(self, connection: Connection[Any]) -> None:
        with self._watchdog.watching(connection, _CHECK_SECONDS):
            connection.execute(_SET_ROLE)

    def _check(self, connection: Connection[Any]) -> None:
        with self._watchdog.watching(connection, _CHECK_SECONDS):
            ConnectionPool.check_connection(connection)
