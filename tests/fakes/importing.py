"""Files of records, and their import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from licet.cli.importing.run import Options, Report, run
from licet.cli.importing.tally import Fate
from licet.client import Client

BEFORE: Final = "2020-01-01T00:00:00Z"
LATER: Final = "2099-01-01T00:00:00Z"


def capability(identifier: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    return {
        "type": "capability",
        "id": identifier,
        "principal": "agent:a",
        "actions": ["read", "write"],
        "resource": "doc:reports/**",
    } | fields


def row(identifier: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    return {
        "type": "audit",
        "id": identifier,
        "occurred_at": BEFORE,
        "event_type": "check",
    } | fields


def token(identifier: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    return {
        "type": "token",
        "id": identifier,
        "principal": "service:billing",
        "name": "gate",
        "scopes": ["authorize", "read"],
    } | fields


def user(identifier: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    return {
        "type": "user",
        "id": identifier,
        "email": f"{identifier}@example.org",
        "roles": ["developer"],
    } | fields


def agent(identifier: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    return {"type": "agent", "id": identifier, "hostname": f"{identifier}.example.org"} | fields


def written(path: Path, *records: dict[str, Any] | str) -> Path:
    texts = (record if isinstance(record, str) else json.dumps(record) for record in records)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def imported(client: Client, path: Path, **options: Any) -> Report:  # noqa: ANN401 - any option
    chosen: dict[str, Any] = {
        "name": "old",
        "zone": None,
        "rejects": None,
        "keys_file": None,
        "dry_run": False,
    }
    return run(client, Options(path=path, **(chosen | options)), lambda error: error.message)


def counts(report: Report, kind: str) -> tuple[int, ...]:
    """Return how many were imported, present before, ended and rejected."""
    return tuple(report.tally.of(kind, fate) for fate in Fate)


def reasons(report: Report) -> dict[int, list[tuple[str, str]]]:
    """Return the fields and rules of the reject file, by line."""
    assert report.rejects is not None
    found = map(json.loads, report.rejects.read_text(encoding="utf-8").splitlines())
    return {
        line["line"]: [(reason["field"], reason["rule"]) for reason in line["reasons"]]
        for line in found
    }
