"""API keys from protobuf to the core's values, checked once, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from licet.app.key_ports import KeyChanged, KeyFilter
from licet.app.keys import (
    MAX_LIMITS,
    MAX_LIMITS_BYTES,
    CreateKeyCommand,
    Minted,
    RevokeKeyCommand,
    RotateKeyCommand,
)
from licet.app.read import Page
from licet.domain import names
from licet.domain.api_key import MAX_OVERLAP_SECONDS, ApiKey, KeyId, is_id
from licet.domain.caller import UNLIMITED, Identity, Limits, Scope, acting_name
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant
from licet.domain.names import Caller
from licet.domain.pattern import ResourcePattern, resource_pattern
from licet.server.convert import instant, ttl
from licet.server.render import timestamp
from licet.v1 import identity_pb2 as pb

_NANOS: Final = 1_000_000_000


def create(message: pb.CreateApiKeyRequest) -> CreateKeyCommand:
    """Check a CreateApiKeyRequest. Raises InvalidRequestError."""
    if not message.name:
        raise InvalidRequestError.of("name", "is required")
    if message.HasField("ttl") and message.HasField("expires_at"):
        raise InvalidRequestError.of("ttl", "must not be set together with expires_at")
    return CreateKeyCommand(
        name=names.label(message.name, "name"),
        scopes=_scopes(message.scopes),
        limits=_limits(message.limits),
        principal=acting_name(message.principal, "principal") if message.principal else None,
        expires_at=instant(message, "expires_at", message.expires_at, up=False),
        ttl=ttl(message.ttl) if message.HasField("ttl") else None,
        request_id=names.label(message.request_id, "request_id"),
    )


def rotate(message: pb.RotateApiKeyRequest) -> RotateKeyCommand:
    """Check a RotateApiKeyRequest. Raises InvalidRequestError."""
    overlap = message.overlap.seconds + message.overlap.nanos / _NANOS
    if not 0 <= overlap <= MAX_OVERLAP_SECONDS or not 0 <= message.overlap.nanos < _NANOS:
        raise InvalidRequestError.of("overlap", "must be from 0 to 30 days")
    return RotateKeyCommand(
        key_id=_key_id(message.key_id),
        overlap_seconds=overlap,
        expires_at=instant(message, "expires_at", message.expires_at, up=False),
        request_id=names.label(message.request_id, "request_id"),
    )


def revoke(message: pb.RevokeApiKeyRequest) -> RevokeKeyCommand:
    """Check a RevokeApiKeyRequest. Raises InvalidRequestError."""
    return RevokeKeyCommand(
        key_id=_key_id(message.key_id),
        reason=names.label(message.reason, "reason", names.REASON_BYTES),
        request_id=names.label(message.request_id, "request_id"),
    )


def wanted(message: pb.ListApiKeysRequest) -> KeyFilter:
    """Check which keys to list. Raises InvalidRequestError."""
    return KeyFilter(
        _caller(message.caller, "caller"),
        _caller(message.created_by, "created_by"),
        message.include_ended,
    )


def created(minted: Minted) -> pb.CreateApiKeyResponse:
    """Render a key that was made, with its text."""
    return pb.CreateApiKeyResponse(
        key=_key(minted.key), token=minted.token, revision=minted.revision
    )


def rotated(minted: Minted) -> pb.RotateApiKeyResponse:
    """Render a key that takes another one's place, with its text."""
    return pb.RotateApiKeyResponse(
        key=_key(minted.key), token=minted.token, revision=minted.revision
    )


def revoked(changed: KeyChanged) -> pb.RevokeApiKeyResponse:
    """Render what ending a key did."""
    return pb.RevokeApiKeyResponse(
        revision=changed.revision,
        already_ended=changed.already_ended,
        replicas_confirmed=changed.confirmed,
        replicas_fenced=changed.fenced,
    )


def page(found: Page[ApiKey]) -> pb.ListApiKeysResponse:
    """Render a page of keys."""
    return pb.ListApiKeysResponse(
        keys=[_key(key) for key in found.items], next_page_token=found.next_token
    )


def caller(identity: Identity) -> pb.GetCallerResponse:
    """Render who calls."""
    return pb.GetCallerResponse(
        caller=identity.caller,
        scopes=sorted(identity.scopes),
        limits=_limits_message(identity.limits),
        key_id=identity.key_id,
        expires_at=_moment(identity.expires_at),
    )


def _key(key: ApiKey) -> pb.ApiKey:
    return pb.ApiKey(
        key_id=key.key_id,
        name=key.name,
        scopes=key.scopes,
        caller=key.caller,
        limits=_limits_message(key.limits),
        created_at=timestamp(key.created_at),
        created_by=key.created_by,
        revision=key.revision,
        expires_at=_moment(key.expires_at),
        overlap_ends_at=_moment(key.overlap_ends_at),
        replaces=key.replaces,
        replaced_by=key.replaced_by,
        ended_at=_moment(key.ended_at),
        ended_by=key.ended_by,
        end_reason=key.end_reason,
        last_used_at=_moment(key.last_used_at),
    )


def _caller(text: str, field: str) -> Caller | None:
    return Caller(names.principal(text, field)) if text else None


def _moment(at: Instant | None) -> Timestamp | None:
    return None if at is None else timestamp(at)


def _limits_message(limits: Limits) -> pb.Limits | None:
    if limits == UNLIMITED:
        return None
    return pb.Limits(principals=limits.principals, resources=limits.resources)


def _key_id(text: str) -> KeyId:
    if not is_id(text):
        raise InvalidRequestError.of("key_id", "must be the 16 characters of an API key's id")
    return KeyId(text)


def _scopes(scopes: Sequence[str]) -> tuple[Scope, ...]:
    known = set(Scope)
    for position, text in enumerate(scopes):
        if text not in known:
            raise InvalidRequestError.of(
                f"scopes[{position}]", f"must be one of {', '.join(Scope)}"
            )
    if not scopes or len(set(scopes)) != len(scopes):
        raise InvalidRequestError.of("scopes", "must be at least one, and distinct")
    return tuple(map(Scope, scopes))


def _limits(message: pb.Limits) -> Limits:
    limits = Limits(
        _patterns(message.principals, "limits.principals", names.PRINCIPAL_BYTES),
        _patterns(message.resources, "limits.resources", names.RESOURCE_BYTES),
    )
    if sum(len(pattern.encode()) for pattern in (*limits[0], *limits[1])) > MAX_LIMITS_BYTES:
        raise InvalidRequestError.of(
            "limits", f"must have at most {MAX_LIMITS_BYTES} bytes of patterns"
        )
    return limits


def _patterns(texts: Iterable[str], field: str, limit: int) -> tuple[ResourcePattern, ...]:
    patterns = []
    for position, text in enumerate(texts):
        where = f"{field}[{position}]"
        pattern = resource_pattern(text, where)
        if len(pattern.encode()) > limit:
            raise InvalidRequestError.of(where, f"must have at most {limit} bytes")
        patterns.append(pattern)
    if len(patterns) > MAX_LIMITS:
        raise InvalidRequestError.of(field, f"must have at most {MAX_LIMITS} items")
    return tuple(patterns)
