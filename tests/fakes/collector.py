"""A collector of spans, by OTLP over HTTP on a real socket, and callers who have a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from typing_extensions import override

from tests.fakes.postgres import eventually

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
UNSAMPLED = f"00-{TRACE}-{CALLER}-00"


def traced(traceparent: str = SAMPLED) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call that is part of a trace."""
    return (("traceparent", traceparent),)


def said(attributes: list[KeyValue]) -> dict[str, str | int]:
    """Return attributes by their names."""
    return {one.key: _value(one.value) for one in attributes}


def _value(value: AnyValue) -> str | int:
    return value.int_value if value.HasField("int_value") else value.string_value


class Collector:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        """Have nothing, and answer with OK."""
        # Guards the following: each request has a thread.
        self._mutex = Lock()
        self._requests: list[ExportTraceServiceRequest] = []
        self.attempts = 0
        """How many requests came."""
        self.status = HTTPStatus.OK
        """What it answers; what it does not answer with OK it does not keep."""
        self.goes_on = Event()
        """While this is not set, it does not answer."""
        self.goes_on.set()
        self.url = ""

    @property
    def spans(self) -> list[Span]:
        """Those that came, in order."""
        with self._mutex:
            return [
                span
                for request in self._requests
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]

    @property
    def resource(self) -> dict[str, str | int]:
        """What the last sender said of itself."""
        with self._mutex:
            return said(list(self._requests[-1].resource_spans[-1].resource.attributes))

    def one(self) -> Span:
        """Wait for the only span that there is."""
        assert eventually(lambda: len(self.spans) > 0)
        (span,) = self.spans
        return span

    def take(self, body: bytes) -> HTTPStatus:
        """Receive a request; return the status to answer with."""
        self.goes_on.wait(30)
        with self._mutex:
            self.attempts += 1
            if self.status is HTTPStatus.OK:
                self._requests.append(ExportTraceServiceRequest.FromString(body))
            return self.status


@contextmanager
def collecting(patch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Run a collector, to which servers that start meanwhile send at once what they have."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            status = collector.take(self.rfile.read(int(self.headers["content-length"])))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        @override
        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of clients that have gone."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        patch.setenv(ENDPOINT, collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.goes_on.set()
            server.shutdown()
            thread.join(10)
