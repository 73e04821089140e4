"""`licet keys`: create, rotate, revoke, list; and `licet whoami`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from licet.cli import output
from licet.cli.invocation import Invocation, command
from licet.cli.times import parse_duration, parse_instant
from licet.cli.values import LimitOption, RequestIdOption

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import ApiKey, NewApiKey

_KeyId: TypeAlias = Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's public id.")]
_ExpiresAt: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="When it ends by itself, like 2026-11-22T15:00:00Z."),
]

app = typer.Typer(
    help="API keys: with which programs and people call licet. A new key is printed once, alone on "
    "standard output; it goes into LICET_API_KEY or a file for --api-key-file.",
    no_args_is_help=True,
)


@app.command()
@command
def create(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(help="What it is for, like billing-gate.")],
    scopes: Annotated[
        str,
        typer.Argument(
            help="What it may use: authorize, grant, revoke, read, audit, policy, identity, admin; "
            "several with commas."
        ),
    ],
    about_principal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Only decisions and changes about these principals; repeatable."
        ),
    ] = None,
    about_resource: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Only decisions and changes about these resources; repeatable."
        ),
    ] = None,
    principal: Annotated[
        str, typer.Option(help="As whom it acts and whose capabilities it delegates.")
    ] = "",
    ttl: Annotated[
        str | None, typer.Option(metavar="DURATION", help="For how long it lives: 15m, 12h, 90d.")
    ] = None,
    expires_at: _ExpiresAt = None,
    request_id: RequestIdOption = "",
) -> int:
    """Make a key that may do what the caller may, or less."""
    with invocation.client() as client:
        made = client.callers.create_key(
            name,
            [scope.strip() for scope in scopes.split(",")],
            principals=about_principal or (),
            resources=about_resource or (),
            principal=principal,
            ttl=None if ttl is None else parse_duration(ttl, "--ttl"),
            expires_at=None if expires_at is None else parse_instant(expires_at, "--expires-at"),
            request_id=request_id,
        )
    return _print_new(invocation, made)


@app.command()
@command
def rotate(
    invocation: Invocation,
    key: _KeyId,
    overlap: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long the old key goes on: 10m, 24h. Not at all if omitted.",
        ),
    ] = None,
    expires_at: _ExpiresAt = None,
    request_id: RequestIdOption = "",
) -> int:
    """Make a key that takes the place of another."""
    with invocation.client() as client:
        made = client.callers.rotate_key(
            key,
            overlap=None if overlap is None else parse_duration(overlap, "--overlap"),
            expires_at=None if expires_at is None else parse_instant(expires_at, "--expires-at"),
            request_id=request_id,
        )
    return _print_new(invocation, made)


@app.command()
@command
def revoke(
    invocation: Invocation,
    key: _KeyId,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    request_id: RequestIdOption = "",
) -> int:
    """End a key at once, everywhere."""
    with invocation.client() as client:
        ended = client.callers.revoke_key(key, reason=reason, request_id=request_id)
    if invocation.as_json:
        output.print_json(output.as_json(ended))
    elif ended.already_ended:
        output.console().print(f"had ended before, at revision {ended.revision}")
    else:
        output.console().print(
            f"ended at revision {ended.revision}; replicas: "
            f"{ended.replicas_confirmed} confirmed, {ended.replicas_fenced} fenced"
        )
    return 0


@app.command("list")
@command
def list_(
    invocation: Invocation,
    caller: Annotated[
        str, typer.Option(metavar="CALLER", help="Only those that act as this one.")
    ] = "",
    created_by: Annotated[
        str, typer.Option(metavar="CALLER", help="Only those that this one has made.")
    ] = "",
    include_ended: Annotated[
        bool, typer.Option("--include-ended", help="Also those that have ended, in any way.")
    ] = False,
    limit: LimitOption = 100,
) -> int:
    """List the keys, without their secrets."""
    with invocation.client() as client:
        found = client.callers.list_keys(
            caller=caller,
            created_by=created_by,
            include_ended=include_ended,
            page_size=output.page_size(limit),
        )
        output.print_list(found, limit, _COLUMNS, _row, as_objects=invocation.as_json)
    return 0


def whoami(invocation: Invocation) -> int:
    """Show as whom licet sees this caller, and what it may do."""
    with invocation.client() as client:
        found = client.callers.whoami()
    if invocation.as_json:
        output.print_json(output.as_json(found))
    else:
        output.print_record(
            [
                ("caller", found.caller),
                ("scopes", ", ".join(found.scopes)),
                ("principals", ", ".join(found.principals)),
                ("resources", ", ".join(found.resources)),
                ("key", found.key_id),
                ("expires", output.moment(found.expires_at)),
            ]
        )
    return 0


_COLUMNS = ("id", "name", "scopes", "caller", "expires", "last used", "state")


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        key.key_id,
        key.name,
        ", ".join(key.scopes),
        key.caller,
        output.moment(key.overlap_ends_at or key.expires_at, "never"),
        output.moment(key.last_used_at, "never"),
        _state(key),
    )


def _state(key: ApiKey) -> str:
    if key.ended_at is not None:
        return f"revoked by {key.ended_by}"
    return f"replaced by {key.replaced_by}" if key.replaced_by else "in use"


def _print_new(invocation: Invocation, made: NewApiKey) -> int:
    if invocation.as_json:
        output.print_json(output.as_json(made))
    elif made.token:
        sys.stderr.write(f"licet: key {made.key.key_id}, acting as {made.key.caller}:\n")
        sys.stdout.write(f"{made.token}\n")
    else:
        sys.stderr.write(
            f"licet: key {made.key.key_id} was made by an earlier call, which had its text\n"
        )
    return 0
