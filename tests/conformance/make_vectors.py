"""Makes the golden vectors: run it, and compare what changed in `vectors/` before you commit it.

A changed vector of the audit leaf is a stop sign and not a refresh: stored events would not verify
any more. Another layout is another version, with a file of its own beside this one.

    python -m tests.conformance.make_vectors
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from licet.domain.audit_event import (
    VERSION,
    AuditEvent,
    EventType,
    Result,
    event_id,
    event_id_text,
    leaf,
)
from licet.domain.canonical_json import JsonValue, canonical
from licet.domain.instant import EARLIEST, LATEST, Instant, rfc3339
from licet.domain.pattern import ResourcePattern, contains
from tests.fakes.audit_log import AuditLog, busy_leaves

FOLDER: Final = Path(__file__).parent / "vectors"

_PLAIN: Final = AuditEvent(
    occurred_at=Instant(1_795_309_323_000_004),
    event_type=EventType.DECISION,
    actor="service:billing",
    principal="agent:worker-17",
    action="read",
    resource="doc:reports/2026/q3",
    capability_id="0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f",
    result=Result.ALLOW,
    reason="",
    policy_id="",
    session_id="run-9",
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    revision=42,
)
_NOTHING: Final = _PLAIN._replace(
    actor="", principal="", action="", resource="", capability_id="", session_id="", trace_id=""
)
_LAST_WRITER: Final = (1 << 48) - 1
_LAST_SEQUENCE: Final = (1 << 62) - 1

_EVENTS: Final[Mapping[str, tuple[int, AuditEvent, Mapping[str, JsonValue]]]] = {
    "a plain allow": (event_id(0x0CA1_F00D_0001, 1), _PLAIN, {}),
    "a denial of a decision with a policy": (
        event_id(0x0CA1_F00D_0001, 2),
        _PLAIN._replace(result=Result.DENY, reason="CAPABILITY_EXPIRED", policy_id="office-hours"),
        {"ip": "2001:db8::1"},
    ),
    "a delegation with facts": (
        event_id(0, 3),
        _PLAIN._replace(
            event_type=EventType.DELEGATE, action="", result=Result.DONE, resource="doc:reports/**"
        ),
        {
            "actions": ["read", "write"],
            "delegation_depth": 1,
            "expires_at": rfc3339(Instant(1_795_309_323_000_005)),
            "metadata": {"team": "q3", "ok": True, "note": None},
            "not_before": None,
            "parent_id": "0199c5f0-6a5e-7cc3-98c4-000000000001",
        },
    ),
    "every text empty": (event_id(1, 1), _NOTHING, {}),
    "the least of everything, at 1970": (
        event_id(0, 0),
        _NOTHING._replace(occurred_at=EARLIEST, revision=-(1 << 63), result=Result.REFUSED),
        {},
    ),
    "the greatest of everything, at 9999": (
        event_id(_LAST_WRITER, _LAST_SEQUENCE),
        _NOTHING._replace(occurred_at=LATEST, revision=(1 << 63) - 1, event_type=EventType.REVOKE),
        {},
    ),
    "the microsecond before 2000": (
        event_id(1, 2),
        _PLAIN._replace(occurred_at=Instant(946_684_799_999_999)),
        {},
    ),
    "the microsecond of 2000": (
        event_id(1, 3),
        _PLAIN._replace(occurred_at=Instant(946_684_800_000_000)),
        {},
    ),
    "texts that are not ASCII": (
        event_id(1, 4),
        _PLAIN._replace(
            event_type=EventType.GRANT,
            actor="user:zoë",
            principal="agent:名前🦊",
            resource="doc:отчёты/**",
            result=Result.DONE,
            reason="µ",
            policy_id="π",
            session_id="é",
            trace_id="\N{GREEK CAPITAL LETTER OMEGA}",
        ),
        {"名": "🦊", "é": "\u2028", "zz": 'quote " backslash \\ slash /'},
    ),
    "metadata: keys by their length in UTF-8, then by bytes": (
        event_id(1, 5),
        _PLAIN,
        {"b": 1, "": 2, "aa": 3, "é": 4, "a": 5, "B": 6, "\uffff": 7, "\U0001f98a": 8},
    ),
    "metadata: escapes": (
        event_id(1, 6),
        _PLAIN,
        {"controls": "\x01\b\t\n\x0b\f\r\x1f\x7f", "\n": "a key is escaped too"},
    ),
    "metadata: numbers": (
        event_id(1, 7),
        _PLAIN,
        {
            "zero": 0.0,
            "minus zero": -0.0,
            "whole": 1,
            "one": 1.0,
            "tenth": 0.1,
            "small": 1e-7,
            "smallest": 5e-324,
            "large": 1e16,
            "largest": 1.7976931348623157e308,
            "exact": 9_007_199_254_740_992.0,
            "int64": [-(1 << 63), (1 << 63) - 1],
        },
    ),
    "metadata: 12 KiB of it, nested": (
        event_id(1, 8),
        _PLAIN,
        {"list": [{"n": n, "text": "x" * (n % 17)} for n in range(400)], "empty": [{}, [], ""]},
    ),
    "the longest names": (
        event_id(1, 9),
        _PLAIN._replace(
            actor="service:" + "a" * 248,
            principal="agent:" + "名" * 83,
            action="a" * 64,
            resource="doc:" + "r/" * 509 + "rr",
            session_id="s" * 128,
            trace_id="t" * 128,
        ),
        {},
    ),
}

_PATTERNS: Final = (
    *("doc:**", "doc:*", "doc:*/*", "doc:*/**", "doc:a", "doc:a/**", "doc:a/*", "doc:a/b"),
    *("doc:*/b", "doc:a/*/c", "doc:a/b/c", "doc:a/b/**", "doc:*/*/**", "doc:ab", "docs:a"),
    *("fs:/", "fs:/*", "fs:/**", "fs:**", "fs:*/**", "fs:/etc/passwd", "fs:/etc/*"),
    *("doc:A", "doc:a:b", "doc:a b", "doc:a.b", "doc:名/*", "doc:名/前"),
)
"""Those without `*` are resources as well."""


def audit_leaf() -> Mapping[str, Any]:
    """Return the vectors of the audit leaf."""
    return {
        "about": [
            "Canonical bytes of audit events, version 1. leaf: int16 count of fields (16), then",
            "each field as int32 length and bytes, all big-endian: v int16, event_id 16 bytes,",
            "occurred_at int64 microseconds since 2000-01-01T00:00:00Z, 11 texts in UTF-8",
            "(event_type to trace_id), revision int64, 0x01 and the metadata as canonical JSON.",
            "occurred_at_us counts from 1970, and is text like revision: both exceed the integers",
            "that every JSON reader keeps. leaf_hash: SHA-256 of 0x00 and the leaf.",
        ],
        "version": VERSION,
        "vectors": [
            _vector(name, identifier, event._replace(metadata=canonical(metadata)))
            for name, (identifier, event, metadata) in _EVENTS.items()
        ],
    }


def _vector(name: str, identifier: int, event: AuditEvent) -> Mapping[str, str]:
    encoded = leaf(identifier, event)
    fields = {field: str(value) for field, value in event._asdict().items()}
    del fields["occurred_at"]
    return {
        "name": name,
        "event_id": event_id_text(identifier),
        "occurred_at": rfc3339(event.occurred_at),
        "occurred_at_us": str(event.occurred_at),
        **fields,
        "leaf": encoded.hex(),
        "leaf_hash": hashlib.sha256(b"\0" + encoded).hexdigest(),
    }


def patterns() -> Mapping[str, Any]:
    """Return for every pattern which resources it matches and which patterns it contains."""
    checked = [ResourcePattern(text) for text in _PATTERNS]
    resources = [pattern for pattern in checked if "*" not in pattern]
    return {
        "about": [
            "Resource patterns. `resources` and `patterns` list all that are asked about;",
            "for each pattern, `matches` lists the resources that it matches and `contains` the",
            "patterns that lie inside it. What is not listed, it does not match or contain.",
        ],
        "resources": resources,
        "patterns": checked,
        "cases": [
            {
                "pattern": outer,
                "matches": [inner for inner in resources if contains(outer, inner)],
                "contains": [inner for inner in checked if contains(outer, inner)],
            }
            for outer in checked
        ],
    }


def audit_log() -> Mapping[str, str | bytes]:
    """Return the files of a small log: what an auditor is given, made by the product's code.

    The key is `bytes(range(32))`, and nobody else's. How the archive is packed depends on the zlib
    of the machine: what is inside does not.
    """
    log = AuditLog(busy_leaves(writers=2, each=12))
    size = len(log.leaves)
    return {
        "public.key": f"{log.key}\n",
        "old.checkpoint": log.note(7),
        "checkpoint": log.note(),
        "event.tlog-proof": log.inclusion(5),
        "growth.proof": log.consistency(7),
        "leaves.archive": log.archive(),
        "part.archive": log.archive((4, 11), (16, 21)),
        "part.cover": log.cover((0, 4), (11, 16), (21, size)),
    }


def rendered(vectors: Mapping[str, Any]) -> str:
    """Return the text of a file of vectors."""
    return json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"


FILES: Final = {"audit_leaf_v1.json": audit_leaf, "patterns.json": patterns}
"""The files in `vectors/`, and what makes each of them."""
LOG_FOLDER: Final = FOLDER / "audit_log_v1"
"""Where the files of the small log are."""

if __name__ == "__main__":
    for name, make in FILES.items():
        (FOLDER / name).write_text(rendered(make()), encoding="utf-8")
    LOG_FOLDER.mkdir(exist_ok=True)
    for name, content in audit_log().items():
        data = content.encode() if isinstance(content, str) else content
        (LOG_FOLDER / name).write_bytes(data)
