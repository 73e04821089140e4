"""Changes of agents whose statement or whose answer is lost, and heartbeats without a database."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from licet.v1 import agents_pb2 as pb
from licet.v1 import identity_pb2
from tests.fakes.agents import make_agent, make_bootstrap, register
from tests.fakes.api import count, refused, rows
from tests.fakes.callers import As, calling, holding
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.serving import Served, serving

WHO = identity_pb2.GetCallerRequest()
BEAT = pb.AgentHeartbeatRequest()

# Lost before the server saw it, or executed with the answer lost.
both = pytest.mark.parametrize("executed", [False, True], ids=["lost", "executed"])


@pytest.fixture
def admin(fragile: Served) -> Iterator[As]:
    """Provide the services as the admin calls them."""
    with calling(fragile.address) as services:
        yield services


def name_of(served: Served, token: str) -> str:
    with holding(served.address, token) as caller:
        return caller.identity.GetCaller(WHO, timeout=10).caller


@both
def test_a_registration_whose_answer_is_lost_uses_the_token_once(
    fragile: Served, admin: As, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    boot = make_bootstrap(admin, max_uses=1)
    fault = proxy.arm(Fault(b'"agent.registered"', forward=executed))
    # Also where it was the last use: the server repeats it, nobody is let in once more.
    given = register(fragile.address, boot.token, "one")
    assert fault.happened()
    assert name_of(fragile, given.token) == "agent:one"
    assert rows(database, "SELECT uses FROM licet.bootstrap_tokens") == [(1,)]
    assert rows(database, "SELECT id FROM licet.agent_tokens") == [(given.token_id,)]
    registered = "SELECT count(*) FROM audit.events WHERE event_type = 'agent.registered'"
    assert count(database, registered) == 1
    with holding(fragile.address, boot.token) as bootstrap:
        again = refused(
            lambda: bootstrap.identity.RegisterAgent(
                pb.RegisterAgentRequest(name="two", hostname="two"), timeout=10
            )
        )
    assert again.code is grpc.StatusCode.UNAUTHENTICATED


@both
def test_a_rotation_whose_answer_is_lost_makes_one_token(
    fragile: Served, admin: As, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    first = make_agent(fragile.address, admin, "one")
    fault = proxy.arm(Fault(b'"agent.rotated"', forward=executed))
    with holding(fragile.address, first.token) as agent:
        second = agent.identity.RotateAgentToken(pb.RotateAgentTokenRequest(), timeout=10)
    assert fault.happened()
    assert name_of(fragile, second.token) == "agent:one"
    ids = rows(database, "SELECT id FROM licet.agent_tokens ORDER BY created_revision")
    assert ids == [(first.token_id,), (second.token_id,)]


@both
def test_a_deactivation_whose_answer_is_lost_holds_when_it_returns(
    fragile: Served, admin: As, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    given = make_agent(fragile.address, admin, "one")
    with holding(fragile.address, given.token) as agent:
        agent.identity.GetCaller(WHO, timeout=10)
        fault = proxy.arm(Fault(b'"agent.deactivated"', forward=executed))
        request = pb.DeactivateAgentRequest(name="one")
        done = admin.identity.DeactivateAgent(request, timeout=10)
        assert fault.happened()
        assert not done.already_inactive
        told = refused(lambda: agent.identity.GetCaller(WHO, timeout=10))
        assert told.code is grpc.StatusCode.UNAUTHENTICATED
    (counts,) = rows(
        database,
        "SELECT (SELECT max(revision) FROM licet.changes),"
        " (SELECT count(*) FROM audit.events WHERE event_type = 'agent.deactivated')",
    )
    assert counts == (done.revision, 1)


NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
HEARD = "SELECT (extract(epoch FROM heard_at) * 1000000)::bigint FROM licet.agent_heartbeats"


def test_heartbeats_wait_for_the_database(proxy: PostgresProxy, database: Database) -> None:
    """They are kept under the time at which they came, not at which they could be written."""
    with (
        serving(proxy.database, agent_heartbeat_seconds=0.3, pool_acquire_seconds=0.3) as served,
        calling(served.address) as admin,
    ):
        given = make_agent(served.address, admin, "one")
        with holding(served.address, given.token) as agent:
            agent.identity.AgentHeartbeat(BEAT, timeout=10)
            proxy.go_down()
            down = count(database, NOW)
            agent.identity.AgentHeartbeat(BEAT, timeout=10)  # under the lease
            told = set()

            def is_unknown() -> bool:
                try:
                    agent.identity.AgentHeartbeat(BEAT, timeout=10)
                except grpc.RpcError as exc:
                    told.add(exc.code())
                return bool(told)

            assert eventually(is_unknown)
            assert told == {grpc.StatusCode.UNAVAILABLE}
            unknown = count(database, NOW)
            # Several writes have failed by now.
            assert not eventually(lambda: rows(database, HEARD) > [(down,)], timeout_seconds=0.6)
            proxy.come_back()
            assert eventually(lambda: rows(database, HEARD) > [(down,)])
            assert rows(database, HEARD)[0][0] <= unknown
