"""`licet policy replay` and `licet policy explain`, as processes."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from licet.client import Client, LicetCallError
from tests.fakes.api import stored_decisions
from tests.fakes.postgres import eventually
from tests.fakes.serving import Served
from tests.fakes.terminal import COMMAND, Finished, environment, run
from tests.unit.policies import document

Licet: TypeAlias = Callable[..., Finished]

NO_DOCS = "name: no-docs, match: {resources: ['doc:**']}, deny: not today"
MFA = "name: mfa, match: {resources: ['secret:**']}, require: {mfa: true}"
WHEN = "name: level, match: {resources: ['doc:**']}, when: context.level < 3, deny: too low"
QUESTION = ("agent:a", "read", "doc:x")


@pytest.fixture
def licet(served: Served) -> Licet:
    def call(*arguments: str | Path) -> Finished:
        return run("policy", *map(str, arguments), variables={"LICET_ADDRESS": served.address})

    return call


@pytest.fixture
def decided(served: Served) -> Served:
    """Provide a server that has decided three times: two ALLOW, one DENY."""
    served.grant("agent:a", "read", "doc:**")
    served.grant("agent:a", "read", "secret:**")
    for principal, resource in (
        ("agent:a", "doc:x"),
        ("agent:a", "secret:s"),
        ("agent:b", "doc:x"),
    ):
        served.authorize(principal, "read", resource)
    assert eventually(lambda: len(stored_decisions(served.database)) == 3)
    return served


def written(folder: Path, *policies: str) -> Path:
    path = folder / "draft.yaml"
    path.write_text(document(*policies), encoding="utf-8")
    return path


def test_flips_are_a_table_with_a_summary_and_a_status(
    decided: Served, licet: Licet, tmp_path: Path
) -> None:
    assert decided.address
    finished = licet("replay", written(tmp_path, NO_DOCS, MFA), "--not-known")

    assert (finished.status, finished.err) == (1, "")
    heading, _, unknown, flip, summary, *counts = finished.out.splitlines()
    assert " ".join(heading.split()) == "time principal action resource was would be policy why"
    assert " ".join(flip.split()[2:]) == "agent:a read doc:x ALLOW DENY no-docs not today"
    assert " ".join(unknown.split()[2:9]) == "agent:a read secret:s ALLOW not known mfa"
    assert summary.startswith("3 decisions, ")
    assert [" ".join(line.split()) for line in counts] == [
        "1 would come out as they did",
        "1 ALLOW would be DENY",
        "0 DENY would be ALLOW",
        "1 are not known",
        "1 need context.mfa, which is not on record",
    ]


def test_flips_are_json_for_programs_and_the_summary_is_last(
    decided: Served, licet: Licet, tmp_path: Path
) -> None:
    assert decided.address
    finished = licet("replay", written(tmp_path, NO_DOCS, MFA), "--json", "--principal", "agent:a")

    flip, summary = finished.objects
    assert finished.status == 1
    assert (flip["decision"], flip["would_be"], flip["needs"]) == ("ALLOW", "DENY", [])
    assert (flip["resource"], flip["would_be_policy_id"]) == ("doc:x", "no-docs")
    assert (summary["looked_at"], summary["unchanged"], summary["now_denied"]) == (2, 0, 1)
    assert (summary["not_known"], summary["needs"]) == (1, {"context.mfa": 1})
    assert (summary["is_complete"], "decisions" in summary) == (True, False)


def test_the_status_is_fit_for_a_pipeline(decided: Served, licet: Licet, tmp_path: Path) -> None:
    assert decided.address
    unknown = written(tmp_path, MFA)

    assert licet("replay", unknown).status == 0
    assert licet("replay", unknown, "--strict").status == 1
    cut = licet("replay", unknown, "--at-most", "1", "--principal", "agent:b", "--strict")
    assert cut.status == 1
    assert "nothing before" in cut.out
    few = licet("replay", written(tmp_path, "name: all, deny: nothing goes"), "--limit", "1")
    assert few.err == "licet: 1 more are not listed: `--limit` lists more\n"

    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\npolicies: [{name: x}]\n", encoding="utf-8")
    finished = licet("replay", bad)
    assert finished.status == 2
    assert finished.err.startswith(f"{bad}:2:12: ")
    assert licet("replay", tmp_path / "none.yaml").status == 2


def test_a_terminal_sees_how_far_it_has_come(decided: Served, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        done = subprocess.run(
            [*COMMAND, "policy", "replay", str(written(tmp_path, NO_DOCS))],
            env=environment(LICET_ADDRESS=decided.address, TERM="xterm", COLUMNS="120"),
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=False,
            timeout=30,
        )
        os.close(theirs)
        shown = b""
        try:
            while part := screen.read(65536):
                shown += part
        except OSError:  # the other end is closed
            pass

    assert done.returncode == 1
    assert b"replaying" in shown
    assert b"3 decisions, 1 otherwise" in shown
    assert b"replaying" not in done.stdout


def test_the_client_library_replays(decided: Served) -> None:
    with Client(decided.address) as client:
        *_, last = client.policies.replay(document(NO_DOCS), max_listed=10)
        assert (last.now_denied, last.is_last, last.is_complete) == (1, True, True)
        assert last.since < last.reached or last.since == last.reached < last.until
        with pytest.raises(LicetCallError, match="document line 1"):
            list(client.policies.replay("version: 9"))


def test_a_server_explains_each_policy(decided: Served, licet: Licet, tmp_path: Path) -> None:
    assert licet("put", written(tmp_path, WHEN, MFA)).status == 0

    denied = licet("explain", *QUESTION, "--context", "level=2")
    allowed = licet("explain", *QUESTION, "--context", "level=3", "--json")
    unheld = licet("explain", "agent:b", *QUESTION[1:])

    assert (denied.status, allowed.status, unheld.status) == (1, 0, 1)
    lines = [line.lstrip("│├└─ ") for line in denied.out.splitlines()]
    assert lines[:4] == [
        "agent:a read doc:x",
        "DENY POLICY_DENIED: policy level: too low",
        "policies: 2",
        "matched, denied  level  denies; too low",
    ]
    assert lines[4].startswith("no match  mfa  requires multi-factor authentication; ")
    assert lines[5] == "candidate capabilities: 1"
    [explained] = allowed.objects
    assert explained["decision"] == "ALLOW"
    assert explained["explanation"]["policies"][0]["outcome"] == "CONDITION_FALSE"
    assert "policies are not asked: no capability allows it" in unheld.out
    # Each of them is a decision like any other.
    assert eventually(lambda: len(stored_decisions(decided.database)) == 6)


def test_a_draft_is_explained_without_a_server(tmp_path: Path) -> None:
    hours = "name: office, time: {zone: UTC, hours: '09:00-17:00'}"
    draft = str(written(tmp_path, WHEN, hours))
    command = ("policy", "explain", *QUESTION, "--document", draft, "--context", "level=9")

    by_day = run(*command, "--at", "2026-11-23T10:00:00Z")
    at_night = run(*command, "--at", "2026-11-23T20:00:00Z", "--json")

    assert (by_day.status, at_night.status) == (0, 1)
    lines = [line.lstrip("│├└─ ") for line in by_day.out.splitlines()]
    assert lines[1:5] == [
        "ALLOW GRANTED",
        "policies: 2",
        "matched, condition false  level  denies; its condition does not hold",
        "matched, passed  office  denies outside of its hours; has nothing against it",
    ]
    assert at_night.object["reason"] == "OUTSIDE_TIME_WINDOW"
    assert [one["outcome"] for one in at_night.object["policies"]] == ["CONDITION_FALSE", "DENIED"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--context", "mfa"), "--context must be NAME=VALUE"),
        (("--context", "a=1", "--context", "a=2"), "--context names 'a' twice"),
        (("--at", "2026-11-23T10:00:00Z"), "--at goes with --document"),
        (("--document", "nowhere.yaml"), "No such file"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], why: str) -> None:
    finished = run("policy", "explain", *QUESTION, *arguments)

    assert finished.status == 2
    assert why in finished.err


def test_what_is_no_json_is_a_text(tmp_path: Path) -> None:
    draft = str(
        written(tmp_path, 'name: t, when: \'context.t == "NaN" && context.u == "a b"\', deny: both')
    )
    arguments = ("--context", "t=NaN", "--context", "u=a b", "--document", draft)

    assert run("policy", "explain", *QUESTION, *arguments).status == 1
