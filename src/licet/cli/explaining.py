"""Draws why a decision came out as it did: for `authorize --explain` and `policy explain`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.text import Text

from licet.cli import output

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Candidate, Decision

# For people; the API's names are for programs.
_OUTCOMES: Final = {
    "NOT_MATCHED": "no match",
    "CONDITION_FALSE": "matched, condition false",
    "PASSED": "matched, passed",
    "DENIED": "matched, denied",
    "FAILED": "matched, failed",
}
_STYLES: Final = {"NOT_MATCHED": "dim", "CONDITION_FALSE": "dim", "PASSED": "green"}


class PolicyLine(NamedTuple):
    """What came of a policy; the outcome by the API's name."""

    policy_id: str
    outcome: str
    effect: str
    detail: str


def headline(allowed: bool, reason: str, detail: str) -> Text:
    """Return the first line of a decision."""
    line = output.text("ALLOW" if allowed else "DENY")
    line.append(f" {reason}: " if detail else f" {reason}", style="bold")
    return line.append_text(output.text(detail))


def facts(decision: Decision) -> list[Text]:
    """Return the lines of a decision itself."""
    found = [headline(decision.allowed, decision.reason, decision.detail)]
    if decision.approval_id:
        found.append(output.text(f"approval {decision.approval_id}"))
    if decision.retry_after is not None:
        found.append(output.text(f"ask again in {decision.retry_after}"))
    if decision.valid_until is not None:
        found.append(output.text(f"valid until {output.moment(decision.valid_until)}"))
    return found


def candidates(shown: Sequence[Candidate], count: int) -> tuple[Text, list[Text]]:
    """Return a branch with the capabilities that were looked at, `count` in all."""
    title = f"candidate capabilities: {count}" if count else "no candidate capability"
    return output.text(title), [*map(_candidate, shown), *_rest(count - len(shown))]


def policies(shown: Iterable[PolicyLine], count: int) -> tuple[Text, list[Text]]:
    """Return a branch with what each policy said, `count` in all; the outcome stays as it is."""
    lines = [_line(one.outcome, one.policy_id, f"{one.effect}: {one.detail}") for one in shown]
    return output.text(f"policies: {count}"), [*lines, *_rest(count - len(lines))]


def matched(shown: Iterable[PolicyLine], count: int) -> tuple[Text, list[Text]]:
    """Return a branch that says of each policy whether it matched, what it demands, and why."""
    lines = [
        output.text(f"{_OUTCOMES.get(one.outcome, one.outcome)}  ", _style(one.outcome))
        .append(output.text(one.policy_id, "bold"))
        .append(output.text(f"  {one.effect}; {one.detail}"))
        for one in shown
    ]
    return output.text(f"policies: {count}"), [*lines, *_rest(count - len(lines))]


def of_decision(decision: Decision) -> list[PolicyLine]:
    """Return what came of each policy, as the server tells it."""
    explanation = decision.explanation
    if explanation is None:
        return []
    return [
        PolicyLine(one.policy_id, one.outcome, one.effect, one.detail)
        for one in explanation.policies
    ]


def _candidate(candidate: Candidate) -> Text:
    what = f"{', '.join(candidate.actions)} on {candidate.resource}: {candidate.detail}"
    return _line(candidate.verdict, candidate.capability_id, what)


def _line(verdict: str, name: str, what: str) -> Text:
    line = output.text(verdict)
    line.append_text(output.text(f" {name} ", "dim"))
    return line.append_text(output.text(what))


def _style(outcome: str) -> str:
    return _STYLES.get(outcome, "bold red")


def _rest(count: int) -> list[Text]:
    return [output.text(f"and {count} more", "dim")] if count > 0 else []
