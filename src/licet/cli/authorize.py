"""`licet authorize`: one decision, as an exit status too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from licet.cli import explaining, output
from licet.cli.invocation import Invocation
from licet.cli.values import SessionOption, TraceOption, json_object

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Decision

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
    explanation = decision.explanation
    if explanation is None:
        output.console().print(*explaining.facts(decision), sep="\n")
        return
    branches: list[Text | tuple[Text, list[Text]]] = [
        *explaining.facts(decision),
        explaining.candidates(explanation.candidates, explanation.candidate_count),
    ]
    if explanation.policy_count:
        lines = explaining.of_decision(decision)
        branches.append(explaining.policies(lines, explanation.policy_count))
    output.print_tree(output.text(question), branches)
