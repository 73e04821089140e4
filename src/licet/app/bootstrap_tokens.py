"""Bootstrap tokens: made, revoked and listed.

Whoever has one becomes any agent that it is for and that has no token yet, and may delegate what
was granted to it. So only an admin makes one, as with keys that act as others, and within its own
limits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from licet.app.administration import AdminChange
from licet.app.agent_ports import AgentChanged, AgentChanges, AgentStore
from licet.app.key_ports import KeyMint
from licet.app.new_keys import digest, digest_of_secret
from licet.app.ports import Clock, Deadline, Ids, PageTokens
from licet.app.read import Page, cut
from licet.app.user_ports import UserStore, seen_of
from licet.domain import api_key
from licet.domain.agent import BootstrapToken
from licet.domain.api_key import KeyId
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.caller import OUTSIDE_LIMITS, UNLIMITED, Identity, Limits, Scope
from licet.domain.canonical_json import JsonObject, canonical
from licet.domain.errors import NotPermittedError
from licet.domain.instant import Instant, rfc3339
from licet.domain.pattern import ResourcePattern


class CreateBootstrapCommand(NamedTuple):
    """The bootstrap token that a caller asks for, its fields checked; `ttl` in microseconds."""

    name: str
    principals: tuple[ResourcePattern, ...]
    max_uses: int
    ttl: int
    request_id: str


class RevokeBootstrapCommand(NamedTuple):
    """The bootstrap token to end."""

    token_id: KeyId
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True)
class MintedBootstrap:
    """A bootstrap token that was made; `text` is what is to be sent, empty for a repetition."""

    token: BootstrapToken
    text: str = field(repr=False)
    revision: int


class ManageBootstrapTokens:
    """Makes, revokes and lists bootstrap tokens."""

    def __init__(  # noqa: PLR0913, PLR0917 - the ports
        self,
        changes: AgentChanges,
        store: AgentStore,
        mint: KeyMint,
        ids: Ids,
        clock: Clock,
        tokens: PageTokens,
        users: UserStore,
    ) -> None:
        """Compose the use cases."""
        self._changes = changes
        self._store = store
        self._mint = mint
        self._ids = ids
        self._clock = clock
        self._tokens = tokens
        self._users = users

    def create(
        self, command: CreateBootstrapCommand, caller: Identity, deadline: Deadline
    ) -> MintedBootstrap:
        """Make a bootstrap token.

        Raises:
            NotPermittedError: the caller may not; the attempt is on record.
            ConflictError: the caller's roles have changed meanwhile; nothing happened.
            Others: see `AgentChanges.change`.
        """
        token_id, secret = self._mint.key_id(), self._mint.secret()
        expires_at = Instant(self._clock.now() + command.ttl)
        facts = canonical(
            {
                "token_id": token_id,
                "name": command.name,
                "principals": command.principals,
                "max_uses": command.max_uses,
                "expires_at": rfc3339(expires_at),
            }
        )
        try:
            _check_may_create(command, expires_at, caller)
        except NotPermittedError as refusal:
            self._refuse(EventType.BOOTSTRAP_CREATED, caller, refusal.code, facts, deadline)
            raise
        changed = self._changes.change(
            AdminChange(
                event_type=EventType.BOOTSTRAP_CREATED,
                request_id=command.request_id or self._ids.request_id(),
                digest=digest(["bootstrap", caller.caller, *command[:4]]),
                actor=caller.caller,
                facts=facts,
                details={
                    "id": token_id,
                    "token": {
                        "name": command.name,
                        "secret_sha256": digest_of_secret(token_id, secret).hex(),
                        "principals": command.principals,
                        "max_uses": command.max_uses,
                        "expires_at": rfc3339(expires_at),
                    },
                    "seen": seen_of(caller, self._users, deadline),
                },
            ),
            deadline,
        )
        if changed.token_id != token_id or changed.created_at is None:
            return self._made_before(changed, deadline)
        made = BootstrapToken(
            token_id=token_id,
            name=command.name,
            principals=command.principals,
            max_uses=command.max_uses,
            uses=0,
            expires_at=expires_at,
            created_at=changed.created_at,
            created_by=caller.caller,
            revision=changed.revision,
            ended_at=None,
            ended_by="",
            end_reason="",
        )
        return MintedBootstrap(made, api_key.render(token_id, secret), changed.revision)

    def revoke(
        self, command: RevokeBootstrapCommand, caller: Identity, deadline: Deadline
    ) -> AgentChanged:
        """End a bootstrap token at once; agents that were registered with it stay.

        Raises:
            NotPermittedError: it is for agents outside the caller's limits; the attempt is on
                record.
            ConflictError: the caller's roles have changed meanwhile; nothing happened.
            Others: see `AgentChanges.change`.
        """
        kind = EventType.BOOTSTRAP_REVOKED
        facts = canonical({"token_id": command.token_id, "reason": command.reason})
        if not self._is_inside(command.token_id, caller.limits, deadline):
            self._refuse(kind, caller, OUTSIDE_LIMITS, facts, deadline, command.token_id)
            raise NotPermittedError(OUTSIDE_LIMITS, "its agents are outside the caller's limits")
        return self._changes.change(
            AdminChange(
                event_type=kind,
                request_id=command.request_id or self._ids.request_id(),
                digest=digest(["bootstrap.revoke", caller.caller, *command[:2]]),
                actor=caller.caller,
                facts=facts,
                details={
                    "id": command.token_id,
                    "reason": command.reason,
                    "seen": seen_of(caller, self._users, deadline),
                },
            ),
            deadline,
        )

    def page(
        self, size: int, token: str, deadline: Deadline, *, include_ended: bool
    ) -> Page[BootstrapToken]:
        """Return one page, in the order of ids.

        Raises:
            InvalidRequestError: the token is not of this list.
            UnavailableError, DeadlineError: see `AgentStore`.
        """
        listed = digest(["bootstrap tokens", include_ended])
        after = self._tokens.open(listed, token) if token else ""
        now = self._clock.now()
        found = self._store.bootstrap_tokens(
            after, size + 1, now, deadline, include_ended=include_ended
        )
        return cut(found, size, _bytes, lambda last: self._tokens.seal(listed, last.token_id))

    def _made_before(self, changed: AgentChanged, deadline: Deadline) -> MintedBootstrap:
        """Return what a repetition finds: the token of the first time, without its secret."""
        stored = self._store.bootstrap_token(KeyId(changed.token_id), deadline)
        if stored is None:
            raise RuntimeError(f"bootstrap token {changed.token_id} was made and is not there")
        return MintedBootstrap(stored, "", changed.revision)

    def _is_inside(self, token_id: KeyId, limits: Limits, deadline: Deadline) -> bool:
        if limits == UNLIMITED:
            return True
        stored = self._store.bootstrap_token(token_id, deadline)
        # That there is none, the database says, and records.
        return stored is None or limits.cover(Limits(principals=stored.principals))

    def _refuse(  # noqa: PLR0913, PLR0917 - the facts of an event
        self,
        kind: EventType,
        caller: Identity,
        code: str,
        facts: JsonObject,
        deadline: Deadline,
        token_id: str = "",
    ) -> None:
        event = AuditEvent(
            occurred_at=self._clock.now(),
            event_type=kind,
            actor=caller.caller,
            principal=f"bootstrap:{token_id}" if token_id else "",
            action="",
            resource=f"bootstrap_token:{token_id}" if token_id else "",
            capability_id="",
            result=Result.REFUSED,
            reason=code,
            policy_id="",
            session_id="",
            trace_id="",
            revision=0,
            metadata=facts,
        )
        self._changes.refuse(event, deadline)


def _check_may_create(
    command: CreateBootstrapCommand, expires_at: Instant, caller: Identity
) -> None:
    caller.check_scope(Scope.ADMIN)
    # An agent's token is limited to no resources, so a maker who is can give none of them.
    if not caller.limits.cover(Limits(principals=command.principals)):
        raise NotPermittedError("LIMITS_WIDER", "the agents are outside the caller's own limits")
    if caller.expires_at is not None and expires_at > caller.expires_at:
        raise NotPermittedError(
            "EXPIRY_WIDER", "the token would outlive the caller's own credential"
        )


def _bytes(token: BootstrapToken) -> int:
    return 2500 + sum(len(pattern.encode()) + 4 for pattern in token.principals)
