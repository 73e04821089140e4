"""How results are printed: as tables and trees for people, as JSON for programs.

What people see is made of `Text`, never of markup: names come from outside, and a name with
`[red]` in it must look like one. Control characters are shown escaped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from licet.domain.instant import from_datetime
from licet.replica.clock import SystemClock

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Capability, Decision

# Nothing is folded or cut where no person looks at it in a window.
_UNBOUNDED: Final = 10_000
_LARGEST_PAGE: Final = 1000
_STYLES: Final = {
    "ALLOW": "bold green",
    "allow": "green",
    "APPLIES": "green",
    "SERVING": "bold green",
    "applied": "green",
    "done": "green",
    "renewing": "green",
    "valid": "green",
    "DENY": "bold red",
    "PASSED": "green",
    "DENIED": "bold red",
    "FAILED": "bold red",
    "deny": "red",
    "refused": "red",
    "NOT_SERVING": "bold red",
    "not renewing": "bold red",
    "lagging": "yellow",
    "not applied": "yellow",
    "not yet valid": "yellow",
}

_Item = TypeVar("_Item")


def console() -> Console:
    """Return what writes to standard output, as wide as the terminal."""
    width = None if sys.stdout.isatty() else _UNBOUNDED
    return Console(width=width, highlight=False, soft_wrap=False)


def print_json(value: Mapping[str, object]) -> None:
    """Print one object on one line, at once.

    In ASCII: no terminal and no character set can make anything else of it.
    """
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def as_json(value: Any) -> dict[str, object]:  # noqa: ANN401 - any result of the client
    """Return a result of the client as JSON, under the API's names."""
    return {field.name: _json(getattr(value, field.name)) for field in fields(value)}


def decision_as_json(decision: Decision) -> dict[str, object]:
    """Return a decision as JSON."""
    rest = as_json(decision)
    del rest["allowed"]
    del rest["correlation_id"]  # a single call has none
    return {"decision": "ALLOW" if decision.allowed else "DENY", **rest}


def _json(value: Any) -> object:  # noqa: ANN401 - any part of a result
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
        case timedelta():
            return f"{value.total_seconds():g}s"
        case tuple():
            return [_json(item) for item in value]
        case _ if hasattr(value, "__dataclass_fields__"):
            return as_json(value)
        case _:
            return value


def text(value: str, style: str = "") -> Text:
    """Return a text for people, in the colour of what it says."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return Text(shown, style=style or _STYLES.get(value, ""), overflow="fold")


def moment(value: datetime | None, unset: str = "") -> str:
    """Return an instant for people, in UTC."""
    if value is None:
        return unset
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def precise(value: datetime) -> str:
    """Return an instant for people, in UTC, to the millisecond."""
    return value.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds")[:-6] + "Z"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(text, row))
    console().print(table)


def print_list(
    found: Iterator[_Item],
    limit: int,
    columns: Sequence[str],
    row: Callable[[_Item], Sequence[str]],
    *,
    as_objects: bool,
) -> None:
    """Print at most `limit` things, 0 for all: a table, or one JSON object a line.

    That there are more is said on standard error.
    """
    shown = islice(found, limit or None)
    if as_objects:
        for item in shown:
            print_json(as_json(item))
    else:
        print_table(columns, map(row, shown))
    if limit and next(found, None) is not None:
        sys.stderr.write("licet: there are more: `--limit 0` lists all\n")


def page_size(limit: int) -> int:
    """Return the size of the pages to read for `print_list`, which looks one item ahead."""
    return min(limit + 1, _LARGEST_PAGE) if limit else _LARGEST_PAGE


def print_tree(root: Text, branches: Iterable[Text | tuple[Text, Iterable[Text]]]) -> None:
    """Print a tree of two levels."""
    tree = Tree(root)
    for branch in branches:
        if isinstance(branch, Text):
            tree.add(branch)
            continue
        title, leaves = branch
        node = tree.add(title)
        for leaf in leaves:
            node.add(leaf)
    console().print(tree)


def print_record(rows: Iterable[tuple[str, str]]) -> None:
    """Print one thing, a field a line; fields without a value are left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(name, text(value))
    console().print(table)


def state(capability: Capability) -> str:
    """Say in a word or two whether a capability can be used now."""
    now = SystemClock().now()
    if capability.end_cause:
        return capability.end_cause.lower().replace("_", " ")
    if capability.expires_at is not None and from_datetime(capability.expires_at) <= now:
        return "expired"
    if capability.not_before is not None and from_datetime(capability.not_before) > now:
        return "not yet valid"
    return "valid"


def print_capability(capability: Capability) -> None:
    """Print all there is to know of a capability."""
    metadata = json.dumps(capability.metadata, ensure_ascii=False) if capability.metadata else ""
    print_record(
        [
            ("id", capability.id),
            ("state", state(capability)),
            ("principal", capability.principal),
            ("actions", ", ".join(capability.actions)),
            ("resource", capability.resource),
            ("not before", moment(capability.not_before)),
            ("expires", moment(capability.expires_at, "never")),
            ("delegation depth", str(capability.delegation_depth)),
            ("condition", capability.condition),
            ("parent", capability.parent_id),
            ("session", capability.session_id),
            ("metadata", metadata),
            ("granted", f"{moment(capability.granted_at)} by {capability.granted_by}"),
            ("revision", str(capability.revision)),
            ("ended", _end(capability)),
            ("end reason", capability.end_reason),
        ]
    )


def _end(capability: Capability) -> str:
    if capability.ended_at is None:
        return ""
    return f"{moment(capability.ended_at)} by {capability.ended_by}"
