"""`licet audit verify`; `verifying.py` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from licet.app.findings import Finding, Report
from licet.cli import output
from licet.cli.audit_proofs import EpochOption, KeyFileOption, KeyOption, key_of, opened, text_of
from licet.cli.errors import CommandError
from licet.cli.invocation import Invocation
from licet.domain.checkpoint import Checkpoint
from licet.domain.signed_note import MalformedNoteError, VerifierKey, verifier_key

_Database: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="The database, not that of LICET_DATABASE_URL; its user needs the role licet_auditor.",
    ),
]
_Origin: TypeAlias = Annotated[
    str, typer.Option("--origin", help="Which log it is, when that is not the key's name.")
]
_Since: TypeAlias = Annotated[
    Path | None,
    typer.Option("--since", metavar="FILE", help="Verify what came after this checkpoint."),
]
_Kept: TypeAlias = Annotated[
    Path | None,
    typer.Option("--trusted", metavar="FILE", help="A checkpoint that you kept: verify all."),
]
_First: TypeAlias = Annotated[int | None, typer.Option("--from", min=0, help="The first leaf.")]
_End: TypeAlias = Annotated[
    int | None, typer.Option("--to", min=0, help="The leaf behind the last one.")
]
_Archives: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--archive", metavar="FILE", help="Leaves that were archived. May be repeated."),
]


def verify(
    invocation: Invocation,
    database: _Database = None,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    origin: _Origin = "",
    since: _Since = None,
    trusted: _Kept = None,
    first: _First = None,
    end: _End = None,
    epoch: EpochOption = 0,
    archive: _Archives = None,
) -> int:
    """Verify the audit log in the database, without its server: all of it, or a part.

    Exits with 0 when it is as it was written, 1 when it is not, and 2 when it could not be
    verified. What it finds is explained in docs/audit-verification.md.
    """
    if since is not None and (trusted is not None or first is not None or end is not None):
        raise CommandError("--since stands alone: it says where to begin and what to trust")
    trusted_key = key_of(key, key_file) or _key_of_server(invocation)
    if origin:
        trusted_key = VerifierKey(origin, trusted_key.public_key)
    kept = _kept(since or trusted, trusted_key)
    start = kept.size if since is not None and kept is not None else first
    from licet.cli import verifying  # noqa: PLC0415 - see the package

    with verifying.opened(database, trusted_key, kept, archive or ()) as verification:
        if start is None and end is None:
            slices, total = verification.whole()
        else:
            slices, total = verification.part(epoch, start or 0, end or 0)
        with _progress() as progress:
            task = progress.add_task("leaves", total=total)
            for done in slices:
                progress.update(task, completed=done, total=max(total, done))
        report = verification.report
    _print(invocation, report)
    return 0 if report.is_clean else 1


def _key_of_server(invocation: Invocation) -> VerifierKey:
    with invocation.client() as client:
        text = client.proofs.checkpoint().public_key
    try:
        found = verifier_key(text)
    except MalformedNoteError as exc:
        raise CommandError("the server does not know the log's key: give it with --key") from exc
    sys.stderr.write(
        "licet: warning: the key is the server's word, and whoever can change the log can change"
        " that too: give the key with --key\n"
    )
    return found


def _kept(path: Path | None, key: VerifierKey) -> Checkpoint | None:
    if path is None:
        return None
    try:
        return opened(text_of(path), key)
    except ValueError as exc:
        raise CommandError(f"{path} is no checkpoint of this log: {exc}") from exc


def _progress() -> Progress:
    return Progress(
        TextColumn("verifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _print(invocation: Invocation, report: Report) -> None:
    if invocation.as_json:
        output.print_json(
            {
                "verified": report.is_clean,
                "leaves": report.leaves,
                "archived_leaves": report.archived,
                "checkpoints": report.checkpoints,
                "capabilities": report.capabilities,
                "explained_events": report.explained,
                "counts": {str(code): count for code, count in report.counts.items()},
                "findings": [_as_json(finding) for finding in report.findings],
            }
        )
        return
    if report.findings:
        columns = ("finding", "epoch", "leaf", "of", "what")
        output.print_table(columns, map(_row, report.findings))
    total = report.counts.total()
    verdict = "VERIFIED" if report.is_clean else f"NOT VERIFIED: {total} findings"
    facts = f" {report.leaves} leaves, {report.checkpoints} checkpoints, "
    line = output.text(verdict, "bold green" if report.is_clean else "bold red")
    line.append_text(output.text(f"{facts}{report.capabilities} capabilities"))
    if report.archived:
        line.append_text(output.text(f", {report.archived} leaves from archives"))
    if report.explained:
        line.append_text(output.text(f", {report.explained} events lost and on record as such"))
    output.console().print(line)


def _row(finding: Finding) -> tuple[str, ...]:
    leaf = "" if finding.leaf is None else str(finding.leaf)
    return str(finding.code), str(finding.epoch or ""), leaf, finding.subject, finding.message


def _as_json(finding: Finding) -> dict[str, object]:
    return {**finding._asdict(), "code": str(finding.code)}
