"""`licet audit archive`: partitions of the audit log become files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from licet.cli import output
from licet.cli.errors import CommandError
from licet.cli.invocation import JsonOption, invocation_of

if TYPE_CHECKING:  # importing it would import PostgreSQL
    from licet.app.archiving import Archive, Partition, Partitions
    from licet.steward.archive import Progress as Told


def archive(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[PARTITION]", help="Such as events_20260131.")
    ] = None,
    older_than: Annotated[
        int | None,
        typer.Option(
            "--older-than",
            metavar="DAYS",
            min=0,
            max=36_500,
            help="All partitions that ended so many days ago or before.",
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Write a partition of the audit log to a verified file, and drop it from the database.

    Works on the database of `licet migrate`, on a host that has the key of the log's batches, while
    a licet seals and signs. Safe to repeat: what is done already is not done again.
    """
    if (name is None) == (older_than is None):
        raise CommandError("name a partition, or give --older-than, and not both")
    from licet import config  # noqa: PLC0415 - see the package
    from licet.app.archiving import ArchiveRefusedError  # noqa: PLC0415
    from licet.bootstrap import steward  # noqa: PLC0415
    from licet.cli import migrating  # noqa: PLC0415
    from licet.domain.errors import LicetError  # noqa: PLC0415
    from licet.steward.retention import PATIENCE_SECONDS  # noqa: PLC0415

    as_json = json or invocation_of(context).as_json
    with migrating.administrator_url(None, embedded=False) as url:
        settings = config.load(listen="127.0.0.1:0")
        with steward.archiving(settings, url) as archiving:
            found = _wanted(archiving.partitions, name, older_than or 0)
            if not found:
                if not as_json:
                    typer.echo("nothing to archive")
                return 0
            if not archiving.partitions.lock():
                raise CommandError("another process archives: try again when it has ended")
            archiver = archiving.archiver()
            for partition in found:
                with _progress(partition) as told:
                    try:
                        files = archiver.archive(partition, PATIENCE_SECONDS, told)
                    except (ArchiveRefusedError, LicetError) as exc:
                        raise CommandError(f"{partition.name} stays: {exc}") from exc
                _print(partition, files, as_json=as_json)
    return 0


def _wanted(partitions: Partitions, name: str | None, days: int) -> Sequence[Partition]:
    if name is None:
        return partitions.partitions(days)
    found = partitions.find(name)
    if found is None:
        raise CommandError(f"there is no partition {name}")
    partition, is_over = found
    if not is_over:
        raise CommandError(f"{name} is not over: events of its day may still come")
    return [partition]


@contextmanager
def _progress(partition: Partition) -> Iterator[Told]:
    """Show how far it is, to a person."""
    if not sys.stderr.isatty():
        yield lambda _written, _events: None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(partition.name, total=None)
        yield lambda written, events: progress.update(task, completed=written, total=events)


def _print(partition: Partition, files: Sequence[Archive], *, as_json: bool) -> None:
    for file in files:
        if as_json:
            output.print_json(
                {
                    "partition": partition.name,
                    "file": file.file,
                    "sha256": file.sha256.hex(),
                    "events": file.events,
                    "epoch": file.epoch,
                    "leaf_ranges": [list(each) for each in file.ranges],
                }
            )
        else:
            typer.echo(f"{partition.name}: {file.events} events are archived in {file.file}")
