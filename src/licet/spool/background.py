"""The background writer of decisions: an event is taken in memory and stored within 100 ms.

What it promises: an event is stored exactly once and in order, across lost connections and lost
answers to COMMIT, and all are stored before `close` returns true. What it does not: an event in
memory does not survive the end of the process. When more than `max_pending` events wait, further
ones are refused: no decision leaves that cannot be recorded.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import count, repeat
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final, NamedTuple, Protocol

from licet.app.ports import Deadline
from licet.domain.audit_event import event_id, event_id_text
from licet.domain.decision import Decision, Request
from licet.domain.decision_event import DecisionEncoder
from licet.domain.errors import ConflictError, DeadlineError, UnavailableError
from licet.domain.instant import Instant
from licet.domain.names import Caller, EventId

_log: Final = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.075
BATCH: Final = 4000
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
        instants: Collection[Instant],
        deadline: Deadline,
    ) -> bool:
        """Store consecutive events, all or none; False when the writer's offset is elsewhere."""
        ...

    def pass_over(self, writer_id: int, first: int, last: int, deadline: Deadline) -> None:
        """Move the writer's offset over events that are lost, unless it is elsewhere."""
        ...


class _Recorded(NamedTuple):
    """Decisions taken at one instant, with consecutive sequences from `first` on."""

    first: int
    caller: Caller
    now: Instant
    requests: Sequence[Request]
    decisions: Sequence[Decision]


class BackgroundAuditLog:
    """See `ports.AuditLog`."""

    def __init__(self, store: EventStore, writer_id: int, max_pending: int) -> None:
        """Write as a writer that the store knows, with no event shipped yet."""
        self._store = store
        self._writer_id = writer_id
        # Ids differ in their last 48 bits only: no process takes more decisions than that.
        self._id_start = event_id_text(event_id(writer_id, 0))[:-12]
        self._max_pending = max_pending
        # Guards the drawing of sequences together with the queue, so that the queue is in their
        # order. Nothing is done under it that waits.
        self._mutex = Lock()
        self._queue: deque[_Recorded] = deque()
        self._last = 0
        # Owned by the shipping thread: taken from the queue and not stored yet; and how much is.
        self._taken: list[_Recorded] = []
        self._stored = 0
        self._encode = DecisionEncoder(writer_id)
        self._wake = Event()
        self._pausing = Event()  # never set: a bounded wait
        self._closing = False
        self._abandoned = False
        self._thread = Thread(target=self._run, name="licet-audit", daemon=True)

    def start(self) -> None:
        """Start shipping."""
        self._thread.start()

    def record(self, caller: Caller, now: Instant, request: Request, decision: Decision) -> EventId:
        """See `ports.AuditLog.record`."""
        first = self._append(1, caller, now, (request,), (decision,))
        return EventId(f"{self._id_start}{first:012x}")

    def record_all(
        self,
        caller: Caller,
        now: Instant,
        requests: Sequence[Request],
        decisions: Sequence[Decision],
    ) -> Sequence[EventId]:
        """See `ports.AuditLog.record_all`."""
        count = len(requests)
        first = self._append(count, caller, now, requests, decisions)
        start = self._id_start
        return [EventId(f"{start}{sequence:012x}") for sequence in range(first, first + count)]

    @property
    def recorded(self) -> int:
        """How many events were taken on record."""
        return self._last

    @property
    def pending(self) -> int:
        """How many events wait."""
        return self._last - self._stored

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

    def _append(
        self,
        count: int,
        caller: Caller,
        now: Instant,
        requests: Sequence[Request],
        decisions: Sequence[Decision],
    ) -> int:
        """Record decisions and return the sequence of the first."""
        with self._mutex:
            first = self._last + 1
            if not self._closing and self._last + count - self._stored <= self._max_pending:
                self._last += count
                self._queue.append(_Recorded(first, caller, now, requests, decisions))
                return first
        message = "the decision cannot be recorded: too many audit events wait for the database"
        raise UnavailableError(message)

    def _run(self) -> None:
        while True:
            self._wake.wait(TICK_SECONDS)
            closing = self._closing
            # A batch that is not full is not followed by another at once: a transaction costs the
            # same for one event as for hundreds, and more arrive by the next tick.
            while not self._abandoned and (count := self._take()):
                self._ship()
                if count < BATCH and not closing:
                    break
            if closing:
                return

    def _take(self) -> int:
        """Take what waits, up to a batch or a little more, and return how many events it has."""
        queue, taken = self._queue, self._taken
        count = sum(len(group.requests) for group in taken)
        while queue and count < BATCH:
            taken.append(queue.popleft())
            count += len(taken[-1].requests)
        return count

    def _ship(self) -> None:
        """Store what was taken, then forget it; whatever fails, it stays in front."""
        end = monotonic() + _STATEMENT_SECONDS
        deadline = Deadline(lambda: end - monotonic())
        try:
            leaves = [leaf for group in self._taken for leaf in self._leaves(group)]
            instants = {group.now for group in self._taken}
            first = self._stored + 1
            if self._store.store(self._writer_id, first, leaves, instants, deadline):
                stored = self._stored + len(leaves)
            else:
                # An earlier COMMIT whose answer was lost did happen; or the database was restored,
                # or has failed over, and has lost what it had: what follows must not wait for that.
                stored = self._store.shipped(self._writer_id, deadline)
                if stored < self._stored:
                    _log.error("audit events %d to %d are lost", stored + 1, self._stored)
                    self._store.pass_over(self._writer_id, stored + 1, self._stored, deadline)
                    return
        except (UnavailableError, DeadlineError, ConflictError) as exc:
            self._pause(exc)
            return
        except Exception as exc:  # noqa: BLE001 - see below
            # A thread's own top: a bug must not end the audit log silently. The queue fills, and
            # decisions are refused.
            _log.exception("storing audit events failed")
            self._pause(exc)
            return
        # Groups are stored whole.
        self._taken = [group for group in self._taken if group.first > stored]
        self._stored = stored

    def _leaves(self, group: _Recorded) -> Iterator[bytes]:
        first, caller, now, requests, decisions = group
        return map(self._encode, count(first), repeat(caller), repeat(now), requests, decisions)

    def _pause(self, cause: Exception) -> None:
        _log.warning("%d audit events wait: %s", self.pending, cause)
        self._pausing.wait(_BACKOFF_SECONDS)
