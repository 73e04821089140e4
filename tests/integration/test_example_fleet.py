"""The example fleet, as people run it: a program of its own against a served licet."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from examples.fleet.day import a_day
from examples.fleet.shape import TEAMS, fleet
from licet.client import AuditEvent, Client
from licet.domain.pattern import contains, resource_pattern
from tests.fakes.serving import Served

ROOT = Path(__file__).parents[2]

REASONS = ("NO_CAPABILITY", "CAPABILITY_EXPIRED", "CAPABILITY_REVOKED", "NOT_YET_VALID")


def run_example(*arguments: str) -> str:
    """Run the example to its end and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.fleet", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def recorded(served: Served, printed: str) -> list[AuditEvent]:
    """Return the run's events, read from the audit log by its trace."""
    trace = re.search(r"trace (\S+)", printed)
    assert trace is not None
    with Client(served.address) as licet:
        return list(licet.audit(trace_id=trace.group(1)))


def decisions_in(printed: str) -> Counter[tuple[str, str]]:
    """Return the counts of the table of decisions, by decision and reason."""
    rows = re.findall(r"^ +(ALLOW|DENY) +([A-Z_]+) +([\d,]+)", printed, re.MULTILINE)
    return Counter({(d.lower(), r): int(n.replace(",", "")) for d, r, n in rows})


def decisions_of(events: list[AuditEvent]) -> Counter[tuple[str, str]]:
    return Counter(
        (event.result, event.reason or "GRANTED")
        for event in events
        if event.event_type == "decision"
    )


def changes_in(printed: str) -> Counter[tuple[str, str]]:
    """Return the counts of the table of what is on record, without decisions."""
    rows = re.findall(
        r"^ +(grant|delegate|revoke) +(done|refused) +([\d,]+)", printed, re.MULTILINE
    )
    return Counter({(kind, result): int(n.replace(",", "")) for kind, result, n in rows})


def changes_of(events: list[AuditEvent]) -> Counter[tuple[str, str]]:
    return Counter(
        (event.event_type, event.result) for event in events if event.event_type != "decision"
    )


@pytest.mark.parametrize(
    ("teams", "hour_seconds"),
    [
        pytest.param(1, "0.1", id="one team"),
        # A few thousand changes, one after the other, on a machine that may be busy.
        pytest.param(len(TEAMS), "0.15", id="the whole fleet", marks=pytest.mark.timeout(240)),
    ],
)
def test_what_the_report_says_is_what_the_audit_log_has(
    served: Served, teams: int, hour_seconds: str
) -> None:
    printed = run_example(
        "--address", served.address, "--teams", str(teams), "--hour-seconds", hour_seconds
    )
    events = recorded(served, printed)

    decisions = decisions_in(printed)
    assert decisions == decisions_of(events)
    assert decisions.total() == len(a_day(fleet(teams), 7, 500 * teams).asked)
    assert all(decisions["deny", reason] for reason in REASONS)
    assert changes_in(printed) == changes_of(events)
    granted = changes_of(events)["grant", "done"] + changes_of(events)["delegate", "done"]
    assert granted == len(fleet(teams).rights) + 1, "and one was lent during an incident"


def test_the_compromised_agent_and_those_it_delegated_to_are_cut_off(served: Served) -> None:
    printed = run_example("--address", served.address, "--teams", "1", "--hour-seconds", "0.05")
    events = recorded(served, printed)
    compromised = "agent:payments-settlements-operator"
    ended = {
        (event.principal, event.reason): event.revision
        for event in events
        if event.metadata.get("target") == {"principal": compromised}
    }
    sub_agent = "agent:payments-settlements-drafter"
    assert set(ended) == {(compromised, ""), (sub_agent, "CASCADE")}
    [cut] = set(ended.values())
    allowed_since = [
        event
        for event in events
        if event.event_type == "decision"
        and event.principal in {compromised, sub_agent}
        and event.result == "allow"
        and event.revision >= cut
    ]
    assert allowed_since == []
    assert re.search(rf"{sub_agent} +after it +0 +[1-9]", printed)


def test_the_example_starts_and_stops_a_server_of_its_own() -> None:
    printed = run_example("--teams", "1", "--decisions", "100", "--hour-seconds", "0.02")
    assert "On record" in printed


def test_a_licet_that_does_not_answer_is_told_in_a_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.fleet", "--address", "127.0.0.1:1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("UNAVAILABLE: ")
    assert "Traceback" not in done.stderr


def test_the_fleet_has_the_size_of_real_work() -> None:
    whole = fleet(len(TEAMS))
    assert len(whole.principals) == len(set(whole.principals)) > 300
    assert len(whole.rights) > 3000
    assert {right.level for right in whole.rights} == {0, 1, 2, 3}


def test_every_delegation_of_the_fleet_is_inside_its_parent() -> None:
    by_key = {right.key: right for right in fleet(len(TEAMS)).rights}
    for right in by_key.values():
        if right.parent:
            parent = by_key[right.parent]
            assert contains(resource_pattern(parent.resource), resource_pattern(right.resource))
            assert set(right.actions.split()) <= set(parent.actions.split())
            assert right.depth < parent.depth


def test_the_same_seed_is_the_same_day() -> None:
    few = fleet(2)
    assert a_day(few, 3, 200) == a_day(few, 3, 200)
    assert a_day(few, 3, 200) != a_day(few, 4, 200)
