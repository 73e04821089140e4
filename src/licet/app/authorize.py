"""Authorize: one decision or many at one instant, each on record before it is returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from licet.app.ports import AuditLog, CapabilitySets, Clock, Deadline, Reading
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.capability_set import CapabilitySet
from licet.domain.decision import Decision, Explanation, Request, decide, explain
from licet.domain.names import Caller, EventId

# Members of an enum are looked up the slow way, and these are used by every decision.
_DECISION: Final = EventType.DECISION
_ALLOW: Final = Result.ALLOW
_DENY: Final = Result.DENY


class Answer(NamedTuple):
    """A decision that is on record."""

    request: Request
    decision: Decision
    event_id: EventId
    explanation: Explanation | None


class Authorize:
    """Takes decisions.

    There is no path from an exception to ALLOW: a decision is returned or an error is raised.
    """

    def __init__(self, sets: CapabilitySets, log: AuditLog, clock: Clock) -> None:
        """Compose the use case."""
        self._sets = sets
        self._log = log
        self._clock = clock

    def __call__(self, request: Request, caller: Caller, deadline: Deadline) -> Answer:
        """Decide one request.

        Raises:
            UnavailableError: what the principal holds cannot be known, or the decision cannot be
                recorded. DeadlineError: the deadline passed first.
        """
        held = self._sets.get(request.principal, deadline)
        # The clock is read after the set was looked up, so a slow look-up can only make a
        # capability expire.
        return self._answer(held, request, caller, self._clock.reading())

    def batch(
        self, requests: Sequence[Request], caller: Caller, deadline: Deadline
    ) -> list[Answer]:
        """Decide several requests, in order, at one instant and on one snapshot of state.

        Raises:
            UnavailableError: as for one; decisions recorded before the failure are on record but
                were not returned. DeadlineError: the deadline passed first.
        """
        sets = self._sets.get_many({request.principal for request in requests}, deadline)
        now = self._clock.reading()
        return [self._answer(sets[request.principal], request, caller, now) for request in requests]

    def _answer(
        self, held: CapabilitySet, request: Request, caller: Caller, now: Reading
    ) -> Answer:
        decision = decide(held, request, now.latest, now.earliest)
        capability = decision.capability
        event_id = self._log.record(
            AuditEvent(
                now.latest,
                _DECISION,
                caller,
                request.principal,
                request.action,
                request.resource,
                capability.id if capability is not None else "",
                _ALLOW if decision.allowed else _DENY,
                "" if decision.allowed else decision.reason,
                "",
                request.session_id,
                request.trace_id,
                decision.revision,
            )
        )
        return Answer(
            request,
            decision,
            event_id,
            explain(held, request, now.latest, now.earliest) if request.explain else None,
        )
