"""Imported events from protobuf to the core's values, checked once."""

from __future__ import annotations

from licet.app.import_audit import (
    ACTOR_BYTES,
    KIND_BYTES,
    MAX_EVENTS,
    MAX_REQUEST_BYTES,
    SOURCE_BYTES,
    ForeignEvent,
    ImportCommand,
    ImportOutcome,
)
from licet.domain import names
from licet.domain.errors import InvalidRequestError, Violation
from licet.domain.pattern import resource_pattern
from licet.server.convert import instant, json_object
from licet.v1 import audit_service_pb2 as pb


def command(message: pb.ImportAuditRequest) -> ImportCommand:
    """Check an ImportAuditRequest. Raises InvalidRequestError naming `events[i].field`."""
    if message.ByteSize() > MAX_REQUEST_BYTES:
        raise InvalidRequestError.of("events", f"must have at most {MAX_REQUEST_BYTES} bytes")
    if not 1 <= len(message.events) <= MAX_EVENTS:
        raise InvalidRequestError.of(
            "events", f"must have 1 to {MAX_EVENTS} items, not {len(message.events)}"
        )
    events = [_event(event, position) for position, event in enumerate(message.events)]
    if len({event.id for event in events}) != len(events):
        raise InvalidRequestError.of("events", "must have distinct ids")
    return ImportCommand(
        source=_required(message.source, "source", SOURCE_BYTES),
        events=events,
        request_id=names.label(message.request_id, "request_id"),
    )


def outcome(found: ImportOutcome) -> pb.ImportAuditResponse:
    """Render what became of the events."""
    return pb.ImportAuditResponse(
        recorded=found.recorded,
        already_recorded=found.already_recorded,
        conflicting=found.conflicting,
    )


def _event(message: pb.ImportedEvent, position: int) -> ForeignEvent:
    try:
        return _checked(message)
    except InvalidRequestError as exc:
        raise InvalidRequestError(
            *(Violation(f"events[{position}].{v.field}", v.rule) for v in exc.violations)
        ) from None


def _checked(message: pb.ImportedEvent) -> ForeignEvent:
    occurred_at = instant(message, "occurred_at", message.occurred_at, up=False)
    if occurred_at is None:
        raise InvalidRequestError.of("occurred_at", "is required")
    capability = message.capability_id
    return ForeignEvent(
        id=_required(message.id, "id", names.LABEL_BYTES),
        occurred_at=occurred_at,
        event_type=_required(message.event_type, "event_type", KIND_BYTES),
        actor=names.label(message.actor, "actor", ACTOR_BYTES),
        principal=names.principal(message.principal) if message.principal else "",
        action=names.action(message.action) if message.action else "",
        resource=resource_pattern(message.resource) if message.resource else "",
        capability_id=names.capability_id(capability) if capability else "",
        capability=names.label(message.capability, "capability"),
        result=names.label(message.result, "result", KIND_BYTES),
        reason=names.label(message.reason, "reason", names.REASON_BYTES),
        session_id=names.label(message.session_id, "session_id"),
        trace_id=names.label(message.trace_id, "trace_id"),
        metadata=json_object(message.metadata, "metadata"),
    )


def _required(text: str, field: str, limit: int) -> str:
    if not text:
        raise InvalidRequestError.of(field, "is required")
    return names.label(text, field, limit)
