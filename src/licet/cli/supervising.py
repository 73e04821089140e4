"""Runs several workers: the database and the port are held here, each worker serves by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from licet.cli.errors import CommandError
from licet.config import Settings
from licet.domain.errors import LicetError
from licet.storage import migrate
from licet.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError, data_folder
from licet.storage.migrate import MigrationError
from licet.supervisor import Fleet, Worker, WorkerError, reserved_port

_COMMAND: Final = (sys.executable, "-m", "licet", "serve")


def supervise(settings: Settings, on_ready: Callable[[int], None]) -> int:
    """Serve with `settings.workers` processes until SIGINT or SIGTERM.

    Args:
        settings: of this process; the workers get them by their environment.
        on_ready: told the port, once every worker serves.

    Raises:
        CommandError: it cannot serve; whatever had been started is stopped.
    """
    host, _, port = settings.listen.rpartition(":")
    with ExitStack() as stack:
        try:
            url = _database(settings, stack)
            held = stack.enter_context(reserved_port(host.strip("[]"), int(port)))
            environment = _environment(settings, f"{host}:{held}", url)

            def start(slot: int) -> Worker:
                return Worker(slot, _COMMAND, environment | _metrics(settings, slot))

            fleet = Fleet(start, settings.workers, settings.drain_seconds)
            fleet.run(lambda: on_ready(held))
        except OSError as exc:
            raise CommandError(f"cannot listen on {settings.listen}: {exc.strerror}") from exc
        except (LicetError, EmbeddedPostgresError, MigrationError, WorkerError) as exc:
            raise CommandError(str(exc)) from exc
    return 0


def _database(settings: Settings, stack: ExitStack) -> str | None:
    """Migrate the database, and start it first if it is ours; return its address in that case."""
    configured = settings.migration_database_url or settings.database_url
    if configured is None:
        embedded = EmbeddedPostgres(data_folder(settings.data_dir))
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


def _environment(settings: Settings, listen: str, url: str | None) -> dict[str, str]:
    """Return the environment of a worker: ours, with what options and the file have changed."""
    # The embedded database's address has no password; another's comes by the environment or the
    # file, as it came to us, and by nothing that other users can see.
    ours = {} if url is None else {"LICET_DATABASE_URL": url}
    return {
        **os.environ,
        **ours,
        "LICET_LISTEN": listen,
        "LICET_INSECURE_BIND": str(settings.insecure_bind).lower(),
        "LICET_LOG_LEVEL": settings.log_level,
        "LICET_LOG_FORMAT": settings.log_format,
        "LICET_WORKERS": "1",
        "LICET_MIGRATE_ON_START": "false",
    }


def _metrics(settings: Settings, slot: int) -> dict[str, str]:
    """Give each worker a port of its own for its metrics: the one set, and those after it."""
    if settings.metrics_listen is None:
        return {}
    host, _, port = settings.metrics_listen.rpartition(":")
    return {"LICET_METRICS_LISTEN": f"{host}:{int(port) + slot if int(port) else 0}"}
