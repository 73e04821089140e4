"""The embedded PostgreSQL from start to stop; its pieces are in the modules beside this one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo

from licet.storage.embedded.account import Account, account_for
from licet.storage.embedded.errors import EmbeddedPostgresError
from licet.storage.embedded.folder import (
    PORT,
    FolderLock,
    Log,
    exclusive,
    most_telling_line,
    prepare,
    socket_folder,
)
from licet.storage.embedded.installation import MAJOR_VERSION, Installation
from licet.storage.embedded.process import (
    POLL_SECONDS,
    ServerProcess,
    postmaster_of,
    stop_predecessor,
)

DATABASE = "licet"
# Not "licet": PostgreSQL would look into the schema of that name before any other.
SUPERUSER = "postgres"

# Crash recovery comes before the first connection.
_START_SECONDS = 60.0
_CONNECT_SECONDS = 5
_SOCKET_LINE = 5

_INITDB_OPTIONS = (
    f"--username={SUPERUSER}",
    "--encoding=UTF8",
    # Ordering by code point, the same on every machine and for ever.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--data-checksums",
    # Whoever reaches the socket is let in. Its folder is closed to all but PostgreSQL's own
    # account (and root), and that account can read and write the data files anyway. A password
    # would lie beside them; `peer` would need a map for root, and keep nobody else out.
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-instructions",
)

_DATABASE_EXISTS = "SELECT FROM pg_database WHERE datname = 'licet'"
_CREATE_DATABASE = "CREATE DATABASE licet"


class EmbeddedPostgres:
    """A private PostgreSQL: its data in one folder, reached through a Unix socket only.

    It runs as long as this object does: `stop` stops it, and so does the end of this process,
    however it ends. One thread starts and stops it; any thread may connect.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        installation: Installation | None = None,
    ) -> None:
        """Describe it; `start` runs it.

        Args:
            data_dir: the folder for everything it keeps, made when missing; see `folder.py`.
            settings: of PostgreSQL (`max_connections`), by name; where it listens cannot be set.
            installation: the binaries, when not the wheel's.
        """
        self._data_dir = data_dir.expanduser().resolve()
        self._settings = dict(settings)
        self._installation = installation
        self._resources = ExitStack()
        self._process: ServerProcess | None = None
        self._conninfo = ""

    @property
    def conninfo(self) -> str:
        """How libpq connects to the database `licet`, as its owner; only while it is started."""
        if self._process is None:
            raise RuntimeError("the embedded PostgreSQL is not started")
        return self._conninfo

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended, by `stop` or by itself."""
        return self._process is not None and self._process.is_running

    def start(self) -> None:
        """Start it and return when it answers; initialise the data first if there is none.

        Raises:
            EmbeddedPostgresError: it cannot run here; nothing is left running.
        """
        if self._process is not None:
            raise RuntimeError("the embedded PostgreSQL is started already")
        with _told_to_people(self._data_dir), ExitStack() as resources:
            prepare(self._data_dir)
            resources.enter_context(exclusive(self._data_dir))
            lock = FolderLock(self._data_dir / "postgres.lock")
            resources.callback(lock.close)
            self._take_over(lock)

            account = account_for(self._cluster)
            binaries = self._installation or Installation.of_wheel()
            binaries = binaries.reachable_by(account, self._data_dir)
            if not self._cluster.exists():
                self._initialise(binaries, account)
            self._check_cluster(account)

            folder = resources.enter_context(socket_folder(self._data_dir, account))
            log = resources.enter_context(closing(Log(self._data_dir / "postgres.log")))
            process = ServerProcess(self._command(binaries, folder), account, log.fd, lock.fd)
            resources.callback(process.stop)
            conninfo = make_conninfo(host=str(folder), port=PORT, user=SUPERUSER, dbname=DATABASE)
            _wait_until_ready(process, log, conninfo)

            self._process, self._conninfo = process, conninfo
            self._resources = resources.pop_all()

    def stop(self) -> None:
        """Stop it, if it is started, and return when it has ended and the folder is free."""
        self._process = None
        self._resources.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _cluster(self) -> Path:
        return self._data_dir / "cluster"

    def _take_over(self, lock: FolderLock) -> None:
        """Take `lock`, once no process of an earlier server is left on the cluster."""

        def is_gone() -> bool:
            return postmaster_of(self._cluster) is None and lock.try_acquire()

        if not stop_predecessor(self._cluster, is_gone):
            raise EmbeddedPostgresError(
                f"A PostgreSQL that an earlier licet left behind still works on {self._cluster} "
                "and does not stop: stop its processes, then start licet again."
            )
        # Stale now, for certain; PostgreSQL itself would refuse to start if the process id in it
        # has become another process's.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _initialise(self, binaries: Installation, account: Account) -> None:
        # Renamed when complete: a cluster that was interrupted half-made is never started.
        partial = self._data_dir / "cluster.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        account.own(partial)
        _check_reachable(partial, account)
        done = account.run(
            binaries.program("initdb"),
            *_INITDB_OPTIONS,
            f"--pgdata={partial}",
        )
        if done.returncode != 0:
            raise EmbeddedPostgresError(
                f"A new database could not be made in {self._data_dir}: "
                f"{most_telling_line(done.stderr)}"
            )
        partial.rename(self._cluster)

    def _check_cluster(self, account: Account) -> None:
        _check_reachable(self._cluster, account)
        found = (self._cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != str(MAJOR_VERSION):
            raise EmbeddedPostgresError(
                f"The data in {self._cluster} is of PostgreSQL {found}, and this licet embeds "
                f"PostgreSQL {MAJOR_VERSION}. Dump it with the licet that made it and pg_dump, or "
                f"serve it from a PostgreSQL {found} of your own with LICET_DATABASE_URL; to start "
                "afresh, move the folder away."
            )

    def _command(self, binaries: Installation, sockets: Path) -> list[str]:
        quoted = str(sockets).replace('"', '""')
        settings = {
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self._settings,
            # After the caller's, which they overrule: this server is private.
            "listen_addresses": "",
            "unix_socket_directories": f'"{quoted}"',
            "unix_socket_permissions": "0700",
            "port": str(PORT),
        }
        command = [str(binaries.program("postgres")), "-D", str(self._cluster)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command


def running_conninfo(data_dir: Path) -> str | None:
    """Return how libpq connects to the server that runs on a folder; None if there is none.

    It is another process's: it may end at any time.
    """
    cluster = data_dir.expanduser().resolve() / "cluster"
    if postmaster_of(cluster) is None:
        return None
    with _told_to_people(data_dir):
        # Its fifth line (PostgreSQL: miscadmin.h, LOCK_FILE_LINE_SOCKET_DIR).
        lines = (cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    if len(lines) < _SOCKET_LINE or not lines[_SOCKET_LINE - 1]:
        return None  # it is starting
    folder = lines[_SOCKET_LINE - 1]
    return make_conninfo(host=folder, port=PORT, user=SUPERUSER, dbname=DATABASE)


def _check_reachable(cluster: Path, account: Account) -> None:
    if not account.can_enter(cluster):
        raise EmbeddedPostgresError(
            f"PostgreSQL runs as the account {account.name}, which is not let through to "
            f"{cluster}: choose a data folder outside of closed folders such as a home, or run "
            "licet as an ordinary user."
        )


def _wait_until_ready(process: ServerProcess, log: Log, conninfo: str) -> None:
    """Return when the database `licet` can be used; make it if it is missing."""
    maintenance = make_conninfo(conninfo, dbname="postgres", connect_timeout=_CONNECT_SECONDS)
    with _first_connection(process, log, maintenance) as connection:
        if connection.execute(_DATABASE_EXISTS).fetchone() is None:
            connection.execute(_CREATE_DATABASE)


def _first_connection(process: ServerProcess, log: Log, conninfo: str) -> psycopg.Connection:
    deadline = monotonic() + _START_SECONDS
    while not process.wait(POLL_SECONDS):
        try:
            return psycopg.connect(conninfo, autocommit=True)
        except psycopg.OperationalError:
            # Not listening yet, or recovering from a crash.
            if monotonic() > deadline:
                break
    raise EmbeddedPostgresError(f"The embedded PostgreSQL did not start: {log.complaint()}")


@contextmanager
def _told_to_people(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, psycopg.Error) as exc:
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL in {os.fspath(data_dir)} did not start: {exc}"
        ) from exc
