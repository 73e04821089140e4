"""Authorize: one decision or many at one instant, each on record before it is returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from licet.app.limit_ports import Limits, Taken
from licet.app.policy_ports import ActivePolicies
from licet.app.ports import AT_ONCE, CapabilitySets, Clock, Deadline, NotAtOnceError
from licet.app.recording import Acknowledge, AuditLog
from licet.domain.capability_set import CapabilitySet
from licet.domain.decision import Decision, Explanation, Reason, Request, decide, explain
from licet.domain.instant import Instant
from licet.domain.names import Caller, EventId, Principal
from licet.domain.policy_set import PolicySet, limited
from licet.domain.token_bucket import Refusal

# A named tuple's own constructor is written in Python and costs twice as much.
_new: Final = tuple.__new__

MAX_CONDITIONS_AT_ONCE: Final = 50
"""With more conditions of policies to look at, for all questions together, nothing is decided on
the thread that all others wait for: each takes some microseconds."""


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
        self,
        sets: CapabilitySets,
        log: AuditLog,
        clock: Clock,
        policies: ActivePolicies,
        limits: Limits,
    ) -> None:
        """Compose the use case."""
        self._sets = sets
        self._limits = limits
        self._policies = policies
        self.policy_denials = 0
        """How many decisions a policy denied. Not exact: threads count at once."""
        self.policy_errors = 0
        """How many of them because a policy could not be told."""
        self._log = log
        self._clock = clock

    def __call__(self, request: Request, caller: Caller, deadline: Deadline) -> Answer:
        """Decide one request.

        Raises:
            UnavailableError: what the principal holds, or whether a limit leaves it a token,
                cannot be known, or the decision cannot be recorded. DeadlineError: the deadline
                passed first.
        """
        held, policies = self._known(request.principal, deadline)
        # The clock is read after the set was looked up, so a slow look-up can only make a
        # capability expire.
        earliest, now = self._clock.reading()
        decision = decide(held, request, now, earliest)
        if policies is not None:
            decision = self._judged(policies, decision, request, now, earliest)
            decision, _ = self._metered(decision, deadline)
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
            NotAtOnceError: the deadline is `AT_ONCE`, and there is something to wait for but the
                disk; nothing has happened.
        """
        held, policies = self._known(request.principal, deadline)
        # As above: the clock after the set.
        earliest, now = self._clock.reading()
        decision = decide(held, request, now, earliest)
        taken = None
        if policies is not None:
            decision = self._judged(policies, decision, request, now, earliest)
            decision, taken = self._metered(decision, deadline)
        try:
            recorded = self._log.record_early(caller, now, (request,), (decision,), deadline)
        except NotAtOnceError:
            if taken is not None:
                taken.give_back()
            raise
        explanation = None
        if request.explain:
            explanation = _explain(held, policies, decision, request, now, earliest)
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
        try:
            recorded = self._log.record_early(
                caller, taken.now, requests, taken.decisions, deadline
            )
        except NotAtOnceError:
            for tokens in taken.tokens:
                tokens.give_back()
            raise
        leave = prepare(taken.answers(requests, recorded.event_ids))
        # Last, as above.
        self._log.when_durable(recorded, leave, deadline)

    def _taken(self, requests: Sequence[Request], deadline: Deadline) -> _Taken:
        principals = {request.principal for request in requests}
        policies = self._policies(deadline)
        _check_in_time(policies, len(requests), deadline)
        while True:  # as for one
            sets = self._sets.get_many(principals, deadline)
            before, policies = policies, self._policies(deadline)
            if policies is before:
                break
        earliest, now = self._clock.reading()
        decisions = [
            decide(sets[request.principal], request, now, earliest) for request in requests
        ]
        if policies is not None:
            decisions = [
                self._judged(policies, decision, request, now, earliest)
                for request, decision in zip(requests, decisions, strict=True)
            ]
        tokens = self._metered_all(decisions, deadline)
        return _Taken(sets, policies, earliest, now, decisions, tokens)

    def _known(
        self, principal: Principal, deadline: Deadline
    ) -> tuple[CapabilitySet, PolicySet | None]:
        """Return what a principal holds, and the policies that held when it did.

        Not one before a change of the other and that after: who was denied by a policy and lost the
        capability before the policy was lifted was never allowed anything. Each set of policies is
        an object of its own, so the same one before and after held all the while.
        """
        policies = self._policies(deadline)
        _check_in_time(policies, 1, deadline)
        while True:
            held = self._sets.get(principal, deadline)
            before, policies = policies, self._policies(deadline)
            if policies is before:
                return held, policies

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

    def _metered(self, decision: Decision, deadline: Deadline) -> tuple[Decision, Taken | None]:
        """Take the tokens that an ALLOW demands; without them it is a DENY.

        They stay spent if the decision cannot be recorded: it may be on record all the same.
        """
        judgement = decision.judgement
        if judgement is None or not judgement.demands:
            return decision, None
        taken = self._limits.take(judgement.demands, deadline)
        if isinstance(taken, Refusal):
            self.policy_denials += 1
            return limited(decision, taken), None
        return decision, taken

    def _metered_all(self, decisions: list[Decision], deadline: Deadline) -> list[Taken]:
        """Do so for each of several, in order and in place."""
        demanding = [
            (number, decision.judgement.demands)
            for number, decision in enumerate(decisions)
            if decision.judgement is not None and decision.judgement.demands
        ]
        if not demanding:
            return []
        tokens: list[Taken] = []
        found = self._limits.take_all([demands for _, demands in demanding], deadline)
        for (number, _), taken in zip(demanding, found, strict=True):
            if isinstance(taken, Refusal):
                self.policy_denials += 1
                decisions[number] = limited(decisions[number], taken)
            else:
                tokens.append(taken)
        return tokens


class _Taken(NamedTuple):
    """The decisions of a batch, and what they were taken by."""

    sets: Mapping[Principal, CapabilitySet]
    policies: PolicySet | None
    earliest: Instant
    now: Instant
    decisions: list[Decision]
    tokens: list[Taken]

    def answers(self, requests: Sequence[Request], ids: Sequence[EventId]) -> list[Answer]:
        sets, policies, earliest, now, decisions, _ = self
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


def _check_in_time(policies: PolicySet | None, questions: int, deadline: Deadline) -> None:
    """Check that so many questions do not take long, where others wait for it."""
    if (
        deadline is AT_ONCE
        and policies is not None
        and policies.conditions * questions > MAX_CONDITIONS_AT_ONCE
    ):
        raise NotAtOnceError


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
