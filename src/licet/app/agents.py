"""Agents: registered, rotating their tokens, deactivated and listed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from licet.app.administration import AdminChange
from licet.app.agent_ports import AgentChanged, AgentChanges, AgentStore, Heartbeats
from licet.app.key_ports import KeyMint
from licet.app.new_keys import digest, digest_of_secret
from licet.app.ports import Clock, Deadline, Ids, PageTokens
from licet.app.read import Page, cut
from licet.app.user_ports import UserStore, seen_of
from licet.domain import api_key
from licet.domain.agent import (
    OVERLAP_SECONDS,
    TOKEN_SECONDS,
    Agent,
    AgentStatus,
    agent_principal,
)
from licet.domain.api_key import KeyId
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.caller import OUTSIDE_LIMITS, Identity
from licet.domain.canonical_json import JsonObject, JsonValue, canonical
from licet.domain.errors import NotFoundError, NotPermittedError
from licet.domain.instant import Instant


class RegisterCommand(NamedTuple):
    """The agent that a bootstrap token's holder says it is, its fields checked."""

    name: str
    hostname: str
    address: str
    public_key: str
    request_id: str


class SwitchCommand(NamedTuple):
    """The agent to deactivate, or to let in again."""

    name: str
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True)
class AgentToken:
    """A token that an agent was given; `text` is what is to be sent, empty for a repetition."""

    name: str
    token_id: str
    text: str = field(repr=False)
    expires_at: Instant
    revision: int


class ManageAgents:
    """Registers agents, rotates their tokens, and lets operators see and stop them."""

    def __init__(  # noqa: PLR0913, PLR0917 - the ports
        self,
        changes: AgentChanges,
        store: AgentStore,
        heartbeats: Heartbeats,
        mint: KeyMint,
        ids: Ids,
        clock: Clock,
        tokens: PageTokens,
        users: UserStore,
    ) -> None:
        """Compose the use cases."""
        self._changes = changes
        self._store = store
        self._heartbeats = heartbeats
        self._mint = mint
        self._ids = ids
        self._clock = clock
        self._tokens = tokens
        self._users = users

    def register(
        self, command: RegisterCommand, caller: Identity, deadline: Deadline
    ) -> AgentToken:
        """Register an agent with the bootstrap token that `caller` was authenticated by.

        Raises:
            NotPermittedError: the bootstrap token is for other agents; the attempt is on record.
            Others: see `AgentChanges.change`.
        """
        token_id, secret = self._mint.key_id(), self._mint.secret()
        facts = _registration_facts(command, token_id)
        if not caller.limits.cover_principal(agent_principal(command.name)):
            self._refuse(EventType.AGENT_REGISTERED, command.name, caller, facts, deadline)
            raise NotPermittedError(OUTSIDE_LIMITS, "the bootstrap token is for other agents")
        change = AdminChange(
            event_type=EventType.AGENT_REGISTERED,
            request_id=command.request_id or self._ids.request_id(),
            digest=digest(["register", caller.caller, *command[:4]]),
            actor=caller.caller,
            facts=facts,
            details={
                "id": caller.key_id,
                "agent": dict(zip(command._fields[:4], command[:4], strict=True)),
                "token": _token_details(token_id, secret),
            },
        )
        return self._given(command.name, token_id, secret, change, deadline)

    def rotate(self, request_id: str, caller: Identity, deadline: Deadline) -> AgentToken:
        """Give an agent a token that takes the place of the one it calls with.

        Raises:
            See `AgentChanges.change`.
        """
        name = _name_of(caller)
        token_id, secret = self._mint.key_id(), self._mint.secret()
        change = AdminChange(
            event_type=EventType.AGENT_ROTATED,
            request_id=request_id or self._ids.request_id(),
            digest=digest(["rotate agent", caller.caller, caller.key_id]),
            actor=caller.caller,
            facts=canonical(
                {
                    "token_id": token_id,
                    "replaces": caller.key_id,
                    "overlap_seconds": OVERLAP_SECONDS,
                }
            ),
            details={
                "id": caller.key_id,
                "name": name,
                "overlap_seconds": OVERLAP_SECONDS,
                "token": _token_details(token_id, secret),
            },
        )
        return self._given(name, token_id, secret, change, deadline)

    def heartbeat(self, caller: Identity) -> int:
        """Take note that the agent who calls lives; return how long its token has left, in us.

        Costs no I/O and raises nothing.
        """
        self._heartbeats.heard(_name_of(caller))
        now = self._clock.now()
        return 0 if caller.expires_at is None else max(caller.expires_at - now, 0)

    def deactivate(
        self, command: SwitchCommand, caller: Identity, deadline: Deadline
    ) -> AgentChanged:
        """End every token of an agent at once; it cannot be registered before it is activated.

        Raises:
            NotPermittedError: the agent is outside the caller's limits; the attempt is on record.
            ConflictError: the caller's roles have changed meanwhile; nothing happened.
            Others: see `AgentChanges.change`.
        """
        return self._switch(EventType.AGENT_DEACTIVATED, command, caller, deadline)

    def activate(
        self, command: SwitchCommand, caller: Identity, deadline: Deadline
    ) -> AgentChanged:
        """Let an agent that was deactivated be registered again. Raises as `deactivate` does."""
        return self._switch(EventType.AGENT_ACTIVATED, command, caller, deadline)

    def get(self, name: str, deadline: Deadline) -> Agent:
        """Return an agent.

        Raises:
            NotFoundError: there is none of this name.
            UnavailableError, DeadlineError: see `AgentStore`.
        """
        found = self._store.agent(name, deadline)
        if found is None:
            raise NotFoundError(f"there is no agent {name}")
        return found

    def page(
        self, status: AgentStatus | None, size: int, token: str, deadline: Deadline
    ) -> Page[Agent]:
        """Return one page, in the order of names.

        Raises:
            InvalidRequestError: the token is not of this list.
            UnavailableError, DeadlineError: see `AgentStore`.
        """
        listed = digest(["agents", status])
        after = self._tokens.open(listed, token) if token else ""
        found = self._store.agents(after, size + 1, status, deadline)
        return cut(found, size, _bytes, lambda last: self._tokens.seal(listed, last.name))

    def _given(
        self, name: str, token_id: KeyId, secret: bytes, change: AdminChange, deadline: Deadline
    ) -> AgentToken:
        # Nothing is read after the change: what failed then would cost the agent its token.
        changed = self._changes.change(change, deadline)
        if changed.expires_at is None:
            raise RuntimeError("a token of an agent was made without an end")
        text = api_key.render(token_id, secret) if changed.token_id == token_id else ""
        return AgentToken(name, changed.token_id, text, changed.expires_at, changed.revision)

    def _switch(
        self, kind: EventType, command: SwitchCommand, caller: Identity, deadline: Deadline
    ) -> AgentChanged:
        facts = canonical({"reason": command.reason})
        if not caller.limits.cover_principal(agent_principal(command.name)):
            self._refuse(kind, command.name, caller, facts, deadline)
            raise NotPermittedError(OUTSIDE_LIMITS, "the agent is outside the caller's limits")
        return self._changes.change(
            AdminChange(
                event_type=kind,
                request_id=command.request_id or self._ids.request_id(),
                digest=digest([kind, caller.caller, *command[:2]]),
                actor=caller.caller,
                facts=facts,
                details={
                    "name": command.name,
                    "reason": command.reason,
                    "seen": seen_of(caller, self._users, deadline),
                },
            ),
            deadline,
        )

    def _refuse(
        self, kind: EventType, name: str, caller: Identity, facts: JsonObject, deadline: Deadline
    ) -> None:
        event = AuditEvent(
            occurred_at=self._clock.now(),
            event_type=kind,
            actor=caller.caller,
            principal=agent_principal(name),
            action="",
            resource=agent_principal(name),
            capability_id="",
            result=Result.REFUSED,
            reason=OUTSIDE_LIMITS,
            policy_id="",
            session_id="",
            trace_id="",
            revision=0,
            metadata=facts,
        )
        self._changes.refuse(event, deadline)


def _name_of(agent: Identity) -> str:
    return agent.caller.partition(":")[2]


def _token_details(token_id: KeyId, secret: bytes) -> dict[str, JsonValue]:
    return {
        "id": token_id,
        "secret_sha256": digest_of_secret(token_id, secret).hex(),
        "ttl_seconds": TOKEN_SECONDS,
    }


def _registration_facts(command: RegisterCommand, token_id: KeyId) -> JsonObject:
    key = command.public_key.encode()
    return canonical(
        {
            "hostname": command.hostname,
            "address": command.address,
            "public_key_sha256": hashlib.sha256(key).hexdigest() if key else None,
            "token_id": token_id,
        }
    )


def _bytes(agent: Agent) -> int:
    return 3500 + len(agent.public_key)
