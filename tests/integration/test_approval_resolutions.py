"""Resolving approvals over gRPC: well-formed, once, and not after what ends them."""

from __future__ import annotations

from typing import Any, Final, LiteralString

import grpc
from google.protobuf.duration_pb2 import Duration

from licet.v1 import approval_pb2 as pb
from licet.v1 import authorization_pb2 as api
from licet.v1 import decision_pb2 as decisions
from licet.v1 import users_pb2 as users
from licet.v1.approval_pb2_grpc import ApprovalServiceStub
from tests.fakes.api import refused
from tests.fakes.approvals import (
    AGENT,
    ALLOW,
    APPROVED,
    EXPIRED,
    QUESTION,
    REJECTED,
    USED,
    asked,
    get,
    prepared,
    resolve,
)
from tests.fakes.callers import calling
from tests.fakes.postgres import Database
from tests.fakes.serving import Served, serving

OTHER = (AGENT, "execute", "tool:other")


def test_it_ends_with_the_capability_that_covers_it(served: Served) -> None:
    parent = prepared(served)
    approved, waiting = asked(served), asked(served, OTHER)
    resolve(served.channel, approved)
    revoked = served.stub.Revoke(api.RevokeRequest(capability_id=parent), timeout=10)

    assert revoked.ended_count == 2
    assert served.authorize(*QUESTION).reason == decisions.REASON_CAPABILITY_REVOKED
    failed = refused(lambda: resolve(served.channel, waiting))
    assert (failed.code, failed.reason) == (*(grpc.StatusCode.FAILED_PRECONDITION, "PARENT_ENDED"),)
    # Another one was not what was approved.
    served.grant(AGENT, "execute", "tool:**")
    asked(served)


def test_what_nobody_can_approve_any_more_is_asked_for_again(
    served: Served, database: Database
) -> None:
    parent = prepared(served)
    before = [asked(served, (AGENT, "execute", f"tool:{number}")) for number in range(20)]
    served.stub.Revoke(api.RevokeRequest(capability_id=parent), timeout=10)
    parent = served.grant(AGENT, "execute", "tool:**")

    # Neither is it waited for, nor does it count as one of twenty.
    again = asked(served, (AGENT, "execute", "tool:0"))
    assert again not in before
    assert get(served.channel, again).parent_capability_id == parent
    assert {get(served.channel, one).state for one in before} == {EXPIRED}
    resolve(served.channel, again)
    assert served.authorize(AGENT, "execute", "tool:0").decision == ALLOW
    # Nor if it has only expired.
    waiting = asked(served)
    with database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE licet.capabilities SET expires_at = now()")
    served.grant(AGENT, "execute", "tool:**")
    assert asked(served) != waiting


def test_a_suspension_stops_it(served: Served) -> None:
    prepared(served)
    approved, waiting = asked(served), asked(served, OTHER)
    resolve(served.channel, approved)
    with calling(served.address) as admin:
        admin.identity.SuspendPrincipal(users.SuspendPrincipalRequest(principal=AGENT), timeout=10)
        assert served.authorize(*QUESTION).reason == decisions.REASON_PRINCIPAL_SUSPENDED
        failed = refused(lambda: resolve(served.channel, waiting))
        assert failed.reason == "PRINCIPAL_SUSPENDED"
        admin.identity.ResumePrincipal(users.ResumePrincipalRequest(principal=AGENT), timeout=10)
    assert served.authorize(*QUESTION).decision == ALLOW


def test_what_was_rejected_is_not_asked_for_again(database: Database) -> None:
    with serving(database) as one, serving(database) as other:
        prepared(one)
        approval_id = asked(one)
        assert asked(other) == approval_id
        done = resolve(one.channel, approval_id, REJECTED, comment="no")

        assert (done.approval.state, done.approval.comment) == (REJECTED, "no")
        for served in (one, other):
            answer = served.authorize(*QUESTION)
            assert answer.approval_id == approval_id
            assert answer.detail.endswith("; an approval was rejected by caller:anonymous")
        failed = refused(lambda: resolve(one.channel, approval_id))
        assert (failed.code, failed.reason) == (
            *(grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_RESOLVED"),
        )
        later(database, "UPDATE licet.approvals SET resolved_at = resolved_at - interval '1 hour'")
        one.grant(AGENT, "read", "doc:x")  # so that what is remembered is forgotten
        assert asked(one) != approval_id


def test_time_ends_what_is_pending_and_what_was_given(served: Served, database: Database) -> None:
    prepared(served)
    waiting, given = asked(served, OTHER), asked(served)
    resolve(served.channel, given)
    later(database, "UPDATE licet.approvals SET expires_at = now() WHERE state = 'PENDING'")
    later(
        database,
        "UPDATE licet.capabilities SET expires_at = now() WHERE approved_roles IS NOT NULL",
    )

    assert get(served.channel, waiting).state == EXPIRED
    assert refused(lambda: resolve(served.channel, waiting)).reason == "APPROVAL_EXPIRED"
    # Memory takes it for alive; the row decides.
    assert asked(served) != given
    assert asked(served, OTHER) != waiting


def later(database: Database, change: LiteralString) -> None:
    """Change approvals as only time does."""
    with database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(change)


def test_a_resolution_happens_once_under_its_request_id(served: Served) -> None:
    prepared(served)
    approval_id = asked(served)
    done = resolve(served.channel, approval_id, request_id="r1")
    served.authorize(*QUESTION)

    again = resolve(served.channel, approval_id, request_id="r1")
    assert (again.approval, again.revision) == (done.approval, done.revision)
    reused = refused(lambda: resolve(served.channel, approval_id, REJECTED, request_id="r1"))
    assert reused.code is grpc.StatusCode.ALREADY_EXISTS


MALFORMED: Final[tuple[tuple[dict[str, Any], str], ...]] = (
    ({"approval_id": "x", "resolution": APPROVED}, "approval_id"),
    ({}, "resolution"),
    ({"resolution": USED}, "resolution"),
    ({"resolution": APPROVED, "ttl": Duration(seconds=3601)}, "ttl"),
    ({"resolution": APPROVED, "ttl": Duration()}, "ttl"),
    ({"resolution": APPROVED, "ttl": Duration(seconds=1, nanos=1)}, "ttl"),
    ({"resolution": REJECTED, "ttl": Duration(seconds=1)}, "ttl"),
    ({"resolution": APPROVED, "comment": "x" * 1025}, "comment"),
)


def test_a_malformed_resolution_names_its_field(served: Served) -> None:
    call = ApprovalServiceStub(served.channel).ResolveApproval
    for fields, field in MALFORMED:
        given = {"approval_id": "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"} | fields
        message = pb.ResolveApprovalRequest(**given)
        failed = refused(lambda message=message: call(message, timeout=10))  # type: ignore[misc] # bound early
        assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))
