"""Authorize: one decision or many at one instant, each on record before it is returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from licet.app.ports import CapabilitySets, Clock, Deadline
from licet.app.recording import Acknowledge, AuditLog
from licet.domain.capability_set import CapabilitySet
from licet.domain.decision import Decision, Explanation, Request, decide, explain
from licet.domain.instant import Instant
from licet.domain.names import Caller, EventId, Principal

# A named tuple's own constructor is written in Python and costs twice as much.
_new: Final = tuple.__new__


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
        earliest, now = self._clock.reading()
        decision = decide(held, request, now, earliest)
        event_id = self._log.record(caller, now, request, decision)
        explanation = explain(held, request, now, earliest) if request.explain else None
        return _new(Answer, (request, decision, event_id, explanation))

    def deferred(
        self,
        request: Request,
        caller: Caller,
        deadline: Deadline,
        prepare: Callable[[Answer], Acknowledge],
    ) -> None:
        """Decide one request, and hold no thread until its record is durable.

        `prepare` is given the answer, which must not leave; what it returns is told when it may.

        Raises:
            UnavailableError, DeadlineError: as for one; nobody is told anything.
            NotAtOnceError: the deadline is `AT_ONCE`, and there is something to wait for but the
                disk; nothing has happened.
        """
        held = self._sets.get(request.principal, deadline)
        # As above: the clock after the set.
        earliest, now = self._clock.reading()
        decision = decide(held, request, now, earliest)
        recorded = self._log.record_early(caller, now, (request,), (decision,), deadline)
        explanation = explain(held, request, now, earliest) if request.explain else None
        leave = prepare(_new(Answer, (request, decision, recorded.event_ids[0], explanation)))
        # Last, so that nothing can fail once somebody may be told.
        self._log.when_durable(recorded, leave, deadline)

    def batch(
        self, requests: Sequence[Request], caller: Caller, deadline: Deadline
    ) -> list[Answer]:
        """Decide several requests, in order, at one instant and on one snapshot of state.

        Raises:
            UnavailableError: as for one; of the batch, no decision is on record then.
            DeadlineError: the deadline passed first.
        """
        taken = self._taken(requests, deadline)
        ids = self._log.record_all(caller, taken.now, requests, taken.decisions)
        return taken.answers(requests, ids)

    def batch_deferred(
        self,
        requests: Sequence[Request],
        caller: Caller,
        deadline: Deadline,
        prepare: Callable[[list[Answer]], Acknowledge],
    ) -> None:
        """Decide several requests, as `batch` does, in the manner of `deferred`. Raises as it."""
        taken = self._taken(requests, deadline)
        recorded = self._log.record_early(caller, taken.now, requests, taken.decisions, deadline)
        leave = prepare(taken.answers(requests, recorded.event_ids))
        # Last, as above.
        self._log.when_durable(recorded, leave, deadline)

    def _taken(self, requests: Sequence[Request], deadline: Deadline) -> _Taken:
        sets = self._sets.get_many({request.principal for request in requests}, deadline)
        earliest, now = self._clock.reading()
        return _Taken(
            sets,
            earliest,
            now,
            [decide(sets[request.principal], request, now, earliest) for request in requests],
        )


class _Taken(NamedTuple):
    """The decisions of a batch, and what they were taken by."""

    sets: Mapping[Principal, CapabilitySet]
    earliest: Instant
    now: Instant
    decisions: list[Decision]

    def answers(self, requests: Sequence[Request], ids: Sequence[EventId]) -> list[Answer]:
        sets, earliest, now, decisions = self
        return [
            _new(
                Answer,
                (
                    request,
                    decision,
                    event_id,
                    explain(sets[request.principal], request, now, earliest)
                    if request.explain
                    else None,
                ),
            )
            for request, decision, event_id in zip(requests, decisions, ids, strict=True)
        ]
