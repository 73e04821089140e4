"""API keys: made, rotated, revoked and listed.

Nobody makes a key that may do more than whoever makes it. What that means, dimension by dimension,
is in `_check_not_wider`; who may touch the key of another is in each use case.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from licet.app.key_ports import (
    ApiKeyStore,
    KeyChange,
    KeyChanged,
    KeyChanges,
    KeyFilter,
    KeyMint,
    NewKey,
)
from licet.app.new_keys import as_made, digest, digest_of_secret, facts_of
from licet.app.ports import Clock, Deadline, Ids, PageTokens
from licet.app.read import Page, cut
from licet.app.user_ports import UserStore, seen_of
from licet.domain import api_key
from licet.domain.api_key import ApiKey, KeyId
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.caller import SCOPE_MISSING, Identity, Limits, Scope
from licet.domain.canonical_json import JsonObject, canonical
from licet.domain.errors import (
    InvalidRequestError,
    NotFoundError,
    NotPermittedError,
    PreconditionError,
    RefusedError,
)
from licet.domain.instant import LATEST, Instant
from licet.domain.names import Caller, Principal

MAX_LIMITS: Final = 32
"""How many patterns of a kind the limits of a key may have."""
MAX_LIMITS_BYTES: Final = 8 * 1024
"""How long all of them may be together: an audit event has room for so much."""
_ITEM_BYTES: Final = 3500
"""What a key weighs at most in a message, without its limits."""


class CreateKeyCommand(NamedTuple):
    """The key that a caller asks for, its fields checked; `ttl` in microseconds."""

    name: str
    scopes: tuple[Scope, ...]
    limits: Limits
    principal: Principal | None
    expires_at: Instant | None
    ttl: int | None
    request_id: str


class RotateKeyCommand(NamedTuple):
    """The key to rotate; the old one goes on for `overlap_seconds`."""

    key_id: KeyId
    overlap_seconds: float
    expires_at: Instant | None
    request_id: str


class RevokeKeyCommand(NamedTuple):
    """The key to end."""

    key_id: KeyId
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Minted:
    """A key that was made; `token` is its text, empty for a repetition."""

    key: ApiKey
    token: str = field(repr=False)
    revision: int


class ManageKeys:
    """Makes, rotates, revokes and lists keys."""

    def __init__(  # noqa: PLR0913, PLR0917 - the ports
        self,
        changes: KeyChanges,
        keys: ApiKeyStore,
        mint: KeyMint,
        ids: Ids,
        clock: Clock,
        tokens: PageTokens,
        users: UserStore,
    ) -> None:
        """Compose the use cases."""
        self._changes = changes
        self._users = users
        self._keys = keys
        self._mint = mint
        self._ids = ids
        self._clock = clock
        self._tokens = tokens

    def create(self, command: CreateKeyCommand, caller: Identity, deadline: Deadline) -> Minted:
        """Make a key.

        Raises:
            NotPermittedError: the key would have more than the caller, or than the roles of the
                user as whom it would act; the attempt is on record.
            PreconditionError: that user is disabled; the attempt is on record.
            InvalidRequestError, RequestIdReusedError, UnavailableError, OutcomeUnknownError: see
                `KeyChanges.change`.
        """
        key_id, secret = self._mint.key_id(), self._mint.secret()
        acts_as = api_key.own_caller(key_id)
        if command.principal is not None:
            acts_as = Caller(command.principal)
        new = NewKey(
            key_id,
            command.name,
            digest_of_secret(key_id, secret),
            command.scopes,
            acts_as,
            command.limits,
            self._end(command),
        )
        facts = facts_of(new)
        try:
            _check_not_wider(new, caller, is_bound=command.principal is not None)
            if command.principal is not None:
                self._check_user(new, deadline)
        except RefusedError as refusal:
            self._refuse(EventType.KEY_CREATED, caller, "", acts_as, refusal.code, facts, deadline)
            raise
        body = ["create", caller.caller, *command[:2], *map(list, command.limits), *command[3:6]]
        return self._made(
            KeyChange(
                event_type=EventType.KEY_CREATED,
                request_id=command.request_id or self._ids.request_id(),
                digest=digest(body),
                actor=caller.caller,
                target=None,
                key=new,
                overlap_seconds=0.0,
                reason="",
                facts=facts,
                seen=seen_of(caller, self._users, deadline),
            ),
            secret,
            deadline,
        )

    def rotate(self, command: RotateKeyCommand, caller: Identity, deadline: Deadline) -> Minted:
        """Make a key that takes another one's place.

        Raises:
            NotPermittedError: it is not the caller's to rotate, or the new one would have more than
                the caller; the attempt is on record. Others: see `KeyChanges.change`.
        """
        kind = EventType.KEY_ROTATED
        old = self._found(kind, command.key_id, caller, deadline)
        key_id, secret = self._mint.key_id(), self._mint.secret()
        expires_at = old.expires_at if command.expires_at is None else command.expires_at
        new = NewKey(
            key_id,
            old.name,
            digest_of_secret(key_id, secret),
            old.scopes,
            old.caller,
            old.limits,
            expires_at,
        )
        facts = facts_of(new, replaces=old.key_id, overlap_seconds=command.overlap_seconds)
        try:
            _check_may_rotate(old, new, caller)
        except NotPermittedError as refusal:
            self._refuse(kind, caller, old.key_id, old.caller, refusal.code, facts, deadline)
            raise
        body = ["rotate", caller.caller, *command[:3]]
        return self._made(
            KeyChange(
                event_type=kind,
                request_id=command.request_id or self._ids.request_id(),
                digest=digest(body),
                actor=caller.caller,
                target=old.key_id,
                key=new,
                overlap_seconds=command.overlap_seconds,
                reason="",
                facts=facts,
                seen=seen_of(caller, self._users, deadline),
            ),
            secret,
            deadline,
        )

    def revoke(self, command: RevokeKeyCommand, caller: Identity, deadline: Deadline) -> KeyChanged:
        """End a key at once.

        Raises:
            NotPermittedError: it is not the caller's to end; the attempt is on record. Others: see
                `KeyChanges.change`.
        """
        kind = EventType.KEY_REVOKED
        facts = canonical({"key_id": command.key_id, "reason": command.reason})
        if command.key_id != caller.key_id:
            old = self._found(kind, command.key_id, caller, deadline)
            code = ""
            if not caller.may(Scope.IDENTITY):
                code = SCOPE_MISSING
            elif not caller.powers.issuperset(old.scopes):
                code = "SCOPES_WIDER"
            if code:
                self._refuse(kind, caller, old.key_id, old.caller, code, facts, deadline)
                raise NotPermittedError(
                    code, "only the caller's own key, or one with no more scopes"
                )
        return self._changes.change(
            KeyChange(
                event_type=kind,
                request_id=command.request_id or self._ids.request_id(),
                digest=digest(["revoke", caller.caller, *command[:2]]),
                actor=caller.caller,
                target=command.key_id,
                key=None,
                overlap_seconds=0.0,
                reason=command.reason,
                facts=facts,
                seen=seen_of(caller, self._users, deadline),
            ),
            deadline,
        )

    def page(self, wanted: KeyFilter, size: int, token: str, deadline: Deadline) -> Page[ApiKey]:
        """Return one page, in the order of ids.

        Raises:
            InvalidRequestError: the token is not of this list.
            UnavailableError, DeadlineError: see `ApiKeyStore`.
        """
        listed = digest(["api keys", *wanted])
        after = KeyId(self._tokens.open(listed, token)) if token else None
        now = self._clock.now()
        found = self._keys.page(wanted, after, size + 1, now, deadline)
        return cut(found, size, _key_bytes, lambda last: self._tokens.seal(listed, last.key_id))

    def _check_user(self, new: NewKey, deadline: Deadline) -> None:
        """Check that a key suits the user as whom it acts: for whoever makes it.

        What it may is decided anew whenever it is used.
        """
        user = self._users.find([new.caller], deadline).get(new.caller)
        if user is None:
            return
        if user.disabled_at is not None:
            raise PreconditionError("USER_DISABLED", "the user is disabled")
        extra = sorted(set(new.scopes) - user.powers)
        if extra:
            raise NotPermittedError(
                "SCOPES_BEYOND_ROLES", f"the user's roles have not {', '.join(extra)}"
            )

    def _made(self, change: KeyChange, secret: bytes, deadline: Deadline) -> Minted:
        changed = self._changes.change(change, deadline)
        new = change.key
        if new is not None and new.key_id == changed.key_id and changed.created_at is not None:
            made = as_made(new, change, changed.created_at, changed.revision)
            return Minted(made, api_key.render(new.key_id, secret), changed.revision)
        # A repetition finds the key of the first time, whose secret nobody has any more.
        stored = self._keys.find(changed.key_id, deadline)
        if stored is None:
            raise RuntimeError(f"API key {changed.key_id} was made and is not there")
        return Minted(stored, "", changed.revision)

    def _found(
        self, kind: EventType, key_id: KeyId, caller: Identity, deadline: Deadline
    ) -> ApiKey:
        found = self._keys.find(key_id, deadline)
        if found is None:
            facts = canonical({"key_id": key_id})
            self._refuse(kind, caller, key_id, "", "KEY_NOT_FOUND", facts, deadline)
            raise NotFoundError(f"there is no API key {key_id}")
        return found

    def _refuse(  # noqa: PLR0913, PLR0917 - the facts of an event
        self,
        kind: EventType,
        caller: Identity,
        key_id: str,
        acts_as: str,
        code: str,
        facts: JsonObject,
        deadline: Deadline,
    ) -> None:
        event = AuditEvent(
            occurred_at=self._clock.now(),
            event_type=kind,
            actor=caller.caller,
            principal=acts_as,
            action="",
            resource=f"api_key:{key_id}" if key_id else "",
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

    def _end(self, command: CreateKeyCommand) -> Instant | None:
        if command.ttl is None:
            return command.expires_at
        ends = self._clock.now() + command.ttl
        if ends > LATEST:
            raise InvalidRequestError.of("ttl", "must end before the year 10000")
        return Instant(ends)


def _check_not_wider(new: NewKey, maker: Identity, *, is_bound: bool) -> None:
    """Check that a key has nothing that its maker has not."""
    # (1) Scopes. `admin` is one of its own: only who has it passes it on.
    extra = [scope for scope in new.scopes if scope not in maker.powers]
    if extra:
        raise NotPermittedError("SCOPES_WIDER", f"the caller has not {', '.join(extra)} itself")
    # (2) Limits.
    if not maker.limits.cover(new.limits):
        raise NotPermittedError("LIMITS_WIDER", "the limits are wider than the caller's own")
    # (3) Time.
    if maker.expires_at is not None and (
        new.expires_at is None or new.expires_at > maker.expires_at
    ):
        raise NotPermittedError("EXPIRY_WIDER", "the key would outlive the caller's own credential")
    # (4) As whom it acts. As another principal it would hold what the caller does not.
    if is_bound and new.caller != maker.caller:
        if not maker.may(Scope.ADMIN):
            raise NotPermittedError(
                "PRINCIPAL_NOT_OWN", "only an admin makes keys that act as another principal"
            )
        if not maker.limits.cover_principal(Principal(new.caller)):
            raise NotPermittedError("LIMITS_WIDER", "the principal is outside the caller's limits")


def _check_may_rotate(old: ApiKey, new: NewKey, caller: Identity) -> None:
    """Check that a caller may have the secret of a key that takes the place of another."""
    if old.key_id == caller.key_id:
        is_own = True
    else:
        # Its maker had the old secret already; an admin may make any key.
        is_own = old.created_by == caller.caller
        if not (caller.may(Scope.ADMIN) or (caller.may(Scope.IDENTITY) and is_own)):
            raise NotPermittedError("KEY_NOT_OWN", "only the caller's own key, or one that it made")
        _check_not_wider(new, caller, is_bound=not is_own and old.caller != caller.caller)
    is_later = old.expires_at is not None and (
        new.expires_at is None or new.expires_at > old.expires_at
    )
    if is_later and not caller.may(Scope.IDENTITY):
        raise NotPermittedError("EXPIRY_WIDER", "the key would outlive the one that it replaces")


def _key_bytes(key: ApiKey) -> int:
    patterns = (*key.limits.principals, *key.limits.resources)
    return _ITEM_BYTES + sum(len(pattern.encode()) + 4 for pattern in patterns)
