"""Agents' tokens: rotated, ended with the agent, and no API keys; and agents as they are listed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import grpc
import pytest

from licet.v1 import agents_pb2 as pb
from licet.v1 import identity_pb2
from tests.fakes.agents import event_reasons, make_agent, make_bootstrap, register, who
from tests.fakes.api import micros, refused, rows
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database
from tests.fakes.serving import Served, serving

WHO = identity_pb2.GetCallerRequest()


@pytest.fixture
def admin(served: Served) -> Iterator[As]:
    """Provide the services as the admin calls them."""
    with calling(served.address) as services:
        yield services


def test_an_agent_rotates_its_token_and_the_old_one_goes_on_for_a_while(
    served: Served, admin: As, database: Database
) -> None:
    first = make_agent(served.address, admin, "one")
    with holding(served.address, first.token) as agent:
        second = agent.identity.RotateAgentToken(pb.RotateAgentTokenRequest(), timeout=10)
        assert agent.identity.GetCaller(WHO, timeout=10).caller == "agent:one"
        told = agent.identity.AgentHeartbeat(pb.AgentHeartbeatRequest(), timeout=10)
    [(overlap, lives)] = rows(
        database,
        "SELECT o.overlap_ends_at - n.created_at = interval '5 minutes',"
        " n.expires_at - n.created_at = interval '24 hours'"
        " FROM licet.agent_tokens AS o JOIN licet.agent_tokens AS n ON n.id = %s"
        " WHERE o.id = %s",
        second.token_id,
        first.token_id,
    )
    assert overlap
    assert lives
    assert micros(told.token_expires_at) < micros(first.expires_at)
    with holding(served.address, second.token) as agent:
        assert agent.identity.GetCaller(WHO, timeout=10).key_id == second.token_id
    # The overlap over, as if five minutes had passed; the replica reads it anew.
    with database.connect() as connection:
        connection.execute("ALTER TABLE licet.agent_tokens DISABLE TRIGGER guard_agent_token")
        connection.execute(
            "UPDATE licet.agent_tokens SET overlap_ends_at = clock_timestamp() WHERE id = %s",
            [first.token_id],
        )
        connection.execute("ALTER TABLE licet.agent_tokens ENABLE TRIGGER guard_agent_token")
    with holding(served.address, second.token) as agent:
        third = agent.identity.RotateAgentToken(pb.RotateAgentTokenRequest(), timeout=10)
    with serving(database) as fresh:
        assert who(fresh.address, first.token) is grpc.StatusCode.UNAUTHENTICATED
        assert who(fresh.address, second.token) is grpc.StatusCode.OK
        assert who(fresh.address, third.token) is grpc.StatusCode.OK
    # What is over is not kept.
    ids = {row[0] for row in rows(database, "SELECT id FROM licet.agent_tokens")}
    assert ids == {second.token_id, third.token_id}


def test_a_rotation_whose_answer_was_lost_is_made_good_with_the_old_token(
    served: Served, admin: As
) -> None:
    first = make_agent(served.address, admin, "one")
    with holding(served.address, first.token) as agent:
        request = pb.RotateAgentTokenRequest(request_id="r1")
        lost = agent.identity.RotateAgentToken(request, timeout=10)
        again = agent.identity.RotateAgentToken(request, timeout=10)
        assert (again.token, again.token_id) == ("", lost.token_id)
        with holding(served.address, lost.token) as thief:
            onwards = thief.identity.RotateAgentToken(pb.RotateAgentTokenRequest(), timeout=10)
        second = agent.identity.RotateAgentToken(pb.RotateAgentTokenRequest(), timeout=10)
    # Whoever has what was lost, or made others of it, has nothing any more.
    for token in (lost.token, onwards.token):
        assert who(served.address, token) is grpc.StatusCode.UNAUTHENTICATED
    for token in (first.token, second.token):
        assert who(served.address, token) is grpc.StatusCode.OK


def test_an_agent_that_was_deactivated_comes_back_by_registering_again(
    served: Served, admin: As, database: Database
) -> None:
    given = make_agent(served.address, admin, "one")
    with holding(served.address, given.token) as agent:
        next_one = agent.identity.RotateAgentToken(pb.RotateAgentTokenRequest(), timeout=10)
        done = admin.identity.DeactivateAgent(
            pb.DeactivateAgentRequest(name="one", reason="stolen"), timeout=10
        )
        assert (done.already_inactive, done.replicas_confirmed) == (False, 1)
        for call in (
            lambda: agent.identity.GetCaller(WHO, timeout=10),
            lambda: agent.identity.AgentHeartbeat(pb.AgentHeartbeatRequest(), timeout=10),
            lambda: agent.identity.RotateAgentToken(pb.RotateAgentTokenRequest(), timeout=10),
        ):
            assert refused(call).code is grpc.StatusCode.UNAUTHENTICATED
    assert who(served.address, next_one.token) is grpc.StatusCode.UNAUTHENTICATED
    again = admin.identity.DeactivateAgent(pb.DeactivateAgentRequest(name="one"), timeout=10)
    assert (again.already_inactive, again.revision) == (True, done.revision)
    found = admin.identity.GetAgent(pb.GetAgentRequest(name="one"), timeout=10).agent
    assert (found.status, found.token_id) == (pb.AGENT_STATUS_INACTIVE, "")
    assert (found.deactivated_by, found.deactivation_reason) == ("caller:anonymous", "stolen")
    active = admin.identity.ActivateAgent(pb.ActivateAgentRequest(name="one"), timeout=10)
    assert not active.already_active
    found = admin.identity.GetAgent(pb.GetAgentRequest(name="one"), timeout=10).agent
    assert (found.status, found.token_id) == (pb.AGENT_STATUS_OFFLINE, "")
    assert who(served.address, given.token) is grpc.StatusCode.UNAUTHENTICATED
    assert admin.identity.ActivateAgent(
        pb.ActivateAgentRequest(name="one"), timeout=10
    ).already_active
    back = make_agent(served.address, admin, "one", hostname="elsewhere.example.org")
    assert who(served.address, back.token) is grpc.StatusCode.OK
    found = admin.identity.GetAgent(pb.GetAgentRequest(name="one"), timeout=10).agent
    assert (found.status, found.hostname) == (pb.AGENT_STATUS_ACTIVE, "elsewhere.example.org")
    assert micros(found.created_at) < micros(found.registered_at)
    assert event_reasons(database, "agent.deactivated") == [
        ("done", ""),
        ("done", "ALREADY_INACTIVE"),
    ]
    unknown = pb.DeactivateAgentRequest(name="nobody")
    told = refused(lambda: admin.identity.DeactivateAgent(unknown, timeout=10))
    assert told.code is grpc.StatusCode.NOT_FOUND


def test_the_ways_of_api_keys_are_closed_to_tokens(served: Served, admin: As) -> None:
    """One that could be rotated as a key would outlive the agent's deactivation."""
    given = make_agent(served.address, admin, "one")
    boot = make_bootstrap(admin)
    with holding(served.address, given.token) as agent:
        rotation = identity_pb2.RotateApiKeyRequest(key_id=given.token_id)
        told = refused(lambda: agent.identity.RotateApiKey(rotation, timeout=10))
        assert told.code is grpc.StatusCode.NOT_FOUND
    for token_id in (given.token_id, boot.bootstrap_token.token_id):
        rotation = identity_pb2.RotateApiKeyRequest(key_id=token_id)
        told = refused(partial(admin.identity.RotateApiKey, rotation, timeout=10))
        assert told.code is grpc.StatusCode.NOT_FOUND
    listed = admin.identity.ListApiKeys(identity_pb2.ListApiKeysRequest(), timeout=10)
    assert not listed.keys
    for name in ("bootstrap:a", "key:a"):
        told = refused(lambda name=name: make_key(admin, "grant", principal=name))  # type: ignore[misc] # bound early
        assert told.fields == ("principal",)


def test_agents_are_listed_in_pages_and_by_status(served: Served, admin: As) -> None:
    boot = make_bootstrap(admin, max_uses=5)
    for name in ("c", "a", "b/1", "d"):
        register(served.address, boot.token, name)
    admin.identity.DeactivateAgent(pb.DeactivateAgentRequest(name="d"), timeout=10)
    names, token = [], ""
    while True:
        page = admin.identity.ListAgents(
            pb.ListAgentsRequest(page_size=2, page_token=token), timeout=10
        )
        names += [agent.name for agent in page.agents]
        token = page.next_page_token
        if not token:
            break
    assert names == ["a", "b/1", "c", "d"]
    inactive = pb.ListAgentsRequest(status=pb.AGENT_STATUS_INACTIVE)
    assert [a.name for a in admin.identity.ListAgents(inactive, timeout=10).agents] == ["d"]
    wrong = pb.ListAgentsRequest(status=9)  # type: ignore[arg-type] # what a client may send
    assert refused(lambda: admin.identity.ListAgents(wrong, timeout=10)).fields == ("status",)
    nobody = pb.GetAgentRequest(name="x")
    told = refused(lambda: admin.identity.GetAgent(nobody, timeout=10))
    assert told.code is grpc.StatusCode.NOT_FOUND
