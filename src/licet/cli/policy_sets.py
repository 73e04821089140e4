"""`licet policy`: the policies of a server, put, shown, listed and rolled back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from licet.cli import output
from licet.cli.invocation import Invocation
from licet.cli.policy import read_file
from licet.cli.values import LimitOption, RequestIdOption

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import PolicySet, PolicySetPut

_Comment: TypeAlias = Annotated[str, typer.Option(help="Why, for the record.")]
_Expected: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--expect",
        metavar="VERSION",
        min=0,
        help="Fail if another version holds so far; 0: if any does.",
    ),
]
_COLUMNS = ("version", "put", "by", "revision", "comment")


def put(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The document.")],
    comment: _Comment = "",
    expected: _Expected = None,
    request_id: RequestIdOption = "",
) -> int:
    """Have a policy document hold, on every server when this returns."""
    document = read_file(file)
    with invocation.client() as client:
        done = client.policies.put(
            document, comment=comment, expected_version=expected, request_id=request_id
        )
    return _print_put(invocation, done)


def rollback(
    invocation: Invocation,
    version: Annotated[int, typer.Argument(help="The version whose document is to hold again.")],
    comment: _Comment = "",
    expected: _Expected = None,
    request_id: RequestIdOption = "",
) -> int:
    """Have the document of an earlier version hold again, as a new version."""
    with invocation.client() as client:
        done = client.policies.rollback(
            version, comment=comment, expected_version=expected, request_id=request_id
        )
    return _print_put(invocation, done)


def show(
    invocation: Invocation,
    version: Annotated[int, typer.Argument(help="The version; 0 is the one that holds.")] = 0,
) -> int:
    """Print the document of a version."""
    with invocation.client() as client:
        found = client.policies.get(version)
    if invocation.as_json:
        output.print_json(output.as_json(found))
    else:
        sys.stderr.write(f"licet: version {found.version}, put by {found.put_by}\n")
        sys.stdout.write(found.document)
    return 0


def history(invocation: Invocation, limit: LimitOption = 100) -> int:
    """List the versions, the latest first."""
    with invocation.client() as client:
        found = client.policies.list_versions(page_size=output.page_size(limit))
        output.print_list(found, limit, _COLUMNS, _row, as_objects=invocation.as_json)
    return 0


def _row(found: PolicySet) -> tuple[str, ...]:
    back = f"back to {found.rollback_of}" if found.rollback_of else ""
    return (
        str(found.version),
        output.moment(found.put_at),
        found.put_by,
        str(found.revision),
        ": ".join(part for part in (back, found.comment) if part),
    )


def _print_put(invocation: Invocation, done: PolicySetPut) -> int:
    if invocation.as_json:
        output.print_json(output.as_json(done))
    else:
        output.console().print(
            f"version {done.version} holds from revision {done.revision} on; replicas: "
            f"{done.replicas_confirmed} confirmed, {done.replicas_fenced} fenced"
        )
    return 0
