"""Policies when something fails: nothing is decided by a set that does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import grpc
import pytest
from grpc_health.v1 import health_pb2

from licet.client.transport import health_check
from licet.v1 import decision_pb2 as decisions
from licet.v1 import policy_pb2 as pb
from licet.v1.policy_pb2_grpc import PolicyServiceStub
from tests.fakes.api import count, refused, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.serving import Served, serving
from tests.unit.policies import document

DENY = document("name: no-docs, match: {resources: ['doc:**']}, deny: not today")

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# Lost before the server saw it, or executed with the answer lost.
both = pytest.mark.parametrize("executed", [False, True], ids=["lost", "executed"])


@pytest.fixture
def stub(fragile: Served) -> PolicyServiceStub:
    return PolicyServiceStub(fragile.channel)


def put(stub: PolicyServiceStub, text: str) -> pb.PutPolicySetResponse:
    return stub.PutPolicySet(pb.PutPolicySetRequest(document=text), timeout=20)


@both
def test_a_set_whose_answer_is_lost_is_put_exactly_once(
    fragile: Served,
    stub: PolicyServiceStub,
    proxy: PostgresProxy,
    database: Database,
    executed: bool,
) -> None:
    fragile.grant("agent:a", "read", "doc:**")
    fault = proxy.arm(Fault(b'"policy.put"', forward=executed))

    done = put(stub, DENY)

    assert fault.happened()
    assert fragile.authorize("agent:a", "read", "doc:x").policy_id == "no-docs"
    assert rows(database, "SELECT version, put_revision FROM licet.policy_sets") == [
        (1, done.revision)
    ]
    recorded = "SELECT count(*) FROM audit.events WHERE event_type = 'policy.put'"
    assert count(database, recorded) == 1


@pytest.fixture
def two(database: Database) -> Iterator[list[Served]]:
    with serving(database) as one, serving(database) as other:
        yield [one, other]


def test_a_server_that_cannot_use_the_set_decides_nothing(
    two: list[Served], database: Database
) -> None:
    """A later release has put what this one does not understand."""
    one, other = two
    one.grant("agent:a", "read", "doc:**")
    with database.connect() as connection:
        connection.execute(
            "SELECT licet.make_admin_change(jsonb_build_object('kind', 'policy.put', 'source',"
            " %s::text, 'comment', '', 'request_id', 'r', 'digest', repeat('00', 32),"
            " 'actor', 'user:a', 'trace_id', '', 'facts', '{}'::jsonb))",
            ["version: 2\nteleport: true\n"],
        )
    # Without waiting for the replicas, as a server would.
    put_back = PolicyServiceStub(other.channel)
    for served in two:
        failed = refused(lambda served=served: _asked(served))  # type: ignore[misc]
        assert failed.code is grpc.StatusCode.UNAVAILABLE
        assert "policy set 1 cannot be used by this server" in failed.message

    assert eventually(lambda: _health(one) == NOT_SERVING)

    put(put_back, DENY)

    assert [s.authorize("agent:a", "read", "doc:x").policy_id for s in two] == ["no-docs"] * 2


def _health(served: Served) -> int:
    check = health_check(served.channel)
    return check(health_pb2.HealthCheckRequest(), timeout=10).status


def _asked(served: Served) -> None:
    # Nothing tells when the change has come, but an ALLOW is not the end of it.
    while served.authorize("agent:a", "read", "doc:x").decision == decisions.DECISION_ALLOW:
        pass


def test_after_a_set_was_put_no_decision_is_by_the_old_one(two: list[Served]) -> None:
    for served in two:
        served.authorize("agent:a", "read", "doc:x")
    two[0].grant("agent:a", "read", "doc:**")
    sets = {number: _numbered(number) for number in range(1, 9)}
    latest = [0]
    over = Event()

    def ask(served: Served) -> int:
        stale = 0
        while not over.is_set():
            held = latest[0]
            answer = served.authorize("agent:a", "read", "doc:x")
            # The policy is named after the version that it is of.
            stale += int(answer.policy_id.removeprefix("v") or 0) < held
        return stale

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask, two[number % 2]) for number in range(4)]
        try:
            for number, text in sets.items():
                done = put(PolicyServiceStub(two[number % 2].channel), text)
                assert done.version == number
                latest[0] = number
        finally:
            over.set()
        assert [asked.result(10) for asked in asking] == [0] * 4


def _numbered(number: int) -> str:
    return document(f"name: v{number}, deny: 'number {number}'")
