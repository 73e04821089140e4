"""The test stand: a database and servers of its own, on two cores, gone when it is left."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final, LiteralString, Self

import grpc
import psycopg

from benchmarks import seed
from benchmarks.figures import BenchmarkError
from benchmarks.h2load import Load
from benchmarks.processes import confine, family, give_way, parent
from benchmarks.server import SOCKET, Variant
from benchmarks.servers import Server
from licet import config
from licet.app.ports import Deadline
from licet.bootstrap.custody import custody_of
from licet.domain.names import Principal
from licet.steward.steward import Custody
from licet.storage import migrate
from licet.storage.embedded import EmbeddedPostgres
from licet.storage.pool import Database, PoolLimits
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub

# Of servers: the steward is a writer, too, and opens nothing.
_SHIPPED: Final[LiteralString] = """
SELECT w.writer_id, w.shipped_seq FROM audit.writers AS w
WHERE w.writer_id IN (
  SELECT ('x' || left(replace(e.event_id::text, '-', ''), 12))::bit(48)::bigint
  FROM audit.events AS e
  WHERE e.event_type = 'audit.writer_opened' AND e.event_type <> 'decision')
"""
_BACKEND: Final[LiteralString] = "SELECT pg_backend_pid()"
_LOG: Final[LiteralString] = "SELECT log_id::text, origin FROM audit.log"
_SHIP_SECONDS: Final = 60.0
_OPEN_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Cores:
    """The two cores: one for the server alone, one for everything else."""

    server: int
    load: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Choose them.

        Raises:
            BenchmarkError: there are not two.
        """
        if sys.platform != "linux":
            raise BenchmarkError("the benchmarks pin processes to cores, which needs Linux")
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:  # noqa: PLR2004 - the server's, and the load's
            raise BenchmarkError("the benchmarks need two cores: one to serve, one to load it")
        return cls(usable[0], usable[1])

    @property
    def both(self) -> frozenset[int]:
        """The two."""
        return frozenset((self.server, self.load))


class Site:
    """A running database, and what it says of the audit log."""

    def __init__(self, url: str, folder: Path, state: Path, cores: Cores) -> None:
        """Use what runs; see `preparing`."""
        self.url = url
        self.folder = folder
        self.state = state
        """Where this host's servers keep what is outside of the database."""
        self.cores = cores
        self.admin = psycopg.connect(url, autocommit=True)
        self._pause = Event()  # never set: PostgreSQL tells nobody that events were stored

    def close(self) -> None:
        """Close the connection."""
        self.admin.close()

    def keep_to(self, cores: Collection[int]) -> None:
        """Let PostgreSQL, this process and the load that it starts run on these cores only."""
        confine([*self.postgres(), os.getpid()], cores)

    def postgres(self) -> list[int]:
        """Return the processes of PostgreSQL."""
        row = self.admin.execute(_BACKEND).fetchone()
        return [] if row is None else family(parent(row[0]))

    def shipped_by_writer(self) -> dict[int, int]:
        """Return how many audit events of decisions are stored, by the server that took them."""
        return dict(self.admin.execute(_SHIPPED).fetchall())

    def shipped(self) -> int:
        """Return how many audit events of decisions are stored."""
        return sum(self.shipped_by_writer().values())

    def await_shipped(self, least: int) -> int:
        """Wait until all audit events are stored, and at least so many; return how many are.

        Raises:
            BenchmarkError: it does not happen.
        """
        end = monotonic() + _SHIP_SECONDS
        before = -1
        while (now := self.shipped()) < least or now != before:
            if monotonic() > end:
                raise BenchmarkError(f"of {least} audit events only {now} were stored")
            before = now
            self._pause.wait(_POLL_SECONDS)
        return now


class Stand:
    """A running server, its database, and two ways to call it; with TLS, only the load.

    With a Unix socket, the load comes by that.
    """

    def __init__(self, site: Site, server: Server) -> None:
        """Wait until the server serves."""
        self.site = site
        self.url = site.url
        self.server = server
        scheme = "https" if server.variant is Variant.TLS else "http"
        on = server.folder / SOCKET if server.variant is Variant.SOCKET else None
        self.load = Load(server.port, site.folder, scheme, on)
        self.address = f"127.0.0.1:{server.port}"
        self.channel = grpc.insecure_channel(
            self.address, [("grpc.max_receive_message_length", -1)]
        )
        self.stub = AuthorizationServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def server_seconds(self) -> float:
        """Return how much of its core's time the server has used."""
        return self.server.seconds()

    def shipped(self) -> int:
        """Return how many audit events of decisions are stored."""
        return self.site.shipped()

    def await_shipped(self, least: int) -> int:
        """See `Site.await_shipped`."""
        return self.site.await_shipped(least)


@contextmanager
def preparing(cores: Cores, holdings: Mapping[Principal, int]) -> Iterator[Site]:
    """Provide a database in which principals hold so many capabilities each."""
    # PostgreSQL and h2load, started from here, stay on this core as well.
    os.sched_setaffinity(0, {cores.load})
    with (
        tempfile.TemporaryDirectory(prefix="licet-bench-") as name,
        # Not the system's folder for temporary files, which may be in memory.
        tempfile.TemporaryDirectory(prefix="licet-state-", dir=Path.cwd()) as state,
        EmbeddedPostgres(_reachable(Path(name)) / "postgres") as database,
    ):
        migrate.up(database.conninfo)
        seed.write(database.conninfo, dict(holdings))
        site = Site(database.conninfo, Path(name), Path(state), cores)
        try:
            yield site
        finally:
            site.close()


@contextmanager
def standing(site: Site, *variants: Variant, load_first: bool = False) -> Iterator[list[Stand]]:
    """Provide a stand for a server of each variant, all on the server's core.

    Args:
        site: the database.
        variants: what serves.
        load_first: whether PostgreSQL and the steward give way to the load, whose core they share.

    Raises:
        BenchmarkError: a server does not start.
    """
    with ExitStack() as stack:
        # As beside several workers: a process of its own, on the core that is not measured.
        steward = Server(Variant.STEWARD, site.url, site.state, {site.cores.load})
        stack.enter_context(steward).await_start()
        servers = [
            stack.enter_context(Server(variant, site.url, site.state, {site.cores.server}))
            for variant in variants
        ]
        stands = [stack.enter_context(Stand(site, server)) for server in servers]
        if load_first:
            give_way([*site.postgres(), *steward.pids])
        yield stands


def custody(site: Site) -> Custody:
    """Return what a host signs the site's log with: its servers find the keys, and go on with it.

    Raises:
        UnavailableError: the keys cannot be made.
    """
    row = site.admin.execute(_LOG).fetchone()
    if row is None:
        raise BenchmarkError("the database has no audit log")
    settings = config.load(listen="127.0.0.1:0", state_dir=site.state)
    return custody_of(settings, row[0], new_key_name=row[1])


@contextmanager
def opened_database(url: str) -> Iterator[Database]:
    """Provide connections as a server has them."""
    database = Database(url, PoolLimits())
    try:
        database.open(_OPEN_SECONDS)
        yield database
    finally:
        database.close()


def patience(seconds: float) -> Deadline:
    """Return a deadline so far away."""
    end = monotonic() + seconds
    return Deadline(lambda: end - monotonic())


def _reachable(folder: Path) -> Path:
    """Let other accounts through: started by root, PostgreSQL runs as one."""
    folder.chmod(0o711)
    return folder
