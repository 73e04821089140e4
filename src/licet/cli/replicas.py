"""`licet replicas`: the fleet, as the database knows it; `observing.py` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from licet.cli import output
from licet.cli.invocation import JsonOption, invocation_of

if TYPE_CHECKING:  # importing it would import PostgreSQL
    from licet.cli.observing import ObservedReplica

_COLUMNS = ("incarnation", "host", "started", "lease", "applied", "behind", "state")


def replicas(
    context: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where the embedded PostgreSQL keeps its data. [LICET_DATA_DIR]"
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Show every serving process on the database: how current it is, and whether it lives.

    Reads the database of LICET_DATABASE_URL, else the embedded one, for about a lease. Exits with 0
    when there are replicas and every one renews and keeps up, and with 1 when not.
    """
    from licet.cli import observing  # noqa: PLC0415 - see the package

    found = observing.fleet(data_dir)
    if json or invocation_of(context).as_json:
        for replica in found:
            output.print_json(output.as_json(replica) | {"incarnation": str(replica.incarnation)})
    elif found:
        output.print_table(_COLUMNS, map(_row, found))
    else:
        sys.stderr.write("licet: no replica is registered\n")
    return 0 if found and all(r.renewing and not r.lagging for r in found) else 1


def _row(replica: ObservedReplica) -> tuple[str, ...]:
    return (
        str(replica.incarnation),
        replica.host,
        output.moment(replica.started),
        f"{replica.lease_seconds:g} s",
        str(replica.applied_revision),
        str(replica.behind),
        _state(replica),
    )


def _state(replica: ObservedReplica) -> str:
    if not replica.renewing:
        return "not renewing"
    return "lagging" if replica.lagging else "renewing"
