"""Following the audit log: each event once, in order, without a server."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from licet.cli.following import (
    CLOCKS_DIFFER_BY,
    HOLD_SECONDS,
    LOOK_BACK_SECONDS,
    POLL_SECONDS,
    Follower,
)
from licet.client import AuditEvent

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def event(seconds: float, event_id: str = "") -> AuditEvent:
    return AuditEvent(
        event_id=event_id or f"at {seconds}",
        occurred_at=NOON + timedelta(seconds=seconds),
        event_type="decision",
        actor="caller:anonymous",
        principal="agent:a",
        action="read",
        resource="doc:x",
        capability_id="",
        result="deny",
        reason="NO_CAPABILITY",
        policy_id="",
        session_id="",
        trace_id="",
        revision=0,
        metadata={},
    )


def ids(events: list[AuditEvent]) -> list[str]:
    return [found.event_id for found in events]


def test_an_event_is_given_out_once_its_time_has_come() -> None:
    follower = Follower()
    follower.take([event(1)], 0.0)
    assert follower.ready(HOLD_SECONDS - 0.01) == []
    follower.take([event(1)], HOLD_SECONDS)
    assert ids(follower.ready(HOLD_SECONDS)) == ["at 1"]
    follower.take([event(1)], 10.0)
    assert follower.ready(20.0) == []


def test_an_earlier_event_that_is_stored_later_is_given_out_first() -> None:
    follower = Follower()
    follower.take([event(2)], 0.0)
    follower.take([event(2), event(1)], HOLD_SECONDS - 0.1)
    assert ids(follower.ready(HOLD_SECONDS)) == ["at 1", "at 2"]


def test_a_later_event_does_not_go_out_with_an_earlier_one_before_its_time() -> None:
    follower = Follower()
    follower.take([event(1)], 0.0)
    follower.take([event(2)], 0.3)
    assert ids(follower.ready(HOLD_SECONDS)) == ["at 1"]
    assert ids(follower.ready(0.3 + HOLD_SECONDS)) == ["at 2"]


def test_events_of_one_instant_are_in_the_order_of_their_ids() -> None:
    follower = Follower()
    follower.take([event(1, "b"), event(1, "a")], 0.0)
    assert ids(follower.ready(1.0)) == ["a", "b"]


def test_events_that_are_passed_over_are_never_given_out() -> None:
    follower = Follower()
    follower.pass_over([event(1)])
    follower.take([event(1), event(2)], 0.0)
    assert ids(follower.rest()) == ["at 2"]
    assert follower.rest() == []


def test_a_look_goes_back_behind_where_the_log_was_a_while_ago() -> None:
    follower = Follower()
    assert follower.since is None
    follower.reach(NOON, 0.0)
    assert follower.since == NOON - CLOCKS_DIFFER_BY
    hour_later = NOON + timedelta(hours=1)
    follower.reach(hour_later, 1.0)
    assert follower.since == NOON - CLOCKS_DIFFER_BY
    follower.reach(hour_later, 0.9 + LOOK_BACK_SECONDS)
    assert follower.since == NOON - CLOCKS_DIFFER_BY
    follower.reach(hour_later, 1.0 + LOOK_BACK_SECONDS)
    assert follower.since == hour_later - CLOCKS_DIFFER_BY


def test_what_can_come_again_is_remembered_and_the_rest_is_forgotten() -> None:
    follower = Follower()
    for second in range(1000):
        follower.reach(NOON + timedelta(seconds=second), float(second))
        follower.take([event(second)], float(second))
        follower.ready(float(second))
    assert len(follower._seen) < 20  # noqa: SLF001 - memory does not show from outside


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3, 0.45]))
def test_each_event_is_given_out_once_and_in_order_however_late_it_is_stored(
    seed: int, latest: float
) -> None:
    rng = random.Random(seed)
    happened = sorted(rng.uniform(0, 5) for _ in range(80))
    stored = [(at + rng.uniform(0, latest), event(at)) for at in happened]
    follower = Follower()
    given_out: list[AuditEvent] = []
    now = 0.0
    while now < 7:
        since = follower.since
        visible = [e for at, e in stored if at <= now and (since is None or e.occurred_at >= since)]
        rng.shuffle(visible)
        if visible:
            follower.reach(max(e.occurred_at for e in visible), now)
        follower.take(visible, now)
        given_out += follower.ready(now)
        now += POLL_SECONDS
    assert given_out == [event(at) for at in happened]
