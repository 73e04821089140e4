"""What a new key is made of; and the first one, which nobody's key makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final, NamedTuple

from licet.app.key_ports import KeyChange, KeyMint, NewKey
from licet.domain import api_key
from licet.domain.api_key import ApiKey, KeyId
from licet.domain.audit_event import EventType
from licet.domain.caller import UNLIMITED, Scope
from licet.domain.canonical_json import JsonObject, JsonValue, canonical
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import Caller

_OWNER: Final = Caller("service:licet")
"""Who makes the first key: licet itself, for the owner of its database."""


class FirstKey(NamedTuple):
    """A key that no key has made."""

    key_id: KeyId
    token: str


def first_key_change(name: str, mint: KeyMint, *, again: bool) -> tuple[KeyChange, FirstKey]:
    """Return the change that makes an admin's key for whoever owns the database, and its text.

    Args:
        name: of the key.
        mint: makes what cannot be guessed.
        again: also if there are keys.
    """
    key_id, secret = mint.key_id(), mint.secret()
    new = NewKey(
        key_id,
        name,
        digest_of_secret(key_id, secret),
        (Scope.ADMIN,),
        api_key.own_caller(key_id),
        UNLIMITED,
        None,
    )
    change = KeyChange(
        event_type=EventType.KEY_CREATED,
        request_id=f"init {key_id}",
        digest=digest(["init", key_id]),
        actor=_OWNER,
        target=None,
        key=new,
        overlap_seconds=0.0,
        reason="",
        facts=facts_of(new),
        only_first=not again,
    )
    return change, FirstKey(key_id, api_key.render(key_id, secret))


def facts_of(
    new: NewKey, *, replaces: str | None = None, overlap_seconds: float | None = None
) -> JsonObject:
    """Return what the audit event of a new key says of it."""
    facts: dict[str, JsonValue] = {
        "key_id": new.key_id,
        "name": new.name,
        "scopes": sorted(new.scopes),
        "caller": new.caller,
        "principals": new.limits.principals,
        "resources": new.limits.resources,
        "expires_at": None if new.expires_at is None else rfc3339(new.expires_at),
    }
    if replaces is not None:
        facts |= {"replaces": replaces, "overlap_seconds": overlap_seconds}
    return canonical(facts)


def as_made(new: NewKey, change: KeyChange, created_at: Instant, revision: int) -> ApiKey:
    """Return a key as it is when it was made just now."""
    return ApiKey(
        key_id=new.key_id,
        name=new.name,
        scopes=new.scopes,
        caller=new.caller,
        limits=new.limits,
        created_at=created_at,
        created_by=change.actor,
        revision=revision,
        expires_at=new.expires_at,
        overlap_ends_at=None,
        replaces=change.target or "",
        replaced_by="",
        ended_at=None,
        ended_by="",
        end_reason="",
        last_used_at=None,
    )


def digest_of_secret(key_id: KeyId, secret: bytes) -> bytes:
    """Return what is stored of a secret."""
    token = api_key.parse(api_key.render(key_id, secret))
    if token is None:
        raise RuntimeError("the text of a new key is not one")
    return api_key.digest(token.secret)


def digest(body: Sequence[object]) -> bytes:
    """Return what tells the body of a request from another."""
    return hashlib.sha256(json.dumps(body).encode()).digest()
