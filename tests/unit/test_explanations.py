"""Explanations: each candidate's verdict, which of them are shown, and the sentence for each."""

from __future__ import annotations

import pytest

from licet.domain.capability_set import CapabilitySet, HeldCapability
from licet.domain.decision import (
    MAX_CANDIDATES,
    Candidate,
    Explanation,
    Request,
    Verdict,
    describe_candidate,
    explain,
)
from tests.unit.builders import HOLDER, NOW, asking, held, holding, identifier

AT = "2027-01-15T08:00:00.000000+00:00"


def verdicts(*capabilities: HeldCapability, request: Request | None = None) -> dict[str, Verdict]:
    explanation = explain(holding(*capabilities), request or asking(), NOW)
    return {candidate.capability.id: candidate.verdict for candidate in explanation.candidates}


def test_an_explanation_gives_each_candidate_its_verdict() -> None:
    assert verdicts(
        held(1),
        held(2, allowed="*"),
        held(3, allowed="write"),
        held(4, expires_at=NOW),
        held(5, expires_at=NOW + 1),
        held(6, not_before=NOW + 1),
        held(7, not_before=NOW),
        held(8, ended_at=NOW - 1),
        held(9, ended_at=NOW - 1, expires_at=NOW - 1),
        held(10, ended_at=NOW - 1, allowed="write"),
        held(11, "doc:other"),
    ) == {
        identifier(1): Verdict.APPLIES,
        identifier(2): Verdict.APPLIES,
        identifier(3): Verdict.OTHER_ACTION,
        identifier(4): Verdict.EXPIRED,
        identifier(5): Verdict.APPLIES,
        identifier(6): Verdict.NOT_YET_VALID,
        identifier(7): Verdict.APPLIES,
        identifier(8): Verdict.REVOKED,
        identifier(9): Verdict.EXPIRED,
        identifier(10): Verdict.OTHER_ACTION,
    }


def test_an_explanation_sees_an_expiry_that_came_after_the_set_was_read() -> None:
    read_before = holding(held(1, expires_at=NOW), now=NOW - 1)
    (candidate,) = explain(read_before, asking(), NOW).candidates
    assert candidate.verdict is Verdict.EXPIRED


def test_an_explanation_tells_which_candidates_were_not_asked_for() -> None:
    assert verdicts(held(1), held(2), held(3, allowed="write"), request=asking(only=1)) == {
        identifier(1): Verdict.APPLIES,
        identifier(2): Verdict.NOT_REQUESTED,
        identifier(3): Verdict.NOT_REQUESTED,
    }


def test_an_explanation_has_the_applicable_candidates_in_front() -> None:
    explanation = explain(
        holding(
            held(1, "doc:reports/2026", "write"),
            held(2, "doc:reports/2026", ended_at=NOW - 1),
            held(3, "doc:**"),
            held(4, "doc:*/2026"),
        ),
        asking(),
        NOW,
    )
    applies = [candidate.verdict is Verdict.APPLIES for candidate in explanation.candidates]
    assert applies == [True, True, False, False]
    assert explanation.total == 4


@pytest.mark.parametrize("count", [MAX_CANDIDATES, MAX_CANDIDATES + 1])
def test_an_explanation_is_cut_and_counts_what_it_left_out(count: int) -> None:
    others = [held(n, "doc:reports/2026", "write") for n in range(1, count)]
    explanation = explain(holding(*others, held(count)), asking(), NOW)
    assert len(explanation.candidates) == MAX_CANDIDATES
    assert explanation.total == count
    assert explanation.candidates[0].capability.id == identifier(count)


def test_an_explanation_of_nothing_is_empty() -> None:
    assert explain(CapabilitySet(HOLDER, 1, []), asking(), NOW) == Explanation((), 0)


@pytest.mark.parametrize(
    ("capability", "verdict", "sentence"),
    [
        (held(1), Verdict.APPLIES, "covers the action and the resource, and is valid"),
        (held(1, allowed="write move"), Verdict.OTHER_ACTION, "allows write, move only"),
        (held(1, expires_at=NOW), Verdict.EXPIRED, f"expired at {AT}"),
        (held(1, ended_at=NOW), Verdict.REVOKED, f"was revoked at {AT}"),
        (held(1, not_before=NOW), Verdict.NOT_YET_VALID, f"is valid from {AT} on"),
        (held(1), Verdict.NOT_REQUESTED, "is not the capability that the request names"),
    ],
)
def test_a_candidate_is_described_in_one_sentence(
    capability: HeldCapability, verdict: Verdict, sentence: str
) -> None:
    assert describe_candidate(Candidate(capability, verdict)) == sentence
