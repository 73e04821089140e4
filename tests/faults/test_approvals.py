"""Approvals when something fails: one use stays one use, and a DENY stays a DENY."""

from __future__ import annotations

import grpc
import pytest

from licet.v1 import decision_pb2 as decisions
from tests.fakes.api import count, refused, rows
from tests.fakes.approvals import (
    ALLOW,
    APPROVED,
    NEEDED,
    QUESTION,
    USED,
    asked,
    get,
    prepared,
    resolve,
)
from tests.fakes.postgres import Database
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.serving import Served

EVENTS = "SELECT count(*) FROM audit.events WHERE event_type = 'approval.used'"

# Lost before the server saw it, or executed with the answer lost.
both = pytest.mark.parametrize("executed", [False, True], ids=["lost", "executed"])


@both
def test_a_use_whose_answer_is_lost_is_asked_for_again_and_allows_once(
    fragile: Served, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    prepared(fragile)
    resolve(fragile.channel, asked(fragile))
    fault = proxy.arm(Fault(b'"approval.used"', forward=executed))

    first = fragile.authorize(*QUESTION)

    assert fault.happened()
    assert first.decision == ALLOW
    assert fragile.authorize(*QUESTION).reason == NEEDED
    assert count(database, EVENTS) == 1


@both
def test_a_use_that_is_not_known_allows_nothing(
    fragile: Served, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    """Nobody tells in time: what was used up stays so, and what was not can be used later."""
    prepared(fragile)
    approval_id = asked(fragile)
    resolve(fragile.channel, approval_id)
    fault = proxy.arm(Fault(b'"approval.used"', forward=executed, then=proxy.go_down))

    failed = refused(lambda: fragile.authorize(*QUESTION))

    assert fault.happened()
    assert failed.code is grpc.StatusCode.UNAVAILABLE
    assert "not known whether the approval is used up" in failed.message
    proxy.come_back()
    assert count(database, EVENTS) == executed
    state = get_patiently(fragile, approval_id)
    assert state == (USED if executed else APPROVED)
    answer = ask_patiently(fragile)
    assert (answer == ALLOW) is not executed
    assert count(database, EVENTS) == 1


def get_patiently(served: Served, approval_id: str) -> int:
    """Read an approval when the database is back."""
    while True:
        try:
            return get(served.channel, approval_id).state
        except grpc.RpcError as exc:
            assert exc.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - the others are no failure


def ask_patiently(served: Served) -> int:
    """Ask when the database is back."""
    while True:
        try:
            return served.authorize(*QUESTION).decision
        except grpc.RpcError as exc:
            assert exc.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - the others are no failure


@both
def test_an_approval_whose_answer_is_lost_is_given_once(
    fragile: Served, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    prepared(fragile)
    asking = proxy.arm(Fault(b'"approval.requested"', forward=executed))
    approval_id = asked(fragile)
    giving = proxy.arm(Fault(b'"approval.approved"', forward=executed))
    done = resolve(fragile.channel, approval_id)

    assert asking.happened()
    assert giving.happened()
    assert done.approval.state == APPROVED
    assert fragile.authorize(*QUESTION).decision == ALLOW
    assert rows(
        database,
        "SELECT event_type, count(*) FROM audit.events WHERE event_type ~ '^approval'"
        " GROUP BY 1 ORDER BY 1",
    ) == [("approval.approved", 1), ("approval.requested", 1), ("approval.used", 1)]


def test_without_the_database_a_denial_is_one_without_an_approval(
    fragile: Served, proxy: PostgresProxy
) -> None:
    prepared(fragile)
    fragile.authorize("agent:a", "read", "doc:x")  # what it holds is in memory
    proxy.arm(Fault(b"find_approval", forward=False, then=proxy.go_down))

    answer = fragile.authorize(*QUESTION)

    assert (answer.decision, answer.reason) == (decisions.DECISION_DENY, NEEDED)
    assert answer.approval_id == ""
    assert answer.detail.endswith("; no approval can be asked for now")
    proxy.come_back()
