"""Delegation: every rule of it, and parents that are unknown, dead, or die while it waits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from licet.v1 import authorization_pb2 as pb
from licet.v1.audit_pb2 import AuditEvent
from licet.v1.capability_pb2 import Capability
from licet.v1.decision_pb2 import REASON_CAPABILITY_EXPIRED
from tests.fakes.api import capability_count, count, refused, timestamp
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served

pytestmark = pytest.mark.usefixtures("both_ways")

UNKNOWN = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"
SOON = 4_000_000_000_000_000  # in 2096
LATER = SOON + 1

_DENIED = grpc.StatusCode.PERMISSION_DENIED
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

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


WIDER: dict[str, tuple[Fields, Fields, grpc.StatusCode, str]] = {
    "one-more-action": ({}, {"actions": ["read", "write"]}, _DENIED, "ACTIONS_WIDER"),
    "another-action": ({}, {"actions": ["write"]}, _DENIED, "ACTIONS_WIDER"),
    "any-action": ({}, {"actions": ["*"]}, _DENIED, "ACTIONS_WIDER"),
    "sibling": ({}, {"resource": "doc:a/c"}, _DENIED, "RESOURCE_WIDER"),
    "above": ({}, {"resource": "doc:a"}, _DENIED, "RESOURCE_WIDER"),
    "below": ({}, {"resource": "doc:a/b/c"}, _DENIED, "RESOURCE_WIDER"),
    "other-type": ({}, {"resource": "dog:a/b"}, _DENIED, "RESOURCE_WIDER"),
    "any-segment": ({}, {"resource": "doc:a/*"}, _DENIED, "RESOURCE_WIDER"),
    "any-rest": (
        {"resource": "doc:a/*"},
        {"resource": "doc:a/**"},
        _DENIED,
        "RESOURCE_WIDER",
    ),
    "everything": ({"resource": "doc:a/**"}, {"resource": "doc:**"}, _DENIED, "RESOURCE_WIDER"),
    "later-expiry": (
        {"expires_at": timestamp(SOON)},
        {"expires_at": timestamp(LATER)},
        _DENIED,
        "EXPIRY_WIDER",
    ),
    "longer-ttl": (
        {"expires_at": timestamp(SOON)},
        {"ttl": Duration(seconds=3_000_000_000)},
        _DENIED,
        "EXPIRY_WIDER",
    ),
    "earlier-begin": (
        {"not_before": timestamp(1_000_001)},
        {"not_before": timestamp(1_000_000)},
        _DENIED,
        "NOT_BEFORE_WIDER",
    ),
    "same-depth": ({"delegation_depth": 2}, {"delegation_depth": 2}, _DENIED, "DEPTH_WIDER"),
    "more-depth": ({"delegation_depth": 2}, {"delegation_depth": 3}, _DENIED, "DEPTH_WIDER"),
    "no-depth": ({"delegation_depth": 0}, {}, _PRECONDITION, "NO_DEPTH_LEFT"),
}


@pytest.mark.parametrize("rule", WIDER)
def test_a_delegation_wider_than_its_parent_is_refused_and_on_record(
    served: Served, database: Database, rule: str
) -> None:
    parent_terms, child_terms, code, reason = WIDER[rule]
    parent = _grant(served, **({"delegation_depth": 1} | parent_terms))
    child = {"principal": "agent:b", "resource": parent.resource, "trace_id": "t-1"} | child_terms
    wider = refused(lambda: _grant(served, parent_capability_id=parent.id, **child))
    assert (wider.code, wider.reason) == (code, reason)
    _is_on_record(served, parent.id, reason)
    assert capability_count(database) == 1
    assert count(database, "SELECT max(revision) FROM licet.changes") == 1


def _is_on_record(served: Served, parent_id: str, reason: str) -> None:
    (event,) = _audited(served, "delegate")
    assert (event.result, event.reason, event.capability_id) == ("refused", reason, parent_id)
    assert (event.principal, event.actor, event.trace_id) == (
        "agent:b",
        "caller:anonymous",
        "t-1",
    )
    assert event.metadata["parent_id"] == parent_id


INSIDE: dict[str, tuple[Fields, Fields]] = {
    "the-same": ({}, {}),
    "fewer-actions": ({"actions": ["read", "write"]}, {"actions": ["write"]}),
    "any-of-any": ({"actions": ["*"]}, {"actions": ["*"]}),
    "one-of-any": ({"actions": ["*"]}, {"actions": ["delete"]}),
    "below-rest": ({"resource": "doc:**"}, {"resource": "doc:a/*/c/**"}),
    "one-of-any-segment": ({"resource": "doc:*/b"}, {"resource": "doc:a/b"}),
    "same-times": (
        {"not_before": timestamp(5), "expires_at": timestamp(SOON)},
        {"not_before": timestamp(5), "expires_at": timestamp(SOON)},
    ),
    "shorter": (
        {"not_before": timestamp(5), "expires_at": timestamp(SOON)},
        {"not_before": timestamp(6), "expires_at": timestamp(SOON - 1)},
    ),
    "less-depth": ({"delegation_depth": 64}, {"delegation_depth": 63}),
}


@pytest.mark.parametrize("rule", INSIDE)
def test_a_delegation_inside_its_parent_is_granted(served: Served, rule: str) -> None:
    parent_terms, child_terms = INSIDE[rule]
    parent = _grant(served, **({"delegation_depth": 1} | parent_terms))
    inherited = {"actions": list(parent.actions), "resource": parent.resource}
    child = _grant(
        served, parent_capability_id=parent.id, principal="agent:b", **(inherited | child_terms)
    )
    assert child.parent_id == parent.id
    assert child == _read(served, child.id)
    (event,) = _audited(served, "delegate")
    assert (event.result, event.capability_id) == ("done", child.id)


def test_a_delegation_without_times_takes_its_parents(served: Served) -> None:
    parent = _grant(served, delegation_depth=1, not_before=timestamp(5), expires_at=timestamp(SOON))
    child = _grant(served, parent_capability_id=parent.id)
    assert (child.not_before, child.expires_at) == (parent.not_before, parent.expires_at)
    assert child.delegation_depth == 0


def _ended(served: Served, parent: Capability) -> None:
    served.stub.Revoke(pb.RevokeRequest(capability_id=parent.id), timeout=10)


def _expired(served: Served, parent: Capability) -> None:
    assert eventually(
        lambda: served.authorize("agent:a", "read", "doc:a/b").reason == REASON_CAPABILITY_EXPIRED
    )
    assert parent.HasField("expires_at")


@pytest.mark.parametrize(
    ("end", "reason"), [(_ended, "PARENT_ENDED"), (_expired, "PARENT_EXPIRED")]
)
def test_a_dead_parent_delegates_nothing(
    served: Served,
    database: Database,
    end: Callable[[Served, Capability], None],
    reason: str,
) -> None:
    ttl = {"ttl": Duration(nanos=50_000_000)} if end is _expired else {}
    parent = _grant(served, delegation_depth=1, **ttl)
    end(served, parent)
    dead = refused(
        lambda: _grant(served, principal="agent:b", parent_capability_id=parent.id, trace_id="t-1")
    )
    assert (dead.code, dead.reason) == (_PRECONDITION, reason)
    _is_on_record(served, parent.id, reason)
    assert capability_count(database) == 1


def test_a_grandchild_of_a_revoked_capability_cannot_be_delegated_from(served: Served) -> None:
    root = _grant(served, delegation_depth=2)
    child = _grant(served, delegation_depth=1, parent_capability_id=root.id)
    _ended(served, root)
    dead = refused(lambda: _grant(served, parent_capability_id=child.id))
    assert (dead.code, dead.reason) == (_PRECONDITION, "PARENT_ENDED")


def test_an_unknown_parent_is_not_found_and_on_record(served: Served, database: Database) -> None:
    unknown = refused(
        lambda: _grant(
            served, principal="agent:b", parent_capability_id=UNKNOWN.upper(), trace_id="t-1"
        )
    )
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    _is_on_record(served, UNKNOWN, "PARENT_NOT_FOUND")
    assert capability_count(database) == 0


def test_a_parent_that_ends_while_its_delegation_waits_delegates_nothing(
    served: Served, database: Database
) -> None:
    parent = _grant(served, delegation_depth=1)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with database.connect() as other, ThreadPoolExecutor(1) as pool:
        # The delegation has passed its checks and waits for the lock; the parent ends before it.
        other.execute("SELECT pg_advisory_lock(20010)")
        child = pool.submit(
            lambda: refused(
                lambda: _grant(
                    served, principal="agent:b", parent_capability_id=parent.id, trace_id="t-1"
                )
            )
        )
        assert eventually(lambda: count(database, waiting) == 1)
        other.execute(
            """SELECT licet.apply_mutations('[]', jsonb_build_array(jsonb_build_object(
                 'kind', 'revoke', 'request_id', 'r', 'digest', repeat('00', 32), 'id', %s::text,
                 'actor', 'caller:other', 'reason', '', 'trace_id', '', 'facts', '{}'::jsonb)))""",
            [parent.id],
        )
        other.execute("SELECT pg_advisory_unlock(20010)")
        failure = child.result(10)
    assert (failure.code, failure.reason) == (_PRECONDITION, "PARENT_ENDED")
    _is_on_record(served, parent.id, "PARENT_ENDED")
    assert capability_count(database) == 1


def test_a_parent_that_expires_while_its_delegation_waits_delegates_nothing(
    served: Served, database: Database
) -> None:
    parent = _grant(served, delegation_depth=1, ttl=Duration(seconds=1))
    expired = "SELECT count(*) FROM licet.capabilities WHERE expires_at <= clock_timestamp()"
    with database.connect() as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT pg_advisory_lock(20010)")
        child = pool.submit(
            lambda: refused(
                lambda: _grant(
                    served, principal="agent:b", parent_capability_id=parent.id, trace_id="t-1"
                )
            )
        )
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        assert eventually(lambda: count(database, waiting) == 1)
        assert eventually(lambda: count(database, expired) == 1)
        other.execute("SELECT pg_advisory_unlock(20010)")
        failure = child.result(10)
    assert (failure.code, failure.reason) == (_PRECONDITION, "PARENT_EXPIRED")
    _is_on_record(served, parent.id, "PARENT_EXPIRED")
    assert capability_count(database) == 1
