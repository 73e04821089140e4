"""Whatever a line holds, it is imported or rejected with a reason, and nothing crashes."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from licet.cli.importing.lines import Line, MalformedError, lines, parse
from licet.cli.importing.records import Kind, read
from licet.cli.importing.rejects import RejectFile
from licet.cli.importing.scan import scan
from licet.cli.importing.source import SourceFile
from licet.cli.importing.tally import Fate, Tally
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant

NOW = Instant(1_800_000_000_000_000)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
FIELDS = st.sampled_from(
    [
        *("id", "principal", "user", "agent", "actions", "resource", "parent", "delegation_depth"),
        *("not_before", "expires_at", "revoked_at", "granted_at", "granted_by", "session_id"),
        *("metadata", "occurred_at", "event_type", "actor", "capability", "result", "reason"),
        *("scopes", "name", "email", "roles", "hostname", "record", "text", "references"),
    ]
)
LIKELY = st.sampled_from(
    [
        *("agent:a", "doc:**", "read", "c-1", "2026-01-01T00:00:00Z", "2026-01-01 00:00:00"),
        *(
            1_700_000_000,
            1_700_000_000_000,
            ["read"],
            ["*"],
            ["authorize"],
            {"a": 1},
            "",
            "x" * 300,
        ),
        *("a@example.org", "\0", "\ud800", {"a": {"b": [2**60]}}, 1e400),
    ]
)
RECORDS = st.builds(
    lambda kind, fields: {"type": kind} | fields,
    st.sampled_from([*map(str, Kind), "other"]) | JSON,
    st.dictionaries(FIELDS, LIKELY | JSON),
)
LINES = (
    st.binary()
    | JSON.map(lambda v: json.dumps(v).encode())
    | RECORDS.map(lambda v: json.dumps(v).encode())
)


@given(LINES)
def test_a_line_is_a_record_or_says_why_not(raw: bytes) -> None:
    for line in lines(BytesIO(raw)):
        reason = "none"
        try:
            read(parse(line).fields, None, NOW)
        except (MalformedError, InvalidRequestError) as exc:
            reason = str(exc)
        assert reason


@given(RECORDS)
def test_what_is_rejected_comes_back_as_it_was(record: dict[str, Any]) -> None:
    raw = json.dumps(record).encode()
    try:
        parsed = parse(Line(1, 0, raw))
    except MalformedError:
        return
    again = parse(Line(1, 0, json.dumps({"line": 1, "record": record}).encode()))
    assert json.dumps(again.fields) == json.dumps(parsed.fields)


@given(st.lists(LINES.filter(lambda raw: b"\n" not in raw)))
def test_every_line_has_one_fate(tmp_path_factory: Any, found: list[bytes]) -> None:  # noqa: ANN401 - pytest's
    folder: Path = tmp_path_factory.mktemp("import")
    (folder / "old").write_bytes(b"\n".join(found))
    tally = Tally()
    with (
        SourceFile(folder / "old", None, NOW) as source,
        RejectFile(folder / "rejects", is_chosen=True) as rejects,
    ):
        numbers = [line.number for line in lines(BytesIO(b"\n".join(found)))]
        catalogue = scan(source, rejects, tally, lambda _: None)
    good = sum(len(places) for places in catalogue.places.values())
    assert good + tally.total(Fate.REJECTED) == len(numbers)
    written = (folder / "rejects").read_bytes() if rejects.path else b""
    refused = [json.loads(line)["line"] for line in written.splitlines()]
    refused += [place.number for place in catalogue.deferred]
    assert len(refused) == tally.total(Fate.REJECTED)
    kept = [place.number for places in catalogue.places.values() for place in places]
    assert sorted(refused + kept) == numbers
