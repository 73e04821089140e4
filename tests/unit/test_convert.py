"""From messages to values: what is refused by which field, and how times are rounded."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from licet.app.audit_ports import AuditFilter
from licet.app.ports import CapabilityFilter, RevokeTarget
from licet.domain.errors import InvalidRequestError
from licet.server import convert
from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2
from tests.unit.builders import identifier

ID = identifier(1)


def asked(**fields: Any) -> pb.AuthorizeRequest:  # noqa: ANN401 - any field
    return pb.AuthorizeRequest(
        **({"principal": "agent:a", "action": "read", "resource": "doc:a"} | fields)
    )


def struct(**fields: Any) -> Struct:  # noqa: ANN401 - any JSON
    made = Struct()
    made.update(fields)
    return made


def problems(error: pytest.ExceptionInfo[InvalidRequestError]) -> list[str]:
    return [violation.field for violation in error.value.violations]


def test_a_question_is_taken_field_by_field() -> None:
    request = convert.authorize(
        asked(
            context=struct(ip="::1"),
            capability_id=ID.upper(),
            session_id="s",
            trace_id="t",
            correlation_id="c",
            explain=True,
        )
    )
    assert request._asdict() == {
        "principal": "agent:a",
        "action": "read",
        "resource": "doc:a",
        "context": '{"ip": "::1"}',
        "capability_id": ID,
        "session_id": "s",
        "trace_id": "t",
        "correlation_id": "c",
        "explain": True,
    }


def test_a_question_without_options_has_none() -> None:
    assert convert.authorize(asked())[3:] == ("{}", None, "", "", "", False)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"principal": ""}, "principal"),
        ({"action": "*"}, "action"),
        ({"resource": "doc:*"}, "resource"),
        ({"capability_id": "x"}, "capability_id"),
        ({"session_id": "\n"}, "session_id"),
        ({"trace_id": "x" * 129}, "trace_id"),
        ({"correlation_id": "\0"}, "correlation_id"),
        ({"context": struct(a="\0")}, "context"),
    ],
)
def test_a_question_is_refused_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert.authorize(asked(**fields))
    assert problems(caught) == [field]


@pytest.mark.parametrize("count", [1, 1000])
def test_a_batch_keeps_the_order(count: int) -> None:
    requests = convert.batch([asked(resource=f"doc:{n}") for n in range(count)])
    assert [request.resource for request in requests] == [f"doc:{n}" for n in range(count)]


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_of_another_size_is_refused(count: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"1 to 1000 items, not {count}"):
        convert.batch([asked()] * count)


def test_a_batch_is_refused_by_the_field_of_its_item() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert.batch([asked(), asked(), asked(action="")])
    assert problems(caught) == ["requests[2].action"]


def test_the_bounds_of_a_query_are_rounded_so_that_they_cut_between_microseconds() -> None:
    request = pb.QueryAuditRequest(to=Timestamp(seconds=2, nanos=1))
    getattr(request, "from").CopyFrom(Timestamp(seconds=1, nanos=1))
    wanted = convert.audit_filter(request)
    # An event at 1 s is before `from`; one at 2 s is before `to`.
    assert (wanted.since, wanted.until) == (1_000_001, 2_000_001)


def test_a_revocation_is_of_one_capability_or_of_a_filter() -> None:
    by_id = convert.revoke(pb.RevokeRequest(capability_id=ID.upper(), reason="r", trace_id="t"))
    assert by_id == (RevokeTarget(capability_id=ID), "r", False, "", "t")
    chosen = pb.RevokeFilter(
        principal="agent:a", resource="doc:**", granted_by="user:b", session_id="s"
    )
    by_filter = convert.revoke(pb.RevokeRequest(filter=chosen, dry_run=True))
    assert by_filter.target == (None, "agent:a", "doc:**", "user:b", "s")
    assert by_filter.dry_run


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "capability_id"),
        ({"capability_id": ID, "filter": pb.RevokeFilter(principal="a:b")}, "capability_id"),
        ({"capability_id": "x"}, "capability_id"),
        ({"filter": pb.RevokeFilter()}, "filter"),
        ({"filter": pb.RevokeFilter(principal="x")}, "filter.principal"),
        ({"filter": pb.RevokeFilter(resource="doc:a*")}, "filter.resource"),
        ({"filter": pb.RevokeFilter(granted_by="x")}, "filter.granted_by"),
        ({"filter": pb.RevokeFilter(session_id="\n")}, "filter.session_id"),
        ({"capability_id": ID, "dry_run": True, "request_id": "r"}, "request_id"),
        ({"capability_id": ID, "request_id": "\n"}, "request_id"),
        ({"capability_id": ID, "reason": "x" * 1025}, "reason"),
        ({"capability_id": ID, "trace_id": "x" * 129}, "trace_id"),
    ],
)
def test_a_revocation_is_refused_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert.revoke(pb.RevokeRequest(**fields))
    assert problems(caught) == [field]


def test_the_filter_of_a_list_is_taken_field_by_field() -> None:
    assert convert.capability_filter(pb.ListCapabilitiesRequest()) == CapabilityFilter()
    full = pb.ListCapabilitiesRequest(
        principal="agent:a",
        resource="doc:*",
        granted_by="user:b",
        session_id="s",
        parent_capability_id=ID,
        include_ended=True,
    )
    assert convert.capability_filter(full) == ("agent:a", "doc:*", "user:b", "s", ID, True)
    assert convert.capability_id(pb.GetCapabilityRequest(capability_id=ID.upper())) == ID


def test_the_filter_of_a_query_is_taken_field_by_field() -> None:
    assert convert.audit_filter(pb.QueryAuditRequest()) == AuditFilter()
    full = pb.QueryAuditRequest(
        event_types=["grant", "decision"],
        principal="agent:a",
        actor="user:b",
        resource="doc:*",
        action="read",
        capability_id=ID,
        decision=decision_pb2.DECISION_DENY,
        reason="NO_CAPABILITY",
        policy_id="p",
        session_id="s",
        trace_id="t",
        metadata=struct(a=1),
    )
    assert convert.audit_filter(full)[:12] == (
        ("grant", "decision"),
        *("agent:a", "user:b", "doc:*", "read", ID, "deny", "NO_CAPABILITY", "p", "s", "t"),
        '{"a": 1}',
    )
    allows = pb.QueryAuditRequest(decision=decision_pb2.DECISION_ALLOW)
    assert convert.audit_filter(allows).result == "allow"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"event_types": ["decision", "x"]}, "event_types[1]"),
        ({"event_types": ["decision"] * 33}, "event_types"),
        ({"decision": 99}, "decision"),
        ({"actor": "x"}, "actor"),
        ({"action": "*"}, "action"),
        ({"reason": "x" * 129}, "reason"),
        ({"policy_id": "\n"}, "policy_id"),
        ({"metadata": struct(a="\0")}, "metadata"),
        ({"to": Timestamp(nanos=-1)}, "to"),
    ],
)
def test_the_filter_of_a_query_is_refused_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert.audit_filter(pb.QueryAuditRequest(**fields))
    assert problems(caught) == [field]


@pytest.mark.parametrize(("size", "taken"), [(0, 100), (1, 1), (1000, 1000)])
def test_a_page_has_a_size(size: int, taken: int) -> None:
    assert convert.page_size(size) == taken


@pytest.mark.parametrize("size", [-1, 1001])
def test_a_page_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(InvalidRequestError, match="page_size must be 0 to 1000"):
        convert.page_size(size)


def test_a_page_token_has_a_length() -> None:
    assert convert.page_token("x" * 1024) == "x" * 1024
    with pytest.raises(InvalidRequestError, match="page_token must be"):
        convert.page_token("x" * 1025)
