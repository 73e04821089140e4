"""Approvals from protobuf to the core's values, checked once, and back."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from licet.app.approval_ports import ApprovalChanged, ApprovalFilter
from licet.app.approvals import ResolveCommand
from licet.app.read import Page
from licet.domain import names
from licet.domain.approval import MAX_TTL_SECONDS, TTL_SECONDS, Approval, ApprovalState, Consent
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant
from licet.domain.names import ApprovalId
from licet.server.render import timestamp
from licet.v1 import approval_pb2 as pb

_STATES: Final = {
    state: pb.ApprovalState.Value(f"APPROVAL_STATE_{state.name}") for state in ApprovalState
}
_BY_NUMBER: Final = {number: state for state, number in _STATES.items()}
_RESOLUTIONS: Final = {
    pb.APPROVAL_STATE_APPROVED: True,
    pb.APPROVAL_STATE_REJECTED: False,
}


def approval_id(text: str) -> ApprovalId:
    """Check the id of an approval. Raises InvalidRequestError."""
    return ApprovalId(names.capability_id(text, "approval_id"))


def resolve(message: pb.ResolveApprovalRequest) -> ResolveCommand:
    """Check a ResolveApprovalRequest. Raises InvalidRequestError."""
    is_consent = _RESOLUTIONS.get(message.resolution)
    if is_consent is None:
        raise InvalidRequestError.of("resolution", "must be APPROVED or REJECTED")
    if message.HasField("ttl") and not is_consent:
        raise InvalidRequestError.of("ttl", "must not be set with REJECTED")
    return ResolveCommand(
        approval_id=approval_id(message.approval_id),
        is_consent=is_consent,
        comment=names.label(message.comment, "comment", names.REASON_BYTES),
        ttl_seconds=_ttl(message.ttl) if message.HasField("ttl") else TTL_SECONDS,
        request_id=names.label(message.request_id, "request_id"),
    )


def wanted(message: pb.ListApprovalsRequest) -> ApprovalFilter:
    """Check which approvals to list. Raises InvalidRequestError."""
    if message.state and message.state not in _BY_NUMBER:
        raise InvalidRequestError.of("state", "must be a state of approvals")
    return ApprovalFilter(
        state=_BY_NUMBER.get(message.state),
        principal=names.principal(message.principal) if message.principal else None,
    )


def found(approval: Approval) -> pb.GetApprovalResponse:
    """Render an approval."""
    return pb.GetApprovalResponse(approval=_approval(approval))


def page(listed: Page[Approval]) -> pb.ListApprovalsResponse:
    """Render a page of approvals."""
    return pb.ListApprovalsResponse(
        approvals=map(_approval, listed.items), next_page_token=listed.next_token
    )


def resolved(done: ApprovalChanged) -> pb.ResolveApprovalResponse:
    """Render what a resolution did."""
    return pb.ResolveApprovalResponse(
        approval=_approval(done.approval),
        revision=done.revision,
        replicas_confirmed=done.confirmation.confirmed,
        replicas_fenced=done.confirmation.fenced,
    )


def _approval(approval: Approval) -> pb.Approval:
    return pb.Approval(
        id=approval.id,
        principal=approval.principal,
        action=approval.action,
        resource=approval.resource,
        roles=approval.roles,
        policy_ids=approval.policies,
        policy_set=approval.policy_set,
        purpose=approval.purpose,
        session_id=approval.session_id,
        parent_capability_id=approval.parent_id,
        asked_by=approval.asked_by,
        asked_at=timestamp(approval.asked_at),
        expires_at=timestamp(approval.expires_at),
        state=_STATES[approval.state],
        resolved_at=_optional(approval.resolved_at),
        resolved_by=approval.resolved_by,
        comment=approval.comment,
        capability_id=approval.capability_id,
        used_at=_optional(approval.used_at),
        consents=map(_consent, approval.consents),
    )


def _consent(consent: Consent) -> pb.ApprovalConsent:
    return pb.ApprovalConsent(
        role=consent.role,
        given_by=consent.given_by,
        given_at=timestamp(consent.given_at),
        comment=consent.comment,
        ttl=Duration(seconds=consent.ttl_seconds),
    )


def _optional(instant: Instant | None) -> Timestamp | None:
    return None if instant is None else timestamp(instant)


def _ttl(duration: Duration) -> int:
    if duration.nanos or not 1 <= duration.seconds <= MAX_TTL_SECONDS:
        raise InvalidRequestError.of(
            "ttl", f"must be 1 to {MAX_TTL_SECONDS} seconds, without a fraction"
        )
    return duration.seconds
