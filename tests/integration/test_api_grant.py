"""Grant: what a capability becomes, what is refused, and idempotency keys."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from licet.v1 import authorization_pb2 as pb
from licet.v1.audit_pb2 import AuditEvent
from licet.v1.capability_pb2 import Capability
from licet.v1.decision_pb2 import DECISION_ALLOW, DECISION_DENY
from tests.fakes.api import (
    capability_count,
    count,
    event_count,
    micros,
    refused,
    rows,
    struct,
    timestamp,
)
from tests.fakes.postgres import Cluster, Database
from tests.fakes.serving import Served, serving

pytestmark = pytest.mark.usefixtures("both_ways")

UNKNOWN = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"
SOON = 4_000_000_000_000_000  # in 2096

_INVALID = grpc.StatusCode.INVALID_ARGUMENT

Fields = dict[str, Any]


def _request(**fields: Any) -> pb.GrantRequest:  # noqa: ANN401 - a field of the request
    defaults: Fields = {"principal": "agent:a", "actions": ["read"], "resource": "doc:a/b"}
    return pb.GrantRequest(**(defaults | fields))


def _grant(served: Served, **fields: Any) -> Capability:  # noqa: ANN401 - a field of the request
    return served.stub.Grant(_request(**fields), timeout=10).capability


def _read(served: Served, capability_id: str) -> Capability:
    request = pb.GetCapabilityRequest(capability_id=capability_id)
    return served.stub.GetCapability(request, timeout=10).capability


def _audited(served: Served, event_type: str) -> list[AuditEvent]:
    request = pb.QueryAuditRequest(event_types=[event_type])
    return list(served.stub.QueryAudit(request, timeout=10).events)


@pytest.fixture(scope="module")
def shared(cluster: Cluster, migrated_template: Database, both_ways: str) -> Iterator[Served]:
    """Provide one server for the tests that leave nothing behind."""
    assert both_ways
    with cluster.database(migrated_template) as database, serving(database) as served:
        yield served


def test_a_grant_is_returned_as_it_is_stored(served: Served) -> None:
    metadata = struct(team="größe", tags=["a", 1, 1.5, None, True], limits={"n": 7})
    response = served.stub.Grant(
        _request(
            principal="agent:größe/1",
            actions=["read", "write.all"],
            resource="doc:a/*/**",
            not_before=timestamp(1_000_001),
            expires_at=timestamp(SOON),
            delegation_depth=64,
            session_id="s-1",
            metadata=metadata,
        ),
        timeout=10,
    )
    granted = response.capability
    assert granted == _read(served, granted.id)
    assert (granted.principal, granted.resource) == ("agent:größe/1", "doc:a/*/**")
    assert list(granted.actions) == ["read", "write.all"]
    assert (micros(granted.not_before), micros(granted.expires_at)) == (1_000_001, SOON)
    assert (granted.delegation_depth, granted.session_id) == (64, "s-1")
    assert (granted.granted_by, granted.parent_id) == ("caller:anonymous", "")
    assert granted.metadata == metadata
    assert granted.revision == response.revision == 1
    assert not granted.HasField("ended_at")


def test_a_grant_without_times_has_none(served: Served) -> None:
    granted = _grant(served)
    assert granted == _read(served, granted.id)
    assert not granted.HasField("not_before")
    assert not granted.HasField("expires_at")


def test_a_ttl_counts_from_the_grant_to_the_microsecond(served: Served, database: Database) -> None:
    granted = _grant(served, ttl=Duration(seconds=60, nanos=999))
    (granted_at,) = rows(database, "SELECT granted_at, expires_at FROM licet.capabilities")
    lifetime = micros(granted.expires_at) - micros(granted.granted_at)
    # Counted from when the request was taken, shortly before it was stored.
    assert 59_000_000 < lifetime <= 60_000_000
    assert granted_at[1] > granted_at[0]


def test_times_are_rounded_so_that_the_lifetime_shrinks(served: Served) -> None:
    begin, end = timestamp(1_000_000), timestamp(SOON)
    begin.nanos, end.nanos = 1, end.nanos + 999
    granted = _grant(served, not_before=begin, expires_at=end)
    assert (micros(granted.not_before), micros(granted.expires_at)) == (1_000_001, SOON)


def test_each_grant_takes_the_next_revision_and_is_on_record(served: Served) -> None:
    granted = [_grant(served, trace_id=f"t-{i}") for i in range(3)]
    assert [capability.revision for capability in granted] == [1, 2, 3]
    assert [capability.id for capability in granted] == sorted(c.id for c in granted)
    events = _audited(served, "grant")[::-1]
    assert [e.capability_id for e in events] == [c.id for c in granted]
    assert [(e.result, e.revision, e.trace_id) for e in events] == [
        ("done", i + 1, f"t-{i}") for i in range(3)
    ]
    assert [micros(e.occurred_at) for e in events] == [micros(c.granted_at) for c in granted]


def _ended(served: Served, parent: Capability) -> None:
    served.stub.Revoke(pb.RevokeRequest(capability_id=parent.id), timeout=10)


def test_a_time_that_is_over_is_refused_and_on_record(served: Served, database: Database) -> None:
    over = refused(lambda: _grant(served, expires_at=timestamp(1_000_000)))
    assert (over.code, over.fields) == (_INVALID, ("expires_at",))
    (event,) = _audited(served, "grant")
    assert (event.result, event.reason) == ("refused", "ALREADY_EXPIRED")
    assert capability_count(database) == 0


OTHER_BODY: dict[str, Fields] = {
    "principal": {"principal": "agent:b"},
    "actions": {"actions": ["read", "write"]},
    "resource": {"resource": "doc:a/**"},
    "expires_at": {"ttl": None, "expires_at": timestamp(SOON)},
    "no-ttl": {"ttl": None},
    "ttl": {"ttl": Duration(seconds=61)},
    "not_before": {"not_before": timestamp(5)},
    "depth": {"delegation_depth": 1},
    "session": {"session_id": "s-1"},
    "metadata": {"metadata": struct(a=1)},
    "parent": {"parent_capability_id": UNKNOWN},
}


@pytest.mark.parametrize("field", OTHER_BODY)
def test_a_key_with_another_body_already_exists(
    served: Served, database: Database, field: str
) -> None:
    first = {"request_id": "key-1", "ttl": Duration(seconds=60)}
    _grant(served, **first)
    reused = refused(lambda: _grant(served, **(first | OTHER_BODY[field])))
    assert (reused.code, reused.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )
    assert capability_count(database) == 1
    assert event_count(database) == 1


def test_a_key_of_a_grant_does_not_revoke(served: Served) -> None:
    granted = _grant(served, request_id="key-1")
    revoke = pb.RevokeRequest(capability_id=granted.id, request_id="key-1")
    reused = refused(lambda: served.stub.Revoke(revoke, timeout=10))
    assert reused.code is grpc.StatusCode.ALREADY_EXISTS
    assert served.authorize("agent:a", "read", "doc:a/b").decision == DECISION_ALLOW


def test_a_repeated_key_returns_the_first_capability_whatever_the_trace(
    served: Served, database: Database
) -> None:
    first = {"request_id": "key-1", "ttl": Duration(seconds=60)}
    before = served.stub.Grant(_request(**first), timeout=10)
    _grant(served)
    again = served.stub.Grant(_request(**first, trace_id="another"), timeout=10)
    assert again == before
    assert capability_count(database) == 2
    assert event_count(database) == 2


@pytest.mark.parametrize("delegated", [False, True])
def test_a_repeated_key_returns_what_has_ended_since(served: Served, delegated: bool) -> None:
    parent = _grant(served, delegation_depth=1)
    fields = {"request_id": "key-1"} | ({"parent_capability_id": parent.id} if delegated else {})
    granted = _grant(served, principal="agent:b", **fields)
    _ended(served, parent if delegated else granted)
    again = _grant(served, principal="agent:b", **fields)
    assert again.id == granted.id
    assert again.HasField("ended_at")
    assert served.authorize("agent:b", "read", "doc:a/b").decision == DECISION_DENY


def test_one_key_from_many_threads_at_once_yields_one_capability(database: Database) -> None:
    threads = 12
    barrier = Barrier(threads)
    with (
        serving(database, pool_min=threads, pool_max=threads) as served,
        ThreadPoolExecutor(threads) as pool,
    ):

        def grant(_: int) -> pb.GrantResponse:
            barrier.wait(10)
            return served.stub.Grant(
                _request(request_id="key-1", ttl=Duration(seconds=60)), timeout=10
            )

        responses = list(pool.map(grant, range(threads)))
    assert all(response == responses[0] for response in responses)
    assert capability_count(database) == 1
    assert event_count(database) == 1
    assert count(database, "SELECT max(revision) FROM licet.changes") == 1


INVALID: dict[str, tuple[Fields, str]] = {
    "no-principal": ({"principal": ""}, "principal"),
    "no-actions": ({"actions": []}, "actions"),
    "33-actions": ({"actions": [f"a{i}" for i in range(33)]}, "actions"),
    "same-action-twice": ({"actions": ["read", "read"]}, "actions"),
    "any-and-more": ({"actions": ["*", "read"]}, "actions"),
    "bad-action": ({"actions": ["read", "Write"]}, "actions[1]"),
    "no-resource": ({"resource": ""}, "resource"),
    "rest-in-the-middle": ({"resource": "doc:**/a"}, "resource"),
    "ttl-and-expiry": ({"ttl": Duration(seconds=1), "expires_at": timestamp(SOON)}, "ttl"),
    "no-ttl": ({"ttl": Duration()}, "ttl"),
    "negative-ttl": ({"ttl": Duration(seconds=-1)}, "ttl"),
    "short-ttl": ({"ttl": Duration(nanos=999_999)}, "ttl"),
    "endless-ttl": ({"ttl": Duration(seconds=3_162_240_001)}, "ttl"),
    "no-lifetime": (
        {"not_before": timestamp(SOON), "expires_at": timestamp(SOON)},
        "not_before",
    ),
    "depth": ({"delegation_depth": 65}, "delegation_depth"),
    "parent": ({"parent_capability_id": "x"}, "parent_capability_id"),
    "condition": ({"condition": "action"}, "condition"),
    "session": ({"session_id": "x" * 129}, "session_id"),
    "key": ({"request_id": "x\n"}, "request_id"),
    "metadata": ({"metadata": struct(a="x" * 16_385)}, "metadata"),
}


@pytest.mark.parametrize("rule", INVALID)
def test_a_malformed_grant_names_its_field_and_does_nothing(shared: Served, rule: str) -> None:
    fields, field = INVALID[rule]
    invalid = refused(lambda: _grant(shared, **fields))
    assert (invalid.code, invalid.fields) == (_INVALID, (field,))
    assert invalid.reason == "INVALID_REQUEST"
    refusals = "SELECT count(*) FROM licet.capabilities WHERE metadata = '{}'"
    assert count(shared.database, refusals) == 0


@pytest.mark.parametrize(
    "metadata",
    [
        struct(n=1e20),
        struct(n=-1e300),
        struct(n=2.0**63),
        struct(a=[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]),
    ],
    ids=["1e20", "-1e300", "2**63", "31-levels"],
)
def test_metadata_within_its_limits_is_stored(shared: Served, metadata: Any) -> None:  # noqa: ANN401
    granted = _grant(shared, metadata=metadata)
    assert granted.metadata == metadata
    assert _read(shared, granted.id).metadata == metadata
