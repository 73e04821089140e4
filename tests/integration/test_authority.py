"""Who may change what: by scope, by what the caller holds or has granted, and within its limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from licet.v1 import authorization_pb2 as az
from licet.v1 import identity_pb2 as pb
from tests.fakes.api import refused, rows
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.serving import Served

Calls = Callable[..., As]


@pytest.fixture
def admin(served: Served) -> Iterator[As]:
    """Provide the services as the admin calls them."""
    with calling(served.address) as services:
        yield services


@pytest.fixture
def caller(served: Served, admin: As) -> Iterator[Calls]:
    """Provide a way to call with a new key of these scopes, limits and principal."""
    with ExitStack() as stack:

        def with_key(*scopes: str, **fields: Any) -> As:  # noqa: ANN401 - any field
            made = make_key(admin, *scopes, **fields)
            return stack.enter_context(holding(served.address, made.token))

        yield with_key


def grant(services: As, principal: str, resource: str, **fields: Any) -> str:  # noqa: ANN401 - any field
    request = az.GrantRequest(principal=principal, actions=["read"], resource=resource, **fields)
    return services.authorization.Grant(request, timeout=10).capability.id


def revoke(services: As, capability_id: str = "", **fields: Any) -> az.RevokeResponse:  # noqa: ANN401 - any field
    target = az.RevokeFilter(**fields) if fields else None
    request = az.RevokeRequest(capability_id=capability_id, filter=target)
    return services.authorization.Revoke(request, timeout=10)


def denied(call: Callable[[], object]) -> str:
    failed = refused(call)
    assert failed.code is grpc.StatusCode.PERMISSION_DENIED
    return failed.reason


def refusals(served: Served) -> list[tuple[str, str, str]]:
    return rows(
        served.database,
        "SELECT event_type, actor, reason FROM audit.events"
        " WHERE result = 'refused' AND event_type <> 'auth.failed' ORDER BY event_id",
    )


def test_a_grant_needs_its_scope_and_the_attempt_is_on_record(
    served: Served, caller: Calls
) -> None:
    someone = caller("authorize", "read", "revoke", "identity", "audit", "policy")
    assert denied(lambda: grant(someone, "agent:a", "doc:a")) == "SCOPE_MISSING"
    name = someone.identity.GetCaller(pb.GetCallerRequest(), timeout=10).caller
    assert refusals(served) == [("grant", name, "SCOPE_MISSING")]


def test_a_grant_is_within_the_limits(caller: Calls) -> None:
    limited = caller("grant", principals=("agent:*", "user:bob"), resources=("doc:team/**",))
    grant(limited, "agent:a", "doc:team/**")
    grant(limited, "user:bob", "doc:team/x")
    assert denied(lambda: grant(limited, "user:alice", "doc:team/x")) == "OUTSIDE_LIMITS"
    assert denied(lambda: grant(limited, "agent:a/b", "doc:team/x")) == "OUTSIDE_LIMITS"
    assert denied(lambda: grant(limited, "agent:a", "doc:**")) == "OUTSIDE_LIMITS"
    assert denied(lambda: grant(limited, "agent:a", "doc:team")) == "OUTSIDE_LIMITS"
    # A principal whose name looks like a pattern is not all those that the pattern would match.
    assert denied(lambda: grant(limited, "agent:**", "doc:team/x")) == "OUTSIDE_LIMITS"


def test_a_delegation_is_the_holders(served: Served, admin: As, caller: Calls) -> None:
    parent = grant(admin, "agent:a", "doc:**", delegation_depth=2)
    holder = caller("authorize", principal="agent:a")
    child = grant(holder, "agent:b", "doc:x", parent_capability_id=parent)
    found = admin.authorization.GetCapability(
        az.GetCapabilityRequest(capability_id=child), timeout=10
    )
    assert found.capability.granted_by == "agent:a"
    # `grant` is the right to make capabilities, not to use those of others.
    other = caller("grant")
    reason = denied(lambda: grant(other, "agent:b", "doc:x", parent_capability_id=parent))
    assert reason == "NOT_HOLDER"
    assert refusals(served)[-1][2] == "NOT_HOLDER"
    grant(admin, "agent:b", "doc:x", parent_capability_id=parent)


def test_a_key_holds_what_was_granted_to_its_name(admin: As, caller: Calls) -> None:
    holder = caller("authorize")
    name = holder.identity.GetCaller(pb.GetCallerRequest(), timeout=10).caller
    parent = grant(admin, name, "doc:**", delegation_depth=1)
    grant(holder, "agent:b", "doc:x", parent_capability_id=parent)


def test_a_holder_delegates_within_its_limits(admin: As, caller: Calls) -> None:
    parent = grant(admin, "agent:a", "doc:**", delegation_depth=1)
    holder = caller("authorize", principal="agent:a", resources=("doc:team/**",))
    grant(holder, "agent:b", "doc:team/x", parent_capability_id=parent)
    reason = denied(lambda: grant(holder, "agent:b", "doc:x", parent_capability_id=parent))
    assert reason == "OUTSIDE_LIMITS"


def test_a_capability_is_revoked_by_scope_by_its_grantor_or_from_above(
    served: Served, admin: As, caller: Calls
) -> None:
    root = grant(admin, "agent:a", "doc:**", delegation_depth=3)
    a = caller("authorize", principal="agent:a")
    b = caller("authorize", principal="agent:b")
    c = caller("authorize", principal="agent:c")

    def chain() -> tuple[str, str]:
        middle = grant(a, "agent:b", "doc:**", parent_capability_id=root, delegation_depth=1)
        return middle, grant(b, "agent:c", "doc:x", parent_capability_id=middle)

    _, leaf = chain()
    assert denied(lambda: revoke(c, leaf)) == "NOT_GRANTOR"
    assert denied(lambda: revoke(b, root)) == "NOT_GRANTOR"
    assert refusals(served)[-1][0] == "revoke"
    assert revoke(b, leaf).ended_count == 1
    middle, _ = chain()
    assert revoke(a, middle).ended_count == 2
    _, leaf = chain()
    assert revoke(a, leaf).ended_count == 1
    assert revoke(caller("revoke"), root).ended_count >= 1


def test_a_filter_needs_the_scope(caller: Calls) -> None:
    grantor = caller("grant")
    name = grantor.identity.GetCaller(pb.GetCallerRequest(), timeout=10).caller
    capability = grant(grantor, "agent:a", "doc:a")
    assert denied(lambda: revoke(grantor, granted_by=name)) == "SCOPE_MISSING"
    assert revoke(grantor, capability).ended_count == 1
    missing = refused(lambda: revoke(grantor, "00000000-0000-7000-8000-000000000000"))
    assert missing.code is grpc.StatusCode.NOT_FOUND


def test_a_revocation_is_within_the_limits(admin: As, caller: Calls) -> None:
    limited = caller("revoke", principals=("agent:**",), resources=("doc:team/**",))
    inside, outside = grant(admin, "agent:a", "doc:team/x"), grant(admin, "agent:a", "doc:x")
    assert denied(lambda: revoke(limited, outside)) == "OUTSIDE_LIMITS"
    assert denied(lambda: revoke(limited, principal="agent:a")) == "OUTSIDE_LIMITS"
    assert denied(lambda: revoke(limited, resource="doc:team/**")) == "OUTSIDE_LIMITS"
    assert denied(lambda: revoke(limited, session_id="s")) == "OUTSIDE_LIMITS"
    assert revoke(limited, principal="agent:a", resource="doc:team/**").ended_count == 1
    assert revoke(limited, inside).already_ended


@pytest.mark.usefixtures("both_ways")
def test_questions_are_within_the_limits(caller: Calls) -> None:
    limited = caller("authorize", principals=("agent:a",), resources=("doc:team/**",))

    def question(principal: str, resource: str) -> az.AuthorizeRequest:
        return az.AuthorizeRequest(principal=principal, action="read", resource=resource)

    ask = limited.authorization.Authorize
    inside = question("agent:a", "doc:team/x")
    ask(inside, timeout=10)
    for outside in (question("agent:b", "doc:team/x"), question("agent:a", "doc:x")):
        batch = az.BatchAuthorizeRequest(requests=[inside, outside])
        message = az.StreamAuthorizeRequest(requests=[outside])
        stream = limited.authorization.StreamAuthorize(iter([message]), timeout=10)
        for call in (
            partial(ask, outside, timeout=10),
            partial(limited.authorization.BatchAuthorize, batch, timeout=10),
            partial(next, stream),
        ):
            assert denied(call) == "OUTSIDE_LIMITS"


def test_nobody_makes_a_key_with_more_than_they_have(served: Served, caller: Calls) -> None:
    maker = caller(
        "identity",
        "grant",
        principals=("agent:**",),
        resources=("doc:team/**",),
        ttl=Duration(seconds=3600),
    )
    inside: dict[str, Any] = {
        "principals": ("agent:a",),
        "resources": ("doc:team/x",),
        "ttl": Duration(seconds=60),
    }
    make_key(maker, "grant", **inside)
    make_key(maker, "grant", "identity", **inside)
    for scope in ("authorize", "revoke", "read", "audit", "policy", "admin"):
        assert denied(partial(make_key, maker, scope, **inside)) == "SCOPES_WIDER"
    for wider in (
        {"principals": ()},
        {"principals": ("agent:a", "user:a")},
        {"resources": ()},
        {"resources": ("doc:**",)},
    ):
        assert denied(partial(make_key, maker, "grant", **inside | wider)) == "LIMITS_WIDER"
    for later in ({"ttl": None}, {"ttl": Duration(seconds=7200)}):
        assert denied(partial(make_key, maker, "grant", **inside | later)) == "EXPIRY_WIDER"
    bound = inside | {"principal": "agent:a"}
    assert denied(lambda: make_key(maker, "grant", **bound)) == "PRINCIPAL_NOT_OWN"
    assert {event[0] for event in refusals(served)} == {"key.created"}


def test_one_who_acts_as_a_principal_makes_keys_that_act_as_it(caller: Calls) -> None:
    bound = caller("identity", "authorize", principal="agent:a")
    made = make_key(bound, "authorize", principal="agent:a")
    assert made.key.caller == "agent:a"


def test_an_admin_with_limits_binds_within_them(caller: Calls) -> None:
    limited = caller("admin", principals=("agent:**",))
    make_key(limited, "authorize", principal="agent:a", principals=("agent:a",))
    reason = denied(
        lambda: make_key(limited, "authorize", principal="user:a", principals=("agent:a",))
    )
    assert reason == "LIMITS_WIDER"


def test_the_keys_of_others_are_rotated_by_their_maker_or_an_admin(
    admin: As, caller: Calls
) -> None:
    maker, other = caller("identity", "read"), caller("identity", "read")
    made = make_key(maker, "read")

    def rotate(services: As, key_id: str, **fields: Any) -> pb.RotateApiKeyResponse:  # noqa: ANN401 - any field
        request = pb.RotateApiKeyRequest(key_id=key_id, **fields)
        return services.identity.RotateApiKey(request, timeout=10)

    assert denied(lambda: rotate(other, made.key.key_id)) == "KEY_NOT_OWN"
    assert denied(lambda: rotate(caller("read"), made.key.key_id)) == "KEY_NOT_OWN"
    second = rotate(maker, made.key.key_id)
    third = rotate(admin, second.key.key_id)
    assert third.key.created_by == "caller:anonymous"


def test_a_key_does_not_prolong_itself(served: Served, admin: As) -> None:
    made = make_key(admin, "read", ttl=Duration(seconds=60))
    later = made.key.expires_at
    later.seconds += 60
    with holding(served.address, made.token) as own:
        request = pb.RotateApiKeyRequest(key_id=made.key.key_id, expires_at=later)
        assert denied(lambda: own.identity.RotateApiKey(request, timeout=10)) == "EXPIRY_WIDER"


def test_keys_are_revoked_by_themselves_or_by_who_has_their_scopes(
    served: Served, admin: As, caller: Calls
) -> None:
    def end(services: As, key: pb.ApiKey) -> pb.RevokeApiKeyResponse:
        request = pb.RevokeApiKeyRequest(key_id=key.key_id)
        return services.identity.RevokeApiKey(request, timeout=10)

    reader, root = make_key(admin, "read").key, make_key(admin, "admin").key
    keeper = caller("identity", "read")
    assert denied(lambda: end(caller("read"), reader)) == "SCOPE_MISSING"
    assert denied(lambda: end(keeper, root)) == "SCOPES_WIDER"
    assert not end(keeper, reader).already_ended
    own = make_key(admin, "read")
    with holding(served.address, own.token) as itself:
        end(itself, own.key)
        failed = refused(lambda: end(itself, own.key))
    assert failed.code is grpc.StatusCode.UNAUTHENTICATED
