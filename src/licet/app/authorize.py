"""Authorize: one decision or many at one instant, each on record before it is returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from licet.app.policy_ports import ActivePolicies
from licet.app.ports import CapabilitySets, Clock, Deadline
from licet.app.recording import Acknowledge, AuditLog
from licet.domain.capability_set import CapabilitySet
from licet.domain.decision import Decision, Explanation, Reason, Request, decide, explain
from licet.domain.instant import Instant
from licet.domain.names import Caller, EventId
from licet.domain.policy_set import PolicySet

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

    def __init__(
        self, sets: CapabilitySets, log: AuditLog, clock: Clock, policies: ActivePolicies
    ) -> None:
        """Compose the use case."""
        self._sets = sets
        self._policies = policies
        self.policy_denials = 0
        """How many decisions a policy denied. Not exact: threads count at once."""
        self.policy_errors = 0
        """How many of them because a policy could not be told."""
        self._log = log
        self._clock = clock

    @property
    def waits(self) -> bool:
        """Whether `deferred` is worth its price: see `recording.AuditLog.waits`."""
        return self._log.waits

    def __call__(self, request: Request, caller: Caller, deadline: Deadline) -> Answer:
        """Decide one request.

        Raises:
            UnavailableError: what the principal holds cannot be known, or the decision cannot be
                recorded. DeadlineError: the deadline passed first.
        """
        held = self._sets.get(request.principal, deadline)
        policies = self._policies(deadline)
        # The clock is read after the set was looked up, so a slow look-up can only make a
        # capability expire.
        earliest, now = self._clock.reading()
        decision = decide(held, request, now, earliest)
        if policies is not None:
            decision = self._judged(policies, decision, request, now, earliest)
        event_id = self._log.record(caller, now, request, decision)
        explanation = None
        if request.explain:
            explanation = _explain(held, policies, decision, request, now, earliest)
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
        """
        held = self._sets.get(request.principal, deadline)
        policies = self._policies(deadline)
        # As above: the clock after the set.
        earliest, now = self._clock.reading()
        decision = decide(held, request, now, earliest)
        if policies is not None:
            decision = self._judged(policies, decision, request, now, earliest)
        recorded = self._log.record_early(caller, now, request, decision)
        explanation = None
        if request.explain:
            explanation = _explain(held, policies, decision, request, now, earliest)
        leave = prepare(_new(Answer, (request, decision, recorded.event_id, explanation)))
        # Last, so that nothing can fail once somebody may be told.
        self._log.when_durable(recorded, leave)

    def batch(
        self, requests: Sequence[Request], caller: Caller, deadline: Deadline
    ) -> list[Answer]:
        """Decide several requests, in order, at one instant and on one snapshot of state.

        Raises:
            UnavailableError: as for one; of the batch, no decision is on record then.
            DeadlineError: the deadline passed first.
        """
        sets = self._sets.get_many({request.principal for request in requests}, deadline)
        policies = self._policies(deadline)
        earliest, now = self._clock.reading()
        decisions = [
            decide(sets[request.principal], request, now, earliest) for request in requests
        ]
        if policies is not None:
            decisions = [
                self._judged(policies, decision, request, now, earliest)
                for request, decision in zip(requests, decisions, strict=True)
            ]
        ids = self._log.record_all(caller, now, requests, decisions)
        return [
            _new(
                Answer,
                (
                    request,
                    decision,
                    event_id,
                    _explain(sets[request.principal], policies, decision, request, now, earliest)
                    if request.explain
                    else None,
                ),
            )
            for request, decision, event_id in zip(requests, decisions, ids, strict=True)
        ]

    def _judged(
        self,
        policies: PolicySet,
        decision: Decision,
        request: Request,
        now: Instant,
        earliest: Instant,
    ) -> Decision:
        judged = policies.judge(decision, request, now, earliest)
        if decision.allowed and not judged.allowed:
            self.policy_denials += 1
            self.policy_errors += judged.reason is Reason.POLICY_ERROR
        return judged


def _explain(  # noqa: PLR0913, PLR0917 - all that decided
    held: CapabilitySet,
    policies: PolicySet | None,
    decision: Decision,
    request: Request,
    now: Instant,
    earliest: Instant,
) -> Explanation:
    explanation = explain(held, request, now, earliest)
    if policies is None:
        return explanation
    return policies.explain(explanation, decision, request, now, earliest)
