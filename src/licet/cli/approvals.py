"""`licet approvals`: list, show, approve, reject."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from licet.cli import output
from licet.cli.invocation import Invocation, command
from licet.cli.times import parse_duration
from licet.cli.values import LimitOption, RequestIdOption

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Approval, ApprovalResolution

_Id: TypeAlias = Annotated[
    str, typer.Argument(metavar="APPROVAL", help="Its id, as the DENY tells it.")
]
_Comment: TypeAlias = Annotated[str, typer.Option(help="Why, for the record.")]
_COLUMNS = ("approval", "state", "principal", "action", "resource", "roles", "asked", "purpose")

app = typer.Typer(
    help="Approvals: what policies demand before they let a request pass, once.",
    no_args_is_help=True,
)


@app.command("list")
@command
def list_(
    invocation: Invocation,
    state: Annotated[
        str,
        typer.Option(help="pending, approved, rejected, expired, used, or all."),
    ] = "pending",
    principal: Annotated[str, typer.Option(help="Only those of this principal.")] = "",
    limit: LimitOption = 100,
) -> int:
    """List approvals, the oldest first; those that are pending unless told otherwise."""
    with invocation.client() as client:
        found = client.approvals.list(
            state="" if state == "all" else state.upper(),
            principal=principal,
            page_size=output.page_size(limit),
        )
        output.print_list(found, limit, _COLUMNS, _row, as_objects=invocation.as_json)
    return 0


@app.command()
@command
def show(invocation: Invocation, approval: _Id) -> int:
    """Show one approval, with who approved so far."""
    with invocation.client() as client:
        found = client.approvals.get(approval)
    if invocation.as_json:
        output.print_json(output.as_json(found))
    else:
        _print(found)
    return 0


@app.command()
@command
def approve(
    invocation: Invocation,
    approval: _Id,
    comment: _Comment = "",
    ttl: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="How long it can be used: 90s, 30m, up to 1h. [default: 15m]"
        ),
    ] = None,
    request_id: RequestIdOption = "",
) -> int:
    """Approve, for each of its roles that you have; it is good for one request."""
    with invocation.client() as client:
        done = client.approvals.approve(
            approval,
            comment=comment,
            ttl=None if ttl is None else parse_duration(ttl, "--ttl"),
            request_id=request_id,
        )
    return _print_done(invocation, done)


@app.command()
@command
def reject(
    invocation: Invocation,
    approval: _Id,
    comment: _Comment = "",
    request_id: RequestIdOption = "",
) -> int:
    """Reject; the same is not asked for again for 15 minutes."""
    with invocation.client() as client:
        done = client.approvals.reject(approval, comment=comment, request_id=request_id)
    return _print_done(invocation, done)


def _row(found: Approval) -> tuple[str, ...]:
    return (
        found.id,
        found.state,
        found.principal,
        found.action,
        found.resource,
        ", ".join(found.roles),
        output.moment(found.asked_at),
        found.purpose,
    )


def _print(found: Approval) -> None:
    facts = (
        ("approval", found.id),
        ("state", found.state),
        ("principal", found.principal),
        ("action", found.action),
        ("resource", found.resource),
        ("roles", ", ".join(found.roles)),
        ("policies", f"{', '.join(found.policy_ids)} (set {found.policy_set})"),
        ("purpose, unchecked", found.purpose),
        ("asked by", f"{found.asked_by} at {output.moment(found.asked_at)}"),
        ("covered by", found.parent_capability_id),
        ("to resolve until", output.moment(found.expires_at)),
        *(
            (f"approved, {given.role}", _said(given.given_by, given.comment))
            for given in found.consents
        ),
        ("resolved by", _said(found.resolved_by, found.comment)),
        ("capability for one use", found.capability_id),
        ("used", output.moment(found.used_at)),
    )
    output.print_record(facts)


def _said(who: str, comment: str) -> str:
    return f"{who}: {comment}" if comment else who


def _print_done(invocation: Invocation, done: ApprovalResolution) -> int:
    if invocation.as_json:
        output.print_json(output.as_json(done))
        return 0
    found = done.approval
    what = f"{found.principal} {found.action} {found.resource}"
    given = {consent.role for consent in found.consents}
    missing = ", ".join(role for role in found.roles if role not in given)
    line = (
        f"{found.state}: {what}" if found.state != "PENDING" else f"still needs {missing}: {what}"
    )
    output.console().print(
        output.text(
            f"{line}; replicas: {done.replicas_confirmed} confirmed, {done.replicas_fenced} fenced"
        )
    )
    return 0
