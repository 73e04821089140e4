"""Several replicas on one database: what one of them changes holds on all when the call returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from time import monotonic

import grpc
import pytest

from licet.app.ports import Deadline, Grant, Revoke, RevokeTarget
from licet.domain.canonical_json import JsonObject
from licet.domain.capability import Terms
from licet.domain.names import Action, Caller, CapabilityId, Principal
from licet.domain.pattern import ResourcePattern
from licet.replica.lease import LEASE_MARGIN
from licet.storage.mutations import PostgresMutations
from licet.storage.pool import Database as PooledDatabase
from licet.storage.pool import PoolLimits
from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from licet.v1.decision_pb2 import DECISION_ALLOW, DECISION_DENY
from tests.chaos.fleet import Worker
from tests.chaos.proxy import SlowProxy
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Failure, Served, failure, serving

LONG_LEASE = 10.0
"""Longer than any test: a call that returns has not waited for a lease to end."""


@contextmanager
def fleet(database: Database, size: int, **settings: object) -> Iterator[list[Served]]:
    """Provide several replicas of one database."""
    with ExitStack() as stack:
        yield [stack.enter_context(serving(database, **settings)) for _ in range(size)]


@pytest.fixture
def three(database: Database) -> Iterator[list[Served]]:
    with fleet(database, 3, lease_seconds=LONG_LEASE) as replicas:
        yield replicas


def answers(replicas: list[Served], principal: str) -> list[int]:
    return [replica.authorize(principal, "read", "doc:x").decision for replica in replicas]


def revoke(stub: AuthorizationServiceStub, capability: str) -> pb.RevokeResponse:
    return stub.Revoke(pb.RevokeRequest(capability_id=capability), timeout=30)


def refused(call: Callable[[], object]) -> Failure:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return failure(raised.value)


def registered(database: Database) -> int:
    with database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM licet.replicas").fetchone()
    return row[0] if row else 0


def test_a_grant_on_one_is_honoured_by_all_at_once(three: list[Served]) -> None:
    for number in range(30):
        principal = f"agent:{number}"
        # That it holds nothing is in every memory.
        assert answers(three, principal) == [DECISION_DENY] * 3
        three[number % 3].grant(principal, "read", "doc:x")
        assert answers(three, principal) == [DECISION_ALLOW] * 3


def test_a_revocation_on_one_is_denied_by_all_at_once(three: list[Served]) -> None:
    for number in range(30):
        capability = three[0].grant("agent:a", "read", "doc:x")
        assert answers(three, "agent:a") == [DECISION_ALLOW] * 3
        done = revoke(three[number % 3].stub, capability)
        assert answers(three, "agent:a") == [DECISION_DENY] * 3
        assert (done.replicas_confirmed, done.replicas_fenced) == (3, 0)


def test_the_delegations_of_a_revoked_capability_are_denied_by_all_at_once(
    three: list[Served],
) -> None:
    for number in range(10):
        holders = [f"agent:{number}-{depth}" for depth in range(4)]
        root = parent = three[0].grant(holders[0], "read", "doc:x", delegation_depth=5)
        for depth, holder in enumerate(holders[1:], start=1):
            parent = three[depth % 3].grant(
                holder, "read", "doc:x", parent_capability_id=parent, delegation_depth=5 - depth
            )
        for holder in holders:
            assert answers(three, holder) == [DECISION_ALLOW] * 3
        assert revoke(three[number % 3].stub, root).ended_count == 4
        for holder in holders:
            assert answers(three, holder) == [DECISION_DENY] * 3


def test_a_revocation_by_filter_is_denied_by_all_at_once(three: list[Served]) -> None:
    for number in range(10):
        for replica in three:
            replica.grant("agent:a", "read", "doc:x")
        assert answers(three, "agent:a") == [DECISION_ALLOW] * 3
        wanted = pb.RevokeFilter(principal="agent:a")
        done = three[number % 3].stub.Revoke(pb.RevokeRequest(filter=wanted), timeout=30)
        assert answers(three, "agent:a") == [DECISION_DENY] * 3
        assert (done.ended_count, done.replicas_confirmed) == (3, 3)


def test_what_ended_in_the_same_batch_is_waited_for(
    database: Database, three: list[Served]
) -> None:
    three[0].grant("agent:a", "read", "doc:x")
    with closing(PooledDatabase(database.url, PoolLimits())) as pool:
        pool.open(10)
        by_filter = [revocation(f"request-{number}") for number in range(2)]
        first, second = PostgresMutations(pool).apply(by_filter, Deadline(lambda: None))
    assert (first.outcome["count"], second.outcome["count"]) == (1, 0)
    # The second ended nothing, and promises no less: what it names is denied everywhere.
    assert second.revision == first.revision


def test_what_was_granted_in_the_same_batch_is_revoked_with_it(database: Database) -> None:
    capability_id = CapabilityId("01900000-0000-7000-8000-000000000001")
    terms = Terms(
        principal=Principal("agent:a"),
        actions=(Action("read"),),
        resource=ResourcePattern("doc:x"),
        not_before=None,
        expires_at=None,
        delegation_depth=0,
        session_id="",
        metadata=JsonObject("{}"),
    )
    grant = Grant(
        request_id="request-grant",
        digest=bytes(32),
        capability_id=capability_id,
        terms=terms,
        parent_id=None,
        actor=Caller("anonymous"),
        trace_id="",
        facts=JsonObject("{}"),
    )
    with closing(PooledDatabase(database.url, PoolLimits())) as pool:
        pool.open(10)
        batch: list[Grant | Revoke] = [grant, revocation("request-revoke")]
        granted, revoked = PostgresMutations(pool).apply(batch, Deadline(lambda: None))
    assert (granted.status, revoked.status) == ("done", "done")
    assert revoked.outcome["ids"] == [capability_id]
    assert granted.revision == revoked.revision


def revocation(request_id: str) -> Revoke:
    return Revoke(
        request_id=request_id,
        digest=bytes(32),
        target=RevokeTarget(principal=Principal("agent:a")),
        reason="",
        actor=Caller("anonymous"),
        trace_id="",
        facts=JsonObject("{}"),
    )


def test_decisions_name_a_revision_that_never_goes_back(three: list[Served]) -> None:
    latest = 0
    for number in range(10):
        capability = three[number % 3].grant("agent:a", "read", "doc:x")
        revision = revoke(three[(number + 1) % 3].stub, capability).revision
        seen = [r.authorize("agent:a", "read", "doc:x").revision for r in three]
        assert min(seen) >= revision > latest
        latest = revision


def test_a_replica_that_stopped_cleanly_is_not_waited_for(database: Database) -> None:
    with fleet(database, 2, lease_seconds=LONG_LEASE) as (first, second):
        capability = first.grant("agent:a", "read", "doc:x")
        assert registered(database) == 2
        second.licet.stop()
        assert registered(database) == 1
        began = monotonic()
        done = revoke(first.stub, capability)
        assert monotonic() - began < LONG_LEASE / 2
        assert (done.replicas_confirmed, done.replicas_fenced) == (1, 0)


def test_a_frozen_replica_is_fenced_and_serves_correctly_when_it_goes_on(
    database: Database,
) -> None:
    lease = 1.0
    with (
        serving(database, lease_seconds=lease) as served,
        Worker(database.url, lease_seconds=lease) as frozen,
    ):
        ended = served.grant("agent:a", "read", "doc:x")
        lasting = served.grant("agent:b", "read", "doc:x")
        ask = [
            pb.AuthorizeRequest(principal=principal, action="read", resource="doc:x")
            for principal in ("agent:a", "agent:b")
        ]
        for request in ask:
            assert frozen.stub.Authorize(request, timeout=10).decision == DECISION_ALLOW
        frozen.pause()
        began = monotonic()
        done = revoke(served.stub, ended)
        assert monotonic() - began < lease * LEASE_MARGIN + 5
        assert (done.replicas_confirmed, done.replicas_fenced) == (1, 1)
        assert registered(database) == 1
        # A request that waits in its socket while it is frozen has started after the revocation.
        waiting = [frozen.stub.Authorize.future(request, timeout=30) for request in ask]
        frozen.resume()
        decisions = [call.result() for call in waiting]
        assert [d.decision for d in decisions] == [DECISION_DENY, DECISION_ALLOW]
        assert decisions[1].capability_id == lasting
        # It is a replica again, with another entry, and is told of changes.
        assert eventually(lambda: registered(database) == 2)
        done = revoke(frozen.stub, lasting)
        assert (done.replicas_confirmed, done.replicas_fenced) == (2, 0)
        assert frozen.stub.Authorize(ask[1], timeout=10).decision == DECISION_DENY


def test_a_killed_replica_is_waited_for_once(database: Database) -> None:
    lease = 1.0
    with serving(database, lease_seconds=lease) as served:
        with Worker(database.url, lease_seconds=lease):
            first = served.grant("agent:a", "read", "doc:x")
            second = served.grant("agent:b", "read", "doc:x")
        assert registered(database) == 2
        assert revoke(served.stub, first).replicas_fenced == 1
        assert registered(database) == 1
        done = revoke(served.stub, second)
        assert (done.replicas_confirmed, done.replicas_fenced) == (1, 0)


def test_a_deadline_before_the_last_confirmation_says_that_the_change_is_committed(
    database: Database,
) -> None:
    with (
        serving(database, lease_seconds=LONG_LEASE) as served,
        Worker(database.url, lease_seconds=LONG_LEASE) as frozen,
    ):
        capability = served.grant("agent:a", "read", "doc:x")
        frozen.pause()
        request = pb.RevokeRequest(capability_id=capability)
        late = refused(lambda: served.stub.Revoke(request, timeout=5))
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert late.reason == "UNCONFIRMED"
        committed = pb.GetCapabilityRequest(capability_id=capability)
        found = served.stub.GetCapability(committed, timeout=10).capability
        assert found.HasField("ended_at")
        frozen.resume()
        # To ask again is to wait for the same revision.
        done = revoke(served.stub, capability)
        assert done.already_ended
        assert (done.replicas_confirmed, done.replicas_fenced) == (2, 0)


def test_revoking_what_another_is_revoking_waits_as_long(database: Database) -> None:
    lease = 2.0
    with (
        fleet(database, 2, lease_seconds=lease) as replicas,
        Worker(database.url, lease_seconds=lease) as frozen,
        ThreadPoolExecutor(2) as callers,
    ):
        capability = replicas[0].grant("agent:a", "read", "doc:x")
        ask = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
        assert frozen.stub.Authorize(ask, timeout=10).decision == DECISION_ALLOW
        frozen.pause()
        calls = [callers.submit(revoke, replica.stub, capability) for replica in replicas]
        done = [call.result(30) for call in calls]
        assert sorted(d.already_ended for d in done) == [False, True]
        assert done[0].revision == done[1].revision
        # Both returned when it was shut out, and one of them did it.
        assert registered(database) == 2
        assert sum(d.replicas_fenced for d in done) in {1, 2}


def test_without_a_database_memory_answers_until_the_lease_ends(database: Database) -> None:
    lease = 3.0
    with (
        SlowProxy(database.url) as proxy,
        serving(database) as other,
        serving(Database(database.name, proxy.url), lease_seconds=lease, drain_seconds=0) as alone,
    ):
        other.grant("agent:a", "read", "doc:x")
        assert alone.authorize("agent:a", "read", "doc:x").decision == DECISION_ALLOW
        proxy.go_down()
        began = monotonic()
        answered, unavailable = 0, False
        while not unavailable and monotonic() - began < 30:
            asked = monotonic()
            try:
                found = alone.authorize("agent:a", "read", "doc:x").decision
            except grpc.RpcError as error:
                unavailable = failure(error).code is grpc.StatusCode.UNAVAILABLE
                assert unavailable
            else:
                assert found == DECISION_ALLOW
                # Never longer than the lease, which was renewed before the database went.
                assert asked - began <= lease
                answered += 1
        assert unavailable
        assert answered > 0
        assert monotonic() - began < lease * LEASE_MARGIN + 5
        proxy.heal()
        assert eventually(lambda: _answers(alone, "agent:a"))


def _answers(served: Served, principal: str) -> bool:
    try:
        return served.authorize(principal, "read", "doc:x").decision == DECISION_ALLOW
    except grpc.RpcError:
        return False
