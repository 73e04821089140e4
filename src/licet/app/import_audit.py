"""Imported events: the log of an older system, recorded as what a caller brought.

Such an event is never one of licet's own: its type is `import.event`, its result is `done`, its
actor is the caller who imports it, and its time is that of the import. What the other system said
is in its metadata, under `imported`; principal, action, resource, session and trace are columns of
the event as well, so that queries find it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final, NamedTuple

from licet.app.administration import AdminChange, AdminChanges
from licet.app.ports import Clock, Deadline, Ids
from licet.app.user_ports import UserStore, seen_of
from licet.domain.audit_event import EventType
from licet.domain.caller import Identity
from licet.domain.canonical_json import EMPTY, JsonObject, JsonValue
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant, rfc3339

MAX_EVENTS: Final = 1000
"""How many are recorded at once: so long all changes wait."""
MAX_REQUEST_BYTES: Final = 1024 * 1024
SOURCE_BYTES: Final = 64
KIND_BYTES: Final = 64
ACTOR_BYTES: Final = 256


class ForeignEvent(NamedTuple):
    """An event as another system had it, its fields checked; a text may be empty.

    `capability_id` is licet's, `capability` is the id that it had there.
    """

    id: str
    occurred_at: Instant
    event_type: str
    actor: str
    principal: str
    action: str
    resource: str
    capability_id: str
    capability: str
    result: str
    reason: str
    session_id: str
    trace_id: str
    metadata: JsonObject


class ImportCommand(NamedTuple):
    """What a caller brings; ids are distinct."""

    source: str
    events: Sequence[ForeignEvent]
    request_id: str


class ImportOutcome(NamedTuple):
    """What became of the events.

    Attributes:
        recorded: how many are new.
        already_recorded: how many were there, as they are here.
        conflicting: the positions of those that were there and were not as they are here.
    """

    recorded: int
    already_recorded: int
    conflicting: tuple[int, ...]


class ImportAudit:
    """Records imported events, each once."""

    def __init__(self, changes: AdminChanges, clock: Clock, ids: Ids, users: UserStore) -> None:
        """Compose the use case."""
        self._changes = changes
        self._clock = clock
        self._ids = ids
        self._users = users

    def __call__(
        self, command: ImportCommand, caller: Identity, deadline: Deadline
    ) -> ImportOutcome:
        """Record those that were not imported before.

        Raises:
            ForbiddenError: the caller has limits, and another log may be about anything.
            InvalidRequestError: one is from the future; nothing was recorded.
            ConflictError: the caller's roles have changed meanwhile; nothing was recorded.
            RequestIdReusedError, UnavailableError, OutcomeUnknownError: see `AdminChanges.make`.
        """
        caller.check_unlimited("imports")
        now = self._clock.now()
        for position, event in enumerate(command.events):
            if event.occurred_at > now:
                raise InvalidRequestError.of(
                    f"events[{position}].occurred_at", "must not be in the future"
                )
        details = [_details(command.source, event) for event in command.events]
        body = [command.source, caller.caller, [each["digest"] for each in details]]
        change = AdminChange(
            event_type=EventType.IMPORTED,
            request_id=command.request_id or self._ids.request_id(),
            digest=hashlib.sha256(json.dumps(body).encode()).digest(),
            actor=caller.caller,
            facts=EMPTY,
            details={"events": details, "seen": seen_of(caller, self._users, deadline)},
        )
        outcome = self._changes.make(change, _raise_refusal, deadline).outcome
        return ImportOutcome(
            int(outcome["recorded"]),
            int(outcome["already_recorded"]),
            tuple(map(int, outcome["conflicting"])),
        )


def _raise_refusal(status: str) -> None:
    if status != "done":
        raise RuntimeError(f"an import cannot end with {status}")


def _details(source: str, event: ForeignEvent) -> dict[str, JsonValue]:
    """Return an event as licet.apply_import_change takes it."""
    # The ids and names stand apart in a list: no two of them make one text.
    key = json.dumps([source, event.id])
    # Whether licet has the capability may change from one import to the next.
    said = event._replace(capability_id="")
    return {
        "key": hashlib.sha256(key.encode()).hexdigest(),
        "digest": hashlib.sha256(json.dumps([source, *said]).encode()).hexdigest(),
        "principal": event.principal,
        "action": event.action,
        "resource": event.resource,
        "capability_id": event.capability_id,
        "session_id": event.session_id,
        "trace_id": event.trace_id,
        "metadata": {"imported": _said(source, event)},
    }


def _said(source: str, event: ForeignEvent) -> dict[str, JsonValue]:
    said: dict[str, JsonValue] = {
        "source": source,
        "id": event.id,
        "occurred_at": rfc3339(event.occurred_at),
        "event_type": event.event_type,
        "actor": event.actor,
        "capability": event.capability,
        "result": event.result,
        "reason": event.reason,
    }
    if event.metadata != EMPTY:
        said["metadata"] = json.loads(event.metadata)
    return said
