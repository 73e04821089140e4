"""What the stand-alone verifier says of leaves, and of what leaves say of each other."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from licet.domain.audit_event import event_id
from tests.fakes.audit_log import AuditLog, recorded
from tests.fakes.audit_verifier import LEAVES, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def changed_leaf(before: bytes, after: bytes, leaf: bytes = LEAVES[0]) -> bytes:
    assert before in leaf
    return leaf.replace(before, after, 1)


BAD_LEAVES: Final = {
    "nothing": b"",
    "fields": b"\0\x0f" + LEAVES[0][2:],
    "cut": LEAVES[0][:-1],
    "more": LEAVES[0] + b"\0",
    "null": changed_leaf(b"\0\0\0\4done", b"\xff\xff\xff\xffdone"),
    "version": changed_leaf(b"\0\0\0\2\0\1", b"\0\0\0\2\0\2"),
    "uuid": LEAVES[0][:18] + b"\x40" + LEAVES[0][19:],
    "time": LEAVES[0][:32] + b"\x7f" + LEAVES[0][33:],
    "utf-8": changed_leaf(b"agent:", b"\xffgent:"),
    "U+0000": changed_leaf(b"agent:", b"agen\0:"),
    "result": changed_leaf(b"done", b"DONE"),
    "jsonb version": LEAVES[0][:-3] + b"\2{}",
}


def with_metadata(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return LEAVES[0][:-7] + (len(encoded) + 1).to_bytes(4, "big") + b"\1" + encoded


METADATA: Final = {
    '{"a": 1, "b": [null, true, false, -1.50, "é\\n\\u001f\\u007f"]}': False,
    '{"a": 1, "b": [null, true, false, -1.50, "é\\n\\u001f\x7f"]}': True,
    '{"b": 1, "aa": 2, "é": 3}': True,
    '{"aa": 2, "b": 1}': False,
    '{"a":1}': False,
    '{"a": 1,"b": 2}': False,
    '{"a": 1, "a": 1}': False,
    '{"a": 1e5}': False,
    '{"a": 01}': False,
    '{"a": -0}': False,
    '{"a": -0.0}': False,
    '{"a": 0.0}': True,
    '{"a": NaN}': False,
    '{"a": "\\u00e9"}': False,
    '{"a": "\\/"}': False,
    '{"a": "\\u001F"}': False,
    '{"a": "\\ud800"}': False,
    '{"a": "\ud800"}': False,
    '{"a": "\\u0000"}': False,
    '{"a": "\x01"}': False,
    '{"a": ' * 63 + "1" + "}" * 63: True,
    '{"a": ' * 66 + "1" + "}" * 66: False,
    '{"a": ' * 9000 + "1" + "}" * 9000: False,
    '{"a": 123456789012345678901234567890.00}': True,
    "[]": False,
    '"a"': False,
    "": False,
    " {}": False,
}


def test_a_leaf_that_breaks_a_rule_of_the_layout_is_named_though_it_was_signed(
    folder: Folder,
) -> None:
    bad = [*BAD_LEAVES.values(), *(with_metadata(t) for t, good in METADATA.items() if not good)]
    forged = AuditLog(bad)
    found = Folder(folder.file("x", "").parent, forged).archive(forged.archive())
    named = [f["leaf"] for f in found.report["findings"] if f["code"] == "leaf.format"]
    assert found.status == 1
    assert named == list(range(len(bad)))


def test_metadata_in_every_canonical_form_is_no_finding(folder: Folder) -> None:
    leaves = []
    for sequence, text in enumerate((t for t, good in METADATA.items() if good), 1):
        leaf = with_metadata(text)
        leaves.append(leaf[:12] + event_id(9, sequence).to_bytes(16, "big") + leaf[28:])
    log = AuditLog(leaves)
    found = Folder(folder.file("x", "").parent, log).archive(log.archive())
    assert {f["code"] for f in found.report["findings"]} <= {"writer.opened"}
    assert found.report["leaves"] == len(leaves)


# --- What the events say of each other -----------------------------------------------------------

OPENED: Final = recorded(5, 1, "audit.writer_opened")


def lost(first: int, last: int) -> bytes:
    """Return the leaf that says which events of writer 5 its disk has damaged."""
    metadata = {"writer_id": 5, "first": first, "last": last}
    return recorded(0, first, "audit.incident", reason="EVENTS_LOST", metadata=metadata)


@pytest.mark.parametrize(
    ("leaves", "codes"),
    [
        ([OPENED, recorded(5, 2), recorded(5, 2)], {"writer.repeat"}),
        ([OPENED, recorded(5, 3), recorded(5, 2)], {"writer.repeat", "writer.gap"}),
        ([recorded(5, 2)], {"writer.gap"}),
        ([OPENED, recorded(5, 2, "audit.writer_opened")], {"writer.opened"}),
        ([OPENED, recorded(5, 2, "audit.writer_closed"), recorded(5, 3)], {"writer.closed"}),
        ([recorded(0, 9), recorded(0, 7), recorded(0, 9)], {"writer.repeat"}),
        ([recorded(0, 9), recorded(0, 7), recorded(0, 8), recorded(0, 2)], set()),
        (
            [
                OPENED,
                recorded(
                    6, 1, "audit.writer_recovered", metadata={"writer_id": 5, "last_sequence": 2}
                ),
            ],
            {"writer.tail"},
        ),
        (
            [
                OPENED,
                recorded(
                    6, 1, "audit.writer_recovered", metadata={"writer_id": 5, "last_sequence": 2}
                ),
                recorded(5, 2),
            ],
            set(),
        ),
        (
            [
                OPENED,
                recorded(5, 3),
                recorded(6, 1, "audit.quarantined", metadata={"writer_id": 5, "sequence": 2}),
            ],
            set(),
        ),
        (
            [
                OPENED,
                recorded(5, 4),
                recorded(6, 1, "audit.quarantined", metadata={"writer_id": 5, "sequence": 2}),
            ],
            {"writer.gap"},
        ),
        ([OPENED, recorded(5, 9), lost(2, 8)], set()),
        ([OPENED, recorded(5, 9), lost(5, 8), lost(2, 4)], set()),
        ([OPENED, recorded(5, 9), lost(2, 4), lost(6, 8)], {"writer.gap"}),
        ([recorded(6, 1, "audit.epoch", metadata={"writers": {"5": 7}}), recorded(5, 8)], set()),
        (
            [recorded(6, 1, "audit.epoch", metadata={"writers": {"5": 7}}), recorded(5, 9)],
            {"writer.gap"},
        ),
        (
            [
                recorded(6, 1),
                recorded(6, 2, "audit.epoch", metadata={"writers": {"5": 7}}),
                recorded(5, 8),
            ],
            {"writer.gap"},
        ),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else None,
)
def test_the_sequences_of_writers_have_no_gap_and_no_repetition(
    folder: Folder, leaves: list[bytes], codes: set[str]
) -> None:
    log = AuditLog(leaves)
    found = Folder(folder.file("x", "").parent, log).archive(log.archive())
    assert found.codes == codes
    assert found.status == bool(codes)


BEAT: Final = "audit.heartbeat"


@pytest.mark.parametrize(
    ("seconds", "codes"),
    [
        ([(BEAT, 4000), ("decision", 399)], {"time.late"}),
        ([(BEAT, 4000), ("decision", 400)], set()),
        ([("decision", 3601), (BEAT, 0)], {"time.early"}),
        ([("decision", 3600), (BEAT, 0)], set()),
        ([(BEAT, 60), (BEAT, 0)], {"time.heartbeat"}),
        ([(BEAT, 9999), ("audit.clock_step", 0), (BEAT, 0), ("decision", 1)], set()),
    ],
)
def test_a_time_that_heartbeats_contradict_is_a_warning(
    folder: Folder, seconds: list[tuple[str, int]], codes: set[str]
) -> None:
    log = AuditLog(recorded(5, n, kind, seconds=at) for n, (kind, at) in enumerate(seconds, 1))
    given = Folder(folder.file("x", "").parent, log)
    found = given.archive(log.archive())
    assert (found.status, found.codes) == (0, codes)
    assert given.archive(log.archive(), more=("--strict",)).status == bool(codes)
