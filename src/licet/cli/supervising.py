"""Runs several workers and a steward: the database and the port are held here."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from time import time
from typing import Final

from licet.bootstrap import policy_file
from licet.bootstrap.custody import socket_file
from licet.cli.errors import CommandError
from licet.config import Settings
from licet.domain.errors import LicetError, UnavailableError
from licet.server.certificates import TlsFiles
from licet.server.followed import FileRefusedError
from licet.server.socket_file import SocketFile
from licet.server.tls_callers import parse_callers, read_callers
from licet.storage import migrate
from licet.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError, data_folder
from licet.storage.migrate import MigrationError
from licet.supervisor import Fleet, Patience, Turns, Worker, WorkerError, core_of, reserved_port
from licet.telemetry import host as host_metrics
from licet.telemetry.metrics import serve as serve_metrics

_log: Final = logging.getLogger(__name__)

_COMMAND: Final = (sys.executable, "-m", "licet", "serve")
_STEWARD_COMMAND: Final = (sys.executable, "-m", "licet", "steward")
_STEWARD: Final = "steward"
_METRICS: Final = "LICET_METRICS_LISTEN"
# What a worker takes to leave, beside the age of its oldest connection.
_LEAVE_SECONDS: Final = 5.0
_HURRIED: Final = 130


def supervise(
    settings: Settings, on_ready: Callable[[int], None], is_stopped: Callable[[], bool]
) -> int:
    """Serve with `settings.workers` processes until SIGINT or SIGTERM, and return an exit status.

    Args:
        settings: of this process; the workers get them by their environment.
        on_ready: told the port, once every worker serves.
        is_stopped: says whether a signal has come before the workers are looked after.

    Raises:
        CommandError: it cannot serve; whatever had been started is stopped.
    """
    _check_tls(settings)
    with ExitStack() as stack:
        try:
            url = _database(settings, stack)
            file = socket_file(settings, stack)
            shared = None if file is None else _SharedSocket(file)
            listen, port = stack.enter_context(_port(settings))
            environment = _environment(settings, listen, url)
            policy_file.put_first(settings, url or _configured(settings))

            fleet = Fleet(
                lambda slot: _worker(settings, slot, environment, shared),
                settings.workers,
                Patience(
                    settings.connection_seconds * 1.1 + _LEAVE_SECONDS, settings.drain_seconds
                ),
                has_steward=True,
                look=None if shared is None else shared.turns.look,
            )
            _serve_metrics(settings, fleet, stack)

            def ready() -> None:
                if shared is not None:
                    shared.check()
                on_ready(port)

            was_hurried = fleet.run(ready, is_stopped)
        except OSError as exc:
            raise CommandError(f"cannot listen on {settings.listen}: {exc.strerror}") from exc
        except (LicetError, EmbeddedPostgresError, MigrationError, WorkerError) as exc:
            if is_stopped():
                return 0  # a Ctrl-C reaches initdb as well, which fails then
            raise CommandError(str(exc)) from exc
    return _HURRIED if was_hurried else 0


@contextmanager
def _port(settings: Settings) -> Iterator[tuple[str, int]]:
    """Hold the port, if there is one; provide where the workers listen. Raises OSError."""
    if settings.address is None:
        yield settings.listen, 0
        return
    host, _, port = settings.address.rpartition(":")
    with reserved_port(host.strip("[]"), int(port)) as held:
        yield f"{host}:{held}", held


class _SharedSocket:
    """The one Unix socket that clients find, of several workers."""

    def __init__(self, file: SocketFile) -> None:
        """Let the workers take turns at a path that this process has claimed."""
        self._file = file
        self._failure: str | None = None
        self.turns = Turns(self._show)

    def check(self) -> None:
        """Raise UnavailableError if clients did not find the last one that had its turn."""
        if self._failure is not None:
            raise UnavailableError(self._failure)

    def tidy(self) -> None:
        """Forget the sockets of workers that were killed."""
        with suppress(OSError):
            self._file.tidy()

    def _show(self, pid: int) -> None:
        try:
            self._file.show(pid)
        except (OSError, LicetError) as exc:
            # The one before may well serve on; and it is tried again with each turn.
            if self._failure is None:
                _log.error("LICET_SOCKET: clients do not find process %d: %s", pid, exc)
            self._failure = f"LICET_SOCKET: {exc}"
        else:
            self._failure = None


def _worker(
    settings: Settings, slot: int, environment: Mapping[str, str], shared: _SharedSocket | None
) -> Worker:
    if shared is not None:
        shared.tidy()
    if slot == settings.workers:
        return Worker(slot, _STEWARD_COMMAND, environment, name=_STEWARD)
    return Worker(slot, _COMMAND, environment, core=_core(settings, slot))


def _check_tls(settings: Settings) -> None:
    """Say what is wrong with the files once, and not by each worker."""
    certificate, key = settings.tls_cert_file, settings.tls_key_file
    try:
        if certificate is not None and key is not None:
            files = TlsFiles(certificate, key, settings.tls_client_ca_file)
            files.parse(files.read(), time())
        if settings.tls_callers_file is not None:
            parse_callers(settings.tls_callers_file, read_callers(settings.tls_callers_file))
    except FileRefusedError as exc:
        raise CommandError(str(exc)) from exc


def _core(settings: Settings, slot: int) -> int | None:
    return core_of(slot, settings.workers, settings.cores) if settings.pin_workers else None


def _database(settings: Settings, stack: ExitStack) -> str | None:
    """Migrate the database, and start it first if it is ours; return its address in that case."""
    configured = settings.migration_database_url or settings.database_url
    if configured is None:
        embedded = EmbeddedPostgres(
            data_folder(settings.data_dir), settings=settings.embedded_postgres()
        )
        stack.callback(embedded.stop)
        embedded.start()
        migrate.up(embedded.conninfo)
        return embedded.conninfo
    admin = configured.get_secret_value()
    if settings.migrate_on_start and not all(
        state.applied and state.checksum_ok for state in migrate.status(admin)
    ):
        migrate.up(admin)
    return None


def _configured(settings: Settings) -> str:
    if settings.database_url is None:
        raise AssertionError  # then it is the embedded one, which has an address
    return settings.database_url.get_secret_value()


def _environment(settings: Settings, listen: str, url: str | None) -> dict[str, str]:
    """Return the environment of a worker: ours, with what options and the file have changed."""
    # The embedded database's address has no password; another's comes by the environment or the
    # file, as it came to us, and by nothing that other users can see.
    ours = {} if url is None else {"LICET_DATABASE_URL": url}
    # Where only the supervisor asks: one worker cannot take its predecessor's port from it.
    policies = settings.policy_file
    followed = {} if policies is None else {"LICET_POLICY_FILE": str(policies.absolute())}
    metrics = {} if settings.metrics_listen is None else {_METRICS: "127.0.0.1:0"}
    return {
        **os.environ,
        **ours,
        "LICET_LISTEN": listen,
        "LICET_SOCKET": str(settings.socket or ""),
        "LICET_INSECURE_BIND": str(settings.insecure_bind).lower(),
        "LICET_LOG_LEVEL": settings.log_level,
        "LICET_LOG_FORMAT": settings.log_format,
        "LICET_WORKERS": "1",
        # Each is kept to its own by its supervisor, and may use no other.
        "LICET_WORKER_CORES": "",
        "LICET_MIGRATE_ON_START": "false",
        **metrics,
        **followed,
    }


def _serve_metrics(settings: Settings, fleet: Fleet, stack: ExitStack) -> None:
    """Serve what the supervisor knows of the workers, and what they say, at the address set."""
    if settings.metrics_listen is None:
        return

    labels = [*map(str, range(settings.workers)), _STEWARD]

    def workers() -> list[host_metrics.WorkerHealth]:
        return [
            host_metrics.WorkerHealth(
                labels[w.slot], w.is_serving, w.silent_seconds, w.metrics_port
            )
            for w in fleet.workers
        ]

    collector = host_metrics.HostCollector(
        labels, workers, lambda: fleet.failures, lambda: fleet.leaving
    )
    try:
        _, stop = serve_metrics(collector, settings.metrics_listen)
    except OSError as exc:
        raise CommandError(
            f"cannot serve the metrics on {settings.metrics_listen}: {exc.strerror}"
        ) from exc
    stack.callback(stop)
