"""Putting decisions on record: a port, as in `ports.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from licet.domain.decision import Decision, Request
from licet.domain.errors import UnavailableError
from licet.domain.instant import Instant
from licet.domain.names import Caller, EventId

Acknowledge: TypeAlias = "Callable[[UnavailableError | None], None]"
"""Told once that an event is durable, or why it may not be. It must return at once, and not raise:
others are told by the same thread."""


class Recorded(NamedTuple):
    """A decision that is in the log; it may leave when `AuditLog.when_durable` says so."""

    event_id: EventId
    sequence: int


class AuditLog(Protocol):
    """Where decisions are recorded before they leave."""

    @property
    def waits(self) -> bool:
        """Whether a decision has to wait, for the disk, until it may leave."""
        ...

    def record(self, caller: Caller, now: Instant, request: Request, decision: Decision) -> EventId:
        """Take a decision into the log and return its event's id, once it may leave.

        Raises:
            UnavailableError: it is not on record, or may not be; it must not leave.
        """
        ...

    def record_early(
        self, caller: Caller, now: Instant, request: Request, decision: Decision
    ) -> Recorded:
        """Do as `record` does, but return before the decision may leave.

        Raises:
            UnavailableError: it is not on record and never will be.
        """
        ...

    def when_durable(self, recorded: Recorded, acknowledge: Acknowledge) -> None:
        """Have `acknowledge` told that a decision may leave, or why it must not.

        Now and by this thread, or later by another.
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
