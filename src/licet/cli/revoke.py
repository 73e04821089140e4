"""`licet revoke`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from licet.cli import output
from licet.cli.invocation import Invocation
from licet.cli.values import RequestIdOption, TraceOption

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Revocation

_SHOWN = 20


def revoke(
    invocation: Invocation,
    capability: Annotated[
        str | None, typer.Argument(help="The id of the capability to end.", show_default=False)
    ] = None,
    principal: Annotated[str, typer.Option(help="End all that it holds.")] = "",
    resource: Annotated[
        str, typer.Option(metavar="PATTERN", help="End all whose pattern lies inside this one.")
    ] = "",
    granted_by: Annotated[
        str, typer.Option(metavar="CALLER", help="End all that this caller granted.")
    ] = "",
    session: Annotated[
        str, typer.Option(metavar="ID", help="End all that are bound to this session.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would end.")] = False,
    request_id: RequestIdOption = "",
    trace: TraceOption = "",
) -> int:
    """End a capability, or all that match every filter given, and always all their descendants."""
    with invocation.client() as client:
        revocation = client.revoke(
            capability,
            principal=principal,
            resource=resource,
            granted_by=granted_by,
            session_id=session,
            reason=reason,
            dry_run=dry_run,
            request_id=request_id,
            trace_id=trace,
        )
    if invocation.as_json:
        output.print_json(output.as_json(revocation))
    else:
        _print(revocation, dry_run=dry_run)
    return 0


def _print(revocation: Revocation, *, dry_run: bool) -> None:
    console = output.console()
    if revocation.already_ended:
        console.print(f"had ended before, at revision {revocation.revision}")
        return
    count = revocation.ended_count
    capabilities = "1 capability" if count == 1 else f"{count} capabilities"
    if dry_run:
        console.print(f"{capabilities} would end")
    else:
        console.print(
            f"{capabilities} ended at revision {revocation.revision}; replicas: "
            f"{revocation.replicas_confirmed} confirmed, {revocation.replicas_fenced} fenced"
        )
    for capability_id in revocation.ended_capability_ids[:_SHOWN]:
        console.print(output.text(f"  {capability_id}"))
    if count > _SHOWN:
        console.print(output.text(f"  and {count - _SHOWN} more", "dim"))
