"""Putting decisions on record: a port, as in `ports.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from licet.app.ports import Deadline
from licet.domain.decision import Decision, Request
from licet.domain.errors import UnavailableError
from licet.domain.instant import Instant
from licet.domain.names import Caller, EventId

Acknowledge: TypeAlias = "Callable[[UnavailableError | None], None]"
"""Told once that an event is durable, or why it may not be. It must return at once, and not raise:
others are told by the same thread."""


class Recorded(NamedTuple):
    """Decisions that are in the log; they may leave when `AuditLog.when_durable` says so.

    Attributes:
        event_ids: one for each decision.
        sequence: of the last event.
    """

    event_ids: Sequence[EventId]
    sequence: int


class AuditLog(Protocol):
    """Where decisions are recorded before they leave."""

    def record(self, caller: Caller, now: Instant, request: Request, decision: Decision) -> EventId:
        """Take a decision into the log and return its event's id, once it may leave.

        Raises:
            UnavailableError: it is not on record, or may not be; it must not leave.
        """
        ...

    def record_all(
        self,
        caller: Caller,
        now: Instant,
        requests: Sequence[Request],
        decisions: Sequence[Decision],
    ) -> Sequence[EventId]:
        """Take one decision for each request, all or none. As `record` otherwise."""
        ...

    def record_early(
        self,
        caller: Caller,
        now: Instant,
        requests: Sequence[Request],
        decisions: Sequence[Decision],
        deadline: Deadline,
    ) -> Recorded:
        """Do as `record_all` does, but return before the decisions may leave.

        Raises:
            UnavailableError: none is on record and none ever will be.
            NotAtOnceError: the deadline is `AT_ONCE`, and there is something to wait for.
        """
        ...

    def when_durable(
        self, recorded: Recorded, acknowledge: Acknowledge, deadline: Deadline
    ) -> None:
        """Have `acknowledge` told that decisions may leave, or why they must not.

        Now and by this thread, or later by another. The deadline is that of `record_early`.
        """
        ...
