"""`licet epoch`: show, new, confirm; for the operator after a restore or a failover."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias
from uuid import UUID

import typer

from licet.cli import output
from licet.cli.errors import CommandError
from licet.cli.invocation import JsonOption, invocation_of

if TYPE_CHECKING:  # importing it would import PostgreSQL
    from licet.storage.epoch import History

_DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where the embedded PostgreSQL keeps its data. [LICET_DATA_DIR]"
    ),
]
_Epoch: TypeAlias = Annotated[
    UUID | None,
    typer.Argument(metavar="[EPOCH]", help="The one that you looked at; the present one if not."),
]

app = typer.Typer(
    help="After a restore or a failover: give the history of the database a new name, and confirm "
    "it. The database is that of `licet migrate`.",
    no_args_is_help=True,
)


@app.command()
def show(context: typer.Context, data_dir: _DataDir = None, json: JsonOption = False) -> int:
    """Show the epoch, and whether changes are made in it; nothing is changed."""
    from licet.cli import migrating  # noqa: PLC0415 - see the package
    from licet.storage import epoch  # noqa: PLC0415

    with migrating.administrator_url(data_dir) as url:
        history = epoch.show(url)
    if json or invocation_of(context).as_json:
        output.print_json(
            {
                "epoch": str(history.epoch),
                "confirmed": history.is_confirmed and not history.is_other,
                "revision": history.revision,
            }
        )
    else:
        typer.echo(f"epoch {history.epoch} at revision {history.revision}: {_state(history)}")
    return 0


@app.command()
def new(context: typer.Context, data_dir: _DataDir = None, json: JsonOption = False) -> int:
    """Begin an epoch: servers forget what they knew and change nothing until it is confirmed."""
    from licet.cli import migrating  # noqa: PLC0415 - see the package
    from licet.storage import epoch  # noqa: PLC0415

    with migrating.administrator_url(data_dir) as url:
        begun = epoch.begin(url)
    if json or invocation_of(context).as_json:
        output.print_json({"epoch": str(begun)})
    else:
        typer.echo(f"epoch {begun} began; changes are refused until it is confirmed")
    return 0


@app.command()
def confirm(
    context: typer.Context,
    epoch: _Epoch = None,
    data_dir: _DataDir = None,
    json: JsonOption = False,
) -> int:
    """Let changes be made in the present epoch.

    Only when no server can reach a former primary, and 1.15 times LICET_LEASE_SECONDS after the
    last one could.
    """
    from licet.cli import migrating  # noqa: PLC0415 - see the package
    from licet.storage import epoch as stored  # noqa: PLC0415

    with migrating.administrator_url(data_dir) as url:
        present = stored.show(url)
        wanted = present.epoch if epoch is None else epoch
        if present.is_other:
            raise CommandError("the database is another one than before: first `licet epoch new`")
        if not stored.confirm(url, wanted):
            raise CommandError(f"{wanted} is not the epoch (any more): look again, and decide anew")
    if json or invocation_of(context).as_json:
        output.print_json({"epoch": str(wanted), "confirmed": True})
    else:
        typer.echo(f"epoch {wanted} is confirmed; changes are made again")
    return 0


def _state(history: History) -> str:
    if history.is_other:
        return "the database is another one than before, and no server has noticed it yet"
    return "confirmed" if history.is_confirmed else "changes are refused until it is confirmed"
