"""The log of another system, brought to licet's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import grpc

from licet.client import messages, transport
from licet.client.results import JsonObject
from licet.v1 import audit_service_pb2 as pb
from licet.v1.audit_service_pb2_grpc import AuditServiceStub


@dataclass(frozen=True, slots=True)
class ForeignEvent:
    """An event as another system had it.

    Attributes:
        id: its id there.
        occurred_at: when it happened.
        event_type: what kind it was there.
        actor: who caused it.
        principal: whose rights were concerned.
        action: what was to be done.
        resource: what it was about.
        capability_id: the capability as licet has it.
        capability: its id there.
        result: how it came out there.
        reason: why.
        session_id: the session.
        trace_id: the trace.
        metadata: further facts.
    """

    id: str
    occurred_at: datetime
    event_type: str
    actor: str = ""
    principal: str = ""
    action: str = ""
    resource: str = ""
    capability_id: str = ""
    capability: str = ""
    result: str = ""
    reason: str = ""
    session_id: str = ""
    trace_id: str = ""
    metadata: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class AuditImport:
    """What became of imported events.

    Attributes:
        recorded: how many are new.
        already_recorded: how many were there before, as they are here.
        conflicting: the positions of those that were there before and were not as they are here.
    """

    recorded: int
    already_recorded: int
    conflicting: tuple[int, ...]


class Imports:
    """The call; `Client.imports`."""

    def __init__(self, channel: grpc.Channel, seconds: Callable[[float | None], float]) -> None:
        """Call over this channel; `seconds` gives each call its timeout."""
        self._stub = AuditServiceStub(channel)
        self._seconds = seconds

    def audit(
        self,
        source: str,
        events: Iterable[ForeignEvent],
        *,
        request_id: str = "",
        timeout: float | None = None,
    ) -> AuditImport:
        """Record events of another system's log, each once however often it is brought.

        Args:
            source: which system.
            events: at most 1,000, of at most 1 MiB together.
            request_id: idempotency key; one is made when there is none.
            timeout: seconds, when not the client's.

        Raises:
            LicetCallError: see there for what is known then.
        """
        request = pb.ImportAuditRequest(
            source=source,
            events=[_message(event) for event in events],
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.ImportAudit, request, self._seconds(timeout))
        return AuditImport(answer.recorded, answer.already_recorded, tuple(answer.conflicting))


def _message(event: ForeignEvent) -> pb.ImportedEvent:
    """Return an event as it is sent.

    Raises:
        LicetCallError: a field holds what cannot be sent.
    """
    return messages.build(
        pb.ImportedEvent,
        id=event.id,
        occurred_at=messages.timestamp(event.occurred_at, "occurred_at"),
        event_type=event.event_type,
        actor=event.actor,
        principal=event.principal,
        action=event.action,
        resource=event.resource,
        capability_id=event.capability_id,
        capability=event.capability,
        result=event.result,
        reason=event.reason,
        session_id=event.session_id,
        trace_id=event.trace_id,
        metadata=messages.struct(event.metadata, "metadata"),
    )
