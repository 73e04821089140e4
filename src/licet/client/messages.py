"""Between the values of this library and protobuf, which ends here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1.health_pb2 import HealthCheckResponse

from licet.client.errors import invalid
from licet.client.requests import AuditFilter, AuthorizeRequest, GrantFields
from licet.client.results import (
    AuditEvent,
    Candidate,
    Capability,
    CapabilityTree,
    ConsideredPolicy,
    Decision,
    Explanation,
    JsonObject,
    Revocation,
    ServingStatus,
)
from licet.domain.canonical_json import JsonValue
from licet.domain.instant import Instant, from_datetime, to_datetime
from licet.v1 import audit_pb2, capability_pb2, decision_pb2
from licet.v1 import authorization_pb2 as pb

_EXACT_INTEGERS: Final = 1 << 53
_MICROSECONDS: Final = 1_000_000
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)

_Message = TypeVar("_Message", bound=Message)


def build(kind: type[_Message], **fields: Any) -> _Message:  # noqa: ANN401 - any field of any message
    """Return a message; a field that is None stays unset.

    Raises:
        LicetCallError: a value is not one that the field can hold.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return kind(**given)
    except (TypeError, ValueError):
        for name, value in given.items():
            _check_alone(kind, name, value)
        raise


def _check_alone(kind: type[Message], name: str, value: object) -> None:
    try:
        kind(**{name: value})
    except UnicodeEncodeError:
        raise invalid(name, "must be valid UTF-8") from None
    except (TypeError, ValueError) as exc:
        raise invalid(name, f"cannot be sent: {exc}") from exc


def timestamp(moment: datetime | None, field: str) -> Timestamp | None:
    """Return an instant as a message, exactly.

    Raises:
        LicetCallError: it has no offset from UTC, so it is not an instant.
    """
    if moment is None:
        return None
    if moment.utcoffset() is None:
        raise invalid(field, "must be an aware datetime, with an offset from UTC")
    seconds, micros = divmod(from_datetime(moment), _MICROSECONDS)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


def duration(length: timedelta | None) -> Duration | None:
    """Return a duration as a message, exactly."""
    if length is None:
        return None
    seconds, rest = divmod(length, _SECOND)
    return Duration(seconds=seconds, nanos=rest // _MICROSECOND * 1000)


def struct(value: JsonObject | None, field: str) -> Struct | None:
    """Return a JSON object as a message.

    Raises:
        LicetCallError: it holds something that is not JSON, or an integer that a Struct, which
            has doubles only, would change.
    """
    if value is None:
        return None
    message = Struct()
    try:
        _check_integers(value)
        message.update(value)
    except UnicodeEncodeError:
        raise invalid(field, "must be valid UTF-8") from None
    except (TypeError, ValueError) as exc:
        raise invalid(field, f"must be a JSON object: {exc}") from exc
    return message


def _check_integers(value: JsonValue) -> None:
    if isinstance(value, Mapping):
        for item in value.values():
            _check_integers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_integers(item)
    elif isinstance(value, int) and abs(value) > _EXACT_INTEGERS:
        message = f"{value} is beyond 2**53 and would lose digits; send it as text"
        raise ValueError(message)


def authorize_request(request: AuthorizeRequest) -> pb.AuthorizeRequest:
    """Return a request as a message. Raises LicetCallError as `build` does."""
    return build(
        pb.AuthorizeRequest,
        principal=request.principal,
        action=request.action,
        resource=request.resource,
        context=struct(request.context, "context"),
        capability_id=request.capability_id,
        session_id=request.session_id,
        trace_id=request.trace_id,
        correlation_id=request.correlation_id,
        explain=request.explain,
    )


def grant_request(
    parent_id: str | None,
    principal: str,
    actions: str | Iterable[str],
    resource: str,
    fields: GrantFields,
) -> pb.GrantRequest:
    """Return a grant, or a delegation. Raises LicetCallError as `build` does."""
    given: dict[str, Any] = dict(fields)
    for name in ("expires_at", "not_before"):
        given[name] = timestamp(given.get(name), name)
    given["ttl"] = duration(given.get("ttl"))
    given["metadata"] = struct(given.get("metadata"), "metadata")
    return build(
        pb.GrantRequest,
        principal=principal,
        # A text is one action, not its letters.
        actions=[actions] if isinstance(actions, str) else list(actions),
        resource=resource,
        parent_capability_id=parent_id,
        **given,
    )


def audit_request(wanted: AuditFilter, page_size: int, page_token: str) -> pb.QueryAuditRequest:
    """Return the request for a page of audit events. Raises LicetCallError as `build` does."""
    fields: dict[str, Any] = dict(wanted)
    allowed = fields.pop("allowed", None)
    if allowed is not None:
        fields["decision"] = decision_pb2.DECISION_ALLOW if allowed else decision_pb2.DECISION_DENY
    fields["from"] = timestamp(fields.pop("since", None), "since")
    fields["to"] = timestamp(fields.pop("until", None), "until")
    fields["metadata"] = struct(fields.pop("metadata", None), "metadata")
    return build(pb.QueryAuditRequest, page_size=page_size, page_token=page_token, **fields)


def decision(message: pb.AuthorizeResponse) -> Decision:
    """Return a decision."""
    return Decision(
        # Whatever is not an ALLOW is a DENY, an outcome of a later API included.
        allowed=message.decision == decision_pb2.DECISION_ALLOW,
        reason=_name(decision_pb2.Reason.DESCRIPTOR, message.reason),
        detail=message.detail,
        capability_id=message.capability_id,
        policy_id=message.policy_id,
        decision_id=message.decision_id,
        revision=message.revision,
        valid_until=_optional(message, "valid_until", instant),
        retry_after=_optional(message, "retry_after", Duration.ToTimedelta),
        explanation=_optional(message, "explanation", _explanation),
        correlation_id=message.correlation_id,
        approval_id=message.approval_id,
    )


def capability(message: capability_pb2.Capability) -> Capability:
    """Return a capability."""
    return Capability(
        id=message.id,
        principal=message.principal,
        actions=tuple(message.actions),
        resource=message.resource,
        granted_by=message.granted_by,
        granted_at=instant(message.granted_at),
        not_before=_optional(message, "not_before", instant),
        expires_at=_optional(message, "expires_at", instant),
        parent_id=message.parent_id,
        delegation_depth=message.delegation_depth,
        condition=message.condition,
        session_id=message.session_id,
        metadata=_json_object(message.metadata),
        revision=message.revision,
        ended_at=_optional(message, "ended_at", instant),
        ended_by=message.ended_by,
        end_reason=message.end_reason,
        end_cause=_name(capability_pb2.EndCause.DESCRIPTOR, message.end_cause),
        approved_roles=tuple(message.approved_roles),
    )


def capability_tree(message: pb.GetCapabilityResponse) -> CapabilityTree:
    """Return a capability and what came with it."""
    return CapabilityTree(
        capability=capability(message.capability),
        ancestors=tuple(map(capability, message.ancestors)),
        descendants=tuple(map(capability, message.descendants)),
        descendants_truncated=message.descendants_truncated,
    )


def revocation(message: pb.RevokeResponse) -> Revocation:
    """Return what a revocation ended."""
    return Revocation(
        ended_count=message.ended_count,
        ended_capability_ids=tuple(message.ended_capability_ids),
        revision=message.revision,
        replicas_confirmed=message.replicas_confirmed,
        replicas_fenced=message.replicas_fenced,
        already_ended=message.already_ended,
    )


def audit_event(message: audit_pb2.AuditEvent) -> AuditEvent:
    """Return an audit event."""
    return AuditEvent(
        event_id=message.event_id,
        occurred_at=instant(message.occurred_at),
        event_type=message.event_type,
        actor=message.actor,
        principal=message.principal,
        action=message.action,
        resource=message.resource,
        capability_id=message.capability_id,
        result=message.result,
        reason=message.reason,
        policy_id=message.policy_id,
        session_id=message.session_id,
        trace_id=message.trace_id,
        revision=message.revision,
        metadata=_json_object(message.metadata),
    )


def serving_status(message: HealthCheckResponse) -> ServingStatus:
    """Return what a server says of itself."""
    match message.status:
        case HealthCheckResponse.SERVING:
            return ServingStatus.SERVING
        case HealthCheckResponse.NOT_SERVING:
            return ServingStatus.NOT_SERVING
        case _:
            return ServingStatus.UNKNOWN


_Part = TypeVar("_Part")


def _optional(message: Message, field: str, read: Callable[[Any], _Part]) -> _Part | None:
    return read(getattr(message, field)) if message.HasField(field) else None


def optional_instant(message: Message, field: str) -> datetime | None:
    """Return the instant of a field, or None when it is not set."""
    return _optional(message, field, instant)


def instant(message: Timestamp) -> datetime:
    """Return an instant, to the microsecond."""
    return to_datetime(Instant(message.seconds * _MICROSECONDS + message.nanos // 1000))


def _explanation(message: decision_pb2.Explanation) -> Explanation:
    return Explanation(
        candidates=tuple(
            Candidate(
                capability_id=candidate.capability_id,
                resource=candidate.resource,
                actions=tuple(candidate.actions),
                verdict=_name(decision_pb2.CandidateVerdict.DESCRIPTOR, candidate.verdict),
                detail=candidate.detail,
            )
            for candidate in message.candidates
        ),
        candidate_count=message.candidate_count,
        policies=tuple(
            ConsideredPolicy(
                policy_id=policy.policy_id,
                outcome=_name(decision_pb2.PolicyOutcome.DESCRIPTOR, policy.outcome),
                effect=policy.effect,
                detail=policy.detail,
            )
            for policy in message.policies
        ),
        policy_count=message.policy_count,
    )


def enum_name(kind: EnumDescriptor, number: int) -> str:
    """Return a value's name without its type's prefix; a value of a later API as its number."""
    return _name(kind, number)


def reason_name(number: int) -> str:
    """Return the name of a decision's reason."""
    return _name(decision_pb2.Reason.DESCRIPTOR, number)


def _name(kind: EnumDescriptor, number: int) -> str:
    """Return a value's name without its type's prefix; a value of a later API as its number."""
    found = kind.values_by_number.get(number)
    if found is None:
        return str(number)
    if number == 0:
        return ""
    prefix = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return found.name.removeprefix(prefix)


def _json_object(message: Struct) -> JsonObject:
    return {key: _json(value) for key, value in message.fields.items()}


def _json(value: Value) -> JsonValue:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            # A Struct has doubles only; a whole number is given back as one.
            return int(number) if number.is_integer() and abs(number) < _EXACT_INTEGERS else number
        case "list_value":
            return [_json(item) for item in value.list_value.values]
        case "struct_value":
            return _json_object(value.struct_value)
        case _:
            return None
