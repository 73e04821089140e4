"""Requests from protobuf to the core's values, checked once. Responses are in `render.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from licet.app.audit_ports import AuditFilter
from licet.app.grant import GrantCommand
from licet.app.ports import CapabilityFilter, RevokeTarget
from licet.app.revoke import RevokeCommand
from licet.app.watch import WatchStart
from licet.domain import names
from licet.domain.audit_event import EventType, Result
from licet.domain.canonical_json import (
    EMPTY,
    MAX_DEPTH,
    JsonObject,
    JsonValue,
    NotCanonicalError,
    canonical,
)
from licet.domain.capability import MAX_DELEGATION_DEPTH, Terms, checked_actions
from licet.domain.condition import checked_text
from licet.domain.decision import Request
from licet.domain.errors import InvalidRequestError, Violation
from licet.domain.instant import EARLIEST, LATEST, Instant
from licet.domain.names import Caller, CapabilityId
from licet.domain.pattern import resource_pattern
from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2

MAX_BATCH: Final = 1000
MAX_EXPLAINED: Final = 10
"""How many items of a batch may ask for an explanation: more could exceed a message."""
MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100
MAX_EVENT_TYPES: Final = 32

_MIN_TTL: Final = 1_000
_MAX_TTL: Final = 100 * 366 * 86_400 * 1_000_000
_MAX_SECONDS: Final = 253_402_300_799
_NANOS: Final = 1_000_000_000
_EXACT_INTEGERS: Final = 1 << 53
# One less than canonical JSON has: metadata stands within the facts of an audit event.
_MAX_LEVELS: Final = MAX_DEPTH - 1
# What cannot fit into JSON_BYTES of text is not even taken apart.
_MAX_STRUCT_BYTES: Final = 8 * names.JSON_BYTES

_RESULTS: Final[dict[int, Result]] = {
    decision_pb2.DECISION_ALLOW: Result.ALLOW,
    decision_pb2.DECISION_DENY: Result.DENY,
}

_Checked = TypeVar("_Checked")
# A named tuple's own constructor is written in Python and costs twice as much.
_new: Final = tuple.__new__


def authorize(message: pb.AuthorizeRequest) -> Request:
    """Check an AuthorizeRequest. Raises InvalidRequestError."""
    # Most requests have none of these, and a call that checks nothing costs nearly as much.
    capability_id, session_id = message.capability_id, message.session_id
    trace_id, correlation_id = message.trace_id, message.correlation_id
    return _new(
        Request,
        (
            names.principal(message.principal),
            names.action(message.action),
            names.resource(message.resource),
            json_object(message.context, "context") if message.HasField("context") else EMPTY,
            names.capability_id(capability_id) if capability_id else None,
            names.label(session_id, "session_id") if session_id else "",
            names.label(trace_id, "trace_id") if trace_id else "",
            names.label(correlation_id, "correlation_id") if correlation_id else "",
            message.explain,
        ),
    )


def batch(messages: Sequence[pb.AuthorizeRequest]) -> list[Request]:
    """Check the requests of a batch. Raises InvalidRequestError naming `requests[i].field`."""
    if not 1 <= len(messages) <= MAX_BATCH:
        raise InvalidRequestError.of(
            "requests", f"must have 1 to {MAX_BATCH} items, not {len(messages)}"
        )
    requests: list[Request] = []
    try:
        # Appended one by one, so that the number of those that passed tells which did not.
        for message in messages:
            requests.append(authorize(message))  # noqa: PERF401
    except InvalidRequestError as exc:
        raise InvalidRequestError(
            *(Violation(f"requests[{len(requests)}].{v.field}", v.rule) for v in exc.violations)
        ) from None
    if sum(request.explain for request in requests) > MAX_EXPLAINED:
        raise InvalidRequestError.of("requests", f"must have at most {MAX_EXPLAINED} with explain")
    return requests


def grant(message: pb.GrantRequest) -> GrantCommand:
    """Check a GrantRequest. Raises InvalidRequestError."""
    if message.HasField("ttl") and message.HasField("expires_at"):
        raise InvalidRequestError.of("ttl", "must not be set together with expires_at")
    if message.delegation_depth > MAX_DELEGATION_DEPTH:
        raise InvalidRequestError.of("delegation_depth", f"must be at most {MAX_DELEGATION_DEPTH}")
    return GrantCommand(
        terms=Terms(
            principal=names.principal(message.principal),
            actions=checked_actions(message.actions),
            resource=resource_pattern(message.resource),
            # Rounded to the microsecond so that the time shrinks rather than grows.
            not_before=instant(message, "not_before", message.not_before, up=True),
            expires_at=instant(message, "expires_at", message.expires_at, up=False),
            delegation_depth=message.delegation_depth,
            session_id=names.label(message.session_id, "session_id"),
            metadata=json_object(message.metadata, "metadata"),
            condition=checked_text(message.condition),
        ),
        ttl=ttl(message.ttl) if message.HasField("ttl") else None,
        parent_id=_optional(
            message.parent_capability_id, "parent_capability_id", names.capability_id
        ),
        request_id=names.label(message.request_id, "request_id"),
        trace_id=names.label(message.trace_id, "trace_id"),
    )


def revoke(message: pb.RevokeRequest) -> RevokeCommand:
    """Check a RevokeRequest. Raises InvalidRequestError."""
    if bool(message.capability_id) == message.HasField("filter"):
        raise InvalidRequestError.of("capability_id", "or filter must be set, and not both")
    if message.dry_run and message.request_id:
        raise InvalidRequestError.of("request_id", "must not be set together with dry_run")
    if message.capability_id:
        target = RevokeTarget(capability_id=names.capability_id(message.capability_id))
    else:
        target = _revoke_filter(message.filter)
    return RevokeCommand(
        target=target,
        reason=names.label(message.reason, "reason", names.REASON_BYTES),
        dry_run=message.dry_run,
        request_id=names.label(message.request_id, "request_id"),
        trace_id=names.label(message.trace_id, "trace_id"),
    )


def capability_id(message: pb.GetCapabilityRequest) -> CapabilityId:
    """Check a GetCapabilityRequest. Raises InvalidRequestError."""
    return names.capability_id(message.capability_id)


def capability_filter(message: pb.ListCapabilitiesRequest) -> CapabilityFilter:
    """Check the filter of a ListCapabilitiesRequest. Raises InvalidRequestError."""
    return CapabilityFilter(
        principal=_optional(message.principal, "principal", names.principal),
        resource=_optional(message.resource, "resource", resource_pattern),
        granted_by=_optional(message.granted_by, "granted_by", _caller),
        session_id=_optional(message.session_id, "session_id", names.label),
        parent_id=_optional(
            message.parent_capability_id, "parent_capability_id", names.capability_id
        ),
        include_ended=message.include_ended,
    )


def audit_filter(message: pb.QueryAuditRequest) -> AuditFilter:
    """Check the filter of a QueryAuditRequest. Raises InvalidRequestError."""
    return AuditFilter(
        event_types=_event_types(message.event_types),
        principal=_optional(message.principal, "principal", names.principal),
        actor=_optional(message.actor, "actor", _caller),
        resource=_optional(message.resource, "resource", resource_pattern),
        action=_optional(message.action, "action", names.action),
        capability_id=_optional(message.capability_id, "capability_id", names.capability_id),
        result=_result(message.decision),
        reason=_optional(message.reason, "reason", names.label),
        policy_id=_optional(message.policy_id, "policy_id", names.label),
        session_id=_optional(message.session_id, "session_id", names.label),
        trace_id=_optional(message.trace_id, "trace_id", names.label),
        metadata=json_object(message.metadata, "metadata")
        if message.HasField("metadata")
        else None,
        since=instant(message, "from", getattr(message, "from"), up=True),
        until=instant(message, "to", message.to, up=True),
    )


def watch(message: pb.WatchChangesRequest) -> WatchStart:
    """Check a WatchChangesRequest. Raises InvalidRequestError."""
    after = message.after_revision if message.HasField("after_revision") else None
    if after is not None and after < 0:
        raise InvalidRequestError.of("after_revision", "must not be negative")
    if after is None and message.epoch:
        raise InvalidRequestError.of("epoch", "must not be set without after_revision")
    return WatchStart(after, _optional(message.epoch, "epoch", _epoch))


def page_size(size: int) -> int:
    """Check a page size; 0 is the default. Raises InvalidRequestError."""
    if not 0 <= size <= MAX_PAGE:
        raise InvalidRequestError.of("page_size", f"must be 0 to {MAX_PAGE}")
    return size or DEFAULT_PAGE


def page_token(token: str) -> str:
    """Check the length of a page token. Raises InvalidRequestError."""
    if len(token) > names.RESOURCE_BYTES:
        raise InvalidRequestError.of("page_token", "must be a next_page_token of this service")
    return token


def _optional(text: str, field: str, check: Callable[[str, str], _Checked]) -> _Checked | None:
    return check(text, field) if text else None


def _caller(text: str, field: str) -> Caller:
    return Caller(names.principal(text, field))


def _epoch(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequestError.of(field, "must be a UUID") from None


def _revoke_filter(message: pb.RevokeFilter) -> RevokeTarget:
    target = RevokeTarget(
        principal=_optional(message.principal, "filter.principal", names.principal),
        resource=_optional(message.resource, "filter.resource", resource_pattern),
        granted_by=_optional(message.granted_by, "filter.granted_by", _caller),
        session_id=_optional(message.session_id, "filter.session_id", names.label),
    )
    if target == RevokeTarget():
        raise InvalidRequestError.of(
            "filter", "must have at least one field: an empty one would match everything"
        )
    return target


def _event_types(types: Iterable[str]) -> tuple[str, ...]:
    checked = tuple(types)
    if len(checked) > MAX_EVENT_TYPES:
        raise InvalidRequestError.of("event_types", f"must have at most {MAX_EVENT_TYPES} items")
    known = set(EventType)
    for position, text in enumerate(checked):
        if text not in known:
            raise InvalidRequestError.of(
                f"event_types[{position}]", f"must be one of {', '.join(EventType)}"
            )
    return checked


def _result(decision: int) -> str | None:
    if decision == decision_pb2.DECISION_UNSPECIFIED:
        return None
    if decision not in _RESULTS:
        raise InvalidRequestError.of("decision", "must be DECISION_ALLOW or DECISION_DENY")
    return _RESULTS[decision]


def instant(message: Message, field: str, timestamp: Timestamp, *, up: bool) -> Instant | None:
    """Check an optional instant; None: it is not set. Raises InvalidRequestError."""
    if not message.HasField(field):
        return None
    if not 0 <= timestamp.nanos < _NANOS or not 0 <= timestamp.seconds <= _MAX_SECONDS:
        raise InvalidRequestError.of(field, "must be a Timestamp from 1970 to 9999")
    micros, rest = divmod(timestamp.nanos, 1000)
    found = timestamp.seconds * 1_000_000 + micros + (1 if up and rest else 0)
    return Instant(min(max(found, EARLIEST), LATEST))


def ttl(duration: Duration) -> int:
    """Check a time to live and return its microseconds. Raises InvalidRequestError."""
    micros = duration.seconds * 1_000_000 + duration.nanos // 1000
    if not _MIN_TTL <= micros <= _MAX_TTL or not 0 <= duration.nanos < _NANOS:
        raise InvalidRequestError.of("ttl", "must be from 1 millisecond to 100 years")
    return micros


def json_object(struct: Struct, field: str) -> JsonObject:
    """Check a JSON object and return its canonical text. Raises InvalidRequestError."""
    if not struct.fields:
        return EMPTY
    rule = f"must have at most {names.JSON_BYTES} bytes as JSON"
    if struct.ByteSize() > _MAX_STRUCT_BYTES:
        raise InvalidRequestError.of(field, rule)
    try:
        text = canonical({key: _value(value, 1) for key, value in struct.fields.items()})
    except NotCanonicalError as exc:
        raise InvalidRequestError.of(field, str(exc)) from None
    if len(text.encode()) > names.JSON_BYTES:
        raise InvalidRequestError.of(field, rule)
    return text


def _value(value: Value, depth: int) -> JsonValue:
    if depth > _MAX_LEVELS:
        message = f"must have at most {_MAX_LEVELS} levels"
        raise NotCanonicalError(message)
    match value.WhichOneof("kind"):
        case "null_value":
            return None
        case "bool_value":
            return value.bool_value
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            # A Struct has doubles only; a whole number is written as one.
            return int(number) if number.is_integer() and abs(number) < _EXACT_INTEGERS else number
        case "list_value":
            return [_value(item, depth + 1) for item in value.list_value.values]
        case "struct_value":
            return {key: _value(item, depth + 1) for key, item in value.struct_value.fields.items()}
        case _:
            message = "must have a kind for every value"
            raise NotCanonicalError(message)
