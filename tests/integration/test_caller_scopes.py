"""Every RPC and every scope: what each caller may call, found from the protos themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from licet.client.transport import health_check
from licet.domain.caller import Scope
from licet.server.authority import CREDENTIALS, RULES
from licet.v1 import (
    agents_pb2,
    approval_pb2,
    audit_service_pb2,
    authorization_pb2,
    identity_pb2,
    policy_pb2,
)
from tests.fakes.agents import make_agent, make_bootstrap
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Cluster, Database
from tests.fakes.serving import Failure, Served, failure, serving

FILES = (authorization_pb2, audit_service_pb2, identity_pb2, policy_pb2, approval_pb2)
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
SAID = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}
"""How an empty request fails once its caller was let in."""
BY_USE_CASE = {
    "/licet.v1.AuthorizationService/Grant": {Scope.GRANT},
    "/licet.v1.AuthorizationService/Revoke": {Scope.REVOKE},
    "/licet.v1.IdentityService/RotateApiKey": {Scope.ADMIN},
    "/licet.v1.IdentityService/RevokeApiKey": {Scope.IDENTITY},
    # Two are needed: see test_api_replay.py.
    "/licet.v1.PolicyService/ReplayPolicySet": set[Scope](),
}
"""Methods of which the interceptor does not say it all, and the scope that makes them work without
any relation to what is changed. Their own tests are in test_authority.py."""


def message(method: str, stranger: str) -> Message:
    """Return a request that is well formed, about what the caller has no relation to."""
    name = method.rpartition("/")[2]
    all_fields: dict[str, dict[str, Any]] = {
        "Grant": {"principal": "user:a", "actions": ["read"], "resource": "doc:a"},
        "Revoke": {"filter": {"principal": "user:nobody"}},
        "RotateApiKey": {"key_id": stranger},
        "RevokeApiKey": {"key_id": stranger},
        "RegisterAgent": {"name": "two", "hostname": "two"},
    }
    return GetMessageClass(METHODS[method].input_type)(**all_fields.get(name, {}))


def call(services: As, method: str, request: Message) -> Failure | None:
    """Call a method and return how it failed; None: it did not."""
    described = METHODS[method]
    answer = GetMessageClass(described.output_type).FromString
    channel, encode = services.channel, type(request).SerializeToString
    try:
        if described.client_streaming:
            stream = channel.stream_stream(
                method, request_serializer=encode, response_deserializer=answer
            )
            list(stream(iter([request]), timeout=10))
        elif described.server_streaming:
            watch = channel.unary_stream(
                method, request_serializer=encode, response_deserializer=answer
            )(request, timeout=10)
            next(watch, None)
            watch.cancel()
        else:
            channel.unary_unary(method, request_serializer=encode, response_deserializer=answer)(
                request, timeout=10
            )
    except grpc.RpcError as exc:
        return failure(exc)
    return None


def check_scope(services: As, method: str, scope: Scope, stranger: str) -> None:
    """Check that a caller with one scope may call a method, or may not, as the rules say."""
    failed = call(services, method, message(method, stranger))
    if method in CREDENTIALS:
        assert failed is not None
        assert failed.code is grpc.StatusCode.PERMISSION_DENIED
        assert failed.reason == "CREDENTIAL_KIND"
    elif scope in BY_USE_CASE.get(method, RULES[method]) | {Scope.ADMIN}:
        # It may be refused for what it says, but not for who says it.
        assert failed is None or failed.reason == "SCOPES_WIDER" or failed.code in SAID
    else:
        assert failed is not None
        assert failed.code is grpc.StatusCode.PERMISSION_DENIED
        assert failed.reason in {"SCOPE_MISSING", "KEY_NOT_OWN"}


@pytest.fixture(scope="module")
def required(
    cluster: Cluster, migrated_template: Database, both_ways: str
) -> Iterator[tuple[Served, dict[str, str]]]:
    """Provide a server that asks for credentials, and a key of each scope by its name."""
    assert both_ways
    with cluster.database(migrated_template) as database:
        with serving(database) as served, calling(served.address) as admin:
            tokens = {scope.value: make_key(admin, scope).token for scope in Scope}
            tokens["stranger"] = make_key(admin, "admin").key.key_id
            tokens["agent"] = make_agent(served.address, admin, "one").token
            tokens["bootstrap"] = make_bootstrap(admin).token
        with serving(database, authentication="required") as served:
            yield served, tokens


def test_every_method_has_a_rule_and_every_rule_a_method() -> None:
    assert {*RULES, *CREDENTIALS} == set(METHODS)
    assert RULES.keys().isdisjoint(CREDENTIALS)
    assert all(RULES.values())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scope", Scope)
def test_a_scope_opens_what_it_should(
    required: tuple[Served, dict[str, str]], method: str, scope: Scope
) -> None:
    served, tokens = required
    with holding(served.address, tokens[scope.value]) as caller:
        check_scope(caller, method, scope, tokens["stranger"])


AN_AGENTS = {
    "Authorize",
    "BatchAuthorize",
    "StreamAuthorize",
    "GetCaller",
    "GetApproval",
    "RotateAgentToken",
    "AgentHeartbeat",
}
"""What an agent's token opens without any capability; `Grant` and `Revoke` have their own tests."""


@pytest.mark.parametrize("method", METHODS)
def test_an_agents_token_opens_what_is_about_itself(
    required: tuple[Served, dict[str, str]], method: str
) -> None:
    served, tokens = required
    with holding(served.address, tokens["agent"]) as agent:
        failed = call(agent, method, message(method, tokens["stranger"]))
    if method.rpartition("/")[2] in AN_AGENTS:
        assert failed is None or failed.code in SAID
    else:
        assert failed is not None
        assert failed.reason in {"SCOPE_MISSING", "CREDENTIAL_KIND", "KEY_NOT_OWN"}


@pytest.mark.parametrize("method", METHODS)
def test_a_bootstrap_token_registers_and_does_nothing_else(
    required: tuple[Served, dict[str, str]], method: str
) -> None:
    served, tokens = required
    with holding(served.address, tokens["bootstrap"]) as bootstrap:
        if method.endswith("/RegisterAgent"):
            request = agents_pb2.RegisterAgentRequest(name="*")
            failed = call(bootstrap, method, request)
            assert failed is not None
            assert failed.code in SAID
        else:
            failed = call(bootstrap, method, message(method, tokens["stranger"]))
            assert failed is not None
            assert failed.code is grpc.StatusCode.PERMISSION_DENIED
            assert failed.reason in {"SCOPE_MISSING", "CREDENTIAL_KIND"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "headers", [(), ("Bearer licet_",), ("Basic dXNlcjpwYXNz",)], ids=["none", "broken", "basic"]
)
def test_without_a_valid_credential_nothing_opens(
    required: tuple[Served, dict[str, str]], method: str, headers: tuple[str, ...]
) -> None:
    served, tokens = required
    with calling(served.address, *headers) as caller:
        failed = call(caller, method, message(method, tokens["stranger"]))
    assert failed is not None
    assert failed.code is grpc.StatusCode.UNAUTHENTICATED
    assert failed.message == "an API key is required: `authorization: Bearer licet_...`"


def test_health_and_reflection_are_open(required: tuple[Served, dict[str, str]]) -> None:
    served, _ = required
    check = health_check(served.channel)
    checked = check(health_pb2.HealthCheckRequest(), timeout=10)
    assert checked.status == health_pb2.HealthCheckResponse.SERVING
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = reflection.ServerReflectionInfo(asked, timeout=10)
    assert "licet.v1.IdentityService" in {s.name for s in answer.list_services_response.service}


def test_two_credentials_are_none(required: tuple[Served, dict[str, str]]) -> None:
    served, tokens = required
    bearer = f"Bearer {tokens['admin']}"
    with calling(served.address, bearer, bearer) as caller:
        failed = call(
            caller, "/licet.v1.IdentityService/GetCaller", identity_pb2.GetCallerRequest()
        )
    assert failed is not None
    assert failed.code is grpc.StatusCode.UNAUTHENTICATED
