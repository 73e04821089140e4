"""Names of agents and hosts, patterns of agents, and whom their tokens authenticate."""

from __future__ import annotations

import pytest

from licet.domain.agent import (
    ANY_AGENT,
    agent_identity,
    agent_name,
    agent_pattern,
    agent_principal,
    bootstrap_identity,
    hostname,
)
from licet.domain.caller import UNLIMITED, Credential, Scope
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant
from licet.domain.names import Principal, Resource, principal
from licet.domain.pattern import resource_pattern

NOW = Instant(1_000_000)


@pytest.mark.parametrize("name", ["a", "worker-17", "Farm_2/node.7/a", "7", "x" * 128])
def test_a_name_is_a_principal_and_a_pattern_of_itself_alone(name: str) -> None:
    assert agent_name(name) == name
    own = agent_principal(name)
    assert principal(own) == own
    assert "*" not in resource_pattern(own)
    limits = agent_identity(name, "t", NOW).limits
    assert limits.cover_principal(own)
    for other in (f"agent:{name}x", f"agent:{name}/x", f"user:{name}", "agent:*"):
        assert not limits.cover_principal(Principal(other))


@pytest.mark.parametrize(
    "name", ["", "*", "a*", "a/**", "/a", "a/", "a//b", ".", "../a", "-a", "a b", "é", "x" * 129]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        agent_name(name)
    assert raised.value.violations[0].field == "name"


@pytest.mark.parametrize(
    ("text", "kept"),
    [("a", "a"), ("Node-7.Example.ORG", "node-7.example.org"), ("7", "7"), ("x" * 63, "x" * 63)],
)
def test_a_hostname_is_kept_in_lower_case(text: str, kept: str) -> None:
    assert hostname(text) == kept


@pytest.mark.parametrize(
    "text", ["", "a.", ".a", "a..b", "-a", "a-", "a_b", "a b", "\u212a", "x" * 64, "a." * 127]
)
def test_what_is_no_hostname_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        hostname(text)
    assert raised.value.violations[0].field == "hostname"


@pytest.mark.parametrize("text", ["agent:**", "agent:*", "agent:a", "agent:a/*", "agent:a/**"])
def test_a_pattern_of_agents(text: str) -> None:
    assert agent_pattern(text, "principals[0]") == text


@pytest.mark.parametrize("text", ["user:**", "agent", "agent:a*", "**", "", f"agent:{'x' * 251}"])
def test_a_pattern_of_others_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        agent_pattern(text, "principals[0]")
    assert raised.value.violations[0].field == "principals[0]"


def test_a_bootstrap_token_has_no_scope_and_an_agents_one() -> None:
    bootstrap = bootstrap_identity("t", (ANY_AGENT,), NOW)
    assert (bootstrap.powers, bootstrap.credential) == (frozenset(), Credential.BOOTSTRAP)
    assert not any(bootstrap.may(scope) for scope in Scope)
    agent = agent_identity("a", "t", NOW)
    assert (agent.powers, agent.credential) == (frozenset({Scope.AUTHORIZE}), Credential.AGENT)
    assert (agent.key_id, agent.expires_at) == ("t", NOW)
    assert agent.acts_as(Principal("agent:a"))
    # To whom it delegates, its limits do not say.
    assert agent.delegation_limits == UNLIMITED
    assert agent.delegation_limits.cover_resource(Resource("doc:a"))
    assert bootstrap.delegation_limits == bootstrap.limits
