"""The audit log of decisions: each is in the spool before it leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat
from threading import Lock
from typing import Final

from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.app.recording import Acknowledge, Recorded
from licet.domain.audit_event import (
    AuditEvent,
    EventType,
    Result,
    event_id,
    event_id_text,
    leaf_body,
)
from licet.domain.canonical_json import JsonValue, canonical
from licet.domain.decision import Decision, Request
from licet.domain.decision_event import decision_body
from licet.domain.errors import UnavailableError
from licet.domain.instant import Instant
from licet.domain.names import Caller, EventId
from licet.spool.group_sync import DISK_SECONDS
from licet.spool.writer import SpoolWriter

ACTOR: Final = "service:licet"

# A named tuple's own constructor is written in Python and costs twice as much.
_new: Final = tuple.__new__
# Formatting a number costs three times as much as looking up its text.
_LAST_DIGITS: Final = tuple(f"{number:03x}" for number in range(0x1000))


class SpoolAuditLog:
    """See `recording.AuditLog`."""

    def __init__(self, writer: SpoolWriter, now: Callable[[], Instant]) -> None:
        """Record into a spool; `now` dates the log's events about itself."""
        self._writer = writer
        self._now = now
        # Ids differ in their last 48 bits only: no process takes more decisions than that.
        self._id_start = event_id_text(event_id(writer.folder.writer_id, 0))[:-12]
        # The first digits of those, and the id up to the last three: the same 4,096 times.
        self._head = -1, ""
        self._mutex = Lock()
        self.refused = 0
        """How many decisions could not be recorded, and did not leave."""
        self._told = 0
        self._own = 0
        self._steps: deque[int] = deque()

    def record(self, caller: Caller, now: Instant, request: Request, decision: Decision) -> EventId:
        """See `recording.AuditLog.record`."""
        writer = self._writer
        try:
            if self._steps:
                self._tell_steps()
            sequence = writer.append(decision_body(caller, now, request, decision))
            writer.wait(sequence, DISK_SECONDS)
        except UnavailableError:
            self._refused(1)
            raise
        return self._id(sequence)

    def record_all(
        self,
        caller: Caller,
        now: Instant,
        requests: Sequence[Request],
        decisions: Sequence[Decision],
    ) -> Sequence[EventId]:
        """See `recording.AuditLog.record_all`."""
        writer = self._writer
        bodies = list(map(decision_body, repeat(caller), repeat(now), requests, decisions))
        try:
            if self._steps:
                self._tell_steps()
            first = writer.append_all(bodies)
            writer.wait(first + len(bodies) - 1, DISK_SECONDS)
        except UnavailableError:
            self._refused(len(bodies))
            raise
        return self._ids(first, len(bodies))

    def record_early(
        self,
        caller: Caller,
        now: Instant,
        requests: Sequence[Request],
        decisions: Sequence[Decision],
        deadline: Deadline,
    ) -> Recorded:
        """See `recording.AuditLog.record_early`."""
        writer, waits, count = self._writer, deadline is not AT_ONCE, len(decisions)
        # A step is recorded first, and that may wait for the next segment.
        if not waits and (self._steps or writer.is_crowded):
            raise NotAtOnceError
        try:
            if self._steps:
                self._tell_steps()
            if count == 1:
                body = decision_body(caller, now, requests[0], decisions[0])
                first = writer.append(body, waits=waits)
            else:
                bodies = list(map(decision_body, repeat(caller), repeat(now), requests, decisions))
                first = writer.append_all(bodies, waits=waits)
        except UnavailableError:
            self._refused(count)
            raise
        return _new(Recorded, (self._ids(first, count), first + count - 1))

    def when_durable(
        self, recorded: Recorded, acknowledge: Acknowledge, deadline: Deadline
    ) -> None:
        """See `recording.AuditLog.when_durable`."""
        writer = self._writer
        if writer.is_synced:
            told = partial(self._tell, acknowledge, len(recorded.event_ids))
            writer.when(recorded.sequence, told, waits=deadline is not AT_ONCE)
        else:
            acknowledge(None)

    @property
    def decisions(self) -> int:
        """How many decisions were taken on record."""
        return self._writer.appended - self._own

    @property
    def recorded(self) -> int:
        """The sequence of the last event on record."""
        return self._writer.appended

    def append(
        self,
        event_type: EventType,
        reason: str,
        metadata: Mapping[str, JsonValue],
        actor: str = ACTOR,
        result: Result = Result.DONE,
    ) -> None:
        """Record an event that is no decision: of the log about itself, or of another actor.

        Raises:
            UnavailableError: it is not on record.
        """
        self._tell_steps()
        with self._mutex:
            self._append(event_type, reason, metadata, actor, result)

    def stepped(self, microseconds: int) -> None:
        """Take note that the clock steps, by so much, from the next reading on.

        Recorded ahead of whatever is recorded next: so every event that the new time dates stands
        behind that of the step.
        """
        self._steps.append(microseconds)

    def tell_refused(self) -> None:
        """Record what nobody else does, as soon as something can be recorded: steps, refusals."""
        if self._writer.shortage is not None or self._writer.refusal is not None:
            return
        self._tell_steps()
        refused = self.refused
        if refused > self._told:
            self.append(EventType.REFUSED, "", {"decisions": refused - self._told})
            self._told = refused

    def _tell_steps(self) -> None:
        # Whoever comes while one is being recorded waits here until it is.
        with self._mutex:
            while self._steps:
                self._append(EventType.CLOCK_STEP, "", {"microseconds": self._steps[0]})
                self._steps.popleft()

    def _append(
        self,
        event_type: EventType,
        reason: str,
        metadata: Mapping[str, JsonValue],
        actor: str = ACTOR,
        result: Result = Result.DONE,
    ) -> None:
        event = AuditEvent(
            occurred_at=self._now(),
            event_type=event_type,
            actor=actor,
            principal="",
            action="",
            resource="",
            capability_id="",
            result=result,
            reason=reason,
            policy_id="",
            session_id="",
            trace_id="",
            revision=0,
            metadata=canonical(metadata),
        )
        self._writer.append(leaf_body(event))
        self._own += 1

    def _ids(self, first: int, count: int) -> list[EventId]:
        return [self._id(number) for number in range(first, first + count)]

    def _id(self, number: int) -> EventId:
        above, head = self._head
        if above != number >> 12:
            above, head = self._head = number >> 12, f"{self._id_start}{number >> 12:09x}"
        return EventId(head + _LAST_DIGITS[number & 0xFFF])

    def _tell(self, acknowledge: Acknowledge, count: int, error: UnavailableError | None) -> None:
        if error is not None:
            self._refused(count)
        acknowledge(error)

    def _refused(self, count: int) -> None:
        with self._mutex:
            self.refused += count
