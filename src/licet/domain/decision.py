"""The decision: the one place that says why a request is allowed or denied.

Pure; the clock's reading comes in.

The steps, in the order in which they are taken:

(0) The principal is suspended: DENY, PRINCIPAL_SUSPENDED, whatever it holds.
(1) A living capability without conditions covers the action and the resource, and now is in its
    time: ALLOW.
(2) One with conditions does, and all of them hold, its ancestors' too: ALLOW. None is evaluated
    where (1) allows, and only of capabilities that would otherwise.
(3) Of one, a condition could not be told: DENY, POLICY_ERROR. The first one is named.
(4) Of one, a condition does not hold: DENY, CONDITION_FAILED. The first one is named.
(5) One covers them but is not valid yet: DENY, NOT_YET_VALID.
(6) One covered them and has ended: DENY, for the reason that the latest one ended.
(7) None: DENY, NO_CAPABILITY.
(8) What (1) or (2) allows, a policy may deny: see `policy_set.py`.
(9) What it denies for want of an approval, one that was given may allow, once: see `approval.py`.

A capability is dead from `expires_at` on and alive from `not_before` on, to the microsecond. Where
the clock's reading has an error, it is dead as soon as it can be, and alive only when it must be.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple, assert_never

from licet.domain.canonical_json import EMPTY, JsonObject
from licet.domain.capability_set import NEVER, CapabilitySet, HeldCapability
from licet.domain.condition import Conditional, Conditions, Evaluate, Unmet, cannot_tell, earlier
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import ANY_ACTION, Action, CapabilityId, Principal, Resource
from licet.domain.policy_facts import Facts
from licet.domain.token_bucket import Demand

MAX_CANDIDATES: Final = 100
"""How many candidates an explanation lists."""


class Reason(StrEnum):
    """Why a decision came out as it did; the values are stored and sent."""

    GRANTED = "GRANTED"
    NO_CAPABILITY = "NO_CAPABILITY"
    CAPABILITY_EXPIRED = "CAPABILITY_EXPIRED"
    CAPABILITY_REVOKED = "CAPABILITY_REVOKED"
    NOT_YET_VALID = "NOT_YET_VALID"
    CONDITION_FAILED = "CONDITION_FAILED"
    POLICY_DENIED = "POLICY_DENIED"
    POLICY_ERROR = "POLICY_ERROR"
    RATE_LIMITED = "RATE_LIMITED"
    OUTSIDE_TIME_WINDOW = "OUTSIDE_TIME_WINDOW"
    MFA_REQUIRED = "MFA_REQUIRED"
    SECURITY_LEVEL_TOO_LOW = "SECURITY_LEVEL_TOO_LOW"
    SESSION_REQUIRED = "SESSION_REQUIRED"
    APPROVAL_REQUIRED = "APPROVAL_REQUIRED"
    PRINCIPAL_SUSPENDED = "PRINCIPAL_SUSPENDED"


# Members of an enum are looked up the slow way; this one is on the way of nearly every request.
_GRANTED: Final = Reason.GRANTED
# A named tuple's own constructor is written in Python and costs twice as much.
_new: Final = tuple.__new__


class Verdict(StrEnum):
    """Why a candidate capability did or did not apply."""

    APPLIES = "APPLIES"
    OTHER_ACTION = "OTHER_ACTION"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    NOT_YET_VALID = "NOT_YET_VALID"
    NOT_REQUESTED = "NOT_REQUESTED"
    CONDITION_FAILED = "CONDITION_FAILED"


class Request(NamedTuple):
    """One question, its names checked."""

    principal: Principal
    action: Action
    resource: Resource
    context: JsonObject = EMPTY
    capability_id: CapabilityId | None = None
    session_id: str = ""
    trace_id: str = ""
    correlation_id: str = ""
    explain: bool = False


class Judgement(NamedTuple):
    """What the policies have to say of an ALLOW: nothing against it, when `reason` is None.

    Attributes:
        version: of the policy set that was looked at.
        policy_id: the policy that denies; empty: none.
        reason: why it denies.
        detail: one sentence for people.
        retry_after: of a denial, in how many microseconds asking again can succeed, if that is
            known.
        until: nothing against it until then, as far as hours and ages go.
        demands: tokens to be taken before the ALLOW is one; see `policy_set.limited`.
    """

    version: int
    policy_id: str
    reason: Reason | None
    detail: str
    retry_after: int | None
    until: Instant | None
    demands: tuple[Demand, ...] = ()


class Decision(NamedTuple):
    """One answer.

    Attributes:
        allowed: ALLOW or DENY.
        reason: GRANTED exactly when `allowed`.
        capability: the one that allowed; with a DENY the one that came closest, if any.
        valid_until: when an ALLOW ends by itself, if it does.
        revision: of the authorization state that was looked at.
        judgement: of the policies, where there are any and a capability allows.
        unmet: of a DENY for a condition of `capability`: which.
    """

    allowed: bool
    reason: Reason
    capability: HeldCapability | None
    valid_until: Instant | None
    revision: int
    judgement: Judgement | None = None
    unmet: Unmet | None = None


class Candidate(NamedTuple):
    """A capability whose pattern covers the resource, and why it did or did not apply.

    `unmet` is the condition with CONDITION_FAILED.
    """

    capability: HeldCapability
    verdict: Verdict
    unmet: Unmet | None = None


class PolicyOutcome(StrEnum):
    """What came of a policy; the values are sent."""

    NOT_MATCHED = "NOT_MATCHED"
    CONDITION_FALSE = "CONDITION_FALSE"
    PASSED = "PASSED"
    DENIED = "DENIED"
    FAILED = "FAILED"


class ConsideredPolicy(NamedTuple):
    """A policy by itself, and what came of it. `effect` says what it demands."""

    policy_id: str
    outcome: PolicyOutcome
    effect: str
    detail: str


class Explanation(NamedTuple):
    """The first candidates, the applicable ones in front, and how many there are in all.

    The same of policies, those that matched in front; none when no capability allows, because then
    they are not asked.
    """

    candidates: tuple[Candidate, ...]
    total: int
    policies: tuple[ConsideredPolicy, ...] = ()
    policy_total: int = 0


def decide(  # noqa: C901, PLR0911, PLR0912 - hot
    held: CapabilitySet,
    request: Request,
    now: Instant,
    earliest: Instant | None = None,
    evaluate: Evaluate = cannot_tell,
) -> Decision:
    """Decide one request against what its principal holds.

    Args:
        held: the principal's capabilities.
        request: the question.
        now: the present instant; the latest that it can be.
        earliest: the earliest that it can be; None for a clock without error.
        evaluate: of conditions. What it raises, but for ExpressionError, is raised.
    """
    if earliest is None:
        earliest = now
    if held.is_suspended:
        # Step (0).
        return _deny(Reason.PRINCIPAL_SUSPENDED, None, held)
    wanted = request.capability_id
    if wanted is None:
        exact = held.exact(request.action, request.resource)
        if exact is not None and now < exact.expires_at and earliest >= exact.not_before:
            # Step (1), for most requests.
            return _allow(exact, held)
    pending: HeldCapability | None = None
    last: HeldCapability | None = None
    for entry in held.living(request.action, request.resource):
        for capability in entry:
            if wanted is not None and capability.id != wanted:
                continue
            if now >= capability.expires_at:
                last = _later(last, capability)
                break  # the others in this entry expired before this one
            if earliest >= capability.not_before:
                # Step (1).
                return _allow(capability, held)
            pending = earlier(pending, capability)
    if held.has_conditions:
        entries = held.conditional(request.action, request.resource)
        found = Conditional(entries, request, now, earliest, evaluate)
        if found.met is not None:
            # Step (2).
            return _allow(found.met, held)
        if found.closest is not None:
            # Steps (3) and (4).
            return _deny_unmet(*found.closest, held)
        pending = earlier(pending, found.pending)
        if found.last is not None:
            last = _later(last, found.last)
    if pending is not None:
        # Step (5).
        return _deny(Reason.NOT_YET_VALID, pending, held)
    for entry in held.ended(request.action, request.resource):
        for capability in entry:
            if wanted is None or capability.id == wanted:
                last = _later(last, capability)
    if last is not None:
        # Step (6).
        return _deny(_end_reason(last), last, held)
    # Step (7).
    return _deny(Reason.NO_CAPABILITY, None, held)


def explain(
    held: CapabilitySet,
    request: Request,
    now: Instant,
    earliest: Instant | None = None,
    evaluate: Evaluate = cannot_tell,
) -> Explanation:
    """List every capability whose pattern covers the resource, with its verdict, as `decide`.

    Of a principal that is suspended: as it would be if it were not.
    """
    if earliest is None:
        earliest = now
    candidates = []
    conditions: Conditions | None = None
    for capability in held.covering(request.resource):
        verdict, unmet = _verdict(capability, request, now, earliest), None
        if verdict is Verdict.APPLIES and capability.conditions:
            if conditions is None:
                conditions = Conditions(evaluate, Facts(request, capability, now, earliest))
            unmet = conditions.unmet(capability)
            if unmet is not None:
                verdict = Verdict.CONDITION_FAILED
        candidates.append(Candidate(capability, verdict, unmet))
    candidates.sort(key=lambda candidate: candidate.verdict is not Verdict.APPLIES)
    return Explanation(tuple(candidates[:MAX_CANDIDATES]), len(candidates))


def _verdict(
    capability: HeldCapability, request: Request, now: Instant, earliest: Instant
) -> Verdict:
    if request.capability_id is not None and capability.id != request.capability_id:
        return Verdict.NOT_REQUESTED
    if request.action not in capability.actions and ANY_ACTION not in capability.actions:
        return Verdict.OTHER_ACTION
    if capability.end_cause is not None:
        return (
            Verdict.EXPIRED
            if _end_reason(capability) is Reason.CAPABILITY_EXPIRED
            else Verdict.REVOKED
        )
    if now >= capability.expires_at:
        return Verdict.EXPIRED
    if earliest < capability.not_before:
        return Verdict.NOT_YET_VALID
    return Verdict.APPLIES


def _allow(capability: HeldCapability, held: CapabilitySet) -> Decision:
    expiry = capability.expires_at
    until = None if expiry == NEVER else expiry
    return _new(Decision, (True, _GRANTED, capability, until, held.revision, None, None))


def _deny(reason: Reason, closest: HeldCapability | None, held: CapabilitySet) -> Decision:
    return _new(Decision, (False, reason, closest, None, held.revision, None, None))


def _deny_unmet(closest: HeldCapability, unmet: Unmet, held: CapabilitySet) -> Decision:
    reason = Reason.POLICY_ERROR if unmet.error else Reason.CONDITION_FAILED
    return _new(Decision, (False, reason, closest, None, held.revision, None, unmet))


def _later(one: HeldCapability | None, other: HeldCapability) -> HeldCapability:
    return other if one is None or _ended_at(other) > _ended_at(one) else one


def _ended_at(capability: HeldCapability) -> Instant:
    return min(capability.ended_at, capability.expires_at)


def _end_reason(capability: HeldCapability) -> Reason:
    # A capability revoked after its expiry had ended by expiring.
    if capability.expires_at <= capability.ended_at:
        return Reason.CAPABILITY_EXPIRED
    return Reason.CAPABILITY_REVOKED


def describe(decision: Decision, request: Request) -> str:
    """Say a decision in one sentence."""
    capability = decision.capability
    what = f"{request.action} on {request.resource}"
    if decision.reason is Reason.PRINCIPAL_SUSPENDED:
        return f"{request.principal} is suspended"
    if capability is None:
        return f"{request.principal} holds no capability for {what}"
    if decision.allowed:
        return f"capability {capability.id} allows {what}"
    if decision.judgement is not None:
        return decision.judgement.detail
    if decision.unmet is not None:
        return f"capability {capability.id} does not allow {what}: {decision.unmet.describe()}"
    return _describe_denial(decision.reason, capability, what)


def _describe_denial(reason: Reason, capability: HeldCapability, what: str) -> str:
    match reason:
        case Reason.NOT_YET_VALID:
            return (
                f"capability {capability.id} allows {what} from {rfc3339(capability.not_before)} on"
            )
        case Reason.CAPABILITY_EXPIRED:
            end = f"it expired at {rfc3339(capability.expires_at)}"
            return f"capability {capability.id} allowed {what} until {end}"
        case Reason.CAPABILITY_REVOKED:
            end = f"it was revoked at {rfc3339(capability.ended_at)}"
            return f"capability {capability.id} allowed {what} until {end}"
        case _:
            message = f"{reason} comes without a capability, or with an ALLOW"
            raise AssertionError(message)


def describe_candidate(candidate: Candidate) -> str:  # noqa: PLR0911 - one for each verdict
    """Say in one sentence why a capability did or did not apply."""
    capability = candidate.capability
    match candidate.verdict:
        case Verdict.APPLIES:
            return "covers the action and the resource, and is valid"
        case Verdict.OTHER_ACTION:
            return f"allows {', '.join(capability.actions)} only"
        case Verdict.EXPIRED:
            return f"expired at {rfc3339(capability.expires_at)}"
        case Verdict.REVOKED:
            return f"was revoked at {rfc3339(capability.ended_at)}"
        case Verdict.NOT_YET_VALID:
            return f"is valid from {rfc3339(capability.not_before)} on"
        case Verdict.NOT_REQUESTED:
            return "is not the capability that the request names"
        case Verdict.CONDITION_FAILED:
            unmet = candidate.unmet
            return "a condition does not hold" if unmet is None else unmet.describe()
        case _:
            assert_never(candidate.verdict)
