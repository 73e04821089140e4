"""Agents and the bootstrap tokens that they register with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

import grpc

from licet.client import messages, transport
from licet.client.errors import invalid
from licet.v1 import agents_pb2 as pb
from licet.v1.identity_pb2_grpc import IdentityServiceStub

MAX_PAGE: Final = 1000
_STATUS_PREFIX: Final = "AGENT_STATUS_"


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """A bootstrap token, without its secret; the fields are those of the API."""

    token_id: str
    name: str
    principals: tuple[str, ...]
    max_uses: int
    uses: int
    expires_at: datetime
    created_at: datetime
    created_by: str
    revision: int
    ended_at: datetime | None
    ended_by: str
    end_reason: str


@dataclass(frozen=True, slots=True)
class NewBootstrapToken:
    """A bootstrap token that was made. `token` is its text; empty for a repetition."""

    bootstrap_token: BootstrapToken
    token: str = field(repr=False)
    revision: int


@dataclass(frozen=True, slots=True)
class AgentToken:
    """An agent's token. `token` is its text, and is nowhere else; empty for a repetition.

    Attributes:
        token: to call with.
        token_id: public.
        expires_at: when it ends, unless it is rotated before.
        heartbeat_interval: how often to say that the agent lives; None after a rotation.
        revision: of the change.
    """

    token: str = field(repr=False)
    token_id: str
    expires_at: datetime
    heartbeat_interval: timedelta | None
    revision: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What an agent that said that it lives was told."""

    heartbeat_interval: timedelta
    token_expires_at: datetime
    token_expires_in: timedelta


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent; the fields are those of the API, `status` is active, inactive or offline."""

    name: str
    principal: str
    hostname: str
    address: str
    public_key: str
    status: str
    created_at: datetime
    registered_at: datetime
    registered_by: str
    revision: int
    last_heartbeat_at: datetime | None
    offline_at: datetime | None
    token_id: str
    token_expires_at: datetime | None
    deactivated_at: datetime | None
    deactivated_by: str
    deactivation_reason: str


@dataclass(frozen=True, slots=True)
class AgentSwitch:
    """What deactivating or activating an agent did; `already`: nothing, it was so before."""

    revision: int
    already: bool
    replicas_confirmed: int = 0
    replicas_fenced: int = 0


class Agents:
    """The calls about agents; `Client.agents`. Each raises LicetCallError; see there."""

    def __init__(self, channel: grpc.Channel, seconds: Callable[[float | None], float]) -> None:
        """Call over this channel; `seconds` gives each call its timeout."""
        self._stub = IdentityServiceStub(channel)
        self._seconds = seconds

    def create_bootstrap(  # noqa: PLR0913 - one argument per field
        self,
        name: str,
        *,
        principals: Iterable[str] = (),
        max_uses: int = 1,
        ttl: timedelta | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> NewBootstrapToken:
        """Make a bootstrap token.

        Args:
            name: for people.
            principals: patterns of the agents that it is for; none: any.
            max_uses: how many registrations it is good for.
            ttl: for how long it lives; an hour if omitted.
            request_id: idempotency key; one is made when there is none.
            timeout: seconds, when not the client's.
        """
        request = messages.build(
            pb.CreateBootstrapTokenRequest,
            name=name,
            principals=tuple(principals),
            max_uses=max_uses,
            ttl=messages.duration(ttl),
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.CreateBootstrapToken, request, self._seconds(timeout))
        return NewBootstrapToken(_bootstrap(answer.bootstrap_token), answer.token, answer.revision)

    def revoke_bootstrap(
        self, token_id: str, *, reason: str = "", request_id: str = "", timeout: float | None = None
    ) -> AgentSwitch:
        """End a bootstrap token at once; agents that were registered with it stay."""
        request = messages.build(
            pb.RevokeBootstrapTokenRequest,
            token_id=token_id,
            reason=reason,
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.RevokeBootstrapToken, request, self._seconds(timeout))
        return AgentSwitch(
            answer.revision,
            answer.already_ended,
            answer.replicas_confirmed,
            answer.replicas_fenced,
        )

    def list_bootstrap(
        self,
        *,
        include_ended: bool = False,
        page_size: int = MAX_PAGE,
        timeout: float | None = None,
    ) -> Iterator[BootstrapToken]:
        """Iterate over bootstrap tokens in the order of ids; `timeout` is for each page."""
        token = ""
        while True:
            request = pb.ListBootstrapTokensRequest(
                include_ended=include_ended, page_size=page_size, page_token=token
            )
            page = transport.read(self._stub.ListBootstrapTokens, request, self._seconds(timeout))
            yield from map(_bootstrap, page.bootstrap_tokens)
            token = page.next_page_token
            if not token:
                return

    def register(  # noqa: PLR0913 - one argument per field
        self,
        name: str,
        hostname: str,
        *,
        address: str = "",
        public_key: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> AgentToken:
        """Register an agent, with the bootstrap token that is this client's `api_key`.

        Args:
            name: of the agent, without `agent:`.
            hostname: of its host; no other agent has it.
            address: where it is reached.
            public_key: PEM.
            request_id: idempotency key; one is made when there is none.
            timeout: seconds, when not the client's.
        """
        request = messages.build(
            pb.RegisterAgentRequest,
            name=name,
            hostname=hostname,
            address=address,
            public_key=public_key,
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.RegisterAgent, request, self._seconds(timeout))
        return AgentToken(
            answer.token,
            answer.token_id,
            messages.instant(answer.expires_at),
            answer.heartbeat_interval.ToTimedelta(),
            answer.revision,
        )

    def rotate(self, *, request_id: str = "", timeout: float | None = None) -> AgentToken:
        """Take the next token of the agent whose token this client calls with.

        The old one goes on for five minutes. With an empty `token`, repeat it under another
        request id.
        """
        request = messages.build(pb.RotateAgentTokenRequest, request_id=request_id or uuid4().hex)
        answer = transport.change(self._stub.RotateAgentToken, request, self._seconds(timeout))
        expires_at = messages.instant(answer.expires_at)
        return AgentToken(answer.token, answer.token_id, expires_at, None, answer.revision)

    def heartbeat(self, *, timeout: float | None = None) -> Heartbeat:
        """Say that the agent lives whose token this client calls with."""
        answer = transport.read(
            self._stub.AgentHeartbeat, pb.AgentHeartbeatRequest(), self._seconds(timeout)
        )
        return Heartbeat(
            answer.heartbeat_interval.ToTimedelta(),
            messages.instant(answer.token_expires_at),
            answer.token_expires_in.ToTimedelta(),
        )

    def get(self, name: str, *, timeout: float | None = None) -> Agent:
        """Return an agent."""
        request = messages.build(pb.GetAgentRequest, name=name)
        return _agent(transport.read(self._stub.GetAgent, request, self._seconds(timeout)).agent)

    def list(
        self, *, status: str = "", page_size: int = MAX_PAGE, timeout: float | None = None
    ) -> Iterator[Agent]:
        """Iterate over agents in the order of names; `timeout` is for each page.

        With `status` (active, inactive, offline), over those that have it.
        """
        token = ""
        while True:
            request = pb.ListAgentsRequest(
                status=_status(status), page_size=page_size, page_token=token
            )
            page = transport.read(self._stub.ListAgents, request, self._seconds(timeout))
            yield from map(_agent, page.agents)
            token = page.next_page_token
            if not token:
                return

    def deactivate(
        self, name: str, *, reason: str = "", request_id: str = "", timeout: float | None = None
    ) -> AgentSwitch:
        """End all tokens of an agent at once; it cannot register before it is activated."""
        request = messages.build(
            pb.DeactivateAgentRequest,
            name=name,
            reason=reason,
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.DeactivateAgent, request, self._seconds(timeout))
        return AgentSwitch(
            answer.revision,
            answer.already_inactive,
            answer.replicas_confirmed,
            answer.replicas_fenced,
        )

    def activate(
        self, name: str, *, reason: str = "", request_id: str = "", timeout: float | None = None
    ) -> AgentSwitch:
        """Let an agent that was deactivated register again."""
        request = messages.build(
            pb.ActivateAgentRequest,
            name=name,
            reason=reason,
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.ActivateAgent, request, self._seconds(timeout))
        return AgentSwitch(answer.revision, answer.already_active)


def _status(text: str) -> pb.AgentStatus.ValueType:
    if not text:
        return pb.AGENT_STATUS_UNSPECIFIED
    name = _STATUS_PREFIX + text.upper()
    if name not in pb.AgentStatus.keys() or name.endswith("_UNSPECIFIED"):  # noqa: SIM118 - no dict
        raise invalid("status", "must be active, inactive or offline")
    return pb.AgentStatus.Value(name)


def _bootstrap(message: pb.BootstrapToken) -> BootstrapToken:
    return BootstrapToken(
        token_id=message.token_id,
        name=message.name,
        principals=tuple(message.principals),
        max_uses=message.max_uses,
        uses=message.uses,
        expires_at=messages.instant(message.expires_at),
        created_at=messages.instant(message.created_at),
        created_by=message.created_by,
        revision=message.revision,
        ended_at=messages.optional_instant(message, "ended_at"),
        ended_by=message.ended_by,
        end_reason=message.end_reason,
    )


def _agent(message: pb.Agent) -> Agent:
    return Agent(
        name=message.name,
        principal=message.principal,
        hostname=message.hostname,
        address=message.address,
        public_key=message.public_key,
        status=pb.AgentStatus.Name(message.status).removeprefix(_STATUS_PREFIX).lower(),
        created_at=messages.instant(message.created_at),
        registered_at=messages.instant(message.registered_at),
        registered_by=message.registered_by,
        revision=message.revision,
        last_heartbeat_at=messages.optional_instant(message, "last_heartbeat_at"),
        offline_at=messages.optional_instant(message, "offline_at"),
        token_id=message.token_id,
        token_expires_at=messages.optional_instant(message, "token_expires_at"),
        deactivated_at=messages.optional_instant(message, "deactivated_at"),
        deactivated_by=message.deactivated_by,
        deactivation_reason=message.deactivation_reason,
    )
