"""A collector that is away, slow or full is its operator's concern, and no caller's."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from time import monotonic

import pytest

from licet.domain.errors import UnavailableError
from licet.telemetry import otlp
from licet.v1 import authorization_pb2 as pb
from tests.fakes.collector import ENDPOINT, Collector, collecting, traced
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.integration.test_metrics import scraped

QUESTION = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
LOGGER = "licet.telemetry.otlp"


def decide(served: Served, count: int) -> None:
    for _ in range(count):
        answer = served.stub.Authorize(QUESTION, timeout=10, metadata=traced())
        assert answer.decision_id


@contextmanager
def tracing(database: Database, **settings: object) -> Iterator[Served]:
    with serving(database, tracing=True, metrics_listen="127.0.0.1:0", **settings) as served:
        yield served


def counts(served: Served) -> tuple[float, float]:
    """Return how many spans were sent, and lost."""
    found = scraped(served)
    return found["licet_spans_sent_total"], found["licet_spans_lost_total"]


def more_lost(served: Served, than: float) -> bool:
    return counts(served)[1] > than


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting(monkeypatch) as running:
        yield running


def test_what_waits_is_sent_when_the_server_stops(
    database: Database, collector: Collector, monkeypatch: pytest.MonkeyPatch, both_ways: str
) -> None:
    assert both_ways
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    with tracing(database) as served:
        decide(served, 5)
        assert counts(served) == (0, 0)
        assert collector.spans == []
    assert len(collector.spans) == 5


def test_without_a_collector_calls_are_answered_and_one_line_is_logged(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    both_ways: str,
) -> None:
    assert both_ways
    with socket.socket() as nobody, caplog.at_level(logging.WARNING, LOGGER):
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
        with tracing(database) as served:
            for _ in range(3):
                lost = counts(served)[1]
                decide(served, 1)
                assert eventually(partial(more_lost, served, lost))
            assert counts(served) == (0, 3)
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert len(lines) == 1
    assert lines[0].startswith("spans: ")
    assert not any(record.name.startswith("opentelemetry") for record in caplog.records)


def test_what_a_collector_refuses_is_lost_and_the_next_is_not(
    database: Database, collector: Collector
) -> None:
    with tracing(database) as served:
        collector.status = HTTPStatus.BAD_REQUEST
        decide(served, 1)
        assert eventually(lambda: counts(served) == (0, 1))
        collector.status = HTTPStatus.OK
        decide(served, 2)
        assert eventually(lambda: counts(served) == (2, 1))
    assert len(collector.spans) == 2


def test_a_collector_that_hangs_holds_up_no_call_and_the_stop_for_a_time(
    database: Database,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    both_ways: str,
) -> None:
    assert both_ways
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setattr(otlp, "STOP_SECONDS", 0.5)
    collector.goes_on.clear()
    with caplog.at_level(logging.WARNING, LOGGER), tracing(database) as served:
        decide(served, 10)
        # Four wait, those that are under way included.
        assert eventually(lambda: counts(served) == (0, 6))
        before = monotonic()
        served.licet.stop()
        assert monotonic() - before < 8
    assert collector.spans == []
    assert any("4 spans could not be sent" in record.getMessage() for record in caplog.records)


def test_of_more_calls_than_the_rate_the_spans_are_lost(
    database: Database, collector: Collector, both_ways: str
) -> None:
    assert both_ways
    with tracing(database, tracing_rate=1) as served:
        before = monotonic()
        decide(served, 20)
        most = 2 + int(monotonic() - before)
        assert eventually(lambda: sum(counts(served)) == 20)
        assert 1 <= counts(served)[0] <= most
    assert 1 <= len(collector.spans) <= most


def test_a_share_of_the_calls_without_a_trace_is_sampled(
    database: Database, collector: Collector, both_ways: str
) -> None:
    assert both_ways
    with tracing(database, tracing_share=1.0) as served:
        served.stub.Authorize(QUESTION, timeout=10)
        span = collector.one()
        assert span.parent_span_id == b""
        assert len(span.trace_id) == 16
        assert any(span.trace_id)
        served.stub.Authorize(QUESTION, timeout=10, metadata=traced("garbage"))
        assert eventually(lambda: len(collector.spans) == 2)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (ENDPOINT, "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/nowhere/client.key"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
    ],
)
def test_a_server_does_not_start_with_a_variable_that_cannot_be_used(
    database: Database, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UnavailableError, match=f"LICET_TRACING: {variable}"), tracing(database):
        pass


def test_without_opentelemetry_the_start_says_what_to_install(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "licet.telemetry.otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UnavailableError, match=r"opentelemetry\.sdk\.trace.*`licet\[tracing\]`"):
        tracing(database).__enter__()


_OFF = """
import sys
from licet import config
from licet.bootstrap.process import Licet
from licet.client import Client
from licet.cli import main

licet = Licet(config.load(listen="127.0.0.1:0", metrics_listen="127.0.0.1:0")).start()
try:
    with Client(f"127.0.0.1:{licet.server.port}") as client:
        client.authorize("agent:a", "read", "doc:x")
finally:
    licet.stop()
theirs = {"opentelemetry", "requests"}
print(sorted(name for name in sys.modules if name.partition(".")[0] in theirs))
"""


def test_without_tracing_nothing_of_it_is_imported(database: Database) -> None:
    environment = os.environ | {"LICET_DATABASE_URL": database.url}
    done = subprocess.run(
        [sys.executable, "-c", _OFF],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
