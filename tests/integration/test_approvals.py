"""Approvals over gRPC: a DENY asks, people approve, and one request is allowed, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from licet.v1 import approval_pb2 as pb
from licet.v1 import decision_pb2 as decisions
from licet.v1 import policy_pb2 as policies
from licet.v1.approval_pb2_grpc import ApprovalServiceStub
from licet.v1.policy_pb2_grpc import PolicyServiceStub
from tests.fakes.postgres import Database
from tests.fakes.serving import Served, serving
from tests.unit.policies import document

SHELL: Final = "name: shell, match: {resources: ['tool:**']}, require: {approval: security}"
AGENT: Final = "agent:a"
QUESTION: Final = (AGENT, "execute", "tool:shell")
ALLOW: Final = decisions.DECISION_ALLOW
NEEDED: Final = decisions.REASON_APPROVAL_REQUIRED
APPROVE: Final = pb.APPROVAL_STATE_APPROVED
REJECT: Final = pb.APPROVAL_STATE_REJECTED


def put(channel: grpc.Channel, *lines: str) -> None:
    request = policies.PutPolicySetRequest(document=document(*lines))
    PolicyServiceStub(channel).PutPolicySet(request, timeout=20)


def resolve(
    channel: grpc.Channel, approval_id: str, how: int = APPROVE, **fields: Any
) -> pb.ResolveApprovalResponse:
    request = pb.ResolveApprovalRequest(approval_id=approval_id, resolution=how, **fields)
    return ApprovalServiceStub(channel).ResolveApproval(request, timeout=20)


def get(channel: grpc.Channel, approval_id: str) -> pb.Approval:
    request = pb.GetApprovalRequest(approval_id=approval_id)
    return ApprovalServiceStub(channel).GetApproval(request, timeout=20).approval


@pytest.fixture(params=["auto", "stock"])
def served(database: Database, request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(database, serving=request.param) as one:
        one.grant(AGENT, "execute read", "tool:**", delegation_depth=0)
        put(one.channel, SHELL)
        yield one


def test_an_approval_allows_one_request(served: Served) -> None:
    context = Struct()
    context.update({"purpose": "clean up"})
    denied = served.authorize(*QUESTION, context=context)
    again = served.authorize(*QUESTION)
    assert (denied.reason, denied.policy_id) == (NEEDED, "shell")
    assert denied.approval_id
    assert again.approval_id == denied.approval_id
    pending = get(served.channel, denied.approval_id)
    assert pending.state == pb.APPROVAL_STATE_PENDING
    assert (pending.purpose, pending.roles, pending.policy_ids) == (
        "clean up",
        ["security"],
        ["shell"],
    )

    done = resolve(served.channel, denied.approval_id, comment="go", ttl=Duration(seconds=60))
    assert done.replicas_confirmed == 1
    first, second = served.authorize(*QUESTION), served.authorize(*QUESTION)

    assert first.decision == ALLOW, first
    assert first.capability_id == done.approval.capability_id
    assert (second.reason, second.decision) == (NEEDED, decisions.DECISION_DENY)
    assert second.approval_id not in {"", denied.approval_id}
    assert get(served.channel, denied.approval_id).state == pb.APPROVAL_STATE_USED
