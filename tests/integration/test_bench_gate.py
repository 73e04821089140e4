"""The gate of the hot path: it lets the same through again, and finds what has been added."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gate
from benchmarks.figures import BenchmarkError
from licet.app.ports import Reading
from licet.replica.clock import DatabaseClock
from tests.fakes.postgres import Database

FACTS = {"principal": "agent:gate", "action": "read", "resource": "doc:reports"}


def grown(measured: gate.Costs, recorded: gate.Costs) -> set[tuple[str, str]]:
    found = gate.growths(measured, recorded)
    return {(growth.kind, growth.what) for growth in found if growth.is_too_much}


def test_the_gate_finds_what_has_been_added_to_each_decision_and_nothing_else(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = gate.measure(database.url, tmp_path)
    again = gate.measure(database.url, tmp_path)
    assert grown(again, honest) == set()

    reading = DatabaseClock.reading

    def wasteful(clock: DatabaseClock) -> Reading:
        json.dumps(FACTS)
        return reading(clock)

    monkeypatch.setattr(DatabaseClock, "reading", wasteful)
    wasted = gate.measure(database.url, tmp_path)
    assert grown(wasted, honest) >= {
        (kind, what) for kind in ("Authorize", "StreamAuthorize") for what in ("bytecodes", "calls")
    }


def test_time_has_a_margin_of_its_own() -> None:
    recorded = {"Authorize": {"bytecodes": 1000.0, "calls": 100.0, "time": 500.0}}
    measured = {"Authorize": {"bytecodes": 1019.0, "calls": 103.0, "time": 670.0}}
    assert grown(measured, recorded) == {("Authorize", "calls")}
    slow = {"Authorize": {"bytecodes": 500.0, "calls": 50.0, "time": 680.0}}
    assert grown(slow, recorded) == {("Authorize", "time")}


def test_what_is_not_on_record_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="--record"):
        gate.growths({"BatchAuthorize": {"calls": 1.0}}, {"Authorize": {"calls": 1.0}})


def test_what_is_on_record_is_of_the_python_that_the_project_is_built_with() -> None:
    record = json.loads(gate.RECORD.read_text(encoding="utf-8"))
    assert set(record["3.11"]) == {"Authorize", "StreamAuthorize", "BatchAuthorize"}
