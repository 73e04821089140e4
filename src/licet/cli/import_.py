"""`licet import`; `importing` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from licet.cli import output
from licet.cli.invocation import Invocation

if TYPE_CHECKING:
    from licet.cli.importing.run import Report

_REJECTED: Final = 1


def import_(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Records, one JSON object a line.")],
    source: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which system they are of; the same each time, for its ids belong to this name.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and change nothing.")
    ] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the records that are not imported there, not to FILE.rejects.",
        ),
    ] = None,
    keys_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the credentials that are made for tokens and agents there, for you only to "
            "read; a file that is there is gone on with.",
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Whose are the times that have no offset: Europe/Berlin, or +02:00.",
        ),
    ] = None,
) -> int:
    """Import the users, agents, tokens, capabilities and audit rows of an older system.

    Every record is checked; the good are loaded, the bad are written to a file with the reasons, to
    be mended and imported in turn. Running it again imports nothing twice. Exits with 1 when
    records were rejected. docs/import.md says what a record is.
    """
    from licet.cli.importing import run  # noqa: PLC0415 - see the package

    options = run.Options(
        path=file,
        name=run.source_name(source),
        zone=run.zone(timezone),
        rejects=rejects,
        keys_file=keys_file,
        dry_run=dry_run,
    )
    with invocation.client() as client:
        report = run.run(client, options, invocation.explain)
    _print(invocation, report, dry_run=dry_run)
    return 0 if report.rejects is None else _REJECTED


def _print(invocation: Invocation, report: Report, *, dry_run: bool) -> None:
    table = report.tally.table()
    if invocation.as_json:
        output.print_json(
            {
                "dry_run": dry_run,
                "records": table,
                "rejects": None if report.rejects is None else str(report.rejects),
            }
        )
        return
    first = "would be imported" if dry_run else "imported"
    columns = ("type", first, "present before", "ended", "rejected")
    output.print_table(columns, ((kind, *map(str, row.values())) for kind, row in table.items()))
    if report.rejects is not None:
        sys.stderr.write(
            f"licet: what was rejected is in {report.rejects}: mend it and import that file\n"
        )
