"""Agents and bootstrap tokens from protobuf to the core's values, checked once, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from licet.app.agent_ports import AgentChanged
from licet.app.agents import AgentToken, RegisterCommand, SwitchCommand
from licet.app.bootstrap_tokens import (
    CreateBootstrapCommand,
    MintedBootstrap,
    RevokeBootstrapCommand,
)
from licet.app.keys import MAX_LIMITS
from licet.app.read import Page
from licet.domain import names
from licet.domain.agent import (
    ANY_AGENT,
    DEFAULT_BOOTSTRAP_SECONDS,
    MAX_BOOTSTRAP_SECONDS,
    MAX_PUBLIC_KEY_BYTES,
    MAX_USES,
    Agent,
    AgentStatus,
    BootstrapToken,
    agent_name,
    agent_pattern,
    agent_principal,
    hostname,
)
from licet.domain.api_key import KeyId, is_id
from licet.domain.caller import Identity
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant
from licet.domain.pattern import ResourcePattern
from licet.server import convert
from licet.server.render import timestamp
from licet.v1 import agents_pb2 as pb

_MICROS: Final = 1_000_000
_ADDRESS_BYTES: Final = 256
_PEM: Final = "-----BEGIN PUBLIC KEY-----"
_STATUS: Final = {
    AgentStatus.ACTIVE: pb.AGENT_STATUS_ACTIVE,
    AgentStatus.INACTIVE: pb.AGENT_STATUS_INACTIVE,
    AgentStatus.OFFLINE: pb.AGENT_STATUS_OFFLINE,
}
_WANTED: Final = {number: status for status, number in _STATUS.items()}


def create_bootstrap(message: pb.CreateBootstrapTokenRequest) -> CreateBootstrapCommand:
    """Check a CreateBootstrapTokenRequest. Raises InvalidRequestError."""
    if not message.name:
        raise InvalidRequestError.of("name", "is required")
    if not 0 <= message.max_uses <= MAX_USES:
        raise InvalidRequestError.of("max_uses", f"must be from 1 to {MAX_USES}")
    ttl = DEFAULT_BOOTSTRAP_SECONDS * _MICROS
    if message.HasField("ttl"):
        ttl = convert.ttl(message.ttl)
        if ttl > MAX_BOOTSTRAP_SECONDS * _MICROS:
            raise InvalidRequestError.of("ttl", "must be at most 30 days")
    return CreateBootstrapCommand(
        name=names.label(message.name, "name"),
        principals=_patterns(message.principals),
        max_uses=message.max_uses or 1,
        ttl=ttl,
        request_id=names.label(message.request_id, "request_id"),
    )


def revoke_bootstrap(message: pb.RevokeBootstrapTokenRequest) -> RevokeBootstrapCommand:
    """Check a RevokeBootstrapTokenRequest. Raises InvalidRequestError."""
    if not is_id(message.token_id):
        raise InvalidRequestError.of(
            "token_id", "must be the 16 characters of a bootstrap token's id"
        )
    return RevokeBootstrapCommand(
        token_id=KeyId(message.token_id),
        reason=names.label(message.reason, "reason", names.REASON_BYTES),
        request_id=names.label(message.request_id, "request_id"),
    )


def register(message: pb.RegisterAgentRequest) -> RegisterCommand:
    """Check a RegisterAgentRequest. Raises InvalidRequestError."""
    return RegisterCommand(
        name=agent_name(message.name),
        hostname=hostname(message.hostname),
        address=names.label(message.address, "address", _ADDRESS_BYTES),
        public_key=_public_key(message.public_key),
        request_id=names.label(message.request_id, "request_id"),
    )


def rotate(message: pb.RotateAgentTokenRequest) -> str:
    """Check a RotateAgentTokenRequest. Raises InvalidRequestError."""
    return names.label(message.request_id, "request_id")


def switch(message: pb.DeactivateAgentRequest | pb.ActivateAgentRequest) -> SwitchCommand:
    """Check a DeactivateAgentRequest or an ActivateAgentRequest. Raises InvalidRequestError."""
    return SwitchCommand(
        name=agent_name(message.name),
        reason=names.label(message.reason, "reason", names.REASON_BYTES),
        request_id=names.label(message.request_id, "request_id"),
    )


def wanted_status(message: pb.ListAgentsRequest) -> AgentStatus | None:
    """Check the status of a ListAgentsRequest; None: any. Raises InvalidRequestError."""
    if message.status == pb.AGENT_STATUS_UNSPECIFIED:
        return None
    if message.status not in _WANTED:
        raise InvalidRequestError.of("status", f"must be one of {', '.join(_names())}")
    return _WANTED[message.status]


def bootstrap_created(minted: MintedBootstrap) -> pb.CreateBootstrapTokenResponse:
    """Render a bootstrap token that was made, with its text."""
    return pb.CreateBootstrapTokenResponse(
        bootstrap_token=_bootstrap(minted.token), token=minted.text, revision=minted.revision
    )


def bootstrap_revoked(changed: AgentChanged) -> pb.RevokeBootstrapTokenResponse:
    """Render what ending a bootstrap token did."""
    return pb.RevokeBootstrapTokenResponse(
        revision=changed.revision,
        already_ended=changed.already,
        replicas_confirmed=changed.confirmed,
        replicas_fenced=changed.fenced,
    )


def bootstrap_page(found: Page[BootstrapToken]) -> pb.ListBootstrapTokensResponse:
    """Render a page of bootstrap tokens."""
    return pb.ListBootstrapTokensResponse(
        bootstrap_tokens=map(_bootstrap, found.items), next_page_token=found.next_token
    )


def registered(given: AgentToken, heartbeat_seconds: float) -> pb.RegisterAgentResponse:
    """Render the token of an agent that was registered."""
    return pb.RegisterAgentResponse(
        principal=agent_principal(given.name),
        token=given.text,
        token_id=given.token_id,
        expires_at=timestamp(given.expires_at),
        heartbeat_interval=_duration(heartbeat_seconds),
        revision=given.revision,
    )


def rotated(given: AgentToken) -> pb.RotateAgentTokenResponse:
    """Render an agent's next token."""
    return pb.RotateAgentTokenResponse(
        token=given.text,
        token_id=given.token_id,
        expires_at=timestamp(given.expires_at),
        revision=given.revision,
    )


def heartbeat(caller: Identity, left: int, heartbeat_seconds: float) -> pb.AgentHeartbeatResponse:
    """Render what an agent should know; its token has `left` microseconds."""
    return pb.AgentHeartbeatResponse(
        heartbeat_interval=_duration(heartbeat_seconds),
        token_expires_at=_moment(caller.expires_at),
        token_expires_in=_duration(left / _MICROS),
    )


def agent(found: Agent) -> pb.GetAgentResponse:
    """Render an agent."""
    return pb.GetAgentResponse(agent=_agent(found))


def agent_page(found: Page[Agent]) -> pb.ListAgentsResponse:
    """Render a page of agents."""
    return pb.ListAgentsResponse(agents=map(_agent, found.items), next_page_token=found.next_token)


def deactivated(changed: AgentChanged) -> pb.DeactivateAgentResponse:
    """Render what deactivating an agent did."""
    return pb.DeactivateAgentResponse(
        revision=changed.revision,
        already_inactive=changed.already,
        replicas_confirmed=changed.confirmed,
        replicas_fenced=changed.fenced,
    )


def activated(changed: AgentChanged) -> pb.ActivateAgentResponse:
    """Render what activating an agent did."""
    return pb.ActivateAgentResponse(revision=changed.revision, already_active=changed.already)


def _agent(found: Agent) -> pb.Agent:
    return pb.Agent(
        name=found.name,
        principal=agent_principal(found.name),
        hostname=found.hostname,
        address=found.address,
        public_key=found.public_key,
        status=_STATUS[found.status],
        created_at=timestamp(found.created_at),
        registered_at=timestamp(found.registered_at),
        registered_by=found.registered_by,
        revision=found.revision,
        last_heartbeat_at=_moment(found.heard_at),
        offline_at=_moment(found.offline_at),
        token_id=found.token_id,
        token_expires_at=_moment(found.token_expires_at),
        deactivated_at=_moment(found.deactivated_at),
        deactivated_by=found.deactivated_by,
        deactivation_reason=found.reason,
    )


def _bootstrap(token: BootstrapToken) -> pb.BootstrapToken:
    return pb.BootstrapToken(
        token_id=token.token_id,
        name=token.name,
        principals=token.principals,
        max_uses=token.max_uses,
        uses=token.uses,
        expires_at=timestamp(token.expires_at),
        created_at=timestamp(token.created_at),
        created_by=token.created_by,
        revision=token.revision,
        ended_at=_moment(token.ended_at),
        ended_by=token.ended_by,
        end_reason=token.end_reason,
    )


def _patterns(texts: Sequence[str]) -> tuple[ResourcePattern, ...]:
    if len(texts) > MAX_LIMITS:
        raise InvalidRequestError.of("principals", f"must have at most {MAX_LIMITS} items")
    checked = tuple(agent_pattern(text, f"principals[{i}]") for i, text in enumerate(texts))
    return checked or (ANY_AGENT,)


def _public_key(text: str) -> str:
    if not text:
        return ""
    rule = f"must be a public key in PEM, at most {MAX_PUBLIC_KEY_BYTES} bytes"
    # So it begins: what else the parser reads might be a private key that follows.
    if not text.isascii() or len(text) > MAX_PUBLIC_KEY_BYTES or not text.startswith(_PEM):
        raise InvalidRequestError.of("public_key", rule)
    try:
        load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidRequestError.of("public_key", rule) from None
    if "PRIVATE" in text:
        raise InvalidRequestError.of("public_key", "must not hold a private key")
    return text


def _names() -> list[str]:
    return [pb.AgentStatus.Name(number) for number in _WANTED]


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * _MICROS))
    return duration


def _moment(at: Instant | None) -> Timestamp | None:
    return None if at is None else timestamp(at)
