"""All the policies that hold together, compiled: which of them match, and what comes out.

Invariants:

- It never allows: `judge` returns an ALLOW only for an ALLOW.
- Whatever goes wrong while a policy is looked at denies, with POLICY_ERROR.
- The policies are looked at in this order, and the first that has something against the request is
  the one that denies: those that deny, those that require something, hours, limits, each as the
  document has them. A limit comes last, so that nothing is counted that is denied anyway: it
  demands a token, which whoever wants the decision takes. Nothing is taken here.
- What matches depends on principal (mostly its type alone), action and resource, and is remembered;
  its cost does not depend on how many policies there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, assert_never

from licet.domain.capability_set import HeldCapability
from licet.domain.condition import ExpressionError
from licet.domain.decision import (
    MAX_CANDIDATES,
    ConsideredPolicy,
    Decision,
    Explanation,
    Judgement,
    Reason,
    Request,
)
from licet.domain.decision import PolicyOutcome as Outcome
from licet.domain.instant import Instant
from licet.domain.names import Action, Principal, Resource
from licet.domain.policy import (
    COUNTED,
    Deny,
    Finding,
    Limit,
    OpenOnly,
    Per,
    Policy,
    PolicyId,
    Require,
    describe,
    find,
)
from licet.domain.policy_facts import NO_ROLES, Facts
from licet.domain.policy_index import PolicyIndex
from licet.domain.token_bucket import Demand, Refusal, bucket

MAX_REMEMBERED: Final = 8192
"""Of how many triples of a type of principals, action and resource it is remembered what matches,
and of how many with a principal, for those where it matters which one of that type it is."""
# A named tuple's own constructor is written in Python and costs twice as much.
_new: Final = tuple.__new__
_ORDER: Final = (Deny, Require, OpenOnly, Limit)


class Considered(NamedTuple):
    """A policy, and what came of it."""

    policy: Policy
    outcome: Outcome
    finding: Finding


class _Matching(NamedTuple):
    """What matches a principal, action and resource.

    Attributes:
        looked_at: the policies that have to be looked at for each request, in their order.
        passed: when none of them has anything against it; demands what the other limits do.
    """

    looked_at: tuple[Policy, ...]
    passed: Judgement


class PolicySet:
    """The policies of one version. Immutable, but for what it remembers; threads share it."""

    def __init__(self, policies: Sequence[Policy], version: int = 0) -> None:
        """Index the policies.

        Args:
            policies: in the order of the document, each with a name of its own.
            version: of the set as stored; 0: it is not.
        """
        self.policies, self.version = tuple(policies), version
        self.conditions: Final = sum(policy.condition is not None for policy in self.policies)
        """How many of the policies have a condition."""
        self._ordered = sorted(self.policies, key=lambda policy: _ORDER.index(type(policy.effect)))
        self._index = PolicyIndex(self._ordered)
        self._names_principals = any(policy.match.principals for policy in self.policies)
        remember = lru_cache(MAX_REMEMBERED)
        self._of_type: Callable[[str, Action, Resource], _Matching | None] = remember(self._shared)
        self._of_one: Callable[[Principal, Action, Resource], _Matching] = remember(self._matched)
        self._passed = Judgement(version, "", None, "", None, None)

    def matching(self, request: Request) -> tuple[Policy, ...]:
        """Return the policies that match a request, in the order in which they are looked at."""
        return self._index.matching(request.principal, request.action, request.resource)

    def _matching(self, request: Request) -> _Matching:
        # Nearly always the same for all agents, or all users, of whom there may be many.
        principal = request.principal
        of_type = principal[: principal.index(":")] if self._names_principals else ""
        found = self._of_type(of_type, request.action, request.resource)
        if found is None:
            found = self._of_one(principal, request.action, request.resource)
        return found

    def _shared(self, of_type: str, action: Action, resource: Resource) -> _Matching | None:
        """Return what matches all principals of a type; None: that depends on which of them."""
        matching = self._index.shared(of_type, action, resource)
        return None if matching is None else _Matching(matching, self._passed)

    def _matched(self, principal: Principal, action: Action, resource: Resource) -> _Matching:
        matching = self._index.matching(principal, action, resource)
        limits = [policy for policy in matching if isinstance(policy.effect, Limit)]
        if any(policy.condition is not None for policy in limits):
            return _Matching(matching, self._passed)
        # They are the same for every request: nothing is left to look at.
        demands = tuple(_demand(policy, principal, resource) for policy in limits)
        others = matching[: len(matching) - len(limits)]
        return _Matching(
            others, self._passed._replace(demands=demands) if demands else self._passed
        )

    def judge(
        self,
        decision: Decision,
        request: Request,
        now: Instant,
        earliest: Instant | None = None,
        approved: frozenset[str] = NO_ROLES,
    ) -> Decision:
        """Return the decision, or the DENY that a policy makes of an ALLOW.

        `approved` are the roles that approved the request. An ALLOW whose judgement has demands is
        one only when all of them were met: see `limited`.
        """
        capability = decision.capability
        if not decision.allowed or capability is None:
            return decision
        judgement = self.evaluate(request, capability, now, earliest, approved)
        until = decision.valid_until
        if judgement.reason is not None:
            return decision._replace(
                allowed=False, reason=judgement.reason, valid_until=None, judgement=judgement
            )
        if judgement.until is not None and (until is None or judgement.until < until):
            until = judgement.until
        return _new(
            Decision, (True, decision.reason, capability, until, decision.revision, judgement, None)
        )

    def evaluate(
        self,
        request: Request,
        capability: HeldCapability,
        now: Instant,
        earliest: Instant | None = None,
        approved: frozenset[str] = NO_ROLES,
    ) -> Judgement:
        """Return what the policies say of a request that a capability allows. Never raises."""
        matching = self._matching(request)
        if not matching.looked_at:
            return matching.passed
        facts = Facts(request, capability, now, now if earliest is None else earliest, approved)
        until: int | None = None
        demands = matching.passed.demands
        for policy in matching.looked_at:
            finding = _find(policy, facts)
            if finding.reason is not None:
                detail = f"policy {policy.id}: {finding.detail}"
                retry_after = None if finding.until is None else finding.until - now
                return Judgement(self.version, policy.id, finding.reason, detail, retry_after, None)
            if finding.until is not None and (until is None or finding.until < until):
                until = finding.until
            if finding is COUNTED:
                demands += (_demand(policy, request.principal, request.resource),)
        if until is None and demands is matching.passed.demands:
            return matching.passed
        ends = None if until is None else Instant(until)
        return self._passed._replace(until=ends, demands=demands)

    def approvals(
        self, request: Request, capability: HeldCapability, now: Instant, earliest: Instant
    ) -> dict[PolicyId, str]:
        """Return the role whose approval each policy demands that is about a request.

        One whose condition cannot be told is left out: it denies anyway, with an approval or not.
        """
        facts = Facts(request, capability, now, earliest)
        demanded = {}
        for policy in self._index.matching(request.principal, request.action, request.resource):
            effect = policy.effect
            if isinstance(effect, Require) and effect.approval and _holds(policy, facts):
                demanded[policy.id] = effect.approval
        return demanded

    def explain(  # noqa: PLR0913, PLR0917 - all that decided
        self,
        explanation: Explanation,
        decision: Decision,
        request: Request,
        now: Instant,
        earliest: Instant | None = None,
        approved: frozenset[str] = NO_ROLES,
    ) -> Explanation:
        """Add what comes of each policy to the explanation of a decision."""
        capability = decision.capability
        if decision.judgement is None or capability is None:
            return explanation
        judgement = decision.judgement
        considered = [
            _named(one, judgement) if one.policy.id == judgement.policy_id else one
            for one in self.consider(request, capability, now, earliest, approved)
        ]
        considered.sort(key=lambda one: one.outcome is Outcome.NOT_MATCHED)
        policies = tuple(
            ConsideredPolicy(
                one.policy.id, one.outcome, describe(one.policy.effect), one.finding.detail
            )
            for one in considered[:MAX_CANDIDATES]
        )
        return explanation._replace(policies=policies, policy_total=len(considered))

    def consider(
        self,
        request: Request,
        capability: HeldCapability,
        now: Instant,
        earliest: Instant | None = None,
        approved: frozenset[str] = NO_ROLES,
    ) -> list[Considered]:
        """Return what comes of each policy by itself, in the order in which they are looked at.

        No token is taken: a limit counts as kept.
        """
        facts = Facts(request, capability, now, now if earliest is None else earliest, approved)
        matching = {
            policy.id
            for policy in self._index.matching(request.principal, request.action, request.resource)
        }
        considered = []
        for policy in self._ordered:
            finding = _find(policy, facts) if policy.id in matching else _NOT_MATCHED
            outcome = Outcome.NOT_MATCHED if finding is _NOT_MATCHED else _outcome(finding)
            considered.append(Considered(policy, outcome, finding))
        return considered


_NOT_MATCHED: Final = Finding(None, "is about something else")
_CONDITION_FALSE: Final = Finding(None, "its condition does not hold")


def limited(decision: Decision, refusal: Refusal) -> Decision:
    """Return the DENY that an empty bucket makes of an ALLOW that demands a token."""
    judgement = decision.judgement
    if judgement is None:
        raise RuntimeError("what demands a token was judged")
    demand = refusal.demand
    detail = f"policy {demand.policy_id}: its limit is used up"
    return decision._replace(
        allowed=False,
        reason=Reason.RATE_LIMITED,
        valid_until=None,
        judgement=judgement._replace(
            policy_id=demand.policy_id,
            reason=Reason.RATE_LIMITED,
            detail=detail,
            retry_after=refusal.retry_after,
            until=None,
            demands=(),
        ),
    )


def _demand(policy: Policy, principal: Principal, resource: Resource) -> Demand:
    limit = policy.effect
    if not isinstance(limit, Limit):
        raise TypeError("only a limit demands a token")
    match limit.per:
        case Per.PRINCIPAL:
            names: tuple[str, ...] = (principal,)
        case Per.PRINCIPAL_AND_RESOURCE:
            names = (principal, resource)
        case _:
            assert_never(limit.per)
    return Demand(policy.id, bucket(policy.id, limit, *names))


def _named(one: Considered, judgement: Judgement) -> Considered:
    """Return what came of the policy that denies: of a limit, that its bucket was empty."""
    if judgement.reason is not Reason.RATE_LIMITED:
        return one
    return Considered(
        one.policy, Outcome.DENIED, Finding(judgement.reason, "its limit was used up")
    )


def _find(policy: Policy, facts: Facts) -> Finding:
    try:
        if policy.condition is not None and not policy.condition(facts):
            return _CONDITION_FALSE
        return find(policy, facts)
    except ExpressionError as exc:
        return Finding(Reason.POLICY_ERROR, f"its condition cannot be told: {exc}")
    except Exception as error:  # noqa: BLE001 - whatever it is, it denies
        return Finding(Reason.POLICY_ERROR, f"it cannot be told: {type(error).__name__}")


def _holds(policy: Policy, facts: Facts) -> bool:
    try:
        return policy.condition is None or policy.condition(facts)
    except Exception:  # noqa: BLE001 - whatever it is, it denies
        return False


def _outcome(finding: Finding) -> Outcome:
    if finding is _CONDITION_FALSE:
        return Outcome.CONDITION_FALSE
    if finding.reason is None:
        return Outcome.PASSED
    return Outcome.FAILED if finding.reason is Reason.POLICY_ERROR else Outcome.DENIED
