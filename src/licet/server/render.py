"""Responses from the core's values to protobuf. Requests are in `convert.py`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from licet.app.authorize import Answer
from licet.app.ports import Granted, Revoked, Tree
from licet.app.prove import StoredCheckpoint
from licet.app.read import Page
from licet.app.replication import Change
from licet.app.watch import Heartbeat
from licet.domain.audit_event import RecordedEvent
from licet.domain.canonical_json import EMPTY, JsonObject
from licet.domain.capability import Capability
from licet.domain.decision import (
    Candidate,
    Explanation,
    PolicyOutcome,
    Reason,
    Verdict,
    describe,
    describe_candidate,
)
from licet.domain.instant import Instant
from licet.domain.names import is_principal
from licet.v1 import authorization_pb2 as pb
from licet.v1 import capability_pb2, decision_pb2
from licet.v1.audit_pb2 import AuditEvent

REASONS: Final = {reason: decision_pb2.Reason.Value(f"REASON_{reason.name}") for reason in Reason}
_ALLOW: Final = decision_pb2.DECISION_ALLOW
_DENY: Final = decision_pb2.DECISION_DENY
_OUTCOMES: Final = {
    outcome: decision_pb2.PolicyOutcome.Value(f"POLICY_OUTCOME_{outcome.name}")
    for outcome in PolicyOutcome
}
_VERDICTS: Final = {
    verdict: decision_pb2.CandidateVerdict.Value(f"CANDIDATE_VERDICT_{verdict.name}")
    for verdict in Verdict
}


def authorize(answer: Answer) -> pb.AuthorizeResponse:
    """Render an answer."""
    response = pb.AuthorizeResponse()
    _fill(response, answer)
    return response


def batch(answers: Iterable[Answer]) -> pb.BatchAuthorizeResponse:
    """Render the answers of a batch, each in its place: a message made elsewhere is copied."""
    response = pb.BatchAuthorizeResponse()
    add = response.responses.add
    for answer in answers:
        _fill(add(), answer)
    return response


def stream(answers: Iterable[Answer]) -> pb.StreamAuthorizeResponse:
    """Render the answers to a message of a stream, as those of a batch."""
    response = pb.StreamAuthorizeResponse()
    add = response.responses.add
    for answer in answers:
        _fill(add(), answer)
    return response


def _fill(response: pb.AuthorizeResponse, answer: Answer) -> None:
    # Field by field, which costs less than keyword arguments.
    request, decision, event_id, explanation, approval_id = answer
    capability = decision.capability
    response.decision = _ALLOW if decision.allowed else _DENY
    response.reason = REASONS[decision.reason]
    response.detail = describe(decision, request)
    if capability is not None:
        response.capability_id = capability.id
    response.decision_id = event_id
    response.revision = decision.revision
    if request.correlation_id:
        response.correlation_id = request.correlation_id
    if decision.valid_until is not None:
        response.valid_until.CopyFrom(timestamp(decision.valid_until))
    judgement = decision.judgement
    if judgement is not None and judgement.reason is not None:
        response.policy_id = judgement.policy_id
        if judgement.retry_after is not None:
            response.retry_after.FromMicroseconds(judgement.retry_after)
    if approval_id:
        response.approval_id = approval_id
    if explanation is not None:
        response.explanation.CopyFrom(_explanation(explanation))


def grant(granted: Granted) -> pb.GrantResponse:
    """Render what a grant did."""
    return pb.GrantResponse(capability=_capability(granted.capability), revision=granted.revision)


def revoke(revoked: Revoked) -> pb.RevokeResponse:
    """Render what a revocation did."""
    return pb.RevokeResponse(
        ended_count=revoked.ended,
        ended_capability_ids=revoked.ids,
        revision=revoked.revision,
        replicas_confirmed=revoked.confirmed,
        replicas_fenced=revoked.fenced,
        already_ended=revoked.already_ended,
    )


def capability(found: Capability, tree: Tree) -> pb.GetCapabilityResponse:
    """Render a capability and its tree."""
    return pb.GetCapabilityResponse(
        capability=_capability(found),
        ancestors=[_capability(c) for c in tree.ancestors],
        descendants=[_capability(c) for c in tree.descendants],
        descendants_truncated=tree.truncated,
    )


def capabilities(page: Page[Capability]) -> pb.ListCapabilitiesResponse:
    """Render a page of capabilities."""
    return pb.ListCapabilitiesResponse(
        capabilities=[_capability(c) for c in page.items], next_page_token=page.next_token
    )


def audit(
    page: Page[RecordedEvent], checkpoint: StoredCheckpoint | None, unsealed: int
) -> pb.QueryAuditResponse:
    """Render a page of audit events, and how much of it is under the checkpoint."""
    return pb.QueryAuditResponse(
        events=[_event(e) for e in page.items],
        next_page_token=page.next_token,
        checkpoint="" if checkpoint is None else checkpoint.note,
        checkpoint_size=0 if checkpoint is None else checkpoint.size,
        unsealed_count=unsealed,
    )


def watch(event: Change | Heartbeat) -> pb.WatchChangesResponse:
    """Render what a watch saw."""
    if isinstance(event, Heartbeat):
        heartbeat = pb.WatchHeartbeat(revision=event.revision, epoch=str(event.epoch))
        return pb.WatchChangesResponse(heartbeat=heartbeat)
    change = pb.WatchChange(
        revision=event.revision,
        at=timestamp(event.at),
        principals=filter(is_principal, event.principals or ()),
        everything=event.principals is None,
    )
    return pb.WatchChangesResponse(change=change)


def _capability(found: Capability) -> capability_pb2.Capability:
    terms, end = found.terms, found.end
    message = capability_pb2.Capability(
        id=found.id,
        principal=terms.principal,
        actions=terms.actions,
        resource=terms.resource,
        granted_by=found.granted_by,
        granted_at=timestamp(found.granted_at),
        not_before=None if terms.not_before is None else timestamp(terms.not_before),
        expires_at=None if terms.expires_at is None else timestamp(terms.expires_at),
        parent_id=found.parent_id or "",
        delegation_depth=terms.delegation_depth,
        condition=terms.condition,
        session_id=terms.session_id,
        metadata=_struct(terms.metadata),
        revision=found.revision,
        approved_roles=found.approved_roles,
    )
    if end is not None:
        message.ended_at.CopyFrom(timestamp(end.at))
        message.ended_by = end.by
        message.end_reason = end.reason
        message.end_cause = capability_pb2.EndCause.Value(f"END_CAUSE_{end.cause.name}")
    return message


def _event(recorded: RecordedEvent) -> AuditEvent:
    event = recorded.event
    return AuditEvent(
        event_id=recorded.event_id,
        occurred_at=timestamp(event.occurred_at),
        event_type=event.event_type,
        actor=event.actor,
        principal=event.principal,
        action=event.action,
        resource=event.resource,
        capability_id=event.capability_id,
        result=event.result,
        reason=event.reason,
        policy_id=event.policy_id,
        session_id=event.session_id,
        trace_id=event.trace_id,
        revision=event.revision,
        metadata=_struct(event.metadata),
    )


def _explanation(explanation: Explanation) -> decision_pb2.Explanation:
    return decision_pb2.Explanation(
        candidates=[_candidate(candidate) for candidate in explanation.candidates],
        candidate_count=explanation.total,
        policies=[
            decision_pb2.ConsideredPolicy(
                policy_id=policy.policy_id,
                outcome=_OUTCOMES[policy.outcome],
                effect=policy.effect,
                detail=policy.detail,
            )
            for policy in explanation.policies
        ],
        policy_count=explanation.policy_total,
    )


def _candidate(candidate: Candidate) -> decision_pb2.CandidateCapability:
    return decision_pb2.CandidateCapability(
        capability_id=candidate.capability.id,
        resource=candidate.capability.resource,
        actions=candidate.capability.actions,
        verdict=_VERDICTS[candidate.verdict],
        detail=describe_candidate(candidate),
    )


def timestamp(instant: Instant) -> Timestamp:
    """Render an instant."""
    seconds, micros = divmod(instant, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


def _struct(text: JsonObject) -> Struct:
    struct = Struct()
    if text != EMPTY:
        struct.update(json.loads(text))
    return struct
