"""`licet audit`: query, follow, trail, new-epoch."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import typer
from rich.text import Text

from licet.cli import audit_epoch, output
from licet.cli.errors import CommandError
from licet.cli.invocation import Invocation, command
from licet.cli.timeline import print_timeline
from licet.cli.times import parse_past
from licet.cli.trail import summary, trail_of
from licet.cli.values import LimitOption, json_object
from licet.replica.clock import SystemClock

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import AuditEvent, AuditFilter

_Types: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--type", help="Of this type, like decision or grant. May be repeated."),
]
_Principal: TypeAlias = Annotated[str, typer.Option(help="Whose rights are concerned.")]
_Actor: TypeAlias = Annotated[str, typer.Option(metavar="CALLER", help="Who caused it.")]
_Resource: TypeAlias = Annotated[
    str, typer.Option(metavar="PATTERN", help="A resource, or a pattern: all inside it.")
]
_Action: TypeAlias = Annotated[str, typer.Option(help="The action of a decision.")]
_Capability: TypeAlias = Annotated[str, typer.Option(metavar="ID", help="The capability.")]
_Decision: TypeAlias = Annotated[
    str, typer.Option(metavar="allow|deny", help="Only decisions with this outcome.")
]
_Reason: TypeAlias = Annotated[str, typer.Option(help="The reason, like CAPABILITY_EXPIRED.")]
_Policy: TypeAlias = Annotated[str, typer.Option(metavar="ID", help="The policy.")]
_Session: TypeAlias = Annotated[str, typer.Option(metavar="ID", help="The session.")]
_Trace: TypeAlias = Annotated[str, typer.Option(metavar="ID", help="The trace.")]
_Metadata: TypeAlias = Annotated[
    str | None, typer.Option(metavar="JSON", help="Whose metadata contains this JSON object.")
]
_PAST = "like 2026-11-22T15:00:00Z, or so long ago: 15m, 1h30m, 7d."
_Since: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TIME", help=f"At or after this instant, {_PAST}")
]
_Until: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TIME", help=f"Before this instant, {_PAST}")
]

app = typer.Typer(help="Read the audit log, and look after it.", no_args_is_help=True)
app.command()(audit_epoch.new_epoch)


@app.command()
@command
def query(
    invocation: Invocation,
    types: _Types = None,
    principal: _Principal = "",
    actor: _Actor = "",
    resource: _Resource = "",
    action: _Action = "",
    capability: _Capability = "",
    decision: _Decision = "",
    reason: _Reason = "",
    policy: _Policy = "",
    session: _Session = "",
    trace: _Trace = "",
    metadata: _Metadata = None,
    since: _Since = None,
    until: _Until = None,
    limit: LimitOption = 100,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Draw the decisions listed over time.")
    ] = False,
) -> int:
    """List the audit events that match every filter given, newest first."""
    wanted: AuditFilter = {
        "event_types": types or (),
        "principal": principal,
        "actor": actor,
        "resource": resource,
        "action": action,
        "capability_id": capability,
        "allowed": _outcome(decision),
        "reason": reason,
        "policy_id": policy,
        "session_id": session,
        "trace_id": trace,
        "metadata": json_object(metadata, "--metadata"),
        "since": _past(since, "--since"),
        "until": _past(until, "--until"),
    }
    with invocation.client() as client:
        found = client.audit(page_size=output.page_size(limit), **wanted)
        shown: list[AuditEvent] = []

        def row(event: AuditEvent) -> tuple[str, ...]:
            shown.append(event)
            return _row(event)

        output.print_list(found, limit, _COLUMNS, row, as_objects=invocation.as_json)
    if timeline:
        print_timeline(output.console(), shown)
    return 0


@app.command()
@command
def follow(
    invocation: Invocation,
    types: _Types = None,
    principal: _Principal = "",
    actor: _Actor = "",
    resource: _Resource = "",
    action: _Action = "",
    capability: _Capability = "",
    decision: _Decision = "",
    reason: _Reason = "",
    policy: _Policy = "",
    session: _Session = "",
    trace: _Trace = "",
    metadata: _Metadata = None,
    since: _Since = None,
) -> int:
    """Print the audit events that match every filter given as they happen, until Ctrl-C.

    Starts with the next event, or with the first one after --since.
    """
    wanted: AuditFilter = {
        "event_types": types or (),
        "principal": principal,
        "actor": actor,
        "resource": resource,
        "action": action,
        "capability_id": capability,
        "allowed": _outcome(decision),
        "reason": reason,
        "policy_id": policy,
        "session_id": session,
        "trace_id": trace,
        "metadata": json_object(metadata, "--metadata"),
        "since": _past(since, "--since"),
    }
    from licet.cli.following import follow_events  # noqa: PLC0415 - see the package

    follow_events(invocation, wanted, _print_json if invocation.as_json else _print_line)
    return 0


@app.command()
@command
def trail(
    invocation: Invocation,
    capability: Annotated[
        str, typer.Argument(metavar="[CAPABILITY]", help="Of this capability.", show_default=False)
    ] = "",
    principal: Annotated[str, typer.Option(help="Of this principal.")] = "",
    session: Annotated[str, typer.Option(metavar="ID", help="Of this session.")] = "",
    trace: Annotated[str, typer.Option(metavar="ID", help="Of this trace.")] = "",
    since: _Since = None,
    until: _Until = None,
    limit: Annotated[
        int,
        typer.Option(min=0, help="The newest so many decisions, and as many changes; 0: all."),
    ] = 100,
) -> int:
    """Tell the life of one capability, principal, session or trace, oldest first.

    Of a capability: its grant, what was delegated from it, the decisions that it came into, its
    end.
    """
    of = {
        "capability_id": capability,
        "principal": principal,
        "session_id": session,
        "trace_id": trace,
    }
    given = {field: value for field, value in of.items() if value}
    if len(given) != 1:
        raise CommandError("name one capability, --principal, --session or --trace")
    wanted = cast(
        "AuditFilter",
        {**given, "since": _past(since, "--since"), "until": _past(until, "--until")},
    )
    with invocation.client() as client:
        found = trail_of(client, wanted, limit)
    if invocation.as_json:
        for event in found.events:
            _print_json(event)
    else:
        output.print_table(_COLUMNS, map(_row, found.events))
        if found.events:
            output.console().print(output.text(summary(found.events)), style="dim", soft_wrap=True)
        print_timeline(output.console(), found.events)
    if found.is_cut:
        sys.stderr.write("licet: there are more: `--limit 0` tells all\n")
    return 0


_COLUMNS = ("time", "type", "result", "principal", "action", "resource", "reason", "capability")


def _row(event: AuditEvent) -> tuple[str, ...]:
    return (
        output.precise(event.occurred_at),
        event.event_type,
        event.result,
        event.principal,
        event.action,
        event.resource,
        event.reason,
        event.capability_id,
    )


def _print_line(event: AuditEvent) -> None:
    # Wide enough for what licet itself writes; what comes later cannot be known.
    widths = (24, 8, 7)
    line = Text()
    for position, cell in enumerate(_row(event)):
        if cell:
            shown = output.text(cell)
            if position < len(widths):
                shown.pad_right(max(0, widths[position] - len(cell)))
            line.append_text(shown)
            line.append(" ")
    line.rstrip()
    output.console().print(line, soft_wrap=True)


def _print_json(event: AuditEvent) -> None:
    output.print_json(output.as_json(event))


def _outcome(decision: str) -> bool | None:
    match decision.lower():
        case "":
            return None
        case "allow":
            return True
        case "deny":
            return False
        case _:
            raise CommandError(f"--decision must be allow or deny, not {decision!r}")


def _past(value: str | None, option: str) -> datetime | None:
    return None if value is None else parse_past(value, option, SystemClock().now())
