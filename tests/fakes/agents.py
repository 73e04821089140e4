"""Agents for tests: bootstrap tokens and registrations in a line."""

from __future__ import annotations

from typing import Any

import grpc

from licet.v1 import agents_pb2 as pb
from licet.v1 import identity_pb2
from tests.fakes.api import rows
from tests.fakes.callers import As, holding
from tests.fakes.postgres import Database
from tests.fakes.serving import failure


def make_bootstrap(
    services: As,
    **fields: Any,  # noqa: ANN401 - any field of the request
) -> pb.CreateBootstrapTokenResponse:
    """Make a bootstrap token."""
    request = pb.CreateBootstrapTokenRequest(**({"name": "a test's"} | fields))
    return services.identity.CreateBootstrapToken(request, timeout=10)


def registration(
    name: str,
    /,
    **fields: Any,  # noqa: ANN401 - any field of the request
) -> pb.RegisterAgentRequest:
    """Return the request of an agent whose host has its name."""
    hostname = f"{name.replace('/', '-')}.example.org".lower()
    return pb.RegisterAgentRequest(**({"name": name, "hostname": hostname} | fields))


def register(
    address: str,
    token: str,
    name: str,
    /,
    **fields: Any,  # noqa: ANN401 - any field of the request
) -> pb.RegisterAgentResponse:
    """Register an agent with a bootstrap token."""
    with holding(address, token) as bootstrap:
        return bootstrap.identity.RegisterAgent(registration(name, **fields), timeout=10)


def make_agent(
    address: str,
    services: As,
    name: str,
    /,
    **fields: Any,  # noqa: ANN401 - any field of the registration
) -> pb.RegisterAgentResponse:
    """Register an agent with a bootstrap token made for it."""
    return register(address, make_bootstrap(services).token, name, **fields)


def who(address: str, token: str) -> grpc.StatusCode:
    """Return how a token is received: OK, when it counts and is no bootstrap token."""
    with holding(address, token) as caller:
        try:
            caller.identity.GetCaller(identity_pb2.GetCallerRequest(), timeout=10)
        except grpc.RpcError as exc:
            return failure(exc).code
    return grpc.StatusCode.OK


def event_reasons(database: Database, kind: str) -> list[tuple[str, str]]:
    """Return how the changes of a kind came out, in their order."""
    query = "SELECT result, reason FROM audit.events WHERE event_type = %s ORDER BY event_id"
    return [(result, reason) for result, reason in rows(database, query, kind)]
