"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP from a thread of its own.

Where to, with which headers and certificates, how many wait and how many go together is set by
OpenTelemetry's environment variables; docs/operations.md has those that count.

Invariants:

- To begin and to end a span waits for nothing: what finds too many waiting is lost, and counted.
- Whatever becomes of the collector, no caller notices.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from threading import Lock, Thread
from time import monotonic
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as OpenTelemetrySpan
from typing_extensions import override

from licet.telemetry.tracing import Attributes, Parent

_log: Final = logging.getLogger(__name__)

STOP_SECONDS: Final = 3.0
"""How long spans that wait may take to be sent when the process stops."""
LOG_SECONDS: Final = 60.0
"""How often a line is logged of what goes wrong, at most."""

_NAME: Final = "licet"
_QUEUE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
_MOST_WAITING: Final = 2048
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_FILES: Final = tuple(
    f"OTEL_EXPORTER_OTLP_{signal}{file}"
    for signal in ("", "TRACES_")
    for file in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
)
_ERROR: Final = Status(StatusCode.ERROR)


class OtlpTracer:
    """See the module."""

    def __init__(self, version: str) -> None:
        """Begin to send, as this version of licet.

        Raises:
            ValueError: a variable of the environment cannot be used; the message names it.
        """
        _check_environment()
        _log_seldom()
        self._counts = _Counts(_most_waiting())
        self._exporter = _Exporter(OTLPSpanExporter(), self._counts)
        self._provider = TracerProvider(
            # Which calls are sampled was found before a span was made.
            sampler=ALWAYS_ON,
            resource=_resource(version),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(_Queue(self._exporter, self._counts))
        self._tracer = self._provider.get_tracer(_NAME, version)

    @property
    def sent(self) -> int:
        """See `Tracer`."""
        return self._counts.sent

    @property
    def lost(self) -> int:
        """See `Tracer`."""
        return self._counts.lost

    def start(self, name: str, parent: Parent | None, attributes: Attributes) -> _Span:
        """See `Tracer`."""
        context = Context()
        if parent is not None:
            flags = TraceFlags(TraceFlags.SAMPLED)
            caller = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
            context = set_span_in_context(NonRecordingSpan(caller), context)
        return _Span(self._tracer.start_span(name, context, SpanKind.SERVER, attributes))

    def stop(self) -> None:
        """Send what waits, for so long at most; what is left then is lost."""
        # OpenTelemetry's own end takes half a minute when the collector hangs.
        ending = Thread(target=self._provider.shutdown, name="licet-last-spans", daemon=True)
        ending.start()
        ending.join(STOP_SECONDS)
        self._exporter.shutdown()
        if self._counts.waiting:
            _log.warning("%d spans could not be sent any more", self._counts.waiting)


class _Span:
    """See `Span`."""

    __slots__ = ("_span",)

    def __init__(self, span: OpenTelemetrySpan) -> None:
        self._span = span

    def end(self, attributes: Attributes, *, is_error: bool) -> None:
        """See `Span`."""
        self._span.set_attributes(attributes)
        if is_error:
            self._span.set_status(_ERROR)
        self._span.end()


class _Counts:
    """How many spans wait, were sent, and were lost."""

    def __init__(self, most: int) -> None:
        self._most = most
        # Guards the following; held for a few additions.
        self._mutex = Lock()
        self.waiting = 0
        """Those included that are being sent."""
        self.sent = 0
        self.lost = 0

    def enter(self) -> bool:
        """Have one more wait; False: too many do, and it is lost."""
        with self._mutex:
            if self.waiting >= self._most:
                self.lost += 1
                return False
            self.waiting += 1
            return True

    def leave(self, count: int, *, is_sent: bool) -> None:
        """Note what became of those that were to be sent."""
        with self._mutex:
            self.waiting -= count
            if is_sent:
                self.sent += count
            else:
                self.lost += count


class _Queue(BatchSpanProcessor):
    """Never full: when it is, OpenTelemetry's drops another span, and logs on the thread of a call.

    That may be gRPC's serving thread, which must not wait for a log.
    """

    def __init__(self, exporter: SpanExporter, counts: _Counts) -> None:
        super().__init__(exporter, max_queue_size=_most_waiting())
        self._counts = counts

    @override
    def on_end(self, span: ReadableSpan) -> None:
        if self._counts.enter():
            super().on_end(span)


class _Exporter(SpanExporter):
    """Counts what another one sends."""

    def __init__(self, exporter: SpanExporter, counts: _Counts) -> None:
        self._exporter = exporter
        self._counts = counts
        self._is_shut = False

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._counts.leave(len(spans), is_sent=result is SpanExportResult.SUCCESS)
        return result

    @override
    def shutdown(self) -> None:
        # Twice, when what was under way had to be given up.
        if not self._is_shut:
            self._is_shut = True
            self._exporter.shutdown()


class _Seldom(logging.Handler):
    """Logs one of OpenTelemetry's messages now and then, and how many there were.

    It has several for each batch that cannot be sent.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0
        self._held = 0

    @override
    def emit(self, record: logging.LogRecord) -> None:
        now = monotonic()
        if now < self._next:
            self._held += 1
            return
        held, self._held = self._held, 0
        self._next = now + LOG_SECONDS
        _log.warning("spans: %s (%d messages since the last)", record.getMessage(), held)


def _log_seldom() -> None:
    theirs = logging.getLogger("opentelemetry")
    theirs.handlers[:] = [_Seldom()]
    theirs.propagate = False


def _resource(version: str) -> Resource:
    """Return what sends: as the environment names it, otherwise as licet."""
    named = OTELResourceDetector().detect().attributes
    return Resource.create({"service.name": _NAME, "service.version": version, **named})


def _most_waiting() -> int:
    text = os.environ.get(_QUEUE) or str(_MOST_WAITING)
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{_QUEUE} must be a whole number above 0")
    return int(text)


def _check_environment() -> None:
    """Refuse what OpenTelemetry would find out with the first span, or not at all."""
    for name in _ENDPOINTS:
        value = os.environ.get(name)
        if value and not value.startswith(("http://", "https://")):
            # Without the value: it may have a password in it.
            raise ValueError(f"{name} must begin with http:// or https://")
    for name in _PROTOCOLS:
        value = os.environ.get(name)
        if value and value != _PROTOCOL:
            raise ValueError(f"{name} must be {_PROTOCOL}: nothing else is spoken")
    for name in _FILES:
        value = os.environ.get(name)
        if value and not os.access(value, os.R_OK):
            raise ValueError(f"{name}: {value} cannot be read")
