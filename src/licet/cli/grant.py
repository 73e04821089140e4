"""`licet grant` and `licet delegate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from licet.cli import output
from licet.cli.invocation import Invocation
from licet.cli.times import parse_duration, parse_instant
from licet.cli.values import RequestIdOption, TraceOption, json_object

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Capability, GrantFields

_Principal: TypeAlias = Annotated[
    str, typer.Argument(help="Who will hold the capability, like agent:worker-17.")
]
_Actions: TypeAlias = Annotated[
    str, typer.Argument(help="1 to 32 actions, like read,write; or '*' for any.")
]
_Resource: TypeAlias = Annotated[
    str, typer.Argument(help="A resource pattern, like 'doc:reports/**'.")
]
_Ttl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION", help="For how long the capability lives: 90s, 15m, 1h30m, 7d."
    ),
]
_ExpiresAt: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="When it ends by itself, like 2026-11-22T15:00:00Z."),
]
_NotBefore: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TIME", help="From when on it may be used.")
]
_Depth: TypeAlias = Annotated[
    int,
    typer.Option(
        "--delegation-depth", "--depth", min=0, max=64, help="How many further times to delegate."
    ),
]
_Condition: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="CEL", help="What must hold besides, like 'context.mfa == true'; see policies.md."
    ),
]
_Session: TypeAlias = Annotated[
    str, typer.Option("--session", metavar="ID", help="The session with which it ends.")
]
_Metadata: TypeAlias = Annotated[
    str | None, typer.Option(metavar="JSON", help="Facts about it: a JSON object.")
]


def grant(
    invocation: Invocation,
    principal: _Principal,
    actions: _Actions,
    resource: _Resource,
    ttl: _Ttl = None,
    expires_at: _ExpiresAt = None,
    not_before: _NotBefore = None,
    delegation_depth: _Depth = 0,
    condition: _Condition = "",
    session: _Session = "",
    metadata: _Metadata = None,
    request_id: RequestIdOption = "",
    trace: TraceOption = "",
) -> int:
    """Grant a capability."""
    fields = _fields(
        ttl,
        expires_at,
        not_before,
        delegation_depth,
        condition,
        session,
        metadata,
        request_id,
        trace,
    )
    with invocation.client() as client:
        granted = client.grant(principal, _split(actions), resource, **fields)
    _print(invocation, granted)
    return 0


def delegate(
    invocation: Invocation,
    parent: Annotated[str, typer.Argument(help="The id of the capability to delegate from.")],
    principal: _Principal,
    actions: _Actions,
    resource: _Resource,
    ttl: _Ttl = None,
    expires_at: _ExpiresAt = None,
    not_before: _NotBefore = None,
    delegation_depth: _Depth = 0,
    condition: _Condition = "",
    session: _Session = "",
    metadata: _Metadata = None,
    request_id: RequestIdOption = "",
    trace: TraceOption = "",
) -> int:
    """Delegate a part of a capability: never wider than the capability itself."""
    fields = _fields(
        ttl,
        expires_at,
        not_before,
        delegation_depth,
        condition,
        session,
        metadata,
        request_id,
        trace,
    )
    with invocation.client() as client:
        granted = client.delegate(parent, principal, _split(actions), resource, **fields)
    _print(invocation, granted)
    return 0


def _fields(
    ttl: str | None,
    expires_at: str | None,
    not_before: str | None,
    delegation_depth: int,
    condition: str,
    session: str,
    metadata: str | None,
    request_id: str,
    trace: str,
) -> GrantFields:
    return {
        "ttl": None if ttl is None else parse_duration(ttl, "--ttl"),
        "expires_at": None if expires_at is None else parse_instant(expires_at, "--expires-at"),
        "not_before": None if not_before is None else parse_instant(not_before, "--not-before"),
        "delegation_depth": delegation_depth,
        "condition": condition,
        "session_id": session,
        "metadata": json_object(metadata, "--metadata"),
        "request_id": request_id,
        "trace_id": trace,
    }


def _split(actions: str) -> list[str]:
    return [action.strip() for action in actions.split(",")] if actions else []


def _print(invocation: Invocation, granted: Capability) -> None:
    if invocation.as_json:
        output.print_json(output.as_json(granted))
    else:
        output.print_capability(granted)
