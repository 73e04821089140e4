"""The steward's own events in the audit log: heartbeats, incidents, epochs, archives.

They are stored in the transaction of what they tell of, and sealed like all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from licet.app.sealing import Recording
from licet.domain.audit_batch import MacKeys, batch_of
from licet.domain.audit_event import AuditEvent, EventType, Result, event_id, event_id_text, leaf
from licet.domain.canonical_json import JsonValue, canonical
from licet.domain.names import EventId

ACTOR: Final = "service:licet-steward"


class Journal:
    """Writes as one writer, which nobody else writes as."""

    def __init__(self, writer_id: int, keys: MacKeys) -> None:
        """Write as a writer that is registered."""
        self._writer_id = writer_id
        self._keys = keys

    def record(
        self,
        transaction: Recording,
        event_type: EventType,
        reason: str,
        facts: Mapping[str, JsonValue],
    ) -> EventId:
        """Store an event in the transaction, to be sealed by a later one, and return its id."""
        sequence = transaction.next_sequence(self._writer_id)
        bits = event_id(self._writer_id, sequence)
        event = AuditEvent(
            occurred_at=transaction.now,
            event_type=event_type,
            actor=ACTOR,
            principal="",
            action="",
            resource="",
            capability_id="",
            result=Result.DONE,
            reason=reason,
            policy_id="",
            session_id="",
            trace_id="",
            revision=0,
            metadata=canonical(facts),
        )
        leaves = [leaf(bits, event)]
        batch = batch_of(self._writer_id, sequence, leaves)
        transaction.record(sequence, self._keys.authenticated(batch), leaves)
        return event_id_text(bits)
