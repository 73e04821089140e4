"""What the use cases of API keys need from the outside; see `ports.py` for the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from licet.app.administration import AdminChange
from licet.app.ports import Deadline
from licet.domain.api_key import ApiKey, KeyId
from licet.domain.audit_event import AuditEvent, EventType
from licet.domain.caller import Limits, Scope
from licet.domain.canonical_json import JsonObject, JsonValue
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import Caller


class NewKey(NamedTuple):
    """A key to be stored. `digest` is that of its secret."""

    key_id: KeyId
    name: str
    digest: bytes
    scopes: tuple[Scope, ...]
    caller: Caller
    limits: Limits
    expires_at: Instant | None


class KeyChange(NamedTuple):
    """A change of the keys that passed its checks.

    Attributes:
        event_type: says which.
        request_id: the idempotency key; with the next.
        digest: of the body.
        actor: who asks for it.
        target: the key that is rotated or revoked; None: one is made.
        key: the new one; None: there is none.
        overlap_seconds: how long a rotated one goes on.
        reason: why one is revoked.
        facts: go into the audit events.
        only_first: only if there is no key at all.
        seen: see `user_ports.seen`.
    """

    event_type: EventType
    request_id: str
    digest: bytes
    actor: Caller
    target: KeyId | None
    key: NewKey | None
    overlap_seconds: float
    reason: str
    facts: JsonObject
    only_first: bool = False
    seen: Mapping[str, int] = {}

    def as_admin_change(self) -> AdminChange:
        """Return it as the database makes it; see licet.apply_key_change."""
        return AdminChange(
            event_type=self.event_type,
            request_id=self.request_id,
            digest=self.digest,
            actor=self.actor,
            facts=self.facts,
            details={
                "id": self.target,
                "reason": self.reason,
                "overlap_seconds": self.overlap_seconds,
                "only_first": self.only_first,
                "seen": self.seen,
                "key": None if self.key is None else _details(self.key),
            },
        )


def _details(new: NewKey) -> dict[str, JsonValue]:
    return {
        "id": new.key_id,
        "name": new.name,
        "secret_sha256": new.digest.hex(),
        "scopes": new.scopes,
        "caller": new.caller,
        "principals": new.limits.principals,
        "resources": new.limits.resources,
        "expires_at": None if new.expires_at is None else rfc3339(new.expires_at),
    }


class KeyChanged(NamedTuple):
    """What a change of the keys did, now or when the same request came first.

    Attributes:
        key_id: the new key's id, or that of the one that was revoked.
        revision: of the change.
        confirmed: how many replicas know of it.
        fenced: how many were shut out instead.
        already_ended: the key to revoke had ended before.
        created_at: when the new key was made; None: none was.
    """

    key_id: KeyId
    revision: int
    confirmed: int
    fenced: int
    already_ended: bool
    created_at: Instant | None


class KeyChanges(Protocol):
    """The only way to change keys. When a method returns, the change holds on every replica."""

    def change(self, change: KeyChange, deadline: Deadline) -> KeyChanged:
        """Change the keys and record it in the audit log, in one transaction.

        Raises:
            PreconditionError: the key has ended, or was rotated; the attempt is on record.
            InvalidRequestError: the new key has expired already; the attempt is on record.
            NotFoundError: there is no such key; the attempt is on record.
            RequestIdReusedError: the request id was used with another digest; nothing happened.
            UnavailableError: nothing happened.
            OutcomeUnknownError: it happened whole or not at all; the same request id tells.
        """
        ...

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """Record an attempt that the rules do not allow. See `ports.Mutations.refuse`."""
        ...


class KeyFilter(NamedTuple):
    """Which keys to list: those that match every field that is set."""

    caller: Caller | None = None
    created_by: Caller | None = None
    include_ended: bool = False


class ApiKeyStore(Protocol):
    """API keys as stored. Every method raises UnavailableError or DeadlineError."""

    def find(self, key_id: KeyId, deadline: Deadline) -> ApiKey | None:
        """Return a key, or None when there is none with this id."""
        ...

    def page(
        self, wanted: KeyFilter, after: KeyId | None, limit: int, now: Instant, deadline: Deadline
    ) -> Sequence[ApiKey]:
        """Return the first `limit` keys after an id, in the order of ids."""
        ...


class KeyMint(Protocol):
    """Makes what cannot be guessed."""

    def key_id(self) -> KeyId:
        """Return a fresh id."""
        ...

    def secret(self) -> bytes:
        """Return a fresh secret."""
        ...
