"""What the steward says in the audit log beside the sealing: each event in its own transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from time import monotonic
from typing import Final, Protocol

from licet.app.ports import Deadline
from licet.app.sealing import Recording
from licet.domain.audit_batch import MacKeys
from licet.domain.audit_event import EventType
from licet.domain.canonical_json import JsonValue
from licet.steward.journal import Journal

_STATEMENT_SECONDS: Final = 10.0


class Recordings(Protocol):
    """Where events are stored."""

    def register(self, writer_id: int, deadline: Deadline) -> None:
        """Make a writer known. Raises LicetError."""
        ...

    def recording(self, deadline: Deadline) -> AbstractContextManager[Recording]:
        """Begin a transaction that commits at the end of the block. Raises LicetError."""
        ...


class Records:
    """Writes as a writer of its own, which is registered with its first event. For one thread."""

    def __init__(self, recordings: Recordings, writer_id: Callable[[], int], keys: MacKeys) -> None:
        """Compose it.

        Args:
            recordings: where to.
            writer_id: draws the number of a new writer of the audit log.
            keys: authenticate the events until they are sealed.
        """
        self._recordings = recordings
        self._writer_id = writer_id
        self._keys = keys
        self._journal: Journal | None = None

    def record(self, event_type: EventType, reason: str, facts: Mapping[str, JsonValue]) -> None:
        """Store an event.

        Raises:
            LicetError: it may be stored or not; asked again, it may be there twice.
        """
        journal, self._journal = self._journal or self._registered(), None
        with self._recordings.recording(_soon()) as recording:
            journal.record(recording, event_type, reason, facts)
        # After a failure a new writer begins: this one may not be known to the database any more.
        self._journal = journal

    def _registered(self) -> Journal:
        writer_id = self._writer_id()
        self._recordings.register(writer_id, _soon())
        return Journal(writer_id, self._keys)


def _soon() -> Deadline:
    return Deadline.after(_STATEMENT_SECONDS, monotonic)
