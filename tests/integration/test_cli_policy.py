"""`licet policy`: checks and tests documents, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from licet.cli.main import main
from licet.policies.reading import built_in_names, schema_text
from tests.fakes.terminal import Finished

Call: TypeAlias = Callable[..., Finished]

POLICIES = """\
version: 1
policies:
  - name: no-deletes
    match: {actions: [delete]}
    deny: nobody deletes
  - name: office
    match: {resources: ["doc:hr/**"]}
    time: {zone: UTC, hours: 09:00-17:00}
  - name: never
    match: {resources: ["fs:**"]}
    limit: {rate: 1/s}
"""
HEAD = """\
version: 1
policies: policies.yaml
defaults: {at: 2026-11-23T10:00:00Z, principal: "user:a", action: read, resource: "doc:hr/x"}
cases:
"""
PASSES = """\
  - name: in hours
    expect: {decision: ALLOW, reason: GRANTED}
  - {action: delete, expect: {decision: DENY, reason: POLICY_DENIED, policy: no-deletes}}
"""
FAILS = """\
  - name: at night
    at: 2026-11-23T20:00:00Z
    expect: {decision: ALLOW}
"""


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str | Path) -> Finished:
        status = main(["policy", *map(str, arguments)])
        written = capsys.readouterr()
        return Finished(status, written.out, written.err)

    return run


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    return written(tmp_path, "policies.yaml", POLICIES)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_check_lists_what_a_document_says(call: Call, policies: Path) -> None:
    finished = call("check", policies)

    assert finished.status == 0
    lines = [line.split() for line in finished.out.splitlines()[2:]]
    assert lines == [
        ["3", "no-deletes", "deny", "delete"],
        ["6", "office", "time", "doc:hr/**"],
        ["9", "never", "limit", "fs:**"],
    ]


def test_check_names_the_place_of_each_fault(call: Call, tmp_path: Path) -> None:
    path = written(tmp_path, "p.yaml", POLICIES.replace("deny:", "denny:").replace("UTC", "Mars"))

    finished = call("check", path)

    assert (finished.status, finished.out) == (1, "")
    first, second = finished.err.splitlines()
    assert first.startswith(f"{path}:5:5: policies[0].denny is no field here: name")
    assert second.startswith(f"{path}:8:18: policies[1].time.zone must be a time zone")


def test_a_fault_cannot_forge_a_line_nor_write_to_the_terminal(call: Call, tmp_path: Path) -> None:
    path = written(tmp_path, "p.yaml", 'version: 1\n"\\e[31m\\nother.yaml:1:1: x": 1\n')

    finished = call("check", path)

    assert len(finished.err.splitlines()) == 1
    assert "\x1b" not in finished.err


def test_cases_that_come_out_as_expected_pass(call: Call, policies: Path, tmp_path: Path) -> None:
    finished = call("test", written(tmp_path, "cases.yaml", HEAD + PASSES))

    assert policies.exists()
    assert finished.status == 0
    assert "2 cases, 0 failed" in finished.out
    assert "2 of 3 policies were reached" in finished.out
    assert "no case reached never, line 9" in finished.out


def test_a_case_that_does_not_is_shown_with_what_each_policy_said(
    call: Call, policies: Path, tmp_path: Path
) -> None:
    cases = written(tmp_path, "cases.yaml", HEAD + FAILS + PASSES)

    finished = call("test", cases)

    assert policies.exists()
    assert finished.status == 1
    assert [line.split() for line in finished.out.splitlines()[:5]] == [
        ["FAIL", "at", "night", f"({cases}:5)"],
        ["expected", "ALLOW"],
        ["found", "DENY", "OUTSIDE_TIME_WINDOW", "office"],
        ["policy", "office:", "this", "is", "outside", "of", "its", "hours"],
        ["DENIED", "office:", "this", "is", "outside", "of", "its", "hours"],
    ]
    assert "3 cases, 1 failed" in finished.out


@pytest.mark.parametrize(
    "expect",
    [
        "{decision: ALLOW}",
        "{decision: DENY, reason: MFA_REQUIRED}",
        "{decision: DENY, policy: office}",
    ],
)
def test_decision_reason_and_policy_are_each_compared(
    call: Call, policies: Path, tmp_path: Path, expect: str
) -> None:
    case = f"  - {{action: delete, expect: {expect}}}\n"

    assert policies.exists()
    assert call("test", written(tmp_path, "cases.yaml", HEAD + case)).status == 1


def test_a_policy_that_no_case_reached_fails_a_complete_test(
    call: Call, policies: Path, tmp_path: Path
) -> None:
    cases = written(tmp_path, "cases.yaml", HEAD + PASSES)
    reaching = '  - {resource: "fs:x", expect: {decision: ALLOW}}\n'
    whole = written(tmp_path, "whole.yaml", HEAD + PASSES + reaching)

    assert call("test", cases, "--complete").status == 1
    assert call("test", whole, "--complete", "--policies", policies).status == 0


def test_results_are_told_to_programs(call: Call, policies: Path, tmp_path: Path) -> None:
    finished = call("test", written(tmp_path, "cases.yaml", HEAD + FAILS), "--json")

    case, summary = map(json.loads, finished.out.splitlines())
    assert policies.exists()
    assert case["found"] == {
        "decision": "DENY",
        "reason": "OUTSIDE_TIME_WINDOW",
        "policy": "office",
    }
    assert summary == {
        "cases": 1,
        "failed": 1,
        "policies": 3,
        "not_reached": ["no-deletes", "never"],
    }


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        ("{expect: {}}", "cases[0].expect must have decision"),
        ("{expect: {decision: MAYBE}}", "cases[0].expect.decision must be one of ALLOW, DENY"),
        ("{expect: {decision: DENY, reason: NO}}", "cases[0].expect.reason must be one of"),
        ("{at: noon, expect: {decision: DENY}}", "cases[0].at must be an instant"),
        ("{at: 2026-11-23T10:00:00, expect: {decision: DENY}}", "cases[0].at must be an instant"),
        ("{resource: 'doc:*', expect: {decision: DENY}}", "cases[0].resource must be a resource"),
        ("{context: 1, expect: {decision: DENY}}", "cases[0].context must be a mapping"),
        ("{expects: {}}", "cases[0].expects is no field here"),
    ],
)
def test_a_fault_of_a_case_names_its_place(
    call: Call, policies: Path, tmp_path: Path, case: str, fault: str
) -> None:
    cases = written(tmp_path, "cases.yaml", f"{HEAD}  - {case}\n")

    finished = call("test", cases)

    assert policies.exists()
    assert finished.status == 1
    assert finished.err.startswith(f"{cases}:5:")
    assert fault in finished.err


def test_what_cannot_be_read_is_an_error(call: Call, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")

    assert call("check", tmp_path / "none.yaml").status == 2
    assert "is not UTF-8" in call("check", binary).err
    nameless = written(tmp_path, "c.yaml", HEAD.replace("policies: policies.yaml\n", "") + PASSES)
    assert "does not name the policies" in call("test", nameless).err
    assert call("built-in", "nothing@1").status == 2


def test_built_in_sets_and_the_schema_are_printed(call: Call, tmp_path: Path) -> None:
    listed = call("built-in", "--json").out.splitlines()
    assert [json.loads(line)["name"] for line in listed] == list(built_in_names())
    assert "business-hours@1" in call("built-in").out

    printed = call("built-in", "secrets@1").out
    assert call("check", written(tmp_path, "copy.yaml", printed)).status == 0
    assert call("schema").out == schema_text()
