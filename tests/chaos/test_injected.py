"""Faults inside a worker do what they say, and the margin is what protects against clock rates."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from time import monotonic
from typing import Final

import grpc
import pytest

from licet.replica.lease import boottime
from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_ALLOW
from tests.chaos.fleet import Worker, running
from tests.chaos.history import Answer, Call, Operation, check
from tests.chaos.injected import AdjustableClock
from tests.chaos.lanes import RATES
from tests.chaos.proxy import SlowProxy
from tests.fakes.postgres import Database, eventually

_LEASE: Final = 2.0
_ASK: Final = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")


def grant(worker: Worker) -> str:
    request = pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:x")
    return worker.stub.Grant(request, timeout=30).capability.id


def revoke(worker: Worker, capability: str) -> pb.RevokeResponse:
    return worker.stub.Revoke(pb.RevokeRequest(capability_id=capability), timeout=30)


def ask(worker: Worker) -> Answer:
    try:
        decision = worker.stub.Authorize(_ASK, timeout=1).decision
    except grpc.RpcError:
        return Answer.FAILED
    return Answer.ALLOW if decision == DECISION_ALLOW else Answer.DENY


def recorded(operation: Operation, call: Callable[[], Answer]) -> Call:
    start = monotonic()
    answer = call()
    return Call(operation, "c", start, monotonic(), answer)


def test_a_clock_changes_its_rate_and_never_steps() -> None:
    clock = AdjustableClock()
    assert abs(clock() - boottime()) < 1
    for rate in (10.0, 0.001, 1.0):
        before = clock()
        clock.run_at(rate)
        assert 0 <= clock() - before < 5
        true, fake = boottime(), clock()
        Event().wait(0.1)
        passed = clock() - fake
        assert passed >= 0.1 * rate * 0.9
        assert passed <= (boottime() - true) * rate


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("revoker", "holder", "is_within"),
    [
        pytest.param(RATES[1], RATES[0], True, id="within the margin"),
        pytest.param(1.0, 0.1, False, id="the holder's is slow beyond it"),
        pytest.param(10.0, 1.0, False, id="the revoker's is fast beyond it"),
    ],
)
def test_the_checker_sees_clocks_that_differ_by_more_than_the_margin(
    database: Database, *, revoker: float, holder: float, is_within: bool
) -> None:
    lease = 10 * _LEASE if revoker > RATES[1] else _LEASE
    with SlowProxy(database.url) as proxy:
        one = Worker(database.url, lease_seconds=lease)
        other = Worker(proxy.url, lease_seconds=lease)
        with running(one, other):
            one.tell(f"clock {revoker}")
            other.tell(f"clock {holder}")
            ids: list[str] = []

            def granted() -> Answer:
                ids.append(grant(one))
                return Answer.OK

            def revoked() -> Answer:
                assert revoke(one, ids[0]).replicas_fenced == 1
                return Answer.OK

            calls = [recorded(Operation.GRANT, granted)]
            calls.append(recorded(Operation.AUTHORIZE, lambda: ask(other)))
            assert calls[-1].answer is Answer.ALLOW
            proxy.stall()
            calls.append(recorded(Operation.REVOKE, revoked))
            # What it remembers is the old; it may not be asked any more.
            calls.append(recorded(Operation.AUTHORIZE, lambda: ask(other)))
            proxy.heal()
    assert (check(calls) == []) is is_within


def test_a_starved_replica_is_fenced_and_forgets(database: Database) -> None:
    with (
        Worker(database.url, lease_seconds=_LEASE) as one,
        Worker(database.url, lease_seconds=_LEASE) as starved,
    ):
        capability = grant(one)
        assert ask(starved) is Answer.ALLOW
        starved.tell("starve")
        assert eventually(lambda: revoke_of_another(one) == 1, 30)
        # It serves, without its memory.
        revoke(one, capability)
        assert ask(starved) is Answer.DENY
        starved.tell("feed")
        assert eventually(lambda: revoke_of_another(one, confirmed=True) == 2, 30)


def revoke_of_another(worker: Worker, *, confirmed: bool = False) -> int:
    """Revoke something, and return how many replicas were fenced for it, or confirmed it."""
    request = pb.GrantRequest(principal="agent:b", actions=["read"], resource="doc:x")
    granted = worker.stub.Grant(request, timeout=30)
    done = revoke(worker, granted.capability.id)
    fenced = done.replicas_fenced + (done.replicas_confirmed == 1)
    return done.replicas_confirmed if confirmed else fenced


def test_who_hears_of_no_change_learns_of_it_by_renewing(database: Database) -> None:
    with SlowProxy(database.url) as proxy:
        one = Worker(database.url, lease_seconds=_LEASE)
        deaf = Worker(proxy.url, lease_seconds=_LEASE)
        with running(one, deaf):
            proxy.deafen()
            capability = grant(one)
            assert ask(deaf) is Answer.ALLOW
            done = revoke(one, capability)
            assert (done.replicas_confirmed, done.replicas_fenced) == (2, 0)
            assert ask(deaf) is Answer.DENY
            assert eventually(lambda: proxy.swallowed > 0)
