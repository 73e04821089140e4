"""The server around the service: health, reflection, limits, deadlines, draining, restarts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic
from typing import Any, LiteralString

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_ALLOW, REASON_CAPABILITY_REVOKED
from tests.fakes.api import ASKED_FOR, count, refused, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import PostgresProxy
from tests.fakes.serving import Served, serving

SERVICE = "licet.v1.AuthorizationService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def _health(served: Served, service: str = "") -> int:
    stub: Any = served.health  # the published stubs know none of its methods
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)


def _question(**fields: Any) -> pb.AuthorizeRequest:  # noqa: ANN401 - a field of the request
    return pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x", **fields)


@pytest.mark.parametrize("service", ["", SERVICE])
def test_a_server_is_healthy_as_soon_as_it_serves(served: Served, service: str) -> None:
    assert _health(served, service) == SERVING


def test_the_health_of_an_unknown_service_is_not_found(served: Served) -> None:
    assert refused(lambda: _health(served, "x")).code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [
        (
            "UPDATE licet.migrations SET sha256 = 'x' || sha256 WHERE id LIKE '0001%%'",
            "UPDATE licet.migrations SET sha256 = right(sha256, -1) WHERE id LIKE '0001%%'",
        ),
        (
            "INSERT INTO licet.migrations (id, sha256) VALUES ('9999.newer', '')",
            "DELETE FROM licet.migrations WHERE id = '9999.newer'",
        ),
    ],
    ids=["changed", "unknown"],
)
def test_a_server_is_unhealthy_while_the_schema_is_not_the_expected_one(
    served: Served, database: Database, spoil: LiteralString, mend: LiteralString
) -> None:
    with database.connect() as admin:
        admin.execute(spoil)
        for service in ("", SERVICE):
            assert eventually(lambda s=service: _health(served, s) == NOT_SERVING, 5)  # type: ignore[misc] # bound now
        admin.execute(mend)
        assert eventually(lambda: _health(served) == SERVING, 5)


def test_a_server_is_unhealthy_when_its_database_is_gone(database: Database) -> None:
    with PostgresProxy(database) as proxy, serving(proxy.database) as served:
        proxy.go_down()
        assert eventually(lambda: _health(served) == NOT_SERVING, 5)
        proxy.come_back()
        assert eventually(lambda: _health(served) == SERVING, 5)


def _reflected(
    served: Served, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    (response,) = stub.ServerReflectionInfo(iter([request]), timeout=5)
    assert isinstance(response, reflection_pb2.ServerReflectionResponse)
    return response


def test_reflection_lists_and_describes_the_services(served: Served) -> None:
    listed = _reflected(served, reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in listed.list_services_response.service}
    assert names >= {SERVICE, "grpc.health.v1.Health"}
    described = _reflected(
        served, reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
    )
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in described.file_descriptor_response.file_descriptor_proto
    ]
    (service,) = (s for f in files for s in f.service if f.package == "licet.v1")
    assert {method.name for method in service.method} == {
        "Authorize",
        "BatchAuthorize",
        "StreamAuthorize",
        "Grant",
        "Revoke",
        "GetCapability",
        "ListCapabilities",
        "QueryAudit",
        "WatchChanges",
    }


def test_idle_reflection_streams_do_not_shut_out_other_calls(database: Database) -> None:
    with serving(database, threads=2) as served:
        end = Event()

        def requests() -> Any:  # noqa: ANN401 - a generator
            yield reflection_pb2.ServerReflectionRequest(list_services="")
            end.wait(20)

        stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        streams = [stub.ServerReflectionInfo(requests()) for _ in range(2)]
        try:
            for stream in streams:
                next(stream)
            served.stub.Authorize(_question(), timeout=2)
        finally:
            end.set()
            for stream in streams:
                stream.cancel()


def test_a_message_over_the_limit_is_refused_before_it_is_read(served: Served) -> None:
    large = _question(trace_id="x" * (4 * 1024 * 1024 + 1))
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        # Compressed, it is a small message that unfolds into a large one.
        exhausted = refused(
            lambda c=compression: served.stub.Authorize(large, timeout=5, compression=c)  # type: ignore[misc] # bound now
        )
        assert exhausted.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served.stub.Authorize(_question(), timeout=5).decision_id


def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    for method in (f"/{SERVICE}/Nothing", "/licet.v2.Other/Authorize", "/x"):
        call: Callable[..., object] = served.channel.unary_unary(method)
        assert refused(lambda c=call: c(b"", timeout=5)).code is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[misc] # bound now


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_deadline_in_the_past_does_nothing(
    served: Served, database: Database, seconds: float
) -> None:
    grant = pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:x")
    late = refused(lambda: served.stub.Grant(grant, timeout=seconds))
    assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert count(database, "SELECT count(*) FROM licet.capabilities") == 0


@pytest.mark.parametrize("locked", ["licet.capabilities", "licet.changes"])
def test_a_deadline_ends_the_statement_in_postgresql(
    served: Served, database: Database, locked: str
) -> None:
    running = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'licet' AND wait_event_type = 'Lock'"""
    with database.connect() as other, other.transaction():
        other.execute(
            "LOCK TABLE licet.capabilities"
            if locked == "licet.capabilities"
            else "LOCK TABLE licet.changes"
        )
        began = monotonic()
        late = refused(lambda: served.stub.Authorize(_question(), timeout=0.3))
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert monotonic() - began < 2
        assert eventually(lambda: count(database, running) == 0, 2)
    assert served.stub.Authorize(_question(), timeout=5).decision_id


def test_stopping_lets_running_calls_end(database: Database) -> None:
    with ThreadPoolExecutor(2) as pool, database.connect() as other:
        with serving(database, drain_seconds=5) as served:
            other.execute("SELECT pg_advisory_lock(20010)")
            slow = pool.submit(served.grant, "agent:a", "read", "doc:x")
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            assert eventually(lambda: count(database, waiting) == 1)
            stopping = pool.submit(served.licet.stop)
            assert eventually(lambda: _refuses(served))
            other.execute("SELECT pg_advisory_unlock(20010)")
            granted = slow.result(10)
            stopping.result(10)
        assert rows(database, "SELECT id::text FROM licet.capabilities") == [(granted,)]


def _refuses(served: Served) -> bool:
    """Whether the server takes no new calls."""
    try:
        return _health(served) == NOT_SERVING
    except grpc.RpcError:
        return True


def test_everything_granted_before_a_restart_is_there_after(database: Database) -> None:
    with serving(database) as served:
        root = served.grant("agent:root", "read", "doc:**", delegation_depth=2)
        kept = served.grant("agent:a", "read", "doc:x", parent_capability_id=root)
        ended = served.grant("agent:b", "read", "doc:x", request_id="key-1")
        served.stub.Revoke(pb.RevokeRequest(capability_id=ended), timeout=10)
        before = served.stub.ListCapabilities(
            pb.ListCapabilitiesRequest(include_ended=True), timeout=10
        )
        first = served.stub.QueryAudit(
            pb.QueryAuditRequest(page_size=1, event_types=ASKED_FOR), timeout=10
        )
        decided = served.authorize("agent:a", "read", "doc:x")
        assert decided.decision == DECISION_ALLOW
    with serving(database) as served:
        again = served.authorize("agent:a", "read", "doc:x")
        assert (again.decision, again.capability_id) == (DECISION_ALLOW, kept)
        assert again.revision == decided.revision
        assert again.decision_id != decided.decision_id
        denied = served.authorize("agent:b", "read", "doc:x")
        assert denied.reason == REASON_CAPABILITY_REVOKED
        after = served.stub.ListCapabilities(
            pb.ListCapabilitiesRequest(include_ended=True), timeout=10
        )
        assert after == before
        assert served.grant("agent:b", "read", "doc:x", request_id="key-1") == ended
        revoked = served.stub.Revoke(pb.RevokeRequest(capability_id=root), timeout=10)
        assert list(revoked.ended_capability_ids) == [root, kept]
        # A page token outlives the process that gave it.
        rest = pb.QueryAuditRequest(page_token=first.next_page_token, event_types=ASKED_FOR)
        assert len(served.stub.QueryAudit(rest, timeout=10).events) == 3
        stored = pb.QueryAuditRequest(event_types=["decision"], principal="agent:a")
        ids = {event.event_id for event in served.stub.QueryAudit(stored, timeout=10).events}
        assert decided.decision_id in ids
