"""Whether an agent works: heartbeats, silence that a steward notices, and deactivation."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier, Event
from time import monotonic

import grpc
import pytest

from licet.app.ports import Deadline
from licet.storage.agents import PostgresAgents
from licet.storage.pool import Database as Pool
from licet.storage.pool import PoolLimits
from licet.v1 import agents_pb2 as pb
from licet.v1 import authorization_pb2 as az
from tests.fakes.agents import make_agent, make_bootstrap, register
from tests.fakes.api import count, micros, rows
from tests.fakes.callers import As, calling, holding
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import PostgresProxy
from tests.fakes.serving import failure, serving

BEAT = pb.AgentHeartbeatRequest()
SECONDS = 0.2
STATUS = "SELECT name, offline_at IS NOT NULL FROM licet.agents ORDER BY name"
EVENTS = """
SELECT event_type, actor, principal FROM audit.events
WHERE event_type IN ('agent.offline', 'agent.online') ORDER BY event_id
"""


def status_of(services: As, name: str) -> int:
    return services.identity.GetAgent(pb.GetAgentRequest(name=name), timeout=10).agent.status


def test_a_silent_agent_is_offline_and_a_heartbeat_brings_it_back(database: Database) -> None:
    beat = 0.5
    with (
        serving(database, agent_heartbeat_seconds=beat) as served,
        calling(served.address) as admin,
    ):
        given = make_agent(served.address, admin, "one")
        assert given.heartbeat_interval.ToMilliseconds() == 500
        stopped = make_agent(served.address, admin, "stopped")
        admin.identity.DeactivateAgent(pb.DeactivateAgentRequest(name="stopped"), timeout=10)
        with holding(served.address, given.token) as agent:
            # Twice as long as it would take to be offline, were it silent.
            end = monotonic() + 6 * beat
            while monotonic() < end:
                told = agent.identity.AgentHeartbeat(BEAT, timeout=10)
                assert told.heartbeat_interval == given.heartbeat_interval
                Event().wait(beat / 5)
            assert not rows(database, EVENTS)
            assert status_of(admin, "one") == pb.AGENT_STATUS_ACTIVE
            assert eventually(lambda: status_of(admin, "one") == pb.AGENT_STATUS_OFFLINE)
            found = admin.identity.GetAgent(pb.GetAgentRequest(name="one"), timeout=10).agent
            silent = micros(found.offline_at) - micros(found.last_heartbeat_at)
            assert silent >= 3 * beat * 1_000_000
            # Its token goes on: that it is offline is for people.
            question = az.AuthorizeRequest(principal="agent:one", action="read", resource="doc:a")
            agent.authorization.Authorize(question, timeout=10)
            agent.identity.AgentHeartbeat(BEAT, timeout=10)
            assert eventually(lambda: status_of(admin, "one") == pb.AGENT_STATUS_ACTIVE)
        assert stopped.token
        assert status_of(admin, "stopped") == pb.AGENT_STATUS_INACTIVE
    assert rows(database, EVENTS)[:2] == [
        ("agent.offline", "service:licet", "agent:one"),
        ("agent.online", "agent:one", "agent:one"),
    ]
    names = {row[2] for row in rows(database, EVENTS)}
    assert names == {"agent:one"}


def test_a_heartbeat_costs_no_statement_and_no_revision(database: Database) -> None:
    with PostgresProxy(database) as proxy, ExitStack() as stack:
        served = stack.enter_context(serving(proxy.database, agent_heartbeat_seconds=3600))
        admin = stack.enter_context(calling(served.address))
        boot = make_bootstrap(admin, max_uses=3).token
        given = [register(served.address, boot, name).token for name in ("a", "b", "c")]
        revision = count(database, "SELECT max(revision) FROM licet.changes")
        agents = [stack.enter_context(holding(served.address, token)) for token in given]
        for agent in agents:
            agent.identity.AgentHeartbeat(BEAT, timeout=10)
        with proxy.statements() as seen:
            for agent in agents * 50:
                agent.identity.AgentHeartbeat(BEAT, timeout=10)
        asked = [text for text in seen if "agent" in text or "api_key" in text]
        assert len(asked) <= 1  # the one that writes those of five seconds
        # What was noted is written at the end at the latest.
        served.licet.stop()
        assert count(database, "SELECT count(*) FROM licet.agent_heartbeats") == 3
    assert count(database, "SELECT max(revision) FROM licet.changes") == revision
    assert not rows(database, EVENTS)


def test_another_steward_takes_over(database: Database) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(serving(database, agent_heartbeat_seconds=SECONDS))
        second = stack.enter_context(serving(database, agent_heartbeat_seconds=SECONDS))
        admin = stack.enter_context(calling(second.address))
        make_agent(second.address, admin, "one")
        assert eventually(lambda: status_of(admin, "one") == pb.AGENT_STATUS_OFFLINE)
        first.licet.stop()
        make_agent(second.address, admin, "two")
        assert eventually(lambda: status_of(admin, "two") == pb.AGENT_STATUS_OFFLINE, 20.0)
    # Each once, whoever led.
    assert [row[2] for row in rows(database, EVENTS)] == ["agent:one", "agent:two"]


@pytest.fixture
def pool(database: Database) -> Iterator[Pool]:
    """Provide connections in the server's role, all of them open."""
    opened = Pool(database.url, PoolLimits(min_size=8, max_size=8))
    opened.open(10.0)
    yield opened
    opened.close()


def test_stewards_who_look_at_once_mark_each_agent_once(database: Database, pool: Pool) -> None:
    """As when one that was stopped does not know yet that another one leads."""
    with serving(database) as served, calling(served.address) as admin:
        boot = make_bootstrap(admin, max_uses=40).token
        for number in range(10):
            register(served.address, boot, f"a-{number}")
    agents, together = PostgresAgents(pool), Barrier(8)

    def mark(_: int) -> int:
        together.wait(10)
        return agents.mark_silent(0.0, Deadline.after(10.0, monotonic))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(mark, range(8))) == 10
    assert rows(database, STATUS) == [(f"a-{number}", True) for number in range(10)]
    assert sorted(row[2] for row in rows(database, EVENTS)) == [
        f"agent:a-{number}" for number in range(10)
    ]


def test_no_token_of_an_agent_counts_when_deactivating_it_has_returned(
    database: Database,
) -> None:
    """Eight threads use them on two servers meanwhile, and some rotate them."""
    with (
        serving(database) as one,
        serving(database) as two,
        calling(one.address) as admin,
        ThreadPoolExecutor(8) as threads,
    ):
        given = make_agent(one.address, admin, "one")
        over, running = Event(), Barrier(9)
        codes: set[grpc.StatusCode] = set()

        def use(number: int) -> tuple[float, int]:
            """Return when the last call began that was let in, and how many there were."""
            address, token = (one.address, two.address)[number % 2], given.token
            question = az.AuthorizeRequest(principal="agent:one", action="read", resource="doc:a")
            last, calls, rotated = 0.0, 0, False
            while not over.is_set():
                began = monotonic()
                with holding(address, token) as agent:
                    try:
                        for _ in range(20):
                            began = monotonic()
                            agent.authorization.Authorize(question, timeout=10)
                            last, calls = began, calls + 1
                        if not rotated:
                            rotated = True
                            running.wait(20)
                        if number < 4:
                            request = pb.RotateAgentTokenRequest()
                            began = monotonic()
                            token = agent.identity.RotateAgentToken(request, timeout=10).token
                            last = began
                    except grpc.RpcError as exc:
                        # Another rotation of the same token ends what this one made.
                        codes.add(failure(exc).code)
                        token = given.token
            return last, calls

        using = [threads.submit(use, number) for number in range(8)]
        running.wait(20)
        request = pb.DeactivateAgentRequest(name="one")
        done = admin.identity.DeactivateAgent(request, timeout=20)
        returned = monotonic()
        Event().wait(0.5)
        over.set()
        found = [future.result(30) for future in using]
    # Who goes on asking with what has ended is told to slow down.
    assert codes - {grpc.StatusCode.RESOURCE_EXHAUSTED} == {grpc.StatusCode.UNAUTHENTICATED}
    assert done.replicas_confirmed == 2
    assert sum(calls for _, calls in found) >= 160
    assert all(last <= returned for last, _ in found)
    living = "SELECT count(*) FROM licet.agent_tokens WHERE ended_revision IS NULL"
    assert count(database, living) == 0
