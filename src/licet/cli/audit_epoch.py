"""`licet audit new-epoch`: for the operator, when the audit log is not signed any more."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from licet.cli import output
from licet.cli.errors import CommandError
from licet.cli.invocation import JsonOption, invocation_of

_MAX_REASON = 1000
_Reason: TypeAlias = Annotated[
    str, typer.Option(metavar="TEXT", help="What happened; it stays in the log for ever.")
]
_Force: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Also when nothing is wrong with the log.")
]
_Number: TypeAlias = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Its number, when you know of a later epoch than the database and this host do.",
    ),
]
_NewKey: TypeAlias = Annotated[
    bool, typer.Option("--new-key", help="Make a signing key, when that is lost as well.")
]
_DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where the embedded PostgreSQL keeps its data. [LICET_DATA_DIR]"
    ),
]


def new_epoch(
    context: typer.Context,
    reason: _Reason,
    force: _Force = False,
    number: _Number = None,
    new_key: _NewKey = False,
    data_dir: _DataDir = None,
    json: JsonOption = False,
) -> int:
    """Begin a new tree of the audit log, after a restore that lost what was signed.

    On the host that signs, as the account of its servers, with their settings. What was stored and
    not sealed is sealed in the new one. It can be repeated when it fails.
    """
    from licet import config  # noqa: PLC0415 - see the package
    from licet.bootstrap.custody import custody_of, spools_of  # noqa: PLC0415
    from licet.cli import migrating  # noqa: PLC0415
    from licet.replica.clock import SystemClock  # noqa: PLC0415
    from licet.steward import epochs  # noqa: PLC0415
    from licet.steward.state_file import StateFileError  # noqa: PLC0415
    from licet.storage.sealing import PostgresSealing  # noqa: PLC0415
    from licet.writer.ids import audit_writer_id  # noqa: PLC0415

    wish = epochs.Wish(_checked(reason), force, number)
    with (
        migrating.administrator_url(data_dir) as url,
        closing(PostgresSealing(url)) as connection,
    ):
        settings = config.load(data_dir=data_dir, listen="127.0.0.1:0")
        name = epochs.base_of(connection.head()) if new_key else None
        log_id, database_id = connection.identity()
        custody = custody_of(settings, log_id, new_key_name=name)
        spools = spools_of(settings, log_id, database_id)
        try:
            begun = epochs.begin_epoch(connection, custody, audit_writer_id(SystemClock()), wish)
        except (epochs.EpochError, StateFileError) as exc:
            raise CommandError(str(exc)) from exc
    key = custody.signer.named(begun.origin).key.text()
    if json or invocation_of(context).as_json:
        output.print_json(
            {
                "epoch": begun.epoch,
                "origin": begun.origin,
                "key": key,
                "cause": begun.cause,
                "spools": str(spools),
            }
        )
    else:
        had = "had begun, and is finished" if begun.is_resumed else "began"
        typer.echo(f"epoch {begun.epoch} of the audit log {had}; its public key is {key}")
        typer.echo(f"the spools of this database are in {spools}")
    return 0


def _checked(reason: str) -> str:
    text = reason.strip()
    if not text or len(text) > _MAX_REASON or not text.isprintable():
        raise CommandError(f"--reason must be one line of 1 to {_MAX_REASON} characters")
    return text
