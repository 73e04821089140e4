"""Authorize: one decision or many at one instant, each on record before it is returned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from licet.app.approval_ports import Approvals
from licet.app.approving import Settled, Settling
from licet.app.conditions import CompiledConditions, Evaluation, no_conditions
from licet.app.limit_ports import Limits, Taken
from licet.app.policy_ports import ActivePolicies
from licet.app.ports import AT_ONCE, CapabilitySets, Clock, Deadline, NotAtOnceError
from licet.app.recording import Acknowledge, AuditLog
from licet.domain.capability_set import CapabilitySet
from licet.domain.condition import Evaluate, cannot_tell
from licet.domain.decision import Decision, Explanation, Reason, Request, decide, explain
from licet.domain.instant import Instant
from licet.domain.names import Caller, EventId, Principal
from licet.domain.policy_set import PolicySet, limited
from licet.domain.token_bucket import Refusal

# A named tuple's own constructor is written in Python and costs twice as much.
_new: Final = tuple.__new__
# Members of an enum are looked up the slow way.
_APPROVAL_REQUIRED: Final = Reason.APPROVAL_REQUIRED

MAX_CONDITIONS_AT_ONCE: Final = 50
"""With more conditions of policies to look at, for all questions together, nothing is decided on
the thread that all others wait for: each takes some microseconds."""


class Answer(NamedTuple):
    """A decision that is on record. `approval_id` is what a DENY can wait for, if anything."""

    request: Request
    decision: Decision
    event_id: EventId
    explanation: Explanation | None
    approval_id: str = ""


class Authorize:
    """Takes decisions.

    There is no path from an exception to ALLOW: a decision is returned or an error is raised.
    """

    def __init__(  # noqa: PLR0913 - the ports
        self,
        sets: CapabilitySets,
        log: AuditLog,
        clock: Clock,
        policies: ActivePolicies,
        *,
        approvals: Approvals,
        limits: Limits,
        conditions: CompiledConditions = no_conditions,
    ) -> None:
        """Compose the use case."""
        self._approvals = approvals
        self._limits = limits
        self._sets = sets
        self._policies = policies
        self._conditions = conditions
        self.condition_denials = 0
        """How many decisions were denied for a condition of a capability. Not exact, as below."""
        self.condition_errors = 0
        """How many of them because a condition could not be told."""
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
                cannot be known, or the decision cannot be recorded, or an approval may be used up
                and may not. DeadlineError: the deadline passed first. NotPermittedError: the
                caller was shut out before an approval was used.
        """
        decided = self._decided(request, caller, deadline)
        event_id = self._log.record(caller, decided.now, request, decided.decision)
        return decided.answer(request, event_id)

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
            UnavailableError, DeadlineError, NotPermittedError: as for one; nobody is told anything.
            NotAtOnceError: the deadline is `AT_ONCE`, and there is something to wait for but the
                disk; nothing has happened.
        """
        decided = self._decided(request, caller, deadline)
        try:
            recorded = self._log.record_early(
                caller, decided.now, (request,), (decided.decision,), deadline
            )
        except NotAtOnceError:
            if decided.tokens is not None:
                decided.tokens.give_back()
            raise
        leave = prepare(decided.answer(request, recorded.event_ids[0]))
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
        taken = self._taken(requests, caller, deadline)
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
        taken = self._taken(requests, caller, deadline)
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

    def _decided(self, request: Request, caller: Caller, deadline: Deadline) -> _Decided:
        held, policies = self._known(request.principal, deadline)
        # The clock is read after the set was looked up, so a slow look-up can only make a
        # capability expire.
        earliest, now = self._clock.reading()
        evaluate = Evaluation(self._conditions, deadline) if held.has_conditions else cannot_tell
        decision = decide(held, request, now, earliest, evaluate)
        if decision.unmet is not None:
            self._count(decision)
        settled = tokens = None
        if policies is not None:
            decision = self._judged(policies, decision, request, now, earliest)
            if decision.reason is _APPROVAL_REQUIRED:
                settling = Settling(
                    *(self._approvals, self._limits, policies, caller, now, earliest),
                    *(evaluate, deadline),
                )
                settled = self._settled(settling, held, request, decision)
                decision = settled.decision
            else:
                decision, tokens = self._metered(decision, deadline)
        return _new(_Decided, (held, policies, earliest, now, evaluate, decision, settled, tokens))

    def _taken(self, requests: Sequence[Request], caller: Caller, deadline: Deadline) -> _Taken:
        principals = {request.principal for request in requests}
        policies = self._policies(deadline)
        _check_in_time(policies, len(requests), deadline)
        while True:  # as for one
            sets = self._sets.get_many(principals, deadline)
            before, policies = policies, self._policies(deadline)
            if policies is before:
                break
        earliest, now = self._clock.reading()
        # One for all, because all of them hold up whoever waits.
        evaluate = Evaluation(self._conditions, deadline)
        decisions = [
            decide(sets[request.principal], request, now, earliest, evaluate)
            for request in requests
        ]
        for decision in decisions:
            if decision.unmet is not None:
                self._count(decision)
        settled: dict[int, Settled] = {}
        if policies is not None:
            decisions = [
                self._judged(policies, decision, request, now, earliest)
                for request, decision in zip(requests, decisions, strict=True)
            ]
            settling = Settling(
                *(self._approvals, self._limits, policies, caller, now, earliest),
                *(evaluate, deadline),
            )
            for place, (request, decision) in enumerate(zip(requests, decisions, strict=True)):
                if decision.reason is _APPROVAL_REQUIRED:
                    held = sets[request.principal]
                    settled[place] = self._settled(settling, held, request, decision)
            for place, one in settled.items():
                decisions[place] = one.decision
        tokens = self._metered_all(decisions, settled, deadline)
        return _Taken(sets, policies, earliest, now, evaluate, decisions, settled, tokens)

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

    def _count(self, denied: Decision) -> None:
        self.condition_denials += 1
        self.condition_errors += denied.reason is Reason.POLICY_ERROR

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

    def _metered_all(
        self, decisions: list[Decision], settled: Collection[int], deadline: Deadline
    ) -> list[Taken]:
        """Do so for each of several, in order and in place; what was settled has its tokens."""
        demanding = [
            (number, decision.judgement.demands)
            for number, decision in enumerate(decisions)
            if decision.judgement is not None
            and decision.judgement.demands
            and number not in settled
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

    def _settled(
        self, settling: Settling, held: CapabilitySet, request: Request, denied: Decision
    ) -> Settled:
        try:
            settled = settling(held, request, denied)
        except NotAtOnceError:
            # It is taken anew, and counted then.
            self.policy_denials -= 1
            raise
        # It was counted as a denial by the policy that demands the approval.
        self.policy_denials -= settled.decision.allowed
        self.policy_errors += settled.decision.reason is Reason.POLICY_ERROR
        return settled


class _Decided(NamedTuple):
    """A decision that is not on record yet, and what it was taken by."""

    held: CapabilitySet
    policies: PolicySet | None
    earliest: Instant
    now: Instant
    evaluate: Evaluate
    decision: Decision
    settled: Settled | None
    tokens: Taken | None

    def answer(self, request: Request, event_id: EventId) -> Answer:
        """Return it with what else was asked for."""
        settled = self.settled
        explanation = None
        if request.explain:
            explanation = self._explanation(request)
        approval_id = "" if settled is None else settled.approval_id
        return _new(Answer, (request, self.decision, event_id, explanation, approval_id))

    def _explanation(self, request: Request) -> Explanation:
        held, policies, earliest, now, evaluate, decision, settled, _ = self
        explanation = explain(held, request, now, earliest, evaluate)
        if policies is None:
            return explanation
        if settled is None:
            return policies.explain(explanation, decision, request, now, earliest)
        return policies.explain(explanation, settled.judged, request, now, earliest, settled.roles)


class _Taken(NamedTuple):
    """The decisions of a batch, and what they were taken by."""

    sets: Mapping[Principal, CapabilitySet]
    policies: PolicySet | None
    earliest: Instant
    now: Instant
    evaluate: Evaluate
    decisions: list[Decision]
    settled: Mapping[int, Settled]
    """Of those that need an approval, by their places."""
    tokens: list[Taken]

    def answers(self, requests: Sequence[Request], ids: Sequence[EventId]) -> list[Answer]:
        sets, policies, earliest, now, evaluate, decisions, settled, _ = self
        if not settled and not any(request.explain for request in requests):
            return [
                _new(Answer, (request, decision, event_id, None, ""))
                for request, decision, event_id in zip(requests, decisions, ids, strict=True)
            ]
        return [
            _Decided(
                sets[request.principal],
                policies,
                earliest,
                now,
                evaluate,
                decision,
                settled.get(place),
                None,
            ).answer(request, event_id)
            for place, (request, decision, event_id) in enumerate(
                zip(requests, decisions, ids, strict=True)
            )
        ]


def _check_in_time(policies: PolicySet | None, questions: int, deadline: Deadline) -> None:
    """Check that so many questions do not take long, where others wait for it."""
    if (
        deadline is AT_ONCE
        and policies is not None
        and policies.conditions * questions > MAX_CONDITIONS_AT_ONCE
    ):
        raise NotAtOnceError
