"""Connections: pooled, checked, recycled, in the server's role, and every use bounded in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, LiteralString

from psycopg import Connection, Cursor
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import ConnectionPool

from licet.app.ports import Deadline
from licet.domain.errors import DeadlineError
from licet.storage.errors import translated
from licet.storage.watchdog import GRACE_SECONDS, Watchdog

READ_WRITE: Final = "read-write"
"""Of several hosts the one that takes changes; a standby is never read, whatever the URL says."""
KEPT_SECONDS: Final = 0.1
"""How long a thread keeps a connection for which others may wait."""
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


class Pooled(Connection[TupleRow]):
    """A connection of the pool, which knows how long a statement on it may run."""

    limit: int | None = None
    """The session's statement_timeout in milliseconds; None: not known."""


class Database:
    """A pool of connections in autocommit mode."""

    def __init__(self, conninfo: str, limits: PoolLimits) -> None:
        """Prepare the pool; `open` starts it."""
        self._limits = limits
        self._watchdog = Watchdog()
        self._pool: ConnectionPool[Pooled] = ConnectionPool(
            conninfo,
            connection_class=Pooled,
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
        acquire = self._acquire_seconds(deadline)
        with (
            translated(deadline_bound=acquire < limits.acquire_seconds),
            self._pool.connection(timeout=acquire) as connection,
            self.using(connection, deadline),
        ):
            yield connection

    def take(self, deadline: Deadline) -> Pooled:
        """Return a connection for `using`, until `give_back`. Raises as `connection`."""
        acquire = self._acquire_seconds(deadline)
        with translated(deadline_bound=acquire < self._limits.acquire_seconds):
            return self._pool.getconn(timeout=acquire)

    def give_back(self, connection: Pooled) -> None:
        """Let others have a connection that was taken; one that is lost is replaced."""
        self._pool.putconn(connection)

    @contextmanager
    def using(self, connection: Pooled, deadline: Deadline) -> Iterator[None]:
        """Have the statements of a connection end with the deadline. Raises as `connection`."""
        seconds = self._limits.statement_seconds
        left = deadline.remaining(seconds)
        with (
            translated(deadline_bound=left < seconds),
            self._watchdog.watching(connection, left + GRACE_SECONDS),
        ):
            self._limit(connection, max(1, int(left * 1000)))  # 0 would mean: no limit
            yield

    def _acquire_seconds(self, deadline: Deadline) -> float:
        """Return how long to wait for a connection. Raises DeadlineError: no time is left."""
        acquire = deadline.remaining(self._limits.acquire_seconds)
        if acquire <= 0:
            message = "the deadline passed"
            raise DeadlineError(message)
        return acquire

    def _limit(self, connection: Pooled, milliseconds: int) -> None:
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


class Kept:
    """A cursor on a connection that one thread keeps between its uses, while it has many.

    To take a connection from the pool costs as much as a short statement, half of it for asking it
    whether it still works; and a cursor remembers the statement that it has run. It is given back
    soon all the same, so that a small pool is not short of it and is asked now and then. Whoever
    finds it lost has been told nothing, and may ask anew.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = monotonic) -> None:
        """Take it from this pool, by a clock of seconds that never steps."""
        self._database = database
        self._clock = clock
        self._taken: tuple[Pooled, Cursor[TupleRow]] | None = None
        self._until = 0.0

    @contextmanager
    def cursor(self, deadline: Deadline) -> Iterator[Cursor[TupleRow]]:
        """Lend it, for binary results. After a failure of any kind it is given back.

        Raises as `Database.connection` does.
        """
        taken = self._taken
        if taken is None or self._clock() >= self._until:
            self.give_back()
            connection = self._database.take(deadline)
            taken = self._taken = connection, connection.cursor(binary=True)
            self._until = self._clock() + KEPT_SECONDS
        connection, cursor = taken
        try:
            with self._database.using(connection, deadline):
                yield cursor
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Let others have the connection."""
        taken, self._taken = self._taken, None
        if taken is not None:
            connection, cursor = taken
            cursor.close()
            self._database.give_back(connection)
