"""Changes that wait for a replica that is stopped: they hold nobody else up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_ALLOW
from tests.fakes.api import capability_count, count, refused
from tests.fakes.postgres import Database, eventually
from tests.fakes.replicas import stopped_replica
from tests.fakes.serving import Served, serving

pytestmark = pytest.mark.usefixtures("both_ways")


def grant(served: Served, number: int) -> str:
    request = pb.GrantRequest(principal=f"agent:{number}", actions=["read"], resource="doc:x")
    return served.stub.Grant(request, timeout=60).capability.id


def test_decisions_go_on_while_many_changes_wait(database: Database) -> None:
    waiting = 100
    with serving(database, threads=4) as served, ThreadPoolExecutor(waiting) as callers:
        grant(served, 0)
        with stopped_replica(database):
            calls = [callers.submit(grant, served, number) for number in range(1, waiting + 1)]
            assert eventually(lambda: capability_count(database) == waiting + 1, 30)
            for _ in range(20):
                # From memory, and read from the database.
                assert served.authorize("agent:0", "read", "doc:x").decision == DECISION_ALLOW
            for number in range(1, waiting + 1, 10):
                principal = f"agent:{number}"
                assert served.authorize(principal, "read", "doc:x").decision == DECISION_ALLOW
            assert not any(call.done() for call in calls)
        assert len({call.result(60) for call in calls}) == waiting
    # Who waits together has changed things together.
    assert count(database, "SELECT max(revision) FROM licet.changes") < waiting / 2


def test_one_more_than_there_are_places_for_is_told_to_come_again(database: Database) -> None:
    with serving(database, max_mutations=3) as served, ThreadPoolExecutor(3) as callers:
        with stopped_replica(database):
            calls = [callers.submit(grant, served, number) for number in range(3)]
            assert eventually(lambda: capability_count(database) == 3, 30)
            for call in (
                lambda: grant(served, 9),
                lambda: served.stub.Revoke(pb.RevokeRequest(capability_id="x"), timeout=20),
            ):
                full = refused(call)
                assert (full.code, full.retry) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
                assert "changes" in full.message
        for done in calls:
            assert done.result(60)
        assert grant(served, 9)
    assert capability_count(database) == 4


@pytest.mark.parametrize("how", ["abandoned", "refused"])
def test_a_place_is_given_back_however_a_change_ends(database: Database, how: str) -> None:
    with serving(database, max_mutations=1) as served:
        if how == "abandoned":
            with stopped_replica(database):
                request = pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:x")
                late = refused(lambda: served.stub.Grant(request, timeout=0.5))
                assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            unknown = pb.RevokeRequest(capability_id="0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f")
            for _ in range(3):
                missing = refused(lambda: served.stub.Revoke(unknown, timeout=20))
                assert missing.code is grpc.StatusCode.NOT_FOUND
        assert eventually(lambda: _is_granted(served))


def _is_granted(served: Served) -> bool:
    try:
        return bool(grant(served, 1))
    except grpc.RpcError:
        return False
