"""The background writer of decisions: an event is taken in memory and stored within 100 ms.

What it promises: an event is stored exactly once and in order, across lost connections and lost
answers to COMMIT, and all are stored before `close` returns true. What it does not: an event in
memory does not survive the end of the process. When more than `max_pending` events wait, further
ones are refused: no decision leaves that cannot be recorded.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from itertools import count
from threading import Event, Thread
from time import monotonic
from typing import Final, Protocol

from licet.app.ports import Deadline
from licet.domain.audit_event import AuditEvent, LeafEncoder, event_id, event_id_text
from licet.domain.errors import ConflictError, DeadlineError, UnavailableError
from licet.domain.instant import Instant
from licet.domain.names import EventId

_log: Final = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.075
BATCH: Final = 2000
_BACKOFF_SECONDS: Final = 0.5
_STATEMENT_SECONDS: Final = 10.0


class EventStore(Protocol):
    """Stores events; see `storage.audit`."""

    def shipped(self, writer_id: int, deadline: Deadline) -> int:
        """Return the sequence of the writer's last stored event."""
        ...

    def store(
        self,
        writer_id: int,
        first: int,
        leaves: Sequence[bytes],
        instants: Sequence[Instant],
        deadline: Deadline,
    ) -> bool:
        """Store consecutive events, all or none; False when the writer's offset is elsewhere."""
        ...


class BackgroundAuditLog:
    """See `ports.AuditLog`."""

    def __init__(self, store: EventStore, writer_id: int, max_pending: int) -> None:
        """Write as a writer that the store knows, with no event shipped yet."""
        self._store = store
        self._writer_id = writer_id
        self._prefix = event_id(writer_id, 0)
        # Ids differ in their last 48 bits only: no process takes more decisions than that.
        self._id_start = event_id_text(self._prefix)[:-12]
        self._max_pending = max_pending
        # No lock on the way of a decision: drawing a number and appending are atomic each. Two
        # threads may append in the other order than they drew, so the shipper sorts.
        self._sequences = count(1)
        self._queue: deque[tuple[int, AuditEvent]] = deque()
        # Owned by the shipping thread: taken from the queue, in order, not stored yet.
        self._taken: list[tuple[int, AuditEvent]] = []
        self._next = 1
        self._encode = LeafEncoder()
        self._wake = Event()
        self._pausing = Event()  # never set: a bounded wait
        self._closing = False
        self._abandoned = False
        self._thread = Thread(target=self._run, name="licet-audit", daemon=True)

    def start(self) -> None:
        """Start shipping."""
        self._thread.start()

    def record(self, event: AuditEvent) -> EventId:
        """See `ports.AuditLog.record`."""
        if self._closing or len(self._queue) + len(self._taken) >= self._max_pending:
            message = "the decision cannot be recorded: too many audit events wait for the database"
            raise UnavailableError(message)
        sequence = next(self._sequences)
        self._queue.append((sequence, event))
        return EventId(f"{self._id_start}{sequence:012x}")

    @property
    def recorded(self) -> int:
        """How many events were taken on record."""
        return self._next - 1 + self.pending

    @property
    def pending(self) -> int:
        """How many events wait."""
        return len(self._queue) + len(self._taken)

    def close(self, timeout: float) -> bool:
        """Refuse further events, store those that wait, and say whether all are stored.

        Whoever records must have stopped before: the server has drained.
        """
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        self._abandoned = True
        if self.pending:
            _log.error("%d audit events could not be stored before the end", self.pending)
        return not self.pending

    def _run(self) -> None:
        while True:
            self._wake.wait(TICK_SECONDS)
            closing = self._closing
            # A batch that is not full is not followed by another at once: a transaction costs the
            # same for one event as for hundreds, and more arrive by the next tick.
            while not self._abandoned and (batch := self._batch()):
                self._ship(batch)
                if len(batch) < BATCH and not closing:
                    break
            if closing:
                return

    def _batch(self) -> Sequence[tuple[int, AuditEvent]]:
        """Return the next events without a gap.

        A number that is drawn and not appended yet ends the batch.
        """
        queue, taken = self._queue, self._taken
        for _ in range(min(len(queue), BATCH)):
            taken.append(queue.popleft())
        taken.sort(key=_sequence)
        for position, (sequence, _) in enumerate(taken[:BATCH]):
            if sequence != self._next + position:
                return taken[:position]
        return taken[:BATCH]

    def _ship(self, batch: Sequence[tuple[int, AuditEvent]]) -> None:
        """Store a batch, then forget it; whatever fails, it stays in front."""
        end = monotonic() + _STATEMENT_SECONDS
        deadline = Deadline(lambda: end - monotonic())
        try:
            encode, prefix = self._encode, self._prefix
            leaves = [encode(prefix | sequence, event) for sequence, event in batch]
            instants = [event.occurred_at for _, event in batch]
            if self._store.store(self._writer_id, self._next, leaves, instants, deadline):
                stored = len(batch)
            else:
                # An earlier COMMIT whose answer was lost did happen.
                stored = self._store.shipped(self._writer_id, deadline) - self._next + 1
        except (UnavailableError, DeadlineError, ConflictError) as exc:
            self._pause(exc)
            return
        except Exception as exc:  # noqa: BLE001 - see below
            # A thread's own top: a bug must not end the audit log silently. The queue fills, and
            # decisions are refused.
            _log.exception("storing audit events failed")
            self._pause(exc)
            return
        del self._taken[:stored]
        self._next += stored

    def _pause(self, cause: Exception) -> None:
        _log.warning("%d audit events wait: %s", self.pending, cause)
        self._pausing.wait(_BACKOFF_SECONDS)


def _sequence(numbered: tuple[int, AuditEvent]) -> int:
    return numbered[0]
