"""The timeline: where decisions fall, and what is drawn of them."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from licet.cli.timeline import heights, histogram, print_timeline
from licet.client import AuditEvent

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def event(seconds: float, result: str) -> AuditEvent:
    return AuditEvent(
        event_id=f"at {seconds}",
        occurred_at=NOON + timedelta(seconds=seconds),
        event_type="decision",
        actor="caller:anonymous",
        principal="agent:a",
        action="read",
        resource="doc:x",
        capability_id="",
        result=result,
        reason="",
        policy_id="",
        session_id="",
        trace_id="",
        revision=0,
        metadata={},
    )


def drawn(events: list[AuditEvent], encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    print_timeline(Console(file=file, width=100), events)
    file.flush()
    return raw.getvalue().decode(encoding).splitlines()


def test_an_instant_belongs_to_its_part_and_the_last_to_the_last_part() -> None:
    instants = [NOON + timedelta(seconds=s) for s in (0, 2.4, 2.5, 9.9, 10)]
    assert histogram(instants, NOON, NOON + timedelta(seconds=10), 4) == [2, 1, 0, 2]


@pytest.mark.parametrize(
    ("counts", "bars"),
    [([0, 0], "  "), ([1, 1], "██"), ([0, 1, 4, 8], " ▁▄█"), ([1, 8000], "▁█"), ([], "")],
)
def test_the_most_is_the_highest_and_one_can_be_seen(counts: list[int], bars: str) -> None:
    assert heights(counts, " ▁▂▃▄▅▆▇█") == bars


def test_allowed_and_denied_are_drawn_one_above_the_other() -> None:
    events = [event(0, "allow"), event(59, "deny"), event(60, "deny"), event(60, "done")]
    allowed, denied, axis = drawn(events)
    assert allowed.split() == ["allowed", "█", "1"]
    assert denied.split() == ["denied", "█", "2"]
    assert axis.split() == ["11-22", "12:00:00", "11-22", "12:01:00"]


def test_a_terminal_without_the_characters_gets_others() -> None:
    allowed, *_ = drawn([event(0, "allow"), event(60, "allow")], "ascii")
    assert allowed.split() == ["allowed", "#", "#", "2"]


def test_there_is_nothing_to_draw_of_one_instant() -> None:
    assert drawn([]) == []
    assert drawn([event(1, "allow"), event(1, "deny")]) == []
