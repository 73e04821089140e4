"""The composition of tracing."""

from __future__ import annotations

from contextlib import ExitStack

from licet import __version__
from licet.config import Settings
from licet.domain.errors import UnavailableError
from licet.server.spans import Spans


def start_tracing(settings: Settings, stack: ExitStack) -> Spans | None:
    """Return what makes spans of sampled calls; None: nobody wants any. Ended with the stack.

    Raises:
        UnavailableError: what it takes is not installed, or is not set as it must be.
    """
    if not settings.tracing:
        return None
    try:
        # An extra, and a hundred modules that nobody needs otherwise.
        from licet.telemetry.otlp import OtlpTracer  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise UnavailableError(
            f"LICET_TRACING: there is no module {exc.name}: install licet with its extra,"
            " `licet[tracing]`"
        ) from exc
    try:
        tracer = OtlpTracer(__version__)
    except ValueError as exc:
        raise UnavailableError(f"LICET_TRACING: {exc}") from exc
    stack.callback(tracer.stop)
    return Spans(tracer, settings.tracing_share, settings.tracing_rate)
