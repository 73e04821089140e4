"""The database's clock is set: nothing is lost, and the log says where its times jump."""

from __future__ import annotations

from pathlib import Path

import pytest

from licet.domain.instant import Instant
from licet.replica.clock import DatabaseClock
from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.served_log import assert_on_record
from tests.fakes.serving import Served, serving

SECOND = 1_000_000
DAY = 86_400 * SECOND
TEN_YEARS = 3653 * DAY
OWN = (
    "SELECT event_type, (extract(epoch FROM occurred_at) * 1000000)::bigint,"
    " (metadata ->> 'microseconds')::bigint FROM audit.events"
    " WHERE event_type IN ('decision', 'audit.clock_step') ORDER BY event_id"
)


class Shift:
    """A database's clock as whoever sets it wants it to be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by = 0
        self.steps = 0
        sample = DatabaseClock.sample

        def shifted(clock: DatabaseClock, before: float, after: float, instant: Instant) -> None:
            sample(clock, before, after, Instant(instant + self.by))
            self.steps = clock.steps

        monkeypatch.setattr(DatabaseClock, "sample", shifted)


@pytest.fixture
def shift(monkeypatch: pytest.MonkeyPatch) -> Shift:
    return Shift(monkeypatch)


def _decide(served: Served) -> list[str]:
    request = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
    batch = pb.BatchAuthorizeRequest(requests=[request] * 5)
    many = [
        answer.decision_id for answer in served.stub.BatchAuthorize(batch, timeout=10).responses
    ]
    return [*many, served.authorize("agent:a", "read", "doc:x").decision_id]


@pytest.mark.parametrize("moved", [TEN_YEARS, -DAY], ids=["ten years on", "a day back"])
def test_a_clock_that_is_set_loses_nothing_and_is_on_record(
    database: Database, tmp_path: Path, shift: Shift, moved: int
) -> None:
    with serving(database, state_dir=tmp_path, lease_seconds=0.5) as served:
        answered = _decide(served)
        for number, by in enumerate((moved, 0), 1):
            shift.by = by
            while shift.steps < number:
                answered += _decide(served)
            answered += _decide(served)
    assert_on_record(database, tmp_path, answered, exactly=True)
    found = rows(database, OWN)
    steps = [by for kind, _, by in found if kind == "audit.clock_step"]
    assert [round(by / SECOND) for by in steps] == [round(moved / SECOND), -round(moved / SECOND)]
    assert _jumps_that_were_not_announced(found) == 0


def _jumps_that_were_not_announced(found: list[tuple[str, int, int | None]]) -> int:
    """Count decisions dated hours from the one before without an event in between that says so."""
    last, announced, jumps = found[0][1], False, 0
    for kind, at, _ in found:
        if kind == "audit.clock_step":
            announced = True
            continue
        jumps += abs(at - last) > 3600 * SECOND and not announced
        last, announced = at, False
    return jumps


def test_a_clock_that_is_set_while_nobody_asks_is_on_record(
    database: Database, tmp_path: Path, shift: Shift
) -> None:
    with serving(database, state_dir=tmp_path, lease_seconds=0.5):
        shift.by = -DAY
        assert eventually(lambda: len(rows(database, OWN)) == 1)
    [(kind, _, by)] = rows(database, OWN)
    assert (kind, round(by / SECOND)) == ("audit.clock_step", -86_400)
    assert_on_record(database, tmp_path, [])
