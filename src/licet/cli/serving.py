"""Runs the server in this process, from the first signal handler to the last connection closed."""

from __future__ import annotations

import json
import logging
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Final

from licet import __version__, config
from licet.cli.database import describe
from licet.cli.errors import CommandError
from licet.cli.signals import StopSignals
from licet.domain.errors import LicetError
from licet.storage.embedded import EmbeddedPostgresError
from licet.storage.migrate import MigrationError
from licet.supervisor import CoresError, Reports, check_cores, follow_supervisor, keep_to
from licet.telemetry import logs

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.bootstrap.process import Licet

_log: Final = logging.getLogger(__name__)

_CANNOT_SERVE: Final = (
    *(config.ConfigurationError, CoresError),
    *(LicetError, EmbeddedPostgresError, MigrationError),
)
_LOOK_SECONDS: Final = 1.0
_ANYBODY: Final = (
    "CALLERS ARE NOT AUTHENTICATED: whoever can connect to %s is admin;"
    " LICET_AUTHENTICATION=required changes that"
)
# Expanded by grpcurl and not by the shell: every account of the machine can see arguments.
_KEY_HEADER: Final = " -expand-headers -H 'authorization: Bearer ${LICET_API_KEY}'"
_SERVICE: Final = "licet.v1.AuthorizationService"
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
    stop = StopSignals(is_worker=reports is not None)
    if reports is not None:
        follow_supervisor()
    try:
        settings = config.load(**overrides)
        logs.configure(settings.log_level, settings.log_format)
        check_cores(settings.cores)
        if settings.workers > 1:
            # Without gRPC: it has no business in a process that starts others.
            from licet.cli.supervising import supervise  # noqa: PLC0415

            return supervise(
                settings, lambda port: _greet(settings, port), lambda: stop.requested is not None
            )
        from licet.bootstrap.process import Licet, settle  # noqa: PLC0415 - see above

        licet = Licet(
            settings,
            shares_port=reports is not None,
            report=None if reports is None else reports.serves,
            has_steward=reports is None,
        ).start()
        settle()
    except _CANNOT_SERVE as exc:
        if stop.requested is not None:
            return 0  # a Ctrl-C reaches initdb as well, which fails then
        raise CommandError(str(exc)) from exc
    try:
        for core in settings.cores[:1]:
            keep_to(core)
        if reports is not None:
            _work(licet, reports, stop)
        else:
            if stop.requested is None:
                _greet(settings, licet.server.port)
            _wait(licet, stop)
    finally:
        licet.stop()
    return 0


def _work(licet: Licet, reports: Reports, stop: StopSignals) -> None:
    """Serve as one of several workers until told to end; SIGTERM: the others go on."""
    reports.ready(licet.metrics_port)
    number = _wait(licet, stop)
    reports.leaving()
    if number == signal.SIGTERM:
        licet.server.hand_over(lambda seconds: stop.wait(seconds) is not None)


def _wait(licet: Licet, stop: StopSignals) -> int:
    """Return the signal that says to end.

    Raises:
        CommandError: this process cannot record anything any more; another one, with a spool of its
            own, can.
    """
    while (number := stop.wait(_LOOK_SECONDS)) is None:
        failure = licet.failure
        if failure is not None:
            raise CommandError(f"no decision can be recorded by this process: {failure}")
    return number


def _grpcurl_options(settings: config.Settings) -> str:
    if settings.address is None:
        return "-plaintext -unix"
    if settings.tls_cert_file is None:
        return "-plaintext"
    if settings.tls_client_ca_file is None:
        return "-cacert CA_FILE"
    return "-cacert CA_FILE -cert CERT_FILE -key KEY_FILE"


def _callers(settings: config.Settings) -> str:
    if settings.admits_anonymous:
        return "anybody who can connect is admin"
    key = "an API key; `licet init` makes the first"
    if settings.tls_callers_file is None:
        return f"need {key}"
    return f"need a certificate that is in {settings.tls_callers_file}, or {key}"


def _greet(settings: config.Settings, port: int) -> None:
    if settings.admits_anonymous:
        _log.warning(_ANYBODY, _where(settings, port))
    sys.stdout.write(_greeting(settings, port))
    sys.stdout.flush()


def _where(settings: config.Settings, port: int) -> str:
    port_and_socket = (
        None if settings.address is None else f"{settings.address.rpartition(':')[0]}:{port}",
        None if settings.socket is None else f"unix:{settings.socket}",
    )
    return " and ".join(filter(None, port_and_socket))


def _target(settings: config.Settings, port: int) -> str:
    if settings.address is None:
        return shlex.quote(str(settings.socket))
    host = settings.address.rpartition(":")[0]
    return f"{_WILDCARDS.get(host, host)}:{port}"


def _greeting(settings: config.Settings, port: int) -> str:
    target, how = _target(settings, port), _grpcurl_options(settings)
    if not settings.admits_anonymous and settings.tls_callers_file is None:
        how += _KEY_HEADER
    calls = [
        f"  grpcurl {how} -d {shlex.quote(json.dumps(request))} {target} {_SERVICE}/{method}"
        for method, request in _EXAMPLES
    ]
    return "\n".join(
        [
            f"licet {__version__} serves on {_where(settings, port)}",
            f"database: {describe(settings)}",
            f"callers: {_callers(settings)}",
            "",
            "Try it: grant, ask, and see both on record.",
            "",
            *calls,
            "",
            "Ctrl-C stops it.",
            "",
        ]
    )
