"""`licet agents`: bootstrap tokens, and what operators and agents do with agents."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from licet.cli import output
from licet.cli.errors import CommandError
from licet.cli.invocation import Invocation, command
from licet.cli.times import parse_duration
from licet.cli.values import LimitOption, RequestIdOption

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Agent, AgentSwitch, AgentToken, BootstrapToken

_Name: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="The agent's name, without agent:.")
]
_Reason: TypeAlias = Annotated[str, typer.Option(help="Why, for the record.")]

app = typer.Typer(
    help="Agents: programs with a token of a day, registered with a bootstrap token. A new token "
    "is printed once, alone on standard output.",
    no_args_is_help=True,
)
bootstrap = typer.Typer(
    help="Bootstrap tokens: with which agents register, and nothing else can be done.",
    no_args_is_help=True,
)
app.add_typer(bootstrap, name="bootstrap")


@bootstrap.command()
@command
def create(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(help="What it is for, like render-farm.")],
    about_agent: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Only agents like agent:workers/*; repeatable. Any if omitted."
        ),
    ] = None,
    uses: Annotated[int, typer.Option(min=1, help="How many agents it registers.")] = 1,
    ttl: Annotated[
        str, typer.Option(metavar="DURATION", help="For how long it lives: 15m, 12h, 30d.")
    ] = "1h",
    request_id: RequestIdOption = "",
) -> int:
    """Make a bootstrap token. Needs an admin's key: who has the token acts as these agents."""
    with invocation.client() as client:
        made = client.agents.create_bootstrap(
            name,
            principals=about_agent or (),
            max_uses=uses,
            ttl=parse_duration(ttl, "--ttl"),
            request_id=request_id,
        )
    if invocation.as_json:
        output.print_json(output.as_json(made))
    else:
        _print_token(f"bootstrap token {made.bootstrap_token.token_id}", made.token)
    return 0


@bootstrap.command("list")
@command
def list_bootstrap(
    invocation: Invocation,
    include_ended: Annotated[
        bool, typer.Option("--include-ended", help="Also those that have ended, in any way.")
    ] = False,
    limit: LimitOption = 100,
) -> int:
    """List the bootstrap tokens, without their secrets."""
    with invocation.client() as client:
        found = client.agents.list_bootstrap(
            include_ended=include_ended, page_size=output.page_size(limit)
        )
        columns = ("id", "name", "for", "uses", "expires", "state")
        output.print_list(found, limit, columns, _bootstrap_row, as_objects=invocation.as_json)
    return 0


@bootstrap.command("revoke")
@command
def revoke_bootstrap(
    invocation: Invocation,
    token: Annotated[str, typer.Argument(metavar="TOKEN_ID", help="The token's public id.")],
    reason: _Reason = "",
    request_id: RequestIdOption = "",
) -> int:
    """End a bootstrap token at once; agents that were registered with it stay."""
    with invocation.client() as client:
        ended = client.agents.revoke_bootstrap(token, reason=reason, request_id=request_id)
    return _print_switch(invocation, ended, "ended", "had ended before")


@app.command()
@command
def register(
    invocation: Invocation,
    name: _Name,
    hostname: Annotated[
        str, typer.Option(help="Its host's name; this host's if omitted.", show_default=False)
    ] = "",
    reached_at: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where it is reached, for people.")
    ] = "",
    public_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its public key, PEM.")
    ] = None,
    request_id: RequestIdOption = "",
) -> int:
    """Register an agent and print its token; called with a bootstrap token in LICET_API_KEY."""
    public_key = "" if public_key_file is None else _read(public_key_file)
    with invocation.client() as client:
        given = client.agents.register(
            name,
            hostname or socket.gethostname(),
            address=reached_at,
            public_key=public_key,
            request_id=request_id,
        )
    return _print_given(invocation, given)


@app.command()
@command
def rotate(invocation: Invocation, request_id: RequestIdOption = "") -> int:
    """Print the next token of the agent whose token is in LICET_API_KEY."""
    with invocation.client() as client:
        given = client.agents.rotate(request_id=request_id)
    return _print_given(invocation, given)


@app.command()
@command
def heartbeat(invocation: Invocation) -> int:
    """Say that the agent lives whose token is in LICET_API_KEY."""
    with invocation.client() as client:
        told = client.agents.heartbeat()
    if invocation.as_json:
        output.print_json(output.as_json(told))
    else:
        seconds = told.heartbeat_interval.total_seconds()
        expires = output.moment(told.token_expires_at)
        output.console().print(f"again within {seconds:g} s; the token ends {expires}")
    return 0


@app.command("list")
@command
def list_(
    invocation: Invocation,
    status: Annotated[
        str, typer.Option(help="Only those that are active, inactive or offline.")
    ] = "",
    limit: LimitOption = 100,
) -> int:
    """List the agents."""
    with invocation.client() as client:
        found = client.agents.list(status=status, page_size=output.page_size(limit))
        columns = ("name", "status", "hostname", "address", "heard of", "token ends")
        output.print_list(found, limit, columns, _row, as_objects=invocation.as_json)
    return 0


@app.command()
@command
def show(invocation: Invocation, name: _Name) -> int:
    """Show an agent."""
    with invocation.client() as client:
        found = client.agents.get(name)
    if invocation.as_json:
        output.print_json(output.as_json(found))
        return 0
    output.print_record(
        [
            ("agent", found.principal),
            ("status", found.status),
            ("hostname", found.hostname),
            ("address", found.address),
            ("heard of", output.moment(found.last_heartbeat_at, "never")),
            ("registered", f"{output.moment(found.registered_at)} by {found.registered_by}"),
            ("token", found.token_id),
            ("token ends", output.moment(found.token_expires_at)),
            ("deactivated by", found.deactivated_by),
            ("reason", found.deactivation_reason),
        ]
    )
    return 0


@app.command()
@command
def deactivate(
    invocation: Invocation, name: _Name, reason: _Reason = "", request_id: RequestIdOption = ""
) -> int:
    """End all tokens of an agent at once, everywhere; it cannot register before it is activated."""
    with invocation.client() as client:
        done = client.agents.deactivate(name, reason=reason, request_id=request_id)
    return _print_switch(invocation, done, "inactive", "was inactive before")


@app.command()
@command
def activate(
    invocation: Invocation, name: _Name, reason: _Reason = "", request_id: RequestIdOption = ""
) -> int:
    """Let an agent that was deactivated register again."""
    with invocation.client() as client:
        done = client.agents.activate(name, reason=reason, request_id=request_id)
    if invocation.as_json:
        output.print_json(output.as_json(done))
    else:
        said = "was not inactive" if done.already else "may register again"
        output.console().print(f"{said}, at revision {done.revision}")
    return 0


def _row(agent: Agent) -> tuple[str, ...]:
    return (
        agent.name,
        agent.status,
        agent.hostname,
        agent.address,
        output.moment(agent.last_heartbeat_at, "never"),
        output.moment(agent.token_expires_at, "it has none"),
    )


def _bootstrap_row(token: BootstrapToken) -> tuple[str, ...]:
    state = "in use"
    if token.ended_at is not None:
        state = f"revoked by {token.ended_by}"
    elif token.uses >= token.max_uses:
        state = "used up"
    return (
        token.token_id,
        token.name,
        ", ".join(token.principals),
        f"{token.uses} of {token.max_uses}",
        output.moment(token.expires_at),
        state,
    )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, ValueError) as exc:
        cause = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise CommandError(f"--public-key-file {file}: {cause}") from None


def _print_given(invocation: Invocation, given: AgentToken) -> int:
    if invocation.as_json:
        output.print_json(output.as_json(given))
    else:
        expires = output.moment(given.expires_at)
        _print_token(f"token {given.token_id}, which ends {expires}", given.token)
    return 0


def _print_token(what: str, token: str) -> None:
    if token:
        sys.stderr.write(f"licet: {what}:\n")
        sys.stdout.write(f"{token}\n")
    else:
        sys.stderr.write(f"licet: {what}, was made by an earlier call, which had its text\n")


def _print_switch(invocation: Invocation, done: AgentSwitch, now: str, before: str) -> int:
    if invocation.as_json:
        output.print_json(output.as_json(done))
    elif done.already:
        output.console().print(f"{before}, at revision {done.revision}")
    else:
        output.console().print(
            f"{now} at revision {done.revision}; replicas: "
            f"{done.replicas_confirmed} confirmed, {done.replicas_fenced} fenced"
        )
    return 0
