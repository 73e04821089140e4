"""What policies make of an ALLOW."""

from __future__ import annotations

import pytest

from licet.domain.capability_set import NEVER
from licet.domain.decision import Decision, Judgement, Reason, Request, decide, explain
from licet.domain.decision import PolicyOutcome as Outcome
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant
from licet.domain.names import principal, resource
from licet.domain.policy import Policy
from licet.domain.policy_facts import Facts
from licet.domain.policy_set import limited
from licet.domain.token_bucket import Refusal
from tests.unit.builders import HOLDER, NOW, asking, held, holding
from tests.unit.policies import ANYTHING, judged, policy_set, question

SECOND = 1_000_000
MINUTE = 60 * SECOND
DENY_ALL = "name: stop, deny: nothing goes"


def test_a_set_without_policies_has_nothing_against_anything() -> None:
    assert judged(policy_set(), question()).reason is None


def test_a_denial_names_the_set_the_policy_and_the_reason() -> None:
    found = judged(policy_set(DENY_ALL), question())

    assert found.version == 3
    assert found.policy_id == "stop"
    assert found.reason is Reason.POLICY_DENIED
    assert found.detail == "policy stop: nothing goes"


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ("resources: ['doc:**']", True),
        ("resources: ['doc:a/*']", True),
        ("resources: ['doc:a/b']", True),
        ("resources: ['doc:*']", False),
        ("resources: ['doc:b/**', 'doc:a/**']", True),
        ("resources: ['fs:**']", False),
        ("actions: [read]", True),
        ("actions: [write, read]", True),
        ("actions: [write]", False),
        ("principals: ['agent:*']", True),
        ("principals: ['agent:worker-17']", True),
        ("principals: ['agent:worker-1']", False),
        ("principals: ['user:**']", False),
        ("principals: ['agent:**'], actions: [read], resources: ['doc:**']", True),
        ("principals: ['user:**'], actions: [read], resources: ['doc:**']", False),
        ("principals: ['agent:**'], actions: [write], resources: ['doc:**']", False),
        ("principals: ['agent:**'], actions: [read], resources: ['fs:**']", False),
    ],
)
def test_a_policy_is_about_what_all_its_patterns_cover(match: str, matches: bool) -> None:
    found = judged(policy_set(f"name: p, match: {{{match}}}, deny: nope"), question())

    assert (found.reason is Reason.POLICY_DENIED) is matches


@pytest.mark.parametrize(
    ("require", "context", "reason"),
    [
        ("mfa: true", {}, Reason.MFA_REQUIRED),
        ("mfa: true", {"mfa": False}, Reason.MFA_REQUIRED),
        ("mfa: true", {"mfa": "true"}, Reason.MFA_REQUIRED),
        ("mfa: true", {"mfa": 1}, Reason.MFA_REQUIRED),
        ("mfa: true", {"mfa": True}, None),
        ("security_level: 2", {}, Reason.SECURITY_LEVEL_TOO_LOW),
        ("security_level: 2", {"security_level": 1.9}, Reason.SECURITY_LEVEL_TOO_LOW),
        ("security_level: 2", {"security_level": "3"}, Reason.SECURITY_LEVEL_TOO_LOW),
        ("security_level: 1", {"security_level": True}, Reason.SECURITY_LEVEL_TOO_LOW),
        ("security_level: 2", {"security_level": 2}, None),
        ("security_level: 2", {"security_level": 2.5}, None),
        ("session: true", {}, Reason.SESSION_REQUIRED),
        ("approval: admin", {"approval": "admin"}, Reason.APPROVAL_REQUIRED),
        ("mfa: true, security_level: 2", {"mfa": True}, Reason.SECURITY_LEVEL_TOO_LOW),
        ("mfa: true, security_level: 2", {"security_level": 2}, Reason.MFA_REQUIRED),
    ],
)
def test_what_is_required_must_be_there(
    require: str, context: dict[str, object], reason: Reason | None
) -> None:
    found = judged(
        policy_set(f"name: p, require: {{{require}}}"),
        question(**context),  # type: ignore[arg-type]
    )

    assert found.reason is reason


def test_a_session_is_the_requests_own() -> None:
    policies = policy_set("name: p, require: {session: true}")

    assert judged(policies, question(session_id="run-1")).reason is None
    assert judged(policies, question(session="run-1")).reason is Reason.SESSION_REQUIRED


@pytest.mark.parametrize(
    ("mfa_at", "passes"),
    [
        (NOW / SECOND - 899, True),
        (NOW / SECOND - 900, False),
        (NOW / SECOND + 60, True),
        (NOW / SECOND + 61, False),
        ("2027-01-15T07:45:01Z", True),
        ("2027-01-15T09:45:01+02:00", True),
        ("2027-01-15T07:45:00Z", False),
        ("2027-01-15T07:59:00", False),  # of which zone is not said
        ("soon", False),
        (-1, False),
        (1e300, False),
        (None, False),
        (True, False),
    ],
)
def test_the_age_of_an_authentication_counts(mfa_at: str | float | None, passes: bool) -> None:
    policies = policy_set("name: p, require: {mfa: {max_age: 15m}}")

    found = judged(policies, question(mfa=True, mfa_at=mfa_at))

    assert (found.reason is None) is passes


def test_an_allow_ends_when_the_authentication_is_too_old() -> None:
    policies = policy_set("name: p, require: {mfa: {max_age: 15m}}")

    found = judged(policies, question(mfa=True, mfa_at=NOW / SECOND - 60))

    assert found.until == NOW + 14 * MINUTE


def test_hours_deny_and_say_when_they_open() -> None:
    policies = policy_set("name: p, time: {zone: UTC, hours: '09:00-17:00'}")  # NOW is 08:00

    found = judged(policies, question())

    assert found.reason is Reason.OUTSIDE_TIME_WINDOW
    assert found.retry_after == 60 * MINUTE


def test_an_allow_ends_when_the_hours_do() -> None:
    policies = policy_set(
        "name: p, time: {zone: UTC, hours: '08:00-09:00'}",
        "name: q, time: {zone: UTC, hours: '07:00-08:30'}",
    )

    assert judged(policies, question()).until == NOW + 30 * MINUTE


def test_hours_hold_for_all_that_the_clock_may_mean() -> None:
    policies = policy_set("name: p, time: {zone: UTC, hours: '08:00-09:00'}")

    def reason(earliest: int, latest: int) -> Reason | None:
        found = policies.evaluate(question(), ANYTHING, Instant(latest), Instant(earliest))
        return found.reason

    assert reason(NOW, NOW + 5) is None
    assert reason(NOW - 1, NOW + 5) is Reason.OUTSIDE_TIME_WINDOW
    assert reason(NOW + 60 * MINUTE - 1, NOW + 60 * MINUTE) is Reason.OUTSIDE_TIME_WINDOW


def test_a_condition_decides_whether_a_policy_holds() -> None:
    policies = policy_set("name: p, when: 'resource.segments[0] == \"a\"', deny: nope")

    assert judged(policies, question("doc:a/b")).reason is Reason.POLICY_DENIED
    assert judged(policies, question("doc:b/a")).reason is None


@pytest.mark.parametrize(
    "when",
    [
        "context.missing == 1",
        "1 / context.zero == 1",
        'context.zero.matches("x")',
        "resource.segments[9] == 'x'",
        "context.zero > 'x'",
    ],
)
def test_a_condition_that_cannot_be_told_denies(when: str) -> None:
    policies = policy_set(
        f'name: p, when: "{when.replace(chr(34), chr(92) + chr(34))}", deny: nope'
    )

    found = judged(policies, question(zero=0))

    assert (found.policy_id, found.reason) == ("p", Reason.POLICY_ERROR)


def test_whatever_goes_wrong_denies() -> None:
    def broken(_: Facts) -> bool:
        raise ZeroDivisionError

    (plain,) = policy_set("name: p, deny: nope").policies
    policies = type(policy_set())([Policy(plain.id, plain.match, plain.effect, condition=broken)])

    assert judged(policies, question()).reason is Reason.POLICY_ERROR


def test_the_first_denial_is_that_of_what_denies_anyway() -> None:
    policies = policy_set(
        "name: limit, limit: {rate: 1/s}",
        "name: time, time: {zone: UTC, hours: '09:00-17:00'}",
        "name: require, require: {mfa: true}",
        "name: deny, deny: nope",
        "name: second, deny: nope",
    )

    assert judged(policies, question()).policy_id == "deny"


LIMIT = "name: limit, limit: {rate: 1/s}"


def test_nothing_is_demanded_that_is_denied_anyway() -> None:
    assert judged(policy_set(LIMIT, DENY_ALL), question()).demands == ()
    (demand,) = judged(policy_set(LIMIT), question()).demands
    assert (demand.policy_id, demand.bucket.burst) == ("limit", 1)


def test_a_limit_whose_condition_does_not_hold_demands_nothing() -> None:
    policies = policy_set(
        "name: a, limit: {rate: 1/s}", "name: b, when: action == 'write', limit: {rate: 2/s}"
    )
    both = judged(policies, question(action="write")).demands
    assert [demand.policy_id for demand in both] == ["a", "b"]
    assert [demand.policy_id for demand in judged(policies, question()).demands] == ["a"]


def test_a_limit_whose_condition_cannot_be_told_denies() -> None:
    found = judged(policy_set("name: p, when: context.x == 1, limit: {rate: 1/s}"), question())
    assert (found.reason, found.demands) == (Reason.POLICY_ERROR, ())


def test_who_has_a_bucket_of_its_own_is_what_the_limit_says() -> None:
    policies = policy_set(
        "name: each, limit: {rate: 1/s}", "name: every, limit: {rate: 1/s, per: principal+resource}"
    )
    asked = [
        question("doc:a", principal="agent:a"),
        question("doc:b", principal="agent:a"),
        question("doc:a", principal="agent:b"),
        question("doc:a", "write", principal="agent:a"),
    ]
    demands = [judged(policies, one).demands for one in asked]
    assert [len({one[number].bucket for one in demands}) for number in (0, 1)] == [2, 3]


@pytest.mark.parametrize("name", ["agent:a\nagent:b", "agent:a\n"])
def test_no_name_has_what_separates_names_in_the_key_of_a_bucket(name: str) -> None:
    for check in (principal, resource):
        with pytest.raises(InvalidRequestError):
            check(name)


def test_a_bucket_outlives_its_set_as_long_as_its_limit_stays() -> None:
    def digests(*policies: str) -> set[bytes]:
        demands = judged(policy_set(*policies), question()).demands
        return {demand.bucket.digest() for demand in demands}

    assert digests(LIMIT) == digests("name: other, time: {zone: UTC, hours: '00:00-24:00'}", LIMIT)
    changed = ("{rate: 2/s, burst: 1}", "{rate: 1/m}", "{rate: 1/s, burst: 2}")
    each = "{rate: 1/s, per: principal+resource}"
    found = [digests(f"name: limit, limit: {limit}") for limit in (*changed, each)]
    assert len(set.union(*found, digests(LIMIT))) == 5
    assert all(len(digest) == 16 for digest in set.union(*found))


def test_an_allow_without_a_token_is_a_denial() -> None:
    policies = policy_set(LIMIT, "name: day, time: {zone: UTC, hours: '00:00-24:00'}")
    allowed = policies.judge(decide(holding(ANYTHING), question(), NOW), question(), NOW)
    assert allowed.judgement is not None
    (demand,) = allowed.judgement.demands

    denied = limited(allowed, Refusal(demand, 250_000))

    assert (denied.allowed, denied.reason) == (False, Reason.RATE_LIMITED)
    assert denied.judgement == Judgement(
        3, "limit", Reason.RATE_LIMITED, "policy limit: its limit is used up", 250_000, None
    )
    assert denied.capability == allowed.capability
    explained = policies.explain(
        explain(holding(ANYTHING), question(), NOW), denied, question(), NOW
    )
    outcomes = {policy.policy_id: (policy.outcome, policy.detail) for policy in explained.policies}
    assert outcomes["limit"] == (Outcome.DENIED, "its limit was used up")


def test_an_allow_becomes_a_deny_and_keeps_its_capability() -> None:
    allowed = decide(holding(held(1)), asking(), NOW)

    denied = policy_set(DENY_ALL).judge(allowed, asking(), NOW)

    assert (denied.allowed, denied.reason) == (False, Reason.POLICY_DENIED)
    assert (denied.capability, denied.valid_until) == (allowed.capability, None)


@pytest.mark.parametrize(
    ("expires_at", "until"),
    [(NEVER, NOW + 60 * MINUTE), (NOW + 5, NOW + 5), (NOW + 90 * MINUTE, NOW + 60 * MINUTE)],
)
def test_an_allow_ends_with_whatever_ends_first(expires_at: int, until: int) -> None:
    policies = policy_set("name: p, time: {zone: UTC, hours: '08:00-09:00'}")
    allowed = decide(holding(held(1, expires_at=expires_at)), asking(), NOW)

    still = policies.judge(allowed, asking(), NOW)

    assert (still.allowed, still.valid_until) == (True, until)


def test_a_deny_is_not_looked_at() -> None:
    denied: Decision = decide(holding(), asking(), NOW)

    assert policy_set(DENY_ALL).judge(denied, asking(), NOW) is denied


def test_each_policy_is_explained() -> None:
    policies = policy_set(
        "name: elsewhere, match: {resources: ['fs:**']}, deny: nope",
        "name: unmet, when: action == 'write', deny: nope",
        "name: kept, limit: {rate: 1/s}",
        "name: mfa, require: {mfa: true}",
        "name: broken, when: context.x == 1, deny: nope",
    )

    found = {c.policy.id: c.outcome for c in policies.consider(question(), ANYTHING, NOW)}

    assert found == {
        "elsewhere": Outcome.NOT_MATCHED,
        "unmet": Outcome.CONDITION_FALSE,
        "broken": Outcome.FAILED,
        "mfa": Outcome.DENIED,
        "kept": Outcome.PASSED,
    }


def test_a_condition_sees_the_whole_request() -> None:
    asked = Request(HOLDER, question().action, question("doc:a/b").resource, session_id="run-1")
    terms = [
        "principal == 'agent:worker-17'",
        "principal.type == 'agent'",
        "principal.id == 'worker-17'",
        "action == 'read'",
        "resource == 'doc:a/b'",
        "resource.type == 'doc'",
        "resource.path == 'a/b'",
        "resource.segments == ['a', 'b']",
        "session_id == 'run-1'",
        "context == {}",
        "capability.resource == 'doc:**'",
        "capability.actions == ['*']",
        "capability.id.endsWith('01')",
        "capability.expires_at == timestamp('9999-12-31T00:00:00Z')",
        "now == timestamp('2027-01-15T08:00:00Z')",
    ]
    when = " && ".join(terms)

    found = judged(policy_set(f'name: p, when: "{when}", deny: nope'), asked)

    assert found.reason is Reason.POLICY_DENIED
