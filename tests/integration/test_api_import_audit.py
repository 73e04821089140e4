"""ImportAudit: the log of another system, each of its events once, and never as licet's own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import grpc
import pytest

from licet.client import AuditImport, Client, ForeignEvent, LicetCallError
from licet.domain.caller import Scope
from licet.v1 import audit_service_pb2 as pb
from licet.v1.audit_service_pb2_grpc import AuditServiceStub
from tests.fakes.api import count, refused, rows, struct, timestamp
from tests.fakes.callers import calling, holding, make_key
from tests.fakes.serving import Served

THEN = datetime(2021, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
IMPORTED = "SELECT count(*) FROM audit.events WHERE event_type = 'import.event'"


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address, timeout=20) as opened:
        yield opened


@pytest.fixture
def stub(served: Served) -> AuditServiceStub:
    return AuditServiceStub(served.channel)


def foreign(number: int, **fields: Any) -> ForeignEvent:  # noqa: ANN401 - any field
    return ForeignEvent(f"e-{number}", THEN + timedelta(seconds=number), "check", **fields)


def test_an_imported_event_is_found_by_what_it_is_about(served: Served, client: Client) -> None:
    held = served.grant("agent:a", "read", "doc:**")
    event = foreign(
        1,
        actor="gateway",
        principal="agent:a",
        action="read",
        resource="doc:x",
        capability_id=held,
        capability="c-17",
        result="allowed",
        reason="rule 7",
        session_id="run-9",
        trace_id="4bf9",
        metadata={"latency": 1.5, "tags": ["a"]},
    )
    assert client.imports.audit("old", [event]) == AuditImport(1, 0, ())
    (found,) = client.audit(event_types=["import.event"])
    assert (found.actor, found.result, found.reason) == ("caller:anonymous", "done", "")
    assert found.occurred_at > THEN + timedelta(days=365)
    assert found.metadata == {
        "imported": {
            "source": "old",
            "id": "e-1",
            "occurred_at": "2021-03-04T05:06:08.000008+00:00",
            "event_type": "check",
            "actor": "gateway",
            "capability": "c-17",
            "result": "allowed",
            "reason": "rule 7",
            "metadata": {"latency": 1.5, "tags": ["a"]},
        }
    }
    for wanted in (
        {"principal": "agent:a"},
        {"action": "read"},
        {"resource": "doc:*"},
        {"capability_id": held},
        {"session_id": "run-9"},
        {"trace_id": "4bf9"},
        {"metadata": {"imported": {"result": "allowed"}}},
    ):
        assert found in list(client.audit(**wanted)), wanted


def test_an_imported_event_is_nobodys_decision_nor_activity(served: Served, client: Client) -> None:
    event = foreign(1, principal="agent:a", action="read", resource="doc:x", result="allow")
    client.imports.audit("old", [event])
    assert list(client.audit(allowed=True)) == []
    assert list(client.audit(event_types=["decision"])) == []
    assert rows(served.database, "SELECT * FROM audit.activity_by_principal") == []
    assert rows(served.database, "SELECT * FROM audit.recent_decisions") == []
    # It gives no right, and is no change of what anybody may do.
    assert not client.authorize("agent:a", "read", "doc:x").allowed
    assert count(served.database, "SELECT max(revision) FROM licet.changes") == 0


def test_what_was_brought_before_is_not_recorded_again(served: Served, client: Client) -> None:
    events = [foreign(number) for number in range(10)]
    assert client.imports.audit("old", events[:6]) == AuditImport(6, 0, ())
    # Another division, long after request ids were forgotten.
    with served.database.connect() as connection:
        connection.execute("DELETE FROM licet.requests")
    assert client.imports.audit("old", events[3:]) == AuditImport(4, 3, ())
    assert client.imports.audit("old", events) == AuditImport(0, 10, ())
    assert count(served.database, IMPORTED) == 10
    # Another system has ids of its own.
    assert client.imports.audit("older", events[:1]) == AuditImport(1, 0, ())


def test_whether_licet_has_the_capability_is_no_part_of_an_event(
    served: Served, client: Client
) -> None:
    held = served.grant("agent:a", "read", "doc:**")
    client.imports.audit("old", [foreign(1, capability="c-1")])
    again = foreign(1, capability="c-1", capability_id=held)
    assert client.imports.audit("old", [again]) == AuditImport(0, 1, ())
    other = foreign(1, capability="c-2")
    assert client.imports.audit("old", [other]) == AuditImport(0, 0, (0,))


def test_only_an_admin_imports(served: Served, client: Client) -> None:
    everything_else = [scope for scope in Scope if scope is not Scope.ADMIN]
    made = client.callers.create_key("auditor", everything_else)
    with (
        Client(served.address, api_key=made.token) as auditor,
        pytest.raises(LicetCallError) as raised,
    ):
        auditor.imports.audit("old", [foreign(1)])
    assert (raised.value.code, raised.value.reason) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    assert count(served.database, IMPORTED) == 0


@pytest.mark.parametrize("limits", [{"principals": ("agent:a",)}, {"resources": ("doc:**",)}])
def test_a_caller_with_limits_imports_nothing(
    served: Served, limits: dict[str, tuple[str, ...]]
) -> None:
    with calling(served.address) as admin:
        made = make_key(admin, "admin", **limits)
    event = message(principal="agent:a", resource="doc:a")
    with holding(served.address, made.token) as limited:
        found = refused(lambda: limited.audit.ImportAudit(event, timeout=10))
    assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "OUTSIDE_LIMITS")
    assert count(served.database, IMPORTED) == 0


def test_a_lost_answer_is_given_again(served: Served, client: Client) -> None:
    first = client.imports.audit("old", [foreign(1)], request_id="r-1")
    assert client.imports.audit("old", [foreign(1)], request_id="r-1") == first
    assert count(served.database, IMPORTED) == 1


def test_an_event_that_is_not_as_it_was_is_named_and_stays(served: Served, client: Client) -> None:
    client.imports.audit("old", [foreign(1, reason="as it was")])
    changed = [foreign(0), foreign(1, reason="nicer"), foreign(2)]
    assert client.imports.audit("old", changed) == AuditImport(2, 0, (1,))
    found = rows(
        served.database,
        "SELECT metadata #>> '{imported,reason}' FROM audit.events"
        ' WHERE metadata @> \'{"imported": {"id": "e-1"}}\'',
    )
    assert found == [("as it was",)]


def test_names_that_only_look_alike_together_are_two(client: Client) -> None:
    one = ForeignEvent('b", "c', THEN, "check")
    other = ForeignEvent("c", THEN, "check")
    assert client.imports.audit("a", [one]).recorded == 1
    assert client.imports.audit('a", "b', [other]).recorded == 1


def message(**fields: Any) -> pb.ImportAuditRequest:  # noqa: ANN401 - any field
    whole: dict[str, Any] = {"id": "e-1", "occurred_at": timestamp(0), "event_type": "check"}
    return pb.ImportAuditRequest(source="old", events=[pb.ImportedEvent(**(whole | fields))])


BROKEN = [
    (pb.ImportAuditRequest(source="old"), "events"),
    (message(id=""), "events[0].id"),
    (message(id="a" * 129), "events[0].id"),
    (message(occurred_at=None), "events[0].occurred_at"),
    (message(occurred_at=timestamp(-1)), "events[0].occurred_at"),
    (message(occurred_at=timestamp(4_000_000_000_000_000)), "events[0].occurred_at"),
    (message(event_type=""), "events[0].event_type"),
    (message(event_type="a\nb"), "events[0].event_type"),
    (message(actor="a" * 257), "events[0].actor"),
    (message(principal="alice"), "events[0].principal"),
    (message(action="READ"), "events[0].action"),
    (message(resource="doc:a/../b"), "events[0].resource"),
    (message(capability_id="c-1"), "events[0].capability_id"),
    (message(capability="a" * 129), "events[0].capability"),
    (message(result="a" * 65), "events[0].result"),
    (message(reason="a" * 1025), "events[0].reason"),
    (message(session_id="a" * 129), "events[0].session_id"),
    (message(trace_id="\0"), "events[0].trace_id"),
    (message(metadata=struct(a="b" * 16_384)), "events[0].metadata"),
    (pb.ImportAuditRequest(events=message().events), "source"),
    (pb.ImportAuditRequest(source="a" * 65, events=message().events), "source"),
    (
        pb.ImportAuditRequest(source="old", events=[*message().events, *message().events]),
        "events",
    ),
    (pb.ImportAuditRequest(source="old", events=list(message().events) * 1001), "events"),
    (message(reason="a" * 1_100_000), "events"),
    (
        pb.ImportAuditRequest(source="old", events=message().events, request_id="\n"),
        "request_id",
    ),
]


def test_what_breaks_a_rule_is_named_and_nothing_is_recorded(
    served: Served, stub: AuditServiceStub
) -> None:
    for request, field in BROKEN:
        found = refused(partial(stub.ImportAudit, request, timeout=10))
        assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,)), request
    assert count(served.database, IMPORTED) == 0


def test_the_largest_events_are_recorded_whole(served: Served, stub: AuditServiceStub) -> None:
    event = message(
        id="i" * 128,
        event_type="t" * 64,
        actor="a" * 256,
        principal="agent:" + "p" * 250,
        action="r" * 64,
        resource="doc:" + "x" * 1020,
        result="w" * 64,
        reason="\\" * 1024,
        session_id="s" * 128,
        trace_id="t" * 128,
        metadata=struct(a="\t" * 8_187),
    )
    stub.ImportAudit(event, timeout=10)
    leaf = rows(
        served.database,
        "SELECT octet_length(l.leaf) FROM audit.event_leaves AS l JOIN audit.events AS e"
        " USING (event_id, occurred_at) WHERE e.event_type = 'import.event'",
    )
    assert 17_000 < leaf[0][0] < 65_535


def test_what_was_imported_is_append_only(served: Served, client: Client) -> None:
    client.imports.audit("old", [foreign(1)])
    for statement in (
        "DELETE FROM audit.imported",
        "UPDATE audit.imported SET digest = key",
        "TRUNCATE audit.imported",
    ):
        with served.database.connect() as connection, pytest.raises(Exception, match="append-only"):
            connection.execute(statement)
