"""Runs the server in this process, from the first signal handler to the last connection closed."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Final

from licet import __version__, config
from licet.cli.database import describe
from licet.cli.errors import CommandError
from licet.domain.errors import LicetError
from licet.storage.embedded import EmbeddedPostgresError
from licet.storage.migrate import MigrationError
from licet.supervisor import Reports, follow_supervisor
from licet.telemetry import logs

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.bootstrap import Licet

_log: Final = logging.getLogger(__name__)

_ANYBODY: Final = (
    "CALLERS ARE NOT AUTHENTICATED: whoever can connect to %s is admin;"
    " LICET_AUTHENTICATION=required changes that"
)
# Expanded by grpcurl and not by the shell: every account of the machine can see arguments.
_KEY_HEADER: Final = " -expand-headers -H 'authorization: Bearer ${LICET_API_KEY}'"
_SERVICE: Final = "licet.v1.AuthorizationService"
_LOOK_SECONDS: Final = 0.5
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - not bound, replaced
_EXAMPLES: Final[tuple[tuple[str, dict[str, object]], ...]] = (
    (
        "Grant",
        {
            "principal": "agent:worker-17",
            "actions": ["read"],
            "resource": "doc:reports/**",
            "ttl": "900s",
        },
    ),
    (
        "Authorize",
        {
            "principal": "agent:worker-17",
            "action": "read",
            "resource": "doc:reports/2026/q3",
        },
    ),
    ("QueryAudit", {"principal": "agent:worker-17", "page_size": 10}),
)


def run(**overrides: object) -> int:
    """Serve until the first SIGINT or SIGTERM, then drain; the second one ends the process at once.

    Raises:
        CommandError: it cannot serve; whatever had been started is stopped.
    """
    reports = Reports.of_environment()
    stop = _StopSignals(is_worker=reports is not None)
    if reports is not None:
        follow_supervisor()
    try:
        settings = config.load(**overrides)
        logs.configure(settings.log_level, settings.log_format)
        if settings.admits_anonymous and reports is None:
            _log.warning(_ANYBODY, settings.listen)
        if settings.workers > 1:
            # Without gRPC: it has no business in a process that starts others.
            from licet.cli.supervising import supervise  # noqa: PLC0415

            return supervise(
                settings, lambda port: _greet(settings, port), lambda: stop.requested is not None
            )
        from licet.bootstrap import Licet, settle  # noqa: PLC0415 - see above

        licet = Licet(
            settings,
            shares_port=reports is not None,
            report=None if reports is None else reports.serves,
        ).start()
        settle()
    except (config.ConfigurationError, LicetError, EmbeddedPostgresError, MigrationError) as exc:
        if stop.requested is not None:
            return 0  # a Ctrl-C reaches initdb as well, which fails then
        raise CommandError(str(exc)) from exc
    try:
        if reports is not None:
            _work(licet, reports, stop)
        else:
            if stop.requested is None:
                _greet(settings, licet.server.port)
            stop.wait()
    finally:
        licet.stop()
    return 0


def _work(licet: Licet, reports: Reports, stop: _StopSignals) -> None:
    """Serve as one of several workers until told to end; SIGTERM: the others go on."""
    reports.ready(licet.metrics_port)
    number = stop.wait()
    reports.leaving()
    if number == signal.SIGTERM:
        licet.server.hand_over(lambda seconds: stop.wait(seconds) is not None)


class _StopSignals:
    """SIGINT and SIGTERM, from when this is made: none is lost while the server starts.

    The second one ends the process, but for a worker: its supervisor decides that, and whoever
    stops a service may have sent the first one to both of them.
    """

    def __init__(self, *, is_worker: bool) -> None:
        # Its `put` may interrupt its `get`, which is not true of Event or Queue.
        self._signals: SimpleQueue[int] = SimpleQueue()
        self._is_worker = is_worker
        self.requested: int | None = None
        """The first one."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the next one, or None after the time."""
        # Python handles a signal in its main thread, which the kernel wakes only if it hands the
        # signal to that one. After a pause (SIGSTOP, a debugger) it may take any other.
        end = float("inf") if seconds is None else monotonic() + seconds
        while (left := end - monotonic()) > 0:
            with suppress(Empty):
                return self._signals.get(timeout=min(left, _LOOK_SECONDS))
        return None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested is not None and not self._is_worker:
            # The embedded PostgreSQL ends with this process, however that ends.
            os._exit(128 + number)
        self.requested = number
        self._signals.put(number)


def _greet(settings: config.Settings, port: int) -> None:
    sys.stdout.write(_greeting(settings, port))
    sys.stdout.flush()


def _greeting(settings: config.Settings, port: int) -> str:
    host = settings.listen.rpartition(":")[0]
    target = f"{_WILDCARDS.get(host, host)}:{port}"
    command = "grpcurl -plaintext" + ("" if settings.admits_anonymous else _KEY_HEADER)
    calls = [
        f"  {command} -d {shlex.quote(json.dumps(request))} {target} {_SERVICE}/{method}"
        for method, request in _EXAMPLES
    ]
    return "\n".join(
        [
            f"licet {__version__} serves on {host}:{port}",
            f"database: {describe(settings)}",
            "callers: anybody who can connect is admin"
            if settings.admits_anonymous
            else "callers: need an API key; `licet init` makes the first",
            "",
            "Try it: grant, ask, and see both on record.",
            "",
            *calls,
            "",
            "Ctrl-C stops it.",
            "",
        ]
    )
