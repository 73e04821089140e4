"""What a policy set would have said of a decision that is on record.

An event has the question, the instant, the capability and the outcome; the `context` of the request
is not recorded. So there is a third answer: not known. What came of a policy then fills in where it
can: if the set that held has one of the same demand and condition, and the event tells what came of
that, then the same comes of it in the other set, because it sees the same facts.

Invariants:

- ALLOW only if no policy of the set can have anything against the request, DENY only if one has,
  whatever the context was. Anything else is not known.
- Nothing is taken and nobody approves: a limit counts as kept and an approval as not given, unless
  the event tells otherwise of the same one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from licet.domain.capability_set import ALWAYS, NEVER, HeldCapability
from licet.domain.condition import ExpressionError
from licet.domain.decision import Reason, Request
from licet.domain.instant import Instant
from licet.domain.names import CapabilityId
from licet.domain.pattern import ResourcePattern
from licet.domain.policy import (
    Deny,
    Effect,
    Finding,
    OpenOnly,
    Policy,
    Require,
    find,
)
from licet.domain.policy_facts import Facts, NotRecordedError
from licet.domain.policy_set import PolicySet

_MEMBER: Final = re.compile(r"\bcontext\s*(?:\.\s*(\w+)|\[\s*[\"'](\w+)[\"']\s*\])")
_CAPABILITY: Final = re.compile(r"\bcapability\b")
_CONTEXT: Final = "context"
CAPABILITY_NEEDED: Final = "capability"


class Past(NamedTuple):
    """A decision as the audit log has it.

    Attributes:
        request: the question; its context is `NOT_RECORDED`.
        now: when it was decided.
        allowed: what came out.
        reason: of a denial; GRANTED with an ALLOW.
        policy_id: the policy that denied; empty: none.
        capability_id: the one that allowed, or came closest; empty: none.
        policy_set: the version that was looked at; 0: none.
    """

    request: Request
    now: Instant
    allowed: bool
    reason: str
    policy_id: str
    capability_id: str
    policy_set: int

    @property
    def asked_policies(self) -> bool:
        """Whether a capability allowed it, so that policies have the last word."""
        return self.allowed or bool(self.policy_id)


class Outcome(StrEnum):
    """What would come out; the values are sent."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    NOT_KNOWN = "NOT_KNOWN"


class Verdict(NamedTuple):
    """What a policy set says of a past decision.

    Attributes:
        outcome: what would come out.
        reason: why, as far as that is known: with a DENY one of the reasons that there are.
        policy_id: the policy that denies, or the first that cannot be told; empty: none.
        detail: one sentence for people; empty with an ALLOW.
        needs: what would have to be known, like `context.mfa`.
    """

    outcome: Outcome
    reason: str
    policy_id: str = ""
    detail: str = ""
    needs: tuple[str, ...] = ()


_ALLOWED: Final = Verdict(Outcome.ALLOW, Reason.GRANTED)
_PASSED: Final = Finding(None, "")
_REASONS: Final = frozenset(reason.value for reason in Reason)
_Key: TypeAlias = tuple[type[Effect], object, str]
_Seen: TypeAlias = Mapping[_Key, bool]
"""Of what a policy demands, whether it denied."""
_NOTHING_SEEN: Final[_Seen] = {}


class _Unknown(NamedTuple):
    needs: tuple[str, ...]


def needs_capability(policies: PolicySet, past: Past) -> bool:
    """Say whether a condition that may have to be evaluated names the capability."""
    return past.asked_policies and any(
        _CAPABILITY.search(policy.when) for policy in policies.matching(past.request)
    )


def replay(
    policies: PolicySet, past: Past, held: PolicySet | None, capability: HeldCapability | None
) -> Verdict:
    """Return what a policy set says of a past decision. Never raises.

    Args:
        policies: the set.
        past: the decision.
        held: the set of version `past.policy_set`; None: there was none, or it is not known.
        capability: the one that allowed it; None: it is not known.
    """
    if not past.asked_policies:
        # No capability allowed it, and no policy does.
        return Verdict(Outcome.DENY, past.reason)
    matching = policies.matching(past.request)
    if not matching:
        return _ALLOWED
    seen = _NOTHING_SEEN if held is None else _seen(held, past)
    facts = _facts(past, capability)
    unknown: list[tuple[Policy, _Unknown]] = []
    for policy in matching:
        found = _found(policy, past, seen, facts, knows_capability=capability is not None)
        if isinstance(found, _Unknown):
            unknown.append((policy, found))
        elif found.reason is not None:
            detail = f"policy {policy.id}: {found.detail}"
            return Verdict(Outcome.DENY, found.reason, policy.id, detail)
    if not unknown:
        return _ALLOWED
    needs = tuple(dict.fromkeys(need for _, one in unknown for need in one.needs))
    policy = unknown[0][0]
    detail = f"policy {policy.id} needs {', '.join(unknown[0][1].needs)}"
    return Verdict(Outcome.NOT_KNOWN, "", policy.id, detail, needs)


def _found(
    policy: Policy, past: Past, seen: _Seen, facts: Facts, *, knows_capability: bool
) -> Finding | _Unknown:
    denied = seen.get(_key(policy))
    if denied:
        return Finding(Reason(past.reason), "it denied then, and is unchanged")
    if denied is not None:
        return _PASSED
    if not knows_capability and _CAPABILITY.search(policy.when):
        return _Unknown((CAPABILITY_NEEDED,))
    try:
        holds = policy.condition is None or policy.condition(facts)
    except NotRecordedError:
        return _Unknown(_members(policy.when))
    except Exception as exc:  # noqa: BLE001 - as where decisions are taken: it denies
        return _failed(exc)
    return _demanded(policy, facts) if holds else _PASSED


def _failed(error: Exception) -> Finding:
    why = str(error) if isinstance(error, ExpressionError) else type(error).__name__
    return Finding(Reason.POLICY_ERROR, f"it cannot be told: {why}")


def _demanded(policy: Policy, facts: Facts) -> Finding | _Unknown:
    try:
        return find(policy, facts)
    except NotRecordedError:
        pass
    except Exception as exc:  # noqa: BLE001 - as above
        return _failed(exc)
    effect = policy.effect
    if not isinstance(effect, Require):
        return _Unknown((_CONTEXT,))
    # What else it demands denies whatever the context was.
    other = effect._replace(mfa=False, mfa_max_age=None, security_level=None)
    found = find(replace(policy, effect=other), facts)
    if found.reason is not None:
        return found
    wanted = {
        "context.mfa": effect.mfa,
        "context.mfa_at": effect.mfa_max_age is not None,
        "context.security_level": effect.security_level is not None,
    }
    return _Unknown(tuple(name for name, is_wanted in wanted.items() if is_wanted))


def _seen(held: PolicySet, past: Past) -> _Seen:
    """Return what the event tells of the policies that held."""
    matched = held.matching(past.request)
    if past.allowed:
        return {_key(policy): False for policy in matched}
    names = [str(policy.id) for policy in matched]
    if past.policy_id not in names or past.reason not in _REASONS:
        # A later release put it, and this one reads it otherwise.
        return _NOTHING_SEEN
    at = names.index(past.policy_id)
    # Those behind it were not looked at.
    return {_key(policy): number == at for number, policy in enumerate(matched[: at + 1])}


def _key(policy: Policy) -> _Key:
    """Return what decides what a policy that matches says, given the facts."""
    effect = policy.effect
    match effect:
        case Deny():
            # Whatever it tells people.
            return Deny, None, policy.when
        case OpenOnly():
            hours = effect.hours.schedule
            exceptions = tuple(sorted(hours.exceptions.items()))
            return OpenOnly, (str(hours.zone), hours.days, hours.hours, exceptions), policy.when
        case _:
            return type(effect), effect, policy.when


def _facts(past: Past, capability: HeldCapability | None) -> Facts:
    if capability is None:
        # Only its id is looked at.
        capability = HeldCapability(
            CapabilityId(past.capability_id),
            ResourcePattern(past.request.resource),
            (past.request.action,),
            ALWAYS,
            NEVER,
        )
    return Facts(past.request, capability, past.now, past.now)


def _members(when: str) -> tuple[str, ...]:
    """Return the members of the context that a condition names."""
    found = (f"{_CONTEXT}.{dotted or quoted}" for dotted, quoted in _MEMBER.findall(when))
    return tuple(dict.fromkeys(found)) or (_CONTEXT,)
