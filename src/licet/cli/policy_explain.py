"""`licet policy explain`: what each policy has to say of one question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from rich.text import Text

from licet.cli import explaining, output
from licet.cli.authorize import ALLOWED, DENIED
from licet.cli.errors import CommandError
from licet.cli.explaining import PolicyLine
from licet.cli.invocation import Invocation
from licet.cli.policy import read_document_of
from licet.cli.times import parse_instant
from licet.cli.values import SessionOption
from licet.domain import names
from licet.domain.canonical_json import JsonValue, NotCanonicalError, canonical
from licet.domain.capability_set import ALWAYS, NEVER, HeldCapability
from licet.domain.decision import PolicyOutcome as Outcome
from licet.domain.decision import Reason, Request
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant, from_datetime
from licet.domain.names import CapabilityId
from licet.domain.pattern import ResourcePattern
from licet.domain.policy import describe
from licet.domain.policy_set import PolicySet
from licet.replica.clock import SystemClock

_NO_CAPABILITY: Final = CapabilityId("00000000-0000-7000-8000-000000000000")
_NOT_ASKED: Final = "policies are not asked: no capability allows it"
_Context: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A member of the context, like mfa=true; what is no JSON is a text. May be repeated.",
    ),
]


def explain(
    invocation: Invocation,
    principal: Annotated[str, typer.Argument(help="Who acts, like agent:worker-17.")],
    action: Annotated[str, typer.Argument(help="What is done, like read.")],
    resource: Annotated[str, typer.Argument(help="What it is done to, like doc:reports/q3.")],
    context: _Context = None,
    session: SessionOption = "",
    document: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ask this document and no server: as if a capability allowed exactly that.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="With --document: when, like 2026-11-22T15:00:00Z."),
    ] = None,
) -> int:
    """Show what each policy has to say of a question: whether it matched, what it demands, and why.

    Without --document it is a decision of the server, on record like any other. Exits with 0 for
    ALLOW, 1 for DENY and 2 when no decision was taken.
    """
    facts = _context(context or [])
    question = f"{principal} {action} {resource}"
    if document is None:
        if at is not None:
            raise CommandError("--at goes with --document: a server decides now")
        return _asked(invocation, (principal, action, resource), facts, session, question)
    now = SystemClock().now() if at is None else from_datetime(parse_instant(at, "--at"))
    try:
        request = Request(
            names.principal(principal),
            names.action(action),
            names.resource(resource),
            canonical(facts),
            session_id=names.label(session, "session"),
        )
    except InvalidRequestError as exc:
        raise CommandError(str(exc)) from None
    except NotCanonicalError as exc:
        raise CommandError(f"--context {exc}") from None
    return _drafted(invocation, document, request, now, question)


def _asked(
    invocation: Invocation,
    asked: tuple[str, str, str],
    context: dict[str, JsonValue],
    session: str,
    question: str,
) -> int:
    with invocation.client() as client:
        decision = client.authorize(*asked, context=context, session_id=session, explain=True)
    if invocation.as_json:
        output.print_json(output.decision_as_json(decision))
        return ALLOWED if decision.allowed else DENIED
    branches: list[Text | tuple[Text, list[Text]]] = [*explaining.facts(decision)]
    explanation = decision.explanation
    if explanation is not None:
        if explanation.policy_count:
            lines = explaining.of_decision(decision)
            branches.append(explaining.matched(lines, explanation.policy_count))
        else:
            no_policies = decision.allowed or decision.policy_id
            branches.append(output.text("policies: 0" if no_policies else _NOT_ASKED))
        branches.append(explaining.candidates(explanation.candidates, explanation.candidate_count))
    output.print_tree(output.text(question), branches)
    return ALLOWED if decision.allowed else DENIED


def _drafted(
    invocation: Invocation, file: Path, request: Request, now: Instant, question: str
) -> int:
    found = read_document_of(file)
    if found is None:
        raise CommandError(f"{file} cannot be used")
    policies = PolicySet(found.policies)
    capability = HeldCapability(
        _NO_CAPABILITY, ResourcePattern(request.resource), (request.action,), ALWAYS, NEVER
    )
    judgement = policies.evaluate(request, capability, now)
    considered = policies.consider(request, capability, now)
    considered.sort(key=lambda one: one.outcome is Outcome.NOT_MATCHED)
    lines = [
        PolicyLine(one.policy.id, one.outcome, describe(one.policy.effect), one.finding.detail)
        for one in considered
    ]
    allowed, reason = judgement.reason is None, judgement.reason or Reason.GRANTED
    if invocation.as_json:
        output.print_json(
            {
                "decision": "ALLOW" if allowed else "DENY",
                "reason": reason,
                "policy_id": judgement.policy_id,
                "detail": judgement.detail,
                "policies": [line._asdict() for line in lines],
            }
        )
    else:
        branches: list[Text | tuple[Text, list[Text]]] = [
            explaining.headline(allowed, reason, judgement.detail),
            explaining.matched(lines, len(lines)),
            output.text("that a capability allows it is taken for granted", "dim"),
        ]
        output.print_tree(output.text(question), branches)
    return ALLOWED if allowed else DENIED


def _context(members: list[str]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for member in members:
        name, separator, value = member.partition("=")
        if not name or not separator:
            raise CommandError(f"--context must be NAME=VALUE, like mfa=true, not {member!r}")
        if name in found:
            raise CommandError(f"--context names {name!r} twice")
        found[name] = _value(value)
    return found


def _value(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text
    return value


def _no_number(text: str) -> JsonValue:
    raise ValueError(text)
