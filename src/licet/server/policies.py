"""Policy sets from protobuf to the core's values, checked once, and back."""

from __future__ import annotations

from typing import Final

from licet.app.policies import PolicySetPut, PutPolicySetCommand, RollbackCommand, Tested
from licet.app.policy_ports import StoredPolicySet
from licet.app.read import Page
from licet.domain import names
from licet.domain.decision import Reason
from licet.domain.errors import InvalidRequestError
from licet.domain.policy_cases import Result
from licet.server.render import REASONS, timestamp
from licet.v1 import decision_pb2
from licet.v1 import policy_pb2 as pb

MAX_DOCUMENT_BYTES: Final = 512 * 1024


def put(message: pb.PutPolicySetRequest) -> PutPolicySetCommand:
    """Check a PutPolicySetRequest. Raises InvalidRequestError."""
    if message.only_check and message.request_id:
        raise InvalidRequestError.of("request_id", "must not be set together with only_check")
    return PutPolicySetCommand(
        source=document(message.document, "document", is_required=True),
        comment=_comment(message.comment),
        expected_version=_expected(message),
        request_id=names.label(message.request_id, "request_id"),
        only_check=message.only_check,
    )


def rollback(message: pb.RollbackPolicySetRequest) -> RollbackCommand:
    """Check a RollbackPolicySetRequest. Raises InvalidRequestError."""
    return RollbackCommand(
        version=_version(message.version, 1),
        comment=_comment(message.comment),
        expected_version=_expected(message),
        request_id=names.label(message.request_id, "request_id"),
    )


def version(message: pb.GetPolicySetRequest) -> int | None:
    """Check a GetPolicySetRequest; None is the version that holds. Raises InvalidRequestError."""
    return _version(message.version, 0) or None


def test(message: pb.TestPolicySetRequest) -> tuple[str, str]:
    """Check a TestPolicySetRequest: its two documents. Raises InvalidRequestError."""
    return (
        document(message.document, "document", is_required=False),
        document(message.cases, "cases", is_required=True),
    )


def document(text: str, field: str, *, is_required: bool) -> str:
    """Check the length of a document. Raises InvalidRequestError."""
    if is_required and not text:
        raise InvalidRequestError.of(field, "is required")
    if len(text.encode()) > MAX_DOCUMENT_BYTES:
        raise InvalidRequestError.of(field, f"must have at most {MAX_DOCUMENT_BYTES} bytes")
    if "\0" in text:
        raise InvalidRequestError.of(field, "must not hold U+0000")
    return text


def was_put(done: PolicySetPut) -> pb.PutPolicySetResponse:
    """Render what putting a document did."""
    return pb.PutPolicySetResponse(
        version=done.version,
        revision=done.revision,
        policy_count=done.policies,
        replicas_confirmed=done.confirmation.confirmed,
        replicas_fenced=done.confirmation.fenced,
    )


def rolled_back(done: PolicySetPut) -> pb.RollbackPolicySetResponse:
    """Render what going back to a version did."""
    return pb.RollbackPolicySetResponse(
        version=done.version,
        revision=done.revision,
        replicas_confirmed=done.confirmation.confirmed,
        replicas_fenced=done.confirmation.fenced,
    )


def found(stored: StoredPolicySet) -> pb.GetPolicySetResponse:
    """Render a version."""
    return pb.GetPolicySetResponse(policy_set=_policy_set(stored))


def page(listed: Page[StoredPolicySet]) -> pb.ListPolicySetsResponse:
    """Render a page of versions."""
    return pb.ListPolicySetsResponse(
        policy_sets=map(_policy_set, listed.items), next_page_token=listed.next_token
    )


def tested(done: Tested) -> pb.TestPolicySetResponse:
    """Render what came of cases."""
    return pb.TestPolicySetResponse(
        results=map(_result, done.results), not_reached=done.not_reached
    )


def _result(result: Result) -> pb.PolicyCaseResult:
    actual = result.actual
    allows = actual.decision == "ALLOW"
    return pb.PolicyCaseResult(
        name=result.case.name,
        line=result.case.line,
        passed=result.is_expected,
        decision=decision_pb2.DECISION_ALLOW if allows else decision_pb2.DECISION_DENY,
        reason=REASONS[Reason(actual.reason)],
        policy_id=actual.policy,
        detail=result.detail,
    )


def _policy_set(stored: StoredPolicySet) -> pb.PolicySet:
    return pb.PolicySet(
        version=stored.version,
        document=stored.source,
        comment=stored.comment,
        rollback_of=stored.rollback_of or 0,
        put_at=timestamp(stored.put_at),
        put_by=stored.put_by,
        revision=stored.revision,
    )


def _comment(text: str) -> str:
    return names.label(text, "comment", names.REASON_BYTES)


def _version(number: int, least: int) -> int:
    if number < least:
        raise InvalidRequestError.of("version", f"must be at least {least}")
    return number


def _expected(message: pb.PutPolicySetRequest | pb.RollbackPolicySetRequest) -> int | None:
    if not message.HasField("expected_version"):
        return None
    if message.expected_version < 0:
        raise InvalidRequestError.of("expected_version", "must be at least 0")
    return message.expected_version
