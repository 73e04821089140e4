"""Conditions of capabilities: the steps of the decision that are about them, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from licet.domain.canonical_json import canonical
from licet.domain.capability_index import Entry
from licet.domain.capability_set import HeldCapability, Standing
from licet.domain.condition import MAX_EVALUATIONS, Conditional, ExpressionError, Unmet
from licet.domain.decision import (
    Candidate,
    Decision,
    Reason,
    Request,
    Verdict,
    decide,
    describe,
    describe_candidate,
    explain,
)
from licet.domain.instant import Instant
from licet.domain.policy_facts import Facts
from licet.policies.cel import compile_condition
from tests.unit.builders import HOLDER, NOW, asking, held, holding, identifier

YES, NO, BROKEN = "true", "false", "context.x == 1"


def evaluate(text: str, facts: Facts) -> bool:
    return compile_condition(text)(facts)


def decided(
    *capabilities: HeldCapability, request: Request | None = None, now: int = NOW
) -> Decision:
    return decide(
        holding(*capabilities, now=now), request or asking(), Instant(now), None, evaluate
    )


@pytest.mark.parametrize("resource", ["doc:reports/2026", "doc:reports/**"])
@pytest.mark.parametrize(
    ("conditions", "reason", "unmet"),
    [
        ((YES,), Reason.GRANTED, None),
        ((YES, YES), Reason.GRANTED, None),
        ((NO,), Reason.CONDITION_FAILED, NO),
        ((YES, NO), Reason.CONDITION_FAILED, NO),
        ((NO, YES), Reason.CONDITION_FAILED, NO),
        # The root's comes first, and the first that does not hold is the one.
        ((NO, BROKEN), Reason.CONDITION_FAILED, NO),
        ((BROKEN, NO), Reason.POLICY_ERROR, BROKEN),
        ((YES, "1 / 0 == 1"), Reason.POLICY_ERROR, "1 / 0 == 1"),
    ],
)
def test_all_conditions_have_to_hold(
    resource: str, conditions: tuple[str, ...], reason: Reason, unmet: str | None
) -> None:
    capability = held(1, resource, conditions=conditions)
    decision = decided(capability)
    assert decision.reason is reason
    assert decision.allowed is (reason is Reason.GRANTED)
    assert decision.capability == capability
    if unmet is None:
        assert decision.unmet is None
    else:
        assert decision.unmet is not None
        assert decision.unmet.condition == unmet
        assert bool(decision.unmet.error) is (reason is Reason.POLICY_ERROR)
    assert decision.valid_until is None


@pytest.mark.parametrize(
    ("capabilities", "reason", "named"),
    [
        pytest.param(
            (held(1, conditions=(NO,)), held(2)), Reason.GRANTED, 2, id="one without conditions"
        ),
        pytest.param(
            (held(1, "doc:reports/2026", conditions=(YES,)), held(2, "doc:**")),
            Reason.GRANTED,
            2,
            id="one without conditions is preferred, though another is nearer",
        ),
        pytest.param(
            (held(1, conditions=(NO,)), held(2, conditions=(YES,))),
            Reason.GRANTED,
            2,
            id="another in the same entry",
        ),
        pytest.param(
            (held(1, "doc:reports/2026", conditions=(BROKEN,)), held(2, conditions=(YES,))),
            Reason.GRANTED,
            2,
            id="another in another entry",
        ),
        pytest.param(
            (held(1, "doc:reports/2026", conditions=(NO,)), held(2, conditions=(BROKEN,))),
            Reason.POLICY_ERROR,
            2,
            id="an error comes before a condition that does not hold",
        ),
        pytest.param(
            (held(1, "doc:reports/2026", conditions=(BROKEN,)), held(2, conditions=(BROKEN,))),
            Reason.POLICY_ERROR,
            1,
            id="of errors the first",
        ),
        pytest.param(
            (held(1, "doc:reports/2026", conditions=(NO,)), held(2, conditions=(NO,))),
            Reason.CONDITION_FAILED,
            1,
            id="of conditions the first",
        ),
        pytest.param(
            (held(1, conditions=(NO,)), held(2, not_before=NOW + 1)),
            Reason.CONDITION_FAILED,
            1,
            id="before one that is not valid yet",
        ),
        pytest.param(
            (held(1, conditions=(NO,)), held(2, ended_at=NOW - 1)),
            Reason.CONDITION_FAILED,
            1,
            id="before one that has ended",
        ),
        pytest.param(
            (held(1, conditions=(YES,), not_before=NOW + 2), held(2, not_before=NOW + 1)),
            Reason.NOT_YET_VALID,
            2,
            id="not valid yet, the one without is the first",
        ),
        pytest.param(
            (held(1, conditions=(BROKEN,), not_before=NOW + 1), held(2, not_before=NOW + 2)),
            Reason.NOT_YET_VALID,
            1,
            id="not valid yet, the one with is the first",
        ),
        pytest.param(
            (held(1, conditions=(YES,), ended_at=NOW - 1),),
            Reason.CAPABILITY_REVOKED,
            1,
            id="one that was revoked",
        ),
        pytest.param(
            (held(1, allowed="write", conditions=(YES,)),),
            Reason.NO_CAPABILITY,
            None,
            id="of another action",
        ),
        pytest.param(
            (held(1, "doc:other", conditions=(YES,)),),
            Reason.NO_CAPABILITY,
            None,
            id="of another resource",
        ),
    ],
)
def test_which_capability_decides(
    capabilities: tuple[HeldCapability, ...], reason: Reason, named: int | None
) -> None:
    for order in (capabilities, capabilities[::-1]):
        decision = decided(*order)
        assert decision.reason is reason
        found = None if decision.capability is None else decision.capability.id
        assert found == (None if named is None else identifier(named))


@pytest.mark.parametrize(
    ("first", "second", "named"), [(NOW, NOW - 1, 1), (NOW - 1, NOW, 2)], ids=["with", "without"]
)
def test_of_capabilities_that_expired_since_the_latest_is_named(
    first: int, second: int, named: int
) -> None:
    read_before = holding(
        held(1, expires_at=first, conditions=(YES,)), held(2, expires_at=second), now=NOW - 2
    )
    decision = decide(read_before, asking(), NOW, None, evaluate)
    assert decision.reason is Reason.CAPABILITY_EXPIRED
    assert decision.capability is not None
    assert decision.capability.id == identifier(named)


def test_an_allow_ends_with_its_capability() -> None:
    assert decided(held(1, expires_at=NOW + 5, conditions=(YES,))).valid_until == NOW + 5


def test_only_the_capability_that_the_request_names_counts() -> None:
    capabilities = (held(1, conditions=(NO,)), held(2, conditions=(YES,)), held(3))
    reasons = [decided(*capabilities, request=asking(only=n)).reason for n in (1, 2, 3, 4)]
    assert reasons == [
        Reason.CONDITION_FAILED,
        Reason.GRANTED,
        Reason.GRANTED,
        Reason.NO_CAPABILITY,
    ]


def test_a_condition_sees_the_request_its_own_capability_and_the_time() -> None:
    request = asking()._replace(context=canonical({"ticket": "T-1"}), session_id="s")
    for number in (1, 2):
        text = f'capability.id == "{identifier(number)}"'
        decision = decided(held(1, conditions=(text,)), held(2, conditions=(text,)))
        assert decision.capability is not None
        assert decision.capability.id == identifier(number)
    for text in (
        f'principal == "{HOLDER}" && action == "read" && resource == "doc:reports/2026"',
        'context.ticket == "T-1" && session_id == "s"',
        'now == timestamp("2027-01-15T08:00:00Z")',
        'capability.resource == "doc:reports/**" && capability.actions == ["read"]',
    ):
        assert decided(held(1, conditions=(text,)), request=request).allowed


def test_where_nothing_evaluates_conditions_none_is_satisfied() -> None:
    decision = decide(holding(held(1, conditions=(YES,))), asking(), NOW)
    assert decision.reason is Reason.POLICY_ERROR
    (candidate,) = explain(holding(held(1, conditions=(YES,))), asking(), NOW).candidates
    assert candidate.verdict is Verdict.CONDITION_FAILED


def test_what_is_nearly_true_does_not_satisfy() -> None:
    for value in (1, "true", object(), None):
        decision = decide(
            holding(held(1, conditions=(YES,))), asking(), NOW, None, lambda *_, v=value: v
        )
        assert decision.reason is Reason.CONDITION_FAILED


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        (MAX_EVALUATIONS - 1, Reason.GRANTED),
        (MAX_EVALUATIONS, Reason.POLICY_ERROR),
        (10 * MAX_EVALUATIONS, Reason.POLICY_ERROR),
    ],
)
@pytest.mark.parametrize("each", [1, 2])
def test_only_so_many_conditions_are_evaluated(count: int, reason: Reason, each: int) -> None:
    asked = []

    def counting(text: str, facts: Facts) -> bool:
        asked.append(facts.capability.id)
        return text == YES

    # The last one of the entry would allow.
    capabilities = [
        held(n, expires_at=NOW + 10_000 - n, conditions=((YES,) * (each - 1) + (NO,)))
        for n in range(1, count // each + 1)
    ]
    allowing = held(9_999, expires_at=NOW + 1, conditions=(YES,))
    decision = decide(holding(*capabilities, allowing), asking(), NOW, None, counting)
    assert decision.reason is reason
    assert len(asked) <= MAX_EVALUATIONS
    if reason is Reason.POLICY_ERROR:
        assert "more than 250 conditions" in describe(decision, asking())
    # By its name it is found.
    named = asking(only=9_999)
    assert decide(holding(*capabilities, allowing), named, NOW, None, counting).allowed
    # None is evaluated where a capability without conditions allows.
    asked.clear()
    plain = held(8_888, "doc:**")
    assert decide(holding(*capabilities, plain), asking(), NOW, None, counting).allowed
    assert not asked


def test_nothing_more_is_looked_at_beyond_the_bound() -> None:
    seen = []

    def entries() -> Iterator[Entry]:
        for number in range(10 * MAX_EVALUATIONS):
            seen.append(number)
            yield (held(number, conditions=(NO,)),)

    found = Conditional(entries(), asking(), NOW, NOW, evaluate)
    assert found.met is None
    assert len(seen) == MAX_EVALUATIONS + 1


def test_what_is_raised_besides_is_not_taken_for_an_answer() -> None:
    def stopped(*_: object) -> bool:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        decide(holding(held(1, conditions=(YES,))), asking(), NOW, None, stopped)


def test_an_explanation_says_which_conditions_do_not_hold() -> None:
    capabilities = (
        held(1, conditions=(YES,)),
        held(2, conditions=(YES, NO)),
        held(3, conditions=(BROKEN,)),
        held(4, allowed="write", conditions=(NO,)),
        held(5, conditions=(NO,), expires_at=NOW - 1),
        held(6, conditions=(NO,), not_before=NOW + 1),
    )
    found = explain(holding(*capabilities), asking(), NOW, None, evaluate)
    assert {c.capability.id: c.verdict for c in found.candidates} == {
        identifier(1): Verdict.APPLIES,
        identifier(2): Verdict.CONDITION_FAILED,
        identifier(3): Verdict.CONDITION_FAILED,
        identifier(4): Verdict.OTHER_ACTION,
        identifier(5): Verdict.EXPIRED,
        identifier(6): Verdict.NOT_YET_VALID,
    }
    details = {c.capability.id: describe_candidate(c) for c in found.candidates}
    assert details[identifier(2)] == "its condition `false` does not hold"
    assert details[identifier(3)].startswith("its condition `context.x == 1` cannot be told: ")


def test_a_denial_names_capability_and_condition() -> None:
    sentence = describe(decided(held(1, conditions=(NO,))), asking())
    assert sentence == (
        f"capability {identifier(1)} does not allow read on doc:reports/2026: "
        "its condition `false` does not hold"
    )
    assert Unmet("x" * 201, "").describe() == f"its condition `{'x' * 200}...` does not hold"
    assert (
        describe_candidate(Candidate(held(1), Verdict.CONDITION_FAILED))
        == "a condition does not hold"
    )


def test_an_error_without_words_is_still_an_error() -> None:
    def silent(*_: object) -> bool:
        raise ExpressionError

    decision = decide(holding(held(1, conditions=(YES,))), asking(), NOW, None, silent)
    assert decision.reason is Reason.POLICY_ERROR


def test_a_suspended_principals_conditions_are_not_looked_at() -> None:
    suspended = holding(held(1, conditions=(YES,)), standing=Standing.SUSPENDED)
    assert decide(suspended, asking(), NOW, None, evaluate).reason is Reason.PRINCIPAL_SUSPENDED
