"""The test stand: a database and a server of its own, on two cores, gone when it is left."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final, LiteralString

import grpc
import psycopg

from benchmarks import seed
from benchmarks.figures import BenchmarkError
from benchmarks.h2load import Load
from benchmarks.server import ENVIRONMENT
from licet.domain.names import Principal
from licet.storage import migrate
from licet.storage.embedded import EmbeddedPostgres
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub

_SHIPPED: Final[LiteralString] = "SELECT coalesce(sum(shipped_seq), 0)::bigint FROM audit.writers"
_SHIP_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


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


class Stand:
    """A running server, its database, and two ways to call it."""

    def __init__(self, url: str, process: subprocess.Popen[str], port: int, folder: Path) -> None:
        """Use what runs; see `standing`."""
        self.url = url
        self.load = Load(port, folder)
        self._process = process
        self.address = f"127.0.0.1:{port}"
        self._channel = grpc.insecure_channel(
            self.address, [("grpc.max_receive_message_length", -1)]
        )
        self.stub = AuthorizationServiceStub(self._channel)
        self._admin = psycopg.connect(url, autocommit=True)
        self._pause = Event()  # never set: PostgreSQL tells nobody that events were stored

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()
        self._admin.close()

    def server_seconds(self) -> float:
        """Return how much of its core's time the server has used."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        # After the name in parentheses, which may hold anything: user and system time.
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def shipped(self) -> int:
        """Return how many audit events of decisions are stored."""
        row = self._admin.execute(_SHIPPED).fetchone()
        return 0 if row is None else int(row[0])

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


@contextmanager
def standing(cores: Cores, holdings: Mapping[Principal, int]) -> Iterator[Stand]:
    """Provide a stand on which principals hold so many capabilities each.

    Raises:
        BenchmarkError: the server does not start.
    """
    # PostgreSQL and h2load, started from here, stay on this core as well.
    os.sched_setaffinity(0, {cores.load})
    with (
        tempfile.TemporaryDirectory(prefix="licet-bench-") as name,
        EmbeddedPostgres(_reachable(Path(name)) / "postgres") as database,
    ):
        migrate.up(database.conninfo)
        seed.write(database.conninfo, dict(holdings))
        with _serving(database.conninfo, cores.server) as (process, port):
            stand = Stand(database.conninfo, process, port, Path(name))
            try:
                yield stand
            finally:
                stand.close()


def _reachable(folder: Path) -> Path:
    """Let other accounts through: started by root, PostgreSQL runs as one."""
    folder.chmod(0o711)
    return folder


@contextmanager
def _serving(url: str, core: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    # Defaults, whatever the settings of whoever runs this.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LICET_")}
    environment |= ENVIRONMENT
    environment |= {
        "LICET_DATABASE_URL": url,
        "LICET_LISTEN": "127.0.0.1:0",
        "LICET_LOG_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", "benchmarks.server", str(core)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line.strip().isdecimal():
                raise BenchmarkError("the server did not start: see above")
            yield process, int(line)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
