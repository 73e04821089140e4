"""What a policy is: whom and what it is about, and its one effect.

A policy never allows. It only turns an ALLOW into a DENY.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, NewType, TypeAlias, assert_never

from licet.domain.condition import Condition
from licet.domain.decision import Reason
from licet.domain.names import Action
from licet.domain.opening_hours import OpeningHours
from licet.domain.pattern import ResourcePattern
from licet.domain.policy_facts import Facts

PolicyId = NewType("PolicyId", str)
"""A policy's name in its set; one of a built-in set is `<set>/<name>`."""


class Deny(NamedTuple):
    """Deny, and say why."""

    reason: str


class Require(NamedTuple):
    """Deny unless the request's context has each of these; what is absent is not there.

    Attributes:
        mfa: `mfa` is true.
        mfa_max_age: `mfa_at` is at most so many microseconds ago; None: whenever it was.
        security_level: `security_level` is at least this; None: any.
        session: the request names its session.
        approval: somebody with this role approved it; empty: nobody needs to.
    """

    mfa: bool = False
    mfa_max_age: int | None = None
    security_level: int | None = None
    session: bool = False
    approval: str = ""


class OpenOnly(NamedTuple):
    """Deny outside of these hours."""

    hours: OpeningHours


class Per(StrEnum):
    """What has a bucket of its own."""

    PRINCIPAL = "principal"
    PRINCIPAL_AND_RESOURCE = "principal+resource"


class Limit(NamedTuple):
    """Deny what exceeds a token bucket.

    Attributes:
        tokens, period: so many come in so many microseconds.
        burst: how many the bucket holds.
        per: what has a bucket of its own.
    """

    tokens: int
    period: int
    burst: int
    per: Per


Effect: TypeAlias = Deny | Require | OpenOnly | Limit


class Match(NamedTuple):
    """Whom and what a policy is about; an empty tuple is: any."""

    principals: tuple[ResourcePattern, ...] = ()
    actions: tuple[Action, ...] = ()
    resources: tuple[ResourcePattern, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """One rule. `line` is where the document has it; `when` the text of the condition."""

    id: PolicyId
    match: Match
    effect: Effect
    description: str = ""
    when: str = ""
    condition: Condition | None = None
    line: int = 0


class Finding(NamedTuple):
    """What a policy has to say of a request: nothing against it, when `reason` is None.

    Attributes:
        reason: why it denies.
        detail: one sentence for people.
        until: nothing against it until then; with a denial: when asking again can succeed.
    """

    reason: Reason | None
    detail: str
    until: int | None = None


PASSED: Final = Finding(None, "has nothing against it")
_SKEW: Final = 60_000_000
"""How far in the future the clock of whoever asserted `mfa_at` may be."""

COUNTED: Final = Finding(None, "its limit is not looked at here")
"""Of a limit: whether there is a token is asked when all else has passed."""


def find(policy: Policy, facts: Facts) -> Finding:
    """Return what a policy that matches, and whose condition holds, says of a request."""
    effect = policy.effect
    match effect:
        case Deny():
            return Finding(Reason.POLICY_DENIED, effect.reason)
        case Require():
            return _required(effect, facts)
        case OpenOnly():
            return _open(effect.hours, facts)
        case Limit():
            return COUNTED
        case _:
            assert_never(effect)


def describe(effect: Effect) -> str:
    """Say what an effect demands."""
    match effect:
        case Deny():
            return "denies"
        case Require():
            wanted = [
                "multi-factor authentication" * effect.mfa,
                "a recent one" * (effect.mfa_max_age is not None),
                f"security level {effect.security_level}" * (effect.security_level is not None),
                "a session" * effect.session,
                f"the approval of {effect.approval}" * bool(effect.approval),
            ]
            return "requires " + ", ".join(filter(None, wanted))
        case OpenOnly():
            return "denies outside of its hours"
        case Limit():
            return f"denies more than its limit per {effect.per}"
        case _:
            assert_never(effect)


def _required(wanted: Require, facts: Facts) -> Finding:
    proved = _authenticated(wanted, facts) if wanted.mfa else PASSED
    if proved.reason is not None:
        return proved
    if wanted.security_level is not None:
        level = facts.number("security_level")
        if level is None or not level >= wanted.security_level:
            detail = f"this needs security level {wanted.security_level}"
            return Finding(Reason.SECURITY_LEVEL_TOO_LOW, detail)
    if wanted.session and not facts.request.session_id:
        return Finding(Reason.SESSION_REQUIRED, "this needs a session")
    if wanted.approval and wanted.approval not in facts.approved:
        return Finding(Reason.APPROVAL_REQUIRED, f"this needs the approval of {wanted.approval}")
    return proved


def _authenticated(wanted: Require, facts: Facts) -> Finding:
    if facts.context.get("mfa") is not True:
        return Finding(Reason.MFA_REQUIRED, "this needs multi-factor authentication")
    if wanted.mfa_max_age is None:
        return PASSED
    proved_at = facts.instant("mfa_at")
    if proved_at is None or proved_at > facts.earliest + _SKEW:
        detail = "this needs to know when multi-factor authentication was done"
        return Finding(Reason.MFA_REQUIRED, detail)
    until = proved_at + wanted.mfa_max_age
    if facts.now >= until:
        return Finding(Reason.MFA_REQUIRED, "multi-factor authentication was done too long ago")
    return Finding(None, PASSED.detail, until)


def _open(hours: OpeningHours, facts: Facts) -> Finding:
    # The clock has an error: it must be open whatever the time is within it.
    state = hours.at(facts.earliest)
    if state.is_open and facts.now >= state.until:
        state = hours.at(facts.now)
    if state.is_open:
        return Finding(None, PASSED.detail, state.until if state.changes else None)
    opens = state.until if state.changes else None
    return Finding(Reason.OUTSIDE_TIME_WINDOW, "this is outside of its hours", opens)
