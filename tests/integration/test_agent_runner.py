"""What the client library does for an agent program: heartbeats, rotation, and knowing the end."""

from __future__ import annotations

from datetime import timedelta

from licet.client import AgentRunner, Client
from tests.fakes.api import count, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import serving

TOKENS = "SELECT count(*) FROM licet.agent_tokens WHERE ended_revision IS NULL"


def registered(address: str, name: str) -> str:
    with Client(address) as admin:
        boot = admin.agents.create_bootstrap("a test's").token
    with Client(address, api_key=boot) as bootstrap:
        return bootstrap.agents.register(name, f"{name}.example.org").token


def test_an_agent_is_heard_of_and_its_token_is_rotated_in_time(database: Database) -> None:
    stored: list[str] = []

    def store(token: str) -> None:
        stored.append(token)
        if len(stored) == 1:
            raise OSError("the disk is full")

    with serving(database, agent_heartbeat_seconds=0.2) as served:
        token = registered(served.address, "one")
        with AgentRunner(
            served.address, token, store=store, rotate_below=timedelta(hours=25)
        ) as agent:
            # What could not be stored is stored later.
            assert eventually(lambda: len(stored) >= 3)
            assert agent.client.callers.whoami().caller == "agent:one"
            assert not agent.ended.is_set()
        assert token not in stored
        newest = stored[-1]
        with Client(served.address, api_key=newest) as again:
            assert again.callers.whoami().caller == "agent:one"
        heard = "SELECT agent FROM licet.agent_heartbeats"
        assert eventually(lambda: rows(database, heard) == [("one",)])


def test_a_token_with_time_left_is_not_rotated(database: Database) -> None:
    stored: list[str] = []
    with serving(database, agent_heartbeat_seconds=0.1) as served:
        token = registered(served.address, "one")
        with AgentRunner(served.address, token, store=stored.append) as agent:
            heard = "SELECT count(*) FROM licet.agent_heartbeats"
            assert eventually(lambda: count(database, heard) == 1)
            assert count(database, TOKENS) == 1
            with Client(served.address) as admin:
                admin.agents.deactivate("one")
            # It knows that it is over, and stops asking.
            assert agent.ended.wait(10.0)
    assert stored == []
