"""`licet steward`: the process that `licet serve` starts beside its workers, and nobody else."""

from __future__ import annotations

import signal
from typing import Final

from licet.cli.errors import CommandError

_REPORT_SECONDS: Final = 1.0


def steward() -> int:
    """Seal, sign and verify the audit log of a host whose workers serve. Started by `serve`."""
    from licet import config  # noqa: PLC0415 - see the package
    from licet.bootstrap.steward import StewardProcess  # noqa: PLC0415
    from licet.cli.signals import StopSignals  # noqa: PLC0415
    from licet.domain.errors import LicetError  # noqa: PLC0415
    from licet.supervisor import Reports, follow_supervisor  # noqa: PLC0415
    from licet.telemetry import logs  # noqa: PLC0415

    reports = Reports.of_environment()
    if reports is None:
        raise CommandError("`licet serve` starts the steward, beside its workers")
    stop = StopSignals(is_worker=True)
    follow_supervisor()
    try:
        settings = config.load()
        logs.configure(settings.log_level, settings.log_format)
        process = StewardProcess(settings).start()
    except (config.ConfigurationError, LicetError) as exc:
        if stop.requested is not None:
            return 0
        raise CommandError(str(exc)) from exc
    try:
        reports.ready(process.metrics_port)
        # Only SIGINT ends it. SIGTERM may have been sent to everyone by whoever stops the service,
        # and then the workers have decisions that are not stored yet: the supervisor knows.
        while (number := stop.wait(_REPORT_SECONDS)) != signal.SIGINT:
            if number is None:
                reports.serves(process.is_well)
            else:
                reports.leaving()
    finally:
        process.stop()
    return 0
