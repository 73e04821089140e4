"""Callers with keys of their own, and servers that ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from licet.app.ports import Deadline
from licet.domain.caller import ANONYMOUS, Identity
from licet.domain.errors import UnauthenticatedError
from licet.server.authority import Authority
from licet.server.failures import FailedCalls
from licet.server.identity import Authentication
from licet.v1 import identity_pb2 as pb
from licet.v1.audit_service_pb2_grpc import AuditServiceStub
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from licet.v1.identity_pb2_grpc import IdentityServiceStub


class NoKeys:
    """Knows no credential."""

    remembered = ()

    def current(self, _header: str) -> None:
        return None

    def known(self, _header: str, _deadline: Deadline) -> None:
        return None

    def __call__(self, _header: str, _deadline: Deadline) -> Identity:
        raise UnauthenticatedError("there are no keys")


def open_to_all() -> Authority:
    """Return an authority that lets everybody in, as admin."""
    return Authority(Authentication(NoKeys(), ANONYMOUS), FailedCalls(lambda *_: None))


@dataclass(frozen=True, slots=True)
class As:
    """The services, called with one key or none."""

    authorization: AuthorizationServiceStub
    audit: AuditServiceStub
    identity: IdentityServiceStub
    channel: grpc.Channel


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends headers with each call, also ones that our client would not."""

    def __init__(self, headers: tuple[str, ...]) -> None:
        self._metadata = tuple(("authorization", header) for header in headers)

    def _call(
        self, continuation: Callable[..., Any], details: grpc.ClientCallDetails, request: object
    ) -> Any:  # noqa: ANN401 - a call
        class Details(grpc.ClientCallDetails):
            method = details.method
            timeout = details.timeout
            metadata = self._metadata
            credentials = None
            wait_for_ready = None
            compression = None

        return continuation(Details(), request)

    intercept_unary_unary = _call  # type: ignore[assignment] # one for all
    intercept_unary_stream = _call  # type: ignore[assignment] # one for all
    intercept_stream_stream = _call  # type: ignore[assignment] # one for all


@contextmanager
def calling(
    address: str, *headers: str, tls: grpc.ChannelCredentials | None = None
) -> Iterator[As]:
    """Provide the services at an address, called with these `authorization` headers.

    The connection is one of its own, with `tls` if it is given.
    """
    options = [("grpc.use_local_subchannel_pool", 1)]
    with (
        grpc.insecure_channel(address, options=options)
        if tls is None
        else grpc.secure_channel(address, tls, options=options)
    ) as opened:
        channel = grpc.intercept_channel(opened, _Bearer(headers))
        yield As(
            AuthorizationServiceStub(channel),
            AuditServiceStub(channel),
            IdentityServiceStub(channel),
            channel,
        )


@contextmanager
def holding(address: str, token: str) -> Iterator[As]:
    """Provide the services at an address, called with an API key."""
    with calling(address, f"Bearer {token}") as services:
        yield services


def make_key(
    services: As,
    *scopes: str,
    principals: tuple[str, ...] = (),
    resources: tuple[str, ...] = (),
    **fields: Any,  # noqa: ANN401 - any field of the request
) -> pb.CreateApiKeyResponse:
    """Make a key with these scopes and limits."""
    request = pb.CreateApiKeyRequest(
        name="a test's",
        scopes=scopes,
        limits=pb.Limits(principals=principals, resources=resources),
        **fields,
    )
    return services.identity.CreateApiKey(request, timeout=10)
