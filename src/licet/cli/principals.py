"""`licet principals`: suspend, resume, list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from licet.cli import output
from licet.cli.invocation import Invocation, command
from licet.cli.values import LimitOption, RequestIdOption

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import StandingChange, Suspension

_Principal: TypeAlias = Annotated[str, typer.Argument(help="The principal, like agent:worker-17.")]
_Reason: TypeAlias = Annotated[str, typer.Option(help="Why, for the record.")]
_COLUMNS = ("principal", "since", "by", "reason", "state")

app = typer.Typer(
    help="The kill switch: a principal that is suspended is denied everything, and nobody may call "
    "as it, until it is resumed.",
    no_args_is_help=True,
)


@app.command()
@command
def suspend(
    invocation: Invocation,
    principal: _Principal,
    reason: _Reason = "",
    request_id: RequestIdOption = "",
) -> int:
    """Deny a principal everything at once, everywhere, and let nobody call as it."""
    with invocation.client() as client:
        changed = client.callers.principals.suspend(principal, reason=reason, request_id=request_id)
    return _print_change(invocation, changed, "was suspended before", "suspended")


@app.command()
@command
def resume(
    invocation: Invocation,
    principal: _Principal,
    reason: _Reason = "",
    request_id: RequestIdOption = "",
) -> int:
    """Let what a principal holds count again, and its keys."""
    with invocation.client() as client:
        changed = client.callers.principals.resume(principal, reason=reason, request_id=request_id)
    return _print_change(invocation, changed, "was not suspended", "resumed")


@app.command("list")
@command
def list_(
    invocation: Invocation,
    principal: Annotated[str, typer.Option(help="Only the suspensions of this one.")] = "",
    include_ended: Annotated[
        bool, typer.Option("--include-ended", help="Those that have ended, too.")
    ] = False,
    limit: LimitOption = 100,
) -> int:
    """List who is suspended, the longest first."""
    with invocation.client() as client:
        found = client.callers.principals.suspensions(
            principal=principal, include_ended=include_ended, page_size=output.page_size(limit)
        )
        output.print_list(found, limit, _COLUMNS, _row, as_objects=invocation.as_json)
    return 0


def _row(suspension: Suspension) -> tuple[str, ...]:
    ended = suspension.resumed_at is not None
    return (
        suspension.principal,
        output.moment(suspension.suspended_at),
        suspension.suspended_by,
        suspension.reason,
        f"resumed by {suspension.resumed_by}" if ended else "suspended",
    )


def _print_change(invocation: Invocation, changed: StandingChange, was: str, done: str) -> int:
    if invocation.as_json:
        output.print_json(output.as_json(changed))
    elif changed.already:
        output.console().print(was)
    else:
        output.console().print(f"{done} at revision {changed.revision}")
    return 0
