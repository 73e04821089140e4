"""What a policy set would have said of a decision that is on record."""

from __future__ import annotations

import pytest

from licet.domain.capability_set import HeldCapability
from licet.domain.decision import Reason
from licet.domain.instant import Instant
from licet.domain.names import Action, Principal, Resource
from licet.domain.policy_facts import NOT_RECORDED
from licet.domain.policy_replay import Outcome, Past, Verdict, needs_capability, replay
from licet.domain.policy_set import PolicySet
from tests.unit.builders import HOLDER, NOW, held
from tests.unit.policies import policy_set, question

ALLOW, DENY, NOT_KNOWN = Outcome.ALLOW, Outcome.DENY, Outcome.NOT_KNOWN
HOUR = 3_600_000_000
MFA = "require: {mfa: true}"
LATE = "deny: nope, when: now > timestamp('2027-01-15T08:30:00Z')"
ON_CONTEXT = "deny: nope, when: context.ticket == ''"


def past(  # noqa: PLR0913 - one argument per field
    resource: str = "doc:a/b",
    *,
    denied: str = "",
    policy: str = "",
    version: int = 0,
    now: int = NOW,
    session_id: str = "",
) -> Past:
    """Return a decision: an ALLOW, unless it names why it was denied."""
    asked = question(resource, session_id=session_id)._replace(context=NOT_RECORDED)
    return Past(asked, Instant(now), not denied, denied or "GRANTED", policy, held(1).id, version)


def said(
    draft: str | PolicySet,
    of: Past | None = None,
    then: str | PolicySet | None = None,
    capability: HeldCapability | None = None,
) -> Verdict:
    """Return the verdict of a set of one policy, where another one held."""
    return replay(_set(draft), of or past(), None if then is None else _set(then), capability)


def _set(policies: str | PolicySet) -> PolicySet:
    if isinstance(policies, str):
        return policy_set(f"name: p, {policies}")
    return policies


@pytest.mark.parametrize(
    "reason", ["NO_CAPABILITY", "CAPABILITY_EXPIRED", "PRINCIPAL_SUSPENDED", "OF_LATER"]
)
def test_what_no_capability_allowed_stays_denied(reason: str) -> None:
    assert said(policy_set(), past(denied=reason)) == Verdict(DENY, reason)


def test_what_a_policy_denied_is_looked_at_as_if_the_capability_allowed_it() -> None:
    was = past(denied="POLICY_DENIED", policy="old")

    assert said(policy_set(), was).outcome is ALLOW
    assert said("deny: still", was) == Verdict(DENY, "POLICY_DENIED", "p", "policy p: still")


@pytest.mark.parametrize(
    ("policy", "needs"),
    [
        (MFA, ["context.mfa"]),
        ("require: {mfa: {max_age: 1h}}", ["context.mfa", "context.mfa_at"]),
        ("require: {security_level: 2}", ["context.security_level"]),
        ("require: {mfa: true, session: true}", ["context.mfa"]),
        (ON_CONTEXT, ["context.ticket"]),
        ("deny: nope, when: 'context[\"a\"] == context.b || context.b == 1'", None),
        ("deny: nope, when: '\"a\" in context'", ["context"]),
        ("deny: nope, when: capability.resource == 'x:y'", ["capability"]),
    ],
)
def test_what_depends_on_what_is_not_on_record_is_not_known(
    policy: str, needs: list[str] | None
) -> None:
    found = said(policy, past(session_id="s"))

    assert (found.outcome, found.policy_id) == (NOT_KNOWN, "p")
    assert list(found.needs) == (["context.a", "context.b"] if needs is None else needs)
    assert found.detail == f"policy p needs {', '.join(found.needs)}"


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("require: {mfa: true, session: true}", Reason.SESSION_REQUIRED),
        ("require: {security_level: 9, approval: admin}", Reason.APPROVAL_REQUIRED),
        ("deny: nope", Reason.POLICY_DENIED),
        ("deny: nope, when: 1 / 0 == 1", Reason.POLICY_ERROR),
        ("deny: nope, when: session_id == ''", Reason.POLICY_DENIED),
    ],
)
def test_what_denies_whatever_the_context_was_denies(policy: str, reason: Reason) -> None:
    found = said(policy)

    assert (found.outcome, found.reason, found.needs) == (DENY, reason, ())


def test_a_later_policy_that_denies_for_sure_outweighs_one_that_cannot_be_told() -> None:
    both = policy_set(f"name: first, {ON_CONTEXT}", "name: second, deny: sure")

    assert said(both).policy_id == "second"
    assert said(both).outcome is DENY


def test_all_that_is_needed_is_named() -> None:
    both = policy_set(f"name: one, {ON_CONTEXT}", f"name: two, {MFA}", f"name: three, {MFA}")

    assert said(both).needs == ("context.ticket", "context.mfa")
    assert said(both).policy_id == "one"


def test_hours_are_those_of_the_decision() -> None:
    hours = "time: {zone: UTC, hours: '08:00-09:00'}"  # NOW is eight o'clock

    assert said(hours, past(now=NOW)).outcome is ALLOW
    assert said(hours, past(now=NOW + HOUR - 1)).outcome is ALLOW
    assert said(hours, past(now=NOW + HOUR)).reason == Reason.OUTSIDE_TIME_WINDOW
    assert said(LATE).outcome is ALLOW
    assert said(LATE, past(now=NOW + HOUR)).outcome is DENY


def test_a_limit_is_kept_and_takes_nothing() -> None:
    limit = "limit: {rate: 1/d}"

    assert {said(limit).outcome for _ in range(3)} == {ALLOW}


def test_a_condition_sees_the_capability_if_it_is_known() -> None:
    policy = "deny: nope, when: \"capability.resource == 'doc:**'\""

    assert said(policy, capability=held(1, "doc:**")).outcome is DENY
    assert said(policy, capability=held(1, "doc:a/*")).outcome is ALLOW
    assert needs_capability(_set(policy), past())
    assert not needs_capability(_set(policy), past(denied="NO_CAPABILITY"))
    assert not needs_capability(_set(MFA), past())


@pytest.mark.parametrize(
    "policy",
    [
        MFA,
        ON_CONTEXT,
        "require: {approval: admin}",
        "limit: {rate: 1/d}",
        "time: {zone: UTC, hours: '08:00-09:00', except: {2027-01-16: closed}}, when: context.a",
    ],
)
def test_an_unchanged_policy_says_what_it_said(policy: str) -> None:
    policy = policy.replace("when: context.a", "when: context.a == 1")
    then = policy_set(f"name: old, match: {{actions: [read]}}, {policy}")
    denied = past(denied="MFA_REQUIRED", policy="old", version=3)

    assert said(policy, past(version=3), then).outcome is ALLOW
    assert said(policy, denied, then) == Verdict(
        DENY, "MFA_REQUIRED", "p", "policy p: it denied then, and is unchanged"
    )


@pytest.mark.parametrize(
    ("draft", "then"),
    [
        (MFA, "require: {mfa: true, security_level: 1}"),
        ("require: {mfa: true, security_level: 1}", MFA),
        (MFA, f"{MFA}, when: context.b == 1"),
        (MFA, f"match: {{resources: ['fs:**']}}, {MFA}"),
        (ON_CONTEXT, "deny: nope, when: context.ticket != ''"),
    ],
)
def test_a_changed_policy_is_not_known_by_what_another_said(draft: str, then: str) -> None:
    assert said(draft, past(version=3), then).outcome is NOT_KNOWN


def test_of_policies_behind_the_one_that_denied_nothing_is_known() -> None:
    first, second, third = "require: {mfa: true}", "require: {security_level: 1}", ON_CONTEXT
    then = policy_set(f"name: a, {first}", f"name: b, {second}", "name: z, limit: {rate: 1/s}")
    denied = past(denied="SECURITY_LEVEL_TOO_LOW", policy="b", version=3)

    assert said(first, denied, then).outcome is ALLOW
    assert said(second, denied, then).outcome is DENY
    assert said(third, denied, then).outcome is NOT_KNOWN
    at_first = past(denied="MFA_REQUIRED", policy="a", version=3)
    assert said(second, at_first, then).outcome is NOT_KNOWN


def test_an_event_that_this_release_does_not_understand_tells_nothing() -> None:
    then = policy_set(f"name: a, {MFA}")

    assert said(MFA, past(denied="MFA_REQUIRED", policy="gone", version=3), then).outcome is (
        NOT_KNOWN
    )
    assert said(MFA, past(denied="OF_LATER", policy="a", version=3), then).outcome is NOT_KNOWN


def test_a_deny_with_another_sentence_is_the_same() -> None:
    edited = ON_CONTEXT.replace("nope", "please name a ticket")

    assert said(edited, past(version=3), ON_CONTEXT).outcome is ALLOW


def test_what_matches_nothing_is_allowed() -> None:
    asked = past()._replace(
        request=past().request._replace(
            principal=Principal(HOLDER), action=Action("write"), resource=Resource("x:y")
        )
    )

    assert said("match: {actions: [read]}, deny: nope", asked) == Verdict(ALLOW, "GRANTED")
