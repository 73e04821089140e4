"""`licet init`: the first key; `initializing.py` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from licet.cli import output
from licet.cli.invocation import JsonOption, invocation_of


def init(
    context: typer.Context,
    again: Annotated[
        bool,
        typer.Option("--again", help="Although there are keys: when the last admin's is lost."),
    ] = False,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "first admin",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where the embedded PostgreSQL keeps its data. [LICET_DATA_DIR]"
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Make the first key, an admin's, and print it: once, alone on standard output.

    It works on the database, that of `licet migrate`, and needs no server; a database without
    licet's schema gets it.
    """
    from licet.cli import initializing  # noqa: PLC0415 - see the package

    made = initializing.first_key(data_dir, name, again=again)
    if json or invocation_of(context).as_json:
        output.print_json({"key_id": made.key_id, "token": made.token})
        return 0
    sys.stderr.write(
        f"licet: key {made.key_id} is admin. Keep it: it is shown here and never again.\n"
    )
    sys.stdout.write(f"{made.token}\n")
    return 0
