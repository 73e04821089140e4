"""Agents for tests: bootstrap tokens and registrations in a line."""

from __future__ import annotations

from typing import Any

from licet.v1 import agents_pb2 as pb
from tests.fakes.callers import As, holding


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
