"""Spans of sampled calls, as a collector finds them: on both ways to serve."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event
from typing import Any, NoReturn

import grpc
import pytest
from grpc_health.v1 import health_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

from licet import __version__
from licet.domain import names
from licet.v1 import authorization_pb2 as pb
from licet.v1 import users_pb2
from licet.v1.identity_pb2_grpc import IdentityServiceStub
from tests.fakes.api import all_stored, count, refused, rows, struct
from tests.fakes.collector import (
    CALLER,
    SAMPLED,
    TRACE,
    UNSAMPLED,
    Collector,
    collecting,
    said,
    traced,
)
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.serving import Served, serving

SERVICE = "licet.v1.AuthorizationService"
_WAITING = (
    "SELECT count(*) FROM pg_locks WHERE relation = 'licet.capabilities'::regclass AND NOT granted"
)


@pytest.fixture(scope="module")
def shared(
    cluster: Cluster, migrated_template: Database, both_ways: str
) -> Iterator[tuple[Served, Collector]]:
    """Provide one server for all, and its collector."""
    assert both_ways
    with (
        pytest.MonkeyPatch.context() as patch,
        collecting(patch) as collector,
        cluster.database(migrated_template) as database,
        serving(database, tracing=True, metrics_listen="127.0.0.1:0") as served,
    ):
        served.grant("agent:a", "read", "doc:x")
        yield served, collector


@pytest.fixture
def served(shared: tuple[Served, Collector]) -> Served:
    return shared[0]


class Seen:
    """The spans that came since a test began."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._before = len(collector.spans)

    def __call__(self, count: int = 1) -> list[Span]:
        assert eventually(lambda: len(self._collector.spans) >= self._before + count)
        found = self._collector.spans[self._before :]
        assert len(found) == count
        return found


@pytest.fixture
def seen(shared: tuple[Served, Collector]) -> Seen:
    return Seen(shared[1])


def ask(principal: str = "agent:a", **fields: Any) -> pb.AuthorizeRequest:  # noqa: ANN401 - any field
    return pb.AuthorizeRequest(principal=principal, action="read", resource="doc:x", **fields)


def test_a_sampled_decision_is_a_span_of_its_callers_trace(
    shared: tuple[Served, Collector], seen: Seen
) -> None:
    served, collector = shared
    answer = served.stub.Authorize(ask(), timeout=10, metadata=traced())
    (span,) = seen()
    assert (span.name, span.kind) == (f"{SERVICE}/Authorize", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
    assert span.span_id.hex() not in {CALLER, ""}
    assert span.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert said(list(span.attributes)) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "Authorize",
        "rpc.grpc.status_code": 0,
        "licet.decision": "ALLOW",
        "licet.reason": "GRANTED",
        "licet.decision_id": answer.decision_id,
    }
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 10_000_000_000
    assert collector.resource["service.name"] == "licet"
    assert collector.resource["service.version"] == __version__


def test_a_denial_is_no_error(served: Served, seen: Seen) -> None:
    served.stub.Authorize(ask("agent:nobody"), timeout=10, metadata=traced())
    (span,) = seen()
    attributes = said(list(span.attributes))
    assert (attributes["licet.decision"], attributes["licet.reason"]) == ("DENY", "NO_CAPABILITY")
    assert span.status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize(
    "traceparent",
    [
        UNSAMPLED,
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{CALLER}-01",
        f"{SAMPLED}-more",
        SAMPLED.upper(),
        "garbage",
        "",
    ],
)
def test_of_other_calls_there_is_no_span(served: Served, seen: Seen, traceparent: str) -> None:
    answer = served.stub.Authorize(ask(), timeout=10, metadata=traced(traceparent))
    assert answer.decision == 1
    served.stub.Authorize(ask(), timeout=10)
    served.stub.Authorize(ask(), timeout=10, metadata=traced())
    seen(1)  # of the last one, and nothing came before


def test_a_later_version_of_the_header_is_understood(served: Served, seen: Seen) -> None:
    served.stub.Authorize(ask(), timeout=10, metadata=traced(f"01-{TRACE}-{CALLER}-03-more"))
    (span,) = seen()
    assert span.trace_id.hex() == TRACE


def test_a_batch_says_how_many_it_decided(served: Served, seen: Seen) -> None:
    batch = pb.BatchAuthorizeRequest(requests=[ask(), ask("agent:nobody"), ask()])
    served.stub.BatchAuthorize(batch, timeout=10, metadata=traced())
    (span,) = seen()
    attributes = said(list(span.attributes))
    assert span.name == f"{SERVICE}/BatchAuthorize"
    assert (attributes["licet.decisions"], attributes["licet.decisions.allowed"]) == (3, 2)


def test_a_stream_is_one_span(served: Served, seen: Seen) -> None:
    messages: SimpleQueue[pb.StreamAuthorizeRequest | None] = SimpleQueue()
    answers = served.stub.StreamAuthorize(iter(messages.get, None), timeout=30, metadata=traced())
    for principal in ("agent:a", "agent:nobody"):
        messages.put(pb.StreamAuthorizeRequest(requests=[ask(principal), ask()]))
        next(answers)
    messages.put(None)
    assert list(answers) == []
    (span,) = seen()
    attributes = said(list(span.attributes))
    assert (span.name, span.trace_id.hex()) == (f"{SERVICE}/StreamAuthorize", TRACE)
    assert (attributes["licet.decisions"], attributes["licet.decisions.allowed"]) == (4, 3)
    assert attributes["rpc.grpc.status_code"] == 0


def test_what_is_refused_has_its_status(served: Served, seen: Seen) -> None:
    refused(lambda: served.stub.Authorize(ask("Agent:"), timeout=10, metadata=traced()))
    (span,) = seen()
    attributes = said(list(span.attributes))
    assert attributes["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "licet.decision" not in attributes
    assert span.status.code == Status.STATUS_CODE_UNSET


def test_a_stream_that_fails_has_its_status_and_what_it_decided(served: Served, seen: Seen) -> None:
    messages = [pb.StreamAuthorizeRequest(requests=[ask(name)]) for name in ("agent:a", "Agent:")]
    answers = served.stub.StreamAuthorize(iter(messages), timeout=30, metadata=traced())
    assert refused(lambda: list(answers)).code is grpc.StatusCode.INVALID_ARGUMENT
    (span,) = seen()
    attributes = said(list(span.attributes))
    assert attributes["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert attributes["licet.decisions"] == 1


def test_a_caller_who_is_nobody_has_a_span_that_says_so(served: Served, seen: Seen) -> None:
    metadata = (*traced(), ("authorization", "Bearer what-nobody-is-to-see"))
    refused(lambda: served.stub.Authorize(ask(), timeout=10, metadata=metadata))
    (span,) = seen()
    attributes = said(list(span.attributes))
    assert attributes["rpc.grpc.status_code"] == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert b"nobody-is-to-see" not in span.SerializeToString()


def test_a_stream_whose_client_goes_is_cancelled(
    served: Served, seen: Seen, both_ways: str
) -> None:
    over = Event()

    def messages() -> Iterator[pb.StreamAuthorizeRequest]:
        yield pb.StreamAuthorizeRequest(requests=[ask()])
        over.wait(30)

    streams = 20  # of some, the server is told first that there is no further message
    for _ in range(streams):
        answers = served.stub.StreamAuthorize(messages(), timeout=30, metadata=traced())
        next(answers)
        answers.cancel()
    spans = [said(list(span.attributes)) for span in seen(streams)]
    over.set()
    # A thread does not learn why there is none.
    codes = {grpc.StatusCode.CANCELLED.value[0]} | ({0} if both_ways == "stock" else set())
    assert {span["rpc.grpc.status_code"] for span in spans} <= codes
    assert {span["licet.decisions"] for span in spans} == {1}


def test_a_call_whose_client_goes_is_cancelled(served: Served, seen: Seen) -> None:
    with served.database.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE licet.capabilities")
        call = served.stub.Authorize.future(ask("agent:new"), timeout=30, metadata=traced())
        assert eventually(lambda: count(served.database, _WAITING) > 0)
        call.cancel()
        (span,) = seen()
    attributes = said(list(span.attributes))
    assert attributes["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]
    assert eventually(lambda: served.licet.server.decisions.under_way == 0)


def test_a_defect_is_an_error(served: Served, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(_: object) -> NoReturn:
        raise RuntimeError("planted")

    monkeypatch.setattr(names, "principal", planted)
    refused(lambda: served.stub.Authorize(ask(), timeout=10, metadata=traced()))
    (span,) = seen()
    attributes = said(list(span.attributes))
    assert attributes["rpc.grpc.status_code"] == grpc.StatusCode.INTERNAL.value[0]
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert not span.status.message
    assert not span.events


def test_other_calls_have_spans_too_and_say_nothing_of_what_they_are_about(
    served: Served, seen: Seen
) -> None:
    grant = pb.GrantRequest(principal="agent:secret", actions=["read"], resource="doc:secret")
    served.stub.Grant(grant, timeout=10, metadata=traced())
    users = IdentityServiceStub(served.channel)
    unknown = users_pb2.GetUserRequest(principal="user:secret")
    refused(lambda: users.GetUser(unknown, timeout=10, metadata=traced()))
    watch = served.stub.WatchChanges(pb.WatchChangesRequest(), timeout=30, metadata=traced())
    next(watch)
    watch.cancel()
    asked = ask("agent:secret", session_id="secret")
    asked.context.CopyFrom(struct(secret="secret"))
    served.stub.Authorize(asked, timeout=10, metadata=traced())
    found = {span.name: said(list(span.attributes)) for span in seen(4)}
    codes = {name: attributes["rpc.grpc.status_code"] for name, attributes in found.items()}
    assert codes == {
        f"{SERVICE}/Grant": 0,
        "licet.v1.IdentityService/GetUser": grpc.StatusCode.NOT_FOUND.value[0],
        f"{SERVICE}/WatchChanges": grpc.StatusCode.CANCELLED.value[0],
        f"{SERVICE}/Authorize": 0,
    }
    assert "secret" not in str(found)


def test_health_has_no_span(served: Served, seen: Seen) -> None:
    stub: Any = served.health  # the published stubs know none of its methods
    stub.Check(health_pb2.HealthCheckRequest(), timeout=10, metadata=traced())
    served.stub.Authorize(ask(), timeout=10, metadata=traced())
    (span,) = seen()
    assert span.name == f"{SERVICE}/Authorize"


def test_what_is_on_record_has_the_trace_id_that_the_request_has_and_no_other(
    served: Served, seen: Seen
) -> None:
    own = served.stub.Authorize(ask(trace_id="own"), timeout=10, metadata=traced())
    none = served.stub.Authorize(ask(), timeout=10, metadata=traced())
    seen(2)
    assert all_stored(served.database, [own.decision_id, none.decision_id])
    query = "SELECT trace_id FROM audit.events WHERE event_id = ANY(%s::uuid[]) ORDER BY trace_id"
    assert rows(served.database, query, [own.decision_id, none.decision_id]) == [("",), ("own",)]
