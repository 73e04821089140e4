"""Agents over the API: registered, stopped, and what an agent's token is for."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.protobuf.duration_pb2 import Duration

from licet.v1 import agents_pb2 as pb
from licet.v1 import authorization_pb2 as az
from licet.v1 import identity_pb2
from tests.fakes.agents import event_reasons, make_agent, make_bootstrap, register, registration
from tests.fakes.api import micros, refused, rows
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database
from tests.fakes.serving import Served

WHO = identity_pb2.GetCallerRequest()
DAY_MICROS = 86_400_000_000


@pytest.fixture
def admin(served: Served) -> Iterator[As]:
    """Provide the services as the admin calls them."""
    with calling(served.address) as services:
        yield services


def question(principal: str) -> az.AuthorizeRequest:
    return az.AuthorizeRequest(principal=principal, action="read", resource="doc:a")


def test_an_agent_registers_and_acts_as_itself(
    served: Served, admin: As, database: Database
) -> None:
    made = make_bootstrap(admin, max_uses=2, principals=["agent:workers/*"])
    boot = made.bootstrap_token
    assert (boot.uses, boot.max_uses, list(boot.principals)) == (0, 2, ["agent:workers/*"])
    assert micros(boot.expires_at) - micros(boot.created_at) in range(3599 * 10**6, 3601 * 10**6)
    key = Ed25519PrivateKey.generate().public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    given = register(
        served.address,
        made.token,
        "workers/17",
        hostname="Node-17.Example.ORG",
        address="10.0.0.17:9000",
        public_key=pem,
    )
    assert given.principal == "agent:workers/17"
    assert given.heartbeat_interval.ToSeconds() == 30
    with holding(served.address, given.token) as agent:
        caller = agent.identity.GetCaller(WHO, timeout=10)
        assert (caller.caller, caller.key_id) == (given.principal, given.token_id)
        assert (list(caller.scopes), list(caller.limits.principals)) == (
            ["authorize"],
            ["agent:workers/17"],
        )
    found = admin.identity.GetAgent(pb.GetAgentRequest(name="workers/17"), timeout=10).agent
    assert (found.hostname, found.address, found.public_key) == (
        "node-17.example.org",
        "10.0.0.17:9000",
        pem,
    )
    assert (found.status, found.token_id) == (pb.AGENT_STATUS_ACTIVE, given.token_id)
    assert found.registered_by == f"bootstrap:{boot.token_id}"
    assert micros(found.token_expires_at) - micros(found.registered_at) == DAY_MICROS
    assert found.token_expires_at == given.expires_at
    [row] = rows(
        database,
        "SELECT actor, principal, resource, revision FROM audit.events"
        " WHERE event_type = 'agent.registered'",
    )
    assert row == (f"bootstrap:{boot.token_id}", given.principal, given.principal, given.revision)
    [listed] = admin.identity.ListBootstrapTokens(
        pb.ListBootstrapTokensRequest(), timeout=10
    ).bootstrap_tokens
    assert (listed.token_id, listed.uses) == (boot.token_id, 1)


def test_a_registration_is_repeated_without_a_second_use(
    served: Served, admin: As, database: Database
) -> None:
    made = make_bootstrap(admin, max_uses=2)
    first = register(served.address, made.token, "one", request_id="r1")
    again = register(served.address, made.token, "one", request_id="r1")
    assert first.token
    assert (again.token, again.token_id) == ("", first.token_id)
    assert (again.revision, again.expires_at) == (first.revision, first.expires_at)
    with holding(served.address, made.token) as bootstrap:
        reused = refused(
            lambda: bootstrap.identity.RegisterAgent(
                registration("two", request_id="r1"), timeout=10
            )
        )
    assert reused.reason == "REQUEST_ID_REUSED"
    assert rows(database, "SELECT uses FROM licet.bootstrap_tokens") == [(1,)]


def test_what_the_agents_refuse_uses_nothing_up(
    served: Served, admin: As, database: Database
) -> None:
    made = make_bootstrap(admin, max_uses=9, principals=["agent:workers/*", "agent:one"])
    register(served.address, made.token, "one")
    with holding(served.address, made.token) as bootstrap:

        def reason(request: pb.RegisterAgentRequest) -> tuple[grpc.StatusCode, str]:
            told = refused(lambda: bootstrap.identity.RegisterAgent(request, timeout=10))
            return told.code, told.reason

        failed, denied = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED
        assert reason(registration("one")) == (failed, "AGENT_EXISTS")
        taken = registration("workers/2", hostname="one.example.org")
        assert reason(taken) == (failed, "HOSTNAME_TAKEN")
        assert reason(registration("other")) == (denied, "OUTSIDE_LIMITS")
        assert reason(registration("workers/2/3")) == (denied, "OUTSIDE_LIMITS")
    admin.identity.DeactivateAgent(pb.DeactivateAgentRequest(name="one"), timeout=10)
    with holding(served.address, made.token) as bootstrap:
        assert reason(registration("one")) == (failed, "AGENT_INACTIVE")
        # Who is inactive has given its host's name away.
        bootstrap.identity.RegisterAgent(taken, timeout=10)
    activation = pb.ActivateAgentRequest(name="one")
    told = refused(lambda: admin.identity.ActivateAgent(activation, timeout=10))
    assert (told.code, told.reason) == (failed, "HOSTNAME_TAKEN")
    assert rows(database, "SELECT uses FROM licet.bootstrap_tokens") == [(2,)]
    assert event_reasons(database, "agent.registered") == [
        ("done", ""),
        ("refused", "AGENT_EXISTS"),
        ("refused", "HOSTNAME_TAKEN"),
        ("refused", "OUTSIDE_LIMITS"),
        ("refused", "OUTSIDE_LIMITS"),
        ("refused", "AGENT_INACTIVE"),
        ("done", ""),
    ]


PRIVATE = Ed25519PrivateKey.generate().private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)


BAD_REGISTRATIONS: list[tuple[dict[str, str], str]] = [
    ({"name": ""}, "name"),
    ({"name": "*"}, "name"),
    ({"name": "a/**"}, "name"),
    ({"name": "a/../b"}, "name"),
    ({"name": "a/"}, "name"),
    ({"name": "x" * 129}, "name"),
    ({"hostname": ""}, "hostname"),
    ({"hostname": "a b"}, "hostname"),
    ({"hostname": "-a"}, "hostname"),
    ({"hostname": "\u212a"}, "hostname"),  # KELVIN SIGN, which in lower case is a k
    ({"address": "x" * 257}, "address"),
    ({"public_key": "a key"}, "public_key"),
    ({"public_key": PRIVATE.decode()}, "public_key"),
    ({"request_id": "x" * 129}, "request_id"),
]
BAD_TOKENS: list[tuple[dict[str, object], str]] = [
    ({"name": ""}, "name"),
    ({"max_uses": -1}, "max_uses"),
    ({"max_uses": 10_001}, "max_uses"),
    ({"ttl": Duration(seconds=30 * 86_400 + 1)}, "ttl"),
    ({"ttl": Duration()}, "ttl"),
    ({"principals": ["user:*"]}, "principals[0]"),
    ({"principals": ["agent:a", "agent:a*"]}, "principals[1]"),
    ({"principals": ["agent:a"] * 33}, "principals"),
]


def test_requests_are_checked_field_by_field(served: Served, admin: As) -> None:
    token = make_bootstrap(admin).token
    with holding(served.address, token) as bootstrap:
        for given, field in BAD_REGISTRATIONS:
            request = registration("one", **given)
            told = refused(
                lambda request=request: bootstrap.identity.RegisterAgent(request, timeout=10)  # type: ignore[misc] # bound early
            )
            assert (told.code, told.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))
    for fields, field in BAD_TOKENS:
        told = refused(lambda fields=fields: make_bootstrap(admin, **fields))  # type: ignore[misc] # bound early
        assert (told.code, told.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


def test_a_caller_with_limits_stops_what_lies_inside_them(
    served: Served, admin: As, database: Database
) -> None:
    make_agent(served.address, admin, "farm/1")
    make_agent(served.address, admin, "one")
    inside, outside = (
        make_bootstrap(admin, principals=[agents]).bootstrap_token.token_id
        for agents in ("agent:farm/*", "agent:**")
    )
    limited = make_key(admin, "identity", principals=("agent:farm/*",))
    with holding(served.address, limited.token) as caller:
        identity = caller.identity
        for refused_call in (
            lambda: identity.DeactivateAgent(pb.DeactivateAgentRequest(name="one"), timeout=10),
            lambda: identity.ActivateAgent(pb.ActivateAgentRequest(name="one"), timeout=10),
            lambda: identity.RevokeBootstrapToken(
                pb.RevokeBootstrapTokenRequest(token_id=outside), timeout=10
            ),
        ):
            told = refused(refused_call)
            assert (told.code, told.reason) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "OUTSIDE_LIMITS",
            )
        identity.DeactivateAgent(pb.DeactivateAgentRequest(name="farm/1"), timeout=10)
        identity.ActivateAgent(pb.ActivateAgentRequest(name="farm/1"), timeout=10)
        revoke = pb.RevokeBootstrapTokenRequest(token_id=inside)
        identity.RevokeBootstrapToken(revoke, timeout=10)
        unknown = pb.RevokeBootstrapTokenRequest(token_id="0" * 16)
        told = refused(lambda: identity.RevokeBootstrapToken(unknown, timeout=10))
        assert told.code is grpc.StatusCode.NOT_FOUND
    refusals = rows(
        database,
        "SELECT event_type, principal, resource FROM audit.events"
        " WHERE reason = 'OUTSIDE_LIMITS' ORDER BY event_id",
    )
    assert refusals == [
        ("agent.deactivated", "agent:one", "agent:one"),
        ("agent.activated", "agent:one", "agent:one"),
        ("bootstrap.revoked", f"bootstrap:{outside}", f"bootstrap_token:{outside}"),
    ]
    for kind, others in (
        ("agent.deactivated", []),
        ("agent.activated", []),
        ("bootstrap.revoked", [("refused", "BOOTSTRAP_NOT_FOUND")]),
    ):
        outcomes = [("refused", "OUTSIDE_LIMITS"), ("done", ""), *others]
        assert event_reasons(database, kind) == outcomes


def test_an_agent_asks_about_itself_and_nobody_else(served: Served, admin: As) -> None:
    given = make_agent(served.address, admin, "one")
    served.grant("agent:one", "read", "doc:a")
    served.grant("agent:one/x", "read", "doc:a")
    with holding(served.address, given.token) as agent:
        answer = agent.authorization.Authorize(question("agent:one"), timeout=10)
        assert answer.decision == 1
        for other in ("agent:two", "agent:one/x", "user:one", "agent:*"):
            told = refused(
                lambda other=other: agent.authorization.Authorize(question(other), timeout=10)  # type: ignore[misc] # bound early
            )
            assert (told.code, told.reason) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "OUTSIDE_LIMITS",
            )
        both = az.BatchAuthorizeRequest(requests=[question("agent:one"), question("agent:two")])
        told = refused(lambda: agent.authorization.BatchAuthorize(both, timeout=10))
        assert told.reason == "OUTSIDE_LIMITS"


def test_a_key_that_acts_as_an_agent_delegates_within_its_limits(served: Served, admin: As) -> None:
    """Only of an agent's own token do the limits not say who receives."""
    own = served.grant("agent:one", "read", "doc:**", delegation_depth=2)
    key = make_key(admin, "authorize", principals=("agent:one",), principal="agent:one")
    request = az.GrantRequest(
        principal="agent:two", actions=["read"], resource="doc:a", parent_capability_id=own
    )
    with holding(served.address, key.token) as caller:
        told = refused(lambda: caller.authorization.Grant(request, timeout=10))
    assert told.reason == "OUTSIDE_LIMITS"


def test_an_agent_delegates_what_is_its_own_and_takes_it_back(served: Served, admin: As) -> None:
    given = make_agent(served.address, admin, "one")
    own = served.grant("agent:one", "read write", "doc:**", delegation_depth=2)
    others = served.grant("agent:two", "read", "doc:**", delegation_depth=2)
    with holding(served.address, given.token) as agent:
        child = agent.authorization.Grant(
            az.GrantRequest(
                principal="agent:helper",
                actions=["read"],
                resource="doc:a",
                parent_capability_id=own,
            ),
            timeout=10,
        ).capability
        assert (child.principal, child.granted_by) == ("agent:helper", "agent:one")
        for fields, reason in (
            (az.GrantRequest(parent_capability_id=others), "NOT_HOLDER"),
            (az.GrantRequest(), "SCOPE_MISSING"),
            (az.GrantRequest(parent_capability_id=own, actions=["execute"]), "ACTIONS_WIDER"),
        ):
            request = az.GrantRequest(principal="agent:one", actions=["read"], resource="doc:a")
            request.MergeFrom(fields)
            told = refused(
                lambda request=request: agent.authorization.Grant(request, timeout=10)  # type: ignore[misc] # bound early
            )
            assert told.reason == reason
        foreign = az.RevokeRequest(capability_id=others)
        told = refused(lambda: agent.authorization.Revoke(foreign, timeout=10))
        assert told.reason == "NOT_GRANTOR"
        revoked = agent.authorization.Revoke(az.RevokeRequest(capability_id=child.id), timeout=10)
        assert revoked.ended_count == 1
