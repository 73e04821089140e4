"""`licet capabilities`: list, show, tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.text import Text
from rich.tree import Tree

from licet.cli import output
from licet.cli.invocation import Invocation, command
from licet.cli.values import LimitOption

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Capability, CapabilityTree

_Id: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="The capability's id.")]

app = typer.Typer(help="Read capabilities.", no_args_is_help=True)


@app.command("list")
@command
def list_(
    invocation: Invocation,
    principal: Annotated[str, typer.Option(help="Held by this principal.")] = "",
    resource: Annotated[
        str, typer.Option(metavar="PATTERN", help="Whose pattern lies inside this one.")
    ] = "",
    granted_by: Annotated[str, typer.Option(metavar="CALLER", help="Granted by this caller.")] = "",
    session: Annotated[str, typer.Option(metavar="ID", help="Bound to this session.")] = "",
    parent: Annotated[str, typer.Option(metavar="ID", help="Delegated from this one.")] = "",
    include_ended: Annotated[
        bool, typer.Option("--include-ended", help="Also those that have ended or expired.")
    ] = False,
    limit: LimitOption = 100,
) -> int:
    """List the capabilities that match every filter given, oldest first."""
    with invocation.client() as client:
        found = client.capabilities(
            page_size=output.page_size(limit),
            principal=principal,
            resource=resource,
            granted_by=granted_by,
            session_id=session,
            parent_capability_id=parent,
            include_ended=include_ended,
        )
        output.print_list(found, limit, _COLUMNS, _row, as_objects=invocation.as_json)
    return 0


@app.command()
@command
def show(invocation: Invocation, capability: _Id) -> int:
    """Show one capability."""
    with invocation.client() as client:
        found = client.capability(capability).capability
    if invocation.as_json:
        output.print_json(output.as_json(found))
    else:
        output.print_capability(found)
    return 0


@app.command()
@command
def tree(invocation: Invocation, capability: _Id) -> int:
    """Show one capability among its ancestors and all that was delegated from it."""
    with invocation.client() as client:
        found = client.capability(capability, with_tree=True)
    if invocation.as_json:
        output.print_json(output.as_json(found))
    else:
        _print_tree(found)
    return 0


_COLUMNS = ("id", "principal", "actions", "resource", "expires", "depth", "state")


def _row(capability: Capability) -> tuple[str, ...]:
    return (
        capability.id,
        capability.principal,
        ", ".join(capability.actions),
        capability.resource,
        output.moment(capability.expires_at, "never"),
        str(capability.delegation_depth),
        output.state(capability),
    )


def _print_tree(found: CapabilityTree) -> None:
    chain = [*reversed(found.ancestors), found.capability]
    root = node = Tree(_label(chain[0], found.capability))
    for capability in chain[1:]:
        node = node.add(_label(capability, found.capability))
    # A parent comes before its children.
    nodes = {found.capability.id: node}
    for capability in found.descendants:
        parent = nodes[capability.parent_id]
        nodes[capability.id] = parent.add(_label(capability, found.capability))
    if found.descendants_truncated:
        node.add(output.text("and more, which are not shown", "dim"))
    output.console().print(root)


def _label(capability: Capability, asked_for: Capability) -> Text:
    label = output.text(capability.id, "bold" if capability.id == asked_for.id else "dim")
    what = f" {capability.principal} {', '.join(capability.actions)} on {capability.resource} "
    label.append_text(output.text(what))
    label.append_text(output.text(output.state(capability)))
    label.append_text(output.text(f", granted by {capability.granted_by}", "dim"))
    return label
