"""`licet migrate`: up, down, status; `migrating.py` does the work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from licet.cli import output
from licet.cli.errors import CommandError
from licet.cli.invocation import JsonOption, invocation_of

if TYPE_CHECKING:  # importing it would import PostgreSQL
    from licet.storage.migrate import MigrationState

_DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where the embedded PostgreSQL keeps its data. [LICET_DATA_DIR]"
    ),
]

app = typer.Typer(
    help="Change the schema of the database: that of LICET_MIGRATION_DATABASE_URL, else that of "
    "LICET_DATABASE_URL, else the embedded one.",
    no_args_is_help=True,
)


@app.command()
def up(context: typer.Context, data_dir: _DataDir = None, json: JsonOption = False) -> int:
    """Apply every migration that is missing; safe to repeat."""
    from licet.cli import migrating  # noqa: PLC0415 - see the package

    applied = migrating.up(data_dir)
    if json or invocation_of(context).as_json:
        output.print_json({"applied": applied})
    else:
        _print("applied", applied, "nothing to apply: the schema is up to date")
    return 0


@app.command()
def down(
    context: typer.Context,
    count: Annotated[int, typer.Argument(min=1, help="How many to take back.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: _DataDir = None,
    json: JsonOption = False,
) -> int:
    """Take back the last migrations, and with them the data that they made room for."""
    if not yes:
        _confirm(count)
    from licet.cli import migrating  # noqa: PLC0415 - see the package

    taken_back = migrating.down(data_dir, count)
    if json or invocation_of(context).as_json:
        output.print_json({"taken_back": taken_back})
    else:
        _print("taken back", taken_back, "nothing to take back")
    return 0


@app.command()
def status(context: typer.Context, data_dir: _DataDir = None, json: JsonOption = False) -> int:
    """Show which migrations are applied; nothing is changed."""
    from licet.cli import migrating  # noqa: PLC0415 - see the package

    states = migrating.status(data_dir)
    if json or invocation_of(context).as_json:
        for state in states:
            output.print_json(output.as_json(state))
    else:
        output.print_table(("migration", "state"), [(s.id, _state(s)) for s in states])
    return 0


def _confirm(count: int) -> None:
    if not sys.stdin.isatty():
        raise CommandError("data would be lost, and there is nobody to ask: confirm with --yes")
    what = "the last migration" if count == 1 else f"the last {count} migrations"
    typer.confirm(f"Take back {what}? The data in what goes is lost.", abort=True, err=True)


def _print(done: str, ids: Sequence[str], nothing: str) -> None:
    for migration_id in ids:
        typer.echo(f"{done} {migration_id}")
    if not ids:
        typer.echo(nothing)


def _state(state: MigrationState) -> str:
    if not state.applied:
        return "not applied"
    return "applied" if state.checksum_ok else "applied, but not from this release's file"
