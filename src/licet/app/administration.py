"""Changes of licet's own administration: of who may call, of policies, and imports.

They are rarer than mutations and are committed one by one; in everything else they are alike: one
revision each, recorded in the same transaction, repeatable under their request id, and known by
every replica when they are confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from licet.app.ports import Applied, Deadline
from licet.domain.audit_event import AuditEvent, EventType
from licet.domain.canonical_json import JsonObject, JsonValue
from licet.domain.names import Caller


class AdminChange(NamedTuple):
    """A change that passed its checks.

    Attributes:
        event_type: says which; what comes before its dot, of what kind.
        request_id: the idempotency key; with the next.
        digest: of the body.
        actor: who asks for it.
        facts: go into the audit events.
        details: what the database needs to make it, by kind; see the migration that knows it.
    """

    event_type: EventType
    request_id: str
    digest: bytes
    actor: Caller
    facts: JsonObject
    details: Mapping[str, JsonValue]


class AdminChanges(Protocol):
    """The only way to make them."""

    def make(
        self, change: AdminChange, raise_refusal: Callable[[str], None], deadline: Deadline
    ) -> Applied:
        """Make and record a change, in one transaction, and wait until every replica knows it.

        `raise_refusal` is given the status: `done`, `already_ended` or `already`, or the code of a
        refusal by a rule of its kind, which is on record, and raises the error of that.

        Raises:
            NotPermittedError: whoever asks for it was suspended or disabled meanwhile; the attempt
                is on record.
            ConflictError: what it was checked against has changed meanwhile; nothing happened.
            RequestIdReusedError: the request id was used with another digest; nothing happened.
            UnavailableError: nothing happened.
            OutcomeUnknownError: it happened whole or not at all; the same request id tells.
        """
        ...

    def commit(self, change: AdminChange, deadline: Deadline) -> Applied:
        """Make and record a change, as `make` does, but wait for no replica.

        For what nobody decides by, and what only its row decides. The status of a refusal is left
        to the caller. Raises as `make` does.
        """
        ...

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """Record an attempt that the rules do not allow. See `ports.Mutations.refuse`."""
        ...
