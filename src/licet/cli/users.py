"""`licet users`: create, show, update, disable, enable, list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from licet.cli import output
from licet.cli.invocation import Invocation, command
from licet.cli.values import LimitOption, RequestIdOption

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import User, UserChange

_Principal: TypeAlias = Annotated[
    str, typer.Argument(metavar="USER", help="The user, like user:alice.")
]
_Reason: TypeAlias = Annotated[str, typer.Option(help="Why, for the record.")]
_COLUMNS = ("principal", "name", "e-mail", "roles", "state")

app = typer.Typer(
    help="Users: people who call licet, with roles. Keys that act as a user may use what its roles "
    "may, and nothing while it is disabled.",
    no_args_is_help=True,
)


@app.command()
@command
def create(
    invocation: Invocation,
    principal: _Principal,
    email: Annotated[str, typer.Argument(help="Its e-mail address; no other user has it.")],
    roles: Annotated[
        str,
        typer.Argument(help="user, developer, sre, security, auditor, admin; several with commas."),
    ],
    name: Annotated[str, typer.Option(help="For people.")] = "",
    request_id: RequestIdOption = "",
) -> int:
    """Make a user with roles that the caller has the scopes of."""
    with invocation.client() as client:
        made = client.callers.users.create(
            principal, email, _listed(roles), name=name, request_id=request_id
        )
    return _print_user(invocation, made.user)


@app.command()
@command
def show(
    invocation: Invocation,
    user: Annotated[
        str, typer.Argument(metavar="USER", help="The user, like user:alice, or its e-mail.")
    ],
) -> int:
    """Show one user."""
    with invocation.client() as client:
        if "@" in user and not user.startswith("user:"):
            found = client.callers.users.get(email=user)
        else:
            found = client.callers.users.get(user)
    return _print_user(invocation, found)


@app.command()
@command
def update(
    invocation: Invocation,
    principal: _Principal,
    name: Annotated[str | None, typer.Option(help="Its name from now on.")] = None,
    email: Annotated[str | None, typer.Option(help="Its e-mail address from now on.")] = None,
    roles: Annotated[
        str | None, typer.Option(help="All of its roles from now on; several with commas.")
    ] = None,
    request_id: RequestIdOption = "",
) -> int:
    """Change a user; what its keys may follows its roles at once."""
    with invocation.client() as client:
        changed = client.callers.users.update(
            principal,
            name=name,
            email=email,
            roles=() if roles is None else _listed(roles),
            request_id=request_id,
        )
    return _print_user(invocation, changed.user)


@app.command()
@command
def disable(
    invocation: Invocation,
    principal: _Principal,
    reason: _Reason = "",
    request_id: RequestIdOption = "",
) -> int:
    """Let nobody call as a user any more, anywhere; its keys are not ended."""
    with invocation.client() as client:
        changed = client.callers.users.disable(principal, reason=reason, request_id=request_id)
    return _print_change(invocation, changed, "disabled")


@app.command()
@command
def enable(
    invocation: Invocation,
    principal: _Principal,
    reason: _Reason = "",
    request_id: RequestIdOption = "",
) -> int:
    """Let those keys of a user count again that have not ended."""
    with invocation.client() as client:
        changed = client.callers.users.enable(principal, reason=reason, request_id=request_id)
    return _print_change(invocation, changed, "enabled")


@app.command("list")
@command
def list_(
    invocation: Invocation,
    role: Annotated[str, typer.Option(help="Only those with this role.")] = "",
    include_disabled: Annotated[
        bool, typer.Option("--include-disabled", help="Those that are disabled, too.")
    ] = False,
    limit: LimitOption = 100,
) -> int:
    """List users by name."""
    with invocation.client() as client:
        found = client.callers.users.list(
            role=role, include_disabled=include_disabled, page_size=output.page_size(limit)
        )
        output.print_list(found, limit, _COLUMNS, _row, as_objects=invocation.as_json)
    return 0


def _listed(texts: str) -> list[str]:
    return [text.strip() for text in texts.split(",")]


def _row(user: User) -> tuple[str, ...]:
    return user.principal, user.name, user.email, ", ".join(user.roles), _state(user)


def _state(user: User) -> str:
    return "enabled" if user.disabled_at is None else f"disabled by {user.disabled_by}"


def _print_change(invocation: Invocation, changed: UserChange, what: str) -> int:
    if invocation.as_json:
        output.print_json(output.as_json(changed))
    elif changed.already:
        output.console().print(f"was {what} before")
    else:
        output.console().print(f"{what} at revision {changed.revision}")
    return 0


def _print_user(invocation: Invocation, user: User) -> int:
    if invocation.as_json:
        output.print_json(output.as_json(user))
        return 0
    output.print_record(
        [
            ("principal", user.principal),
            ("name", user.name),
            ("e-mail", user.email),
            ("roles", ", ".join(user.roles)),
            ("scopes", ", ".join(user.scopes)),
            ("created", f"{output.moment(user.created_at)} by {user.created_by}"),
            ("revision", str(user.revision)),
            ("state", _state(user)),
            ("disabled", output.moment(user.disabled_at)),
            ("disable reason", user.disable_reason),
        ]
    )
    return 0
