"""`licet policy replay`: which decisions on record would come out otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from licet.cli import output
from licet.cli.errors import CommandError
from licet.cli.invocation import Invocation
from licet.cli.policy import FAILED, read_document_of, read_file
from licet.domain.instant import to_datetime
from licet.replica.clock import SystemClock

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import ReplayedDecision, ReplayStep

_MAX_HOURS: Final = 31 * 24
_MAX_LISTED: Final = 100_000
_MAX_DECISIONS: Final = 10_000_000
_SECOND: Final = timedelta(seconds=1)
_COLUMNS: Final = ("time", "principal", "action", "resource", "was", "would be", "policy", "why")
_NOT_KNOWN: Final = "not known"


def replay(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy document.")],
    hours: Annotated[
        float, typer.Option(min=0.001, max=_MAX_HOURS, help="Decisions of the last so many hours.")
    ] = 24.0,
    principal: Annotated[str, typer.Option(help="Only decisions about this principal.")] = "",
    limit: Annotated[
        int, typer.Option(min=1, max=_MAX_LISTED, help="List at most so many decisions.")
    ] = 100,
    at_most: Annotated[
        int,
        typer.Option(min=1, max=_MAX_DECISIONS, help="Look at so many decisions, the newest."),
    ] = 1_000_000,
    not_known: Annotated[
        bool,
        typer.Option("--not-known", help="List also those of which it is not known."),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 1, too, if some are not known or were not looked at."
        ),
    ] = False,
) -> int:
    """List which of the last decisions would come out otherwise under a policy document.

    Nothing is stored or put. Exits with 0 if none would, 1 if one would, and 2 when that could not
    be found out.
    """
    if read_document_of(file) is None:
        raise CommandError(f"{file} cannot be used")
    since = to_datetime(SystemClock().now()) - timedelta(hours=hours)
    listed: list[ReplayedDecision] = []
    last: ReplayStep | None = None
    with invocation.client() as client, _progress() as show:
        for step in client.policies.replay(
            read_file(file),
            since=since,
            principal=principal,
            max_decisions=at_most,
            max_listed=limit,
            list_not_known=not_known,
        ):
            show(step)
            last = step
            if invocation.as_json:
                for one in step.decisions:
                    output.print_json(output.as_json(one))
            else:
                listed += step.decisions
    if last is None:
        raise AssertionError  # a replay without a last step raises
    if invocation.as_json:
        output.print_json(_summary_as_json(last))
    else:
        _print(listed, last)
    flips = last.now_denied + last.now_allowed
    is_certain = last.is_complete and not last.not_known
    return FAILED if flips or (strict and not is_certain) else 0


class _Show(Protocol):
    def __call__(self, step: ReplayStep, /) -> None: ...


@contextmanager
def _progress() -> Iterator[_Show]:
    """Show on standard error how far it has come, if that is a terminal."""
    with Progress(
        TextColumn("replaying"),
        BarColumn(),
        TextColumn("{task.fields[looked_at]:,} decisions, {task.fields[flips]:,} otherwise"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bars:
        task = bars.add_task("", total=None, looked_at=0, flips=0)

        def show(step: ReplayStep) -> None:
            bars.update(
                task,
                total=(step.until - step.since) / _SECOND,
                completed=(step.until - step.reached) / _SECOND,
                looked_at=step.looked_at,
                flips=step.now_denied + step.now_allowed,
            )

        yield show


def _print(listed: list[ReplayedDecision], last: ReplayStep) -> None:
    if listed:
        output.print_table(_COLUMNS, map(_row, listed))
    if last.unlisted:
        sys.stderr.write(f"licet: {last.unlisted} more are not listed: `--limit` lists more\n")
    console = output.console()
    window = f"{output.moment(last.since)} to {output.moment(last.until)}"
    console.print(f"{last.looked_at} decisions, {window}")
    if not last.is_complete:
        reached = output.moment(last.reached)
        console.print(f"  nothing before {reached} was looked at: see `--at-most`")
    for count, what in (
        (last.unchanged, "would come out as they did"),
        (last.now_denied, "ALLOW would be DENY"),
        (last.now_allowed, "DENY would be ALLOW"),
        (last.not_known, "are not known"),
    ):
        console.print(f"{count:>9} {what}")
    for what, count in sorted(last.needs.items()):
        console.print(output.text(f"{count:>13} need {what}, which is not on record"))


def _row(one: ReplayedDecision) -> tuple[str, ...]:
    return (
        output.precise(one.occurred_at),
        one.principal,
        one.action,
        one.resource,
        one.decision,
        one.would_be or _NOT_KNOWN,
        # An ALLOW has no policy: then it is the one that denied.
        one.would_be_policy_id or one.policy_id,
        one.detail.removeprefix(f"policy {one.would_be_policy_id}: ") or f"{one.reason} no more",
    )


def _summary_as_json(last: ReplayStep) -> dict[str, object]:
    summary = output.as_json(last)
    for part in ("decisions", "is_last"):
        del summary[part]
    return summary
