"""Options that several commands share, and JSON objects on a command line."""

from __future__ import annotations

import json
from typing import Annotated, TypeAlias

import typer

from licet.cli.errors import CommandError
from licet.domain.canonical_json import JsonValue

SessionOption: TypeAlias = Annotated[
    str, typer.Option("--session", metavar="ID", help="The session.", show_default=False)
]
TraceOption: TypeAlias = Annotated[
    str,
    typer.Option("--trace", metavar="ID", help="The trace, for the record.", show_default=False),
]
RequestIdOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--request-id",
        metavar="KEY",
        help="Idempotency key: the same command with the same key happens once.",
        show_default=False,
    ),
]
LimitOption: TypeAlias = Annotated[
    int, typer.Option("--limit", min=0, help="List at most so many; 0 lists all.")
]


def json_object(value: str | None, option: str) -> dict[str, JsonValue] | None:
    """Read a JSON object.

    Raises:
        CommandError: it is none.
    """
    if value is None:
        return None
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as exc:
        raise CommandError(f"{option} must be a JSON object: {exc}") from None
    if not isinstance(parsed, dict):
        raise CommandError(f'{option} must be a JSON object, like {{"key": "value"}}')
    return parsed
