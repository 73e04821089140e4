"""Audit events: ids, and the canonical bytes; the golden vectors are in tests/conformance."""

from __future__ import annotations

from itertools import pairwise
from uuid import UUID

import pytest

from licet.domain.audit_event import (
    COLUMNS,
    EventType,
    Result,
    event_id,
    event_id_text,
    is_leaf,
    leaf,
    occurred_at,
)
from licet.domain.canonical_json import JsonObject
from licet.domain.errors import UnstorableError
from licet.domain.instant import Instant
from tests.unit.builders import event

LAST_WRITER = (1 << 48) - 1
LAST_SEQUENCE = (1 << 62) - 1


@pytest.mark.parametrize(
    ("writer_id", "sequence", "text"),
    [
        (0, 0, "00000000-0000-8000-8000-000000000000"),
        (0, 1, "00000000-0000-8000-8000-000000000001"),
        (1, 1, "00000000-0001-8000-8000-000000000001"),
        (0x1234_5678_9ABC, 0xDEF, "12345678-9abc-8000-8000-000000000def"),
        (LAST_WRITER, LAST_SEQUENCE, "ffffffff-ffff-8000-bfff-ffffffffffff"),
    ],
)
def test_an_event_id_is_a_uuid_of_version_8(writer_id: int, sequence: int, text: str) -> None:
    found = event_id_text(event_id(writer_id, sequence))
    assert found == text
    assert str(UUID(found)) == found
    assert UUID(found).version == 8


@pytest.mark.parametrize("sequence", [-1, LAST_SEQUENCE + 1])
def test_a_sequence_outside_its_bits_is_refused(sequence: int) -> None:
    with pytest.raises(ValueError, match="not within 62 bits"):
        event_id(1, sequence)


def test_event_ids_sort_by_writer_and_then_by_sequence() -> None:
    numbers = [0, 1, 2, 255, 256, LAST_SEQUENCE - 1, LAST_SEQUENCE]
    ids = [event_id_text(event_id(w, s)) for w in (0, 1, LAST_WRITER) for s in numbers]
    assert all(earlier < later for earlier, later in pairwise(ids))


def test_a_leaf_is_the_fields_in_order_each_behind_its_length() -> None:
    encoded = leaf(
        event_id(0x0102_0304_0506, 7),
        event(
            occurred_at=Instant(946_684_800_000_001),
            event_type=EventType.GRANT,
            actor="a:é",
            principal="p:1",
            action="",
            resource="r:x/**",
            capability_id="c",
            result=Result.DONE,
            reason="R",
            policy_id="po",
            session_id="s",
            trace_id="tr",
            revision=-2,
            metadata=JsonObject('{"k": 1}'),
        ),
    )
    assert encoded == b"".join(
        [
            bytes.fromhex("0010"),
            bytes.fromhex("00000002 0001"),
            bytes.fromhex("00000010 01020304050680008000000000000007"),
            bytes.fromhex("00000008 0000000000000001"),
            b"\0\0\0\5grant",
            b"\0\0\0\4a:\xc3\xa9",
            b"\0\0\0\3p:1",
            b"\0\0\0\0",
            b"\0\0\0\6r:x/**",
            b"\0\0\0\1c",
            b"\0\0\0\4done",
            b"\0\0\0\1R",
            b"\0\0\0\2po",
            b"\0\0\0\1s",
            b"\0\0\0\2tr",
            bytes.fromhex("00000008 fffffffffffffffe"),
            b'\0\0\0\x09\1{"k": 1}',
        ]
    )


def test_the_stored_format_stays() -> None:
    names = "v event_id occurred_at event_type actor principal action resource capability_id"
    names += " result reason policy_id session_id trace_id revision metadata"
    assert tuple(names.split()) == COLUMNS
    own = "heartbeat writer_opened writer_closed writer_recovered incident epoch"
    own += " partition_archived quarantined refused clock_step"
    asked_for = {"decision", "grant", "delegate", "revoke"}
    asked_for |= {"key.created", "key.rotated", "key.revoked", "auth.failed", "import.event"}
    asked_for |= {"user.created", "user.updated", "user.disabled", "user.enabled"}
    asked_for |= {"principal.suspended", "principal.resumed"}
    asked_for |= {"policy.put", "policy.rolled_back"}
    asked_for |= {f"approval.{kind}" for kind in ("requested", "approved", "rejected", "used")}
    asked_for |= {"bootstrap.created", "bootstrap.revoked"}
    agents = "registered rotated deactivated activated offline online"
    asked_for |= {f"agent.{kind}" for kind in agents.split()}
    assert set(EventType) == asked_for | {f"audit.{kind}" for kind in own.split()}
    assert set(Result) == {"allow", "deny", "done", "refused"}


def test_what_is_no_leaf_is_told_from_one() -> None:
    whole = leaf(event_id(1, 1), event())
    assert is_leaf(whole)
    for wrong in (
        *(whole[:size] for size in range(len(whole))),
        whole + b"\0",
        b"\0\x0f" + whole[2:],
        whole[:2] + b"\xff\xff\xff\xff" + whole[6:],
        whole[:30] + b"\0\4" + whole[32:],
    ):
        assert not is_leaf(wrong)
    with pytest.raises(UnstorableError):
        occurred_at(whole[:39])
