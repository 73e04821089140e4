"""A real licet on a real port, over a test's own database; nothing is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status

from licet import config
from licet.bootstrap.process import Licet
from licet.server import hybrid
from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.fakes.postgres import Database

_Detail = TypeVar("_Detail", bound=Message)


@dataclass(frozen=True, slots=True)
class Served:
    """A server and a client of it.

    Attributes:
        licet: the running composition.
        address: host and port.
        channel: an open channel.
        stub: the AuthorizationService.
        health: the health service.
        database: what the server works on.
    """

    licet: Licet
    address: str
    channel: grpc.Channel
    stub: AuthorizationServiceStub
    health: health_pb2_grpc.HealthStub
    database: Database

    def grant(
        self,
        principal: str,
        actions: str,
        resource: str,
        **fields: Any,  # noqa: ANN401 - any field of the request
    ) -> str:
        """Grant and return the capability's id; `actions` are separated by spaces."""
        request = pb.GrantRequest(
            principal=principal, actions=actions.split(), resource=resource, **fields
        )
        return self.stub.Grant(request, timeout=10).capability.id

    def authorize(
        self,
        principal: str,
        action: str,
        resource: str,
        **fields: Any,  # noqa: ANN401 - any field of the request
    ) -> pb.AuthorizeResponse:
        """Ask for one decision."""
        request = pb.AuthorizeRequest(
            principal=principal, action=action, resource=resource, **fields
        )
        return self.stub.Authorize(request, timeout=10)


@contextmanager
def serving(database: Database, **settings: object) -> Iterator[Served]:
    """Serve `database` on a free port of loopback; the keywords are settings."""
    chosen = {
        "listen": "127.0.0.1:0",
        "database_url": database.url,
        "drain_seconds": 2.0,
        # Tests write into the log past its writers, and count what is in it.
        "audit_verify_share": 0.0,
    }
    licet = Licet(config.load(**(chosen | settings))).start()
    try:
        address = f"127.0.0.1:{licet.server.port}"
        with grpc.insecure_channel(address) as channel:
            yield Served(
                licet,
                address,
                channel,
                AuthorizationServiceStub(channel),
                health_pb2_grpc.HealthStub(channel),
                database,
            )
    finally:
        licet.stop()


def calls_left(served: Served) -> tuple[int, int]:
    """Return how many calls gRPC remembers, and how many it takes for running."""
    inner: Any = served.licet.server._grpc  # noqa: SLF001 - nothing else knows
    state = inner._state  # noqa: SLF001 - as above
    methods = sum(isinstance(one, hybrid._Method) for one in state.rpc_states)  # noqa: SLF001 - as above
    return len(state.rpc_states) - methods, state.active_rpc_count


@dataclass(frozen=True, slots=True)
class Failure:
    """What an RPC failed with, its details unpacked.

    Attributes:
        code: the status code.
        message: the status message.
        fields: the field paths of BadRequest, in order.
        reason: ErrorInfo.reason, or empty.
        metadata: ErrorInfo.metadata.
        retry: whether a RetryInfo came with it.
    """

    code: grpc.StatusCode
    message: str
    fields: tuple[str, ...]
    reason: str
    metadata: dict[str, str]
    retry: bool


def failure(error: grpc.RpcError) -> Failure:
    """Take the error of an RPC apart."""
    # What a stub raises is a call, too; the stubs of grpc do not know it.
    status = rpc_status.from_call(cast("grpc.Call", error)) or Status()
    found = {detail.TypeName(): detail for detail in status.details}

    def unpack(message: _Detail) -> _Detail:
        if message.DESCRIPTOR.full_name in found:
            found[message.DESCRIPTOR.full_name].Unpack(message)
        return message

    bad = unpack(error_details_pb2.BadRequest())
    info = unpack(error_details_pb2.ErrorInfo())
    return Failure(
        code=error.code(),
        message=error.details() or "",
        fields=tuple(violation.field for violation in bad.field_violations),
        reason=info.reason,
        metadata=dict(info.metadata),
        retry="google.rpc.RetryInfo" in found,
    )
