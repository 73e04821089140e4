"""`licet authorize`: one decision, as an exit status too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from licet.cli import output
from licet.cli.invocation import Invocation
from licet.cli.values import SessionOption, TraceOption, json_object

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Candidate, ConsideredPolicy, Decision

ALLOWED: Final = 0
DENIED: Final = 1


def authorize(
    invocation: Invocation,
    principal: Annotated[str, typer.Argument(help="Who acts, like agent:worker-17.")],
    action: Annotated[str, typer.Argument(help="What is done, like read.")],
    resource: Annotated[str, typer.Argument(help="What it is done to, like doc:reports/q3.")],
    context: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Facts for conditions and policies: a JSON object."),
    ] = None,
    capability: Annotated[
        str | None, typer.Option(metavar="ID", help="Exercise only this capability.")
    ] = None,
    session: SessionOption = "",
    trace: TraceOption = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each candidate and why it did or did not apply.")
    ] = False,
) -> int:
    """Ask whether a principal may do an action on a resource.

    Exits with 0 for ALLOW, 1 for DENY and 2 when no decision was taken.
    """
    facts = json_object(context, "--context")
    with invocation.client() as client:
        decision = client.authorize(
            principal,
            action,
            resource,
            context=facts,
            capability_id=capability,
            session_id=session,
            trace_id=trace,
            explain=explain,
        )
    if invocation.as_json:
        output.print_json(output.decision_as_json(decision))
    else:
        _print(decision, f"{principal} {action} {resource}")
    return ALLOWED if decision.allowed else DENIED


def _print(decision: Decision, question: str) -> None:
    headline = output.text("ALLOW" if decision.allowed else "DENY")
    headline.append(f" {decision.reason}: ", style="bold")
    headline.append_text(output.text(decision.detail))
    facts = [headline]
    if decision.approval_id:
        facts.append(output.text(f"approval {decision.approval_id}"))
    if decision.retry_after is not None:
        facts.append(output.text(f"ask again in {decision.retry_after}"))
    if decision.valid_until is not None:
        facts.append(output.text(f"valid until {output.moment(decision.valid_until)}"))
    if decision.explanation is None:
        output.console().print(*facts, sep="\n")
        return
    shown, count = decision.explanation.candidates, decision.explanation.candidate_count
    title = f"candidate capabilities: {count}" if count else "no candidate capability"
    candidates = [*map(_candidate, shown), *_rest(count - len(shown))]
    branches: list[Text | tuple[Text, list[Text]]] = [*facts, (output.text(title), candidates)]
    asked, total = decision.explanation.policies, decision.explanation.policy_count
    if total:
        policies = [*map(_policy, asked), *_rest(total - len(asked))]
        branches.append((output.text(f"policies: {total}"), policies))
    output.print_tree(output.text(question), branches)


def _policy(policy: ConsideredPolicy) -> Text:
    line = output.text(policy.outcome)
    line.append_text(output.text(f" {policy.policy_id} ", "dim"))
    line.append_text(output.text(f"{policy.effect}: {policy.detail}"))
    return line


def _candidate(candidate: Candidate) -> Text:
    line = output.text(candidate.verdict)
    line.append_text(output.text(f" {candidate.capability_id} ", "dim"))
    line.append_text(output.text(f"{', '.join(candidate.actions)} on {candidate.resource}: "))
    line.append_text(output.text(candidate.detail))
    return line


def _rest(count: int) -> list[Text]:
    return [output.text(f"and {count} more", "dim")] if count > 0 else []
