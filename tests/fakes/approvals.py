"""Policies that demand approvals, and short ways to give them."""

from __future__ import annotations

from typing import Any, Final

import grpc

from licet.v1 import approval_pb2 as pb
from licet.v1 import authorization_pb2 as api
from licet.v1 import decision_pb2 as decisions
from licet.v1 import policy_pb2 as policies
from licet.v1.approval_pb2_grpc import ApprovalServiceStub
from licet.v1.policy_pb2_grpc import PolicyServiceStub
from tests.fakes.serving import Served
from tests.unit.policies import document

SHELL: Final = "name: shell, match: {resources: ['tool:**']}, require: {approval: security}"
AGENT: Final = "agent:a"
QUESTION: Final = (AGENT, "execute", "tool:shell")
ALLOW: Final = decisions.DECISION_ALLOW
NEEDED: Final = decisions.REASON_APPROVAL_REQUIRED
PENDING: Final = pb.APPROVAL_STATE_PENDING
APPROVED: Final = pb.APPROVAL_STATE_APPROVED
REJECTED: Final = pb.APPROVAL_STATE_REJECTED
EXPIRED: Final = pb.APPROVAL_STATE_EXPIRED
USED: Final = pb.APPROVAL_STATE_USED


def prepared(served: Served, *lines: str) -> str:
    """Let the agent do anything with tools that policies let pass; return its capability's id."""
    capability_id = served.grant(AGENT, "execute read", "tool:**")
    put(served.channel, *(lines or (SHELL,)))
    return capability_id


def put(channel: grpc.Channel, *lines: str) -> None:
    """Have these policies hold."""
    request = policies.PutPolicySetRequest(document=document(*lines))
    PolicyServiceStub(channel).PutPolicySet(request, timeout=20)


def asked(served: Served, question: tuple[str, str, str] = QUESTION, **fields: Any) -> str:  # noqa: ANN401 - any field
    """Ask what needs an approval, and return the approval's id."""
    answer = served.authorize(*question, **fields)
    assert (answer.decision, answer.reason) == (decisions.DECISION_DENY, NEEDED)
    assert answer.approval_id
    return answer.approval_id


def resolve(
    channel: grpc.Channel,
    approval_id: str,
    resolution: pb.ApprovalState.ValueType = APPROVED,
    **fields: Any,  # noqa: ANN401 - any field
) -> pb.ResolveApprovalResponse:
    """Approve, or what is told."""
    request = pb.ResolveApprovalRequest(approval_id=approval_id, resolution=resolution, **fields)
    return ApprovalServiceStub(channel).ResolveApproval(request, timeout=20)


def get(channel: grpc.Channel, approval_id: str) -> pb.Approval:
    """Return an approval."""
    request = pb.GetApprovalRequest(approval_id=approval_id)
    return ApprovalServiceStub(channel).GetApproval(request, timeout=20).approval


def request(question: tuple[str, str, str] = QUESTION) -> api.AuthorizeRequest:
    """Return the question as a message."""
    principal, action, resource = question
    return api.AuthorizeRequest(principal=principal, action=action, resource=resource)
