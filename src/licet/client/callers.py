"""Who calls, and the API keys of those who may."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

import grpc

from licet.client import messages, transport
from licet.client.users import Principals, Users
from licet.v1 import identity_pb2 as pb
from licet.v1.identity_pb2_grpc import IdentityServiceStub

MAX_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """Who calls, as licet sees it.

    Attributes:
        caller: as whom.
        scopes: as they were given.
        principals: patterns of principals that it may ask about and change; empty: any.
        resources: patterns of resources, likewise.
        key_id: of its API key; empty: it has none.
        expires_at: when its credential ends.
    """

    caller: str
    scopes: tuple[str, ...]
    principals: tuple[str, ...]
    resources: tuple[str, ...]
    key_id: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, without its secret; the fields are those of the API."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    caller: str
    principals: tuple[str, ...]
    resources: tuple[str, ...]
    created_at: datetime
    created_by: str
    revision: int
    expires_at: datetime | None
    overlap_ends_at: datetime | None
    replaces: str
    replaced_by: str
    ended_at: datetime | None
    ended_by: str
    end_reason: str
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key that was made. `token` is its text, and is nowhere else; empty for a repetition."""

    key: ApiKey
    token: str = field(repr=False)
    revision: int


@dataclass(frozen=True, slots=True)
class KeyRevocation:
    """What ending a key did."""

    revision: int
    already_ended: bool
    replicas_confirmed: int
    replicas_fenced: int


class Callers:
    """The calls about callers; `Client.callers`."""

    def __init__(self, channel: grpc.Channel, seconds: Callable[[float | None], float]) -> None:
        """Call over this channel; `seconds` gives each call its timeout."""
        self._stub = IdentityServiceStub(channel)
        self._seconds = seconds
        self.users = Users(channel, seconds)
        """The calls about users."""
        self.principals = Principals(channel, seconds)
        """The calls about who is suspended."""

    def whoami(self, *, timeout: float | None = None) -> CallerIdentity:
        """Ask who calls.

        Raises:
            LicetCallError: it was not answered; UNAUTHENTICATED: the key is missing or not valid.
        """
        answer = transport.read(self._stub.GetCaller, pb.GetCallerRequest(), self._seconds(timeout))
        return CallerIdentity(
            caller=answer.caller,
            scopes=tuple(answer.scopes),
            principals=tuple(answer.limits.principals),
            resources=tuple(answer.limits.resources),
            key_id=answer.key_id,
            expires_at=messages.optional_instant(answer, "expires_at"),
        )

    def create_key(  # noqa: PLR0913 - one argument per field
        self,
        name: str,
        scopes: Iterable[str],
        *,
        principals: Iterable[str] = (),
        resources: Iterable[str] = (),
        principal: str = "",
        expires_at: datetime | None = None,
        ttl: timedelta | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> NewApiKey:
        """Make an API key.

        Args:
            name: for people.
            scopes: what it may use.
            principals: patterns of principals that it may ask about and change; none: any.
            resources: patterns of resources, likewise.
            principal: as whom it acts, if not as itself.
            expires_at: when it ends; not together with `ttl`.
            ttl: for how long it lives.
            request_id: idempotency key; one is made when there is none.
            timeout: seconds, when not the client's.

        Raises:
            LicetCallError: see there for what is known then.
        """
        request = messages.build(
            pb.CreateApiKeyRequest,
            name=name,
            scopes=tuple(scopes),
            limits=pb.Limits(principals=principals, resources=resources),
            principal=principal,
            expires_at=messages.timestamp(expires_at, "expires_at"),
            ttl=messages.duration(ttl),
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.CreateApiKey, request, self._seconds(timeout))
        return NewApiKey(_key(answer.key), answer.token, answer.revision)

    def rotate_key(
        self,
        key_id: str,
        *,
        overlap: timedelta | None = None,
        expires_at: datetime | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> NewApiKey:
        """Make a key that takes the place of another, which goes on for the overlap.

        Raises:
            LicetCallError: see there for what is known then.
        """
        request = messages.build(
            pb.RotateApiKeyRequest,
            key_id=key_id,
            overlap=messages.duration(overlap),
            expires_at=messages.timestamp(expires_at, "expires_at"),
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.RotateApiKey, request, self._seconds(timeout))
        return NewApiKey(_key(answer.key), answer.token, answer.revision)

    def revoke_key(
        self, key_id: str, *, reason: str = "", request_id: str = "", timeout: float | None = None
    ) -> KeyRevocation:
        """End a key at once.

        Raises:
            LicetCallError: see there for what is known then.
        """
        request = messages.build(
            pb.RevokeApiKeyRequest,
            key_id=key_id,
            reason=reason,
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.RevokeApiKey, request, self._seconds(timeout))
        return KeyRevocation(
            answer.revision,
            answer.already_ended,
            answer.replicas_confirmed,
            answer.replicas_fenced,
        )

    def list_keys(
        self,
        *,
        caller: str = "",
        created_by: str = "",
        include_ended: bool = False,
        page_size: int = MAX_PAGE,
        timeout: float | None = None,
    ) -> Iterator[ApiKey]:
        """Iterate over API keys in the order of ids; pages are read as they are needed.

        With `caller`, those that act as that one; with `created_by`, those that it made.

        Raises:
            LicetCallError: while iterating, a page was not answered; `timeout` is for each page.
        """
        token = ""
        while True:
            request = messages.build(
                pb.ListApiKeysRequest,
                caller=caller,
                created_by=created_by,
                include_ended=include_ended,
                page_size=page_size,
                page_token=token,
            )
            page = transport.read(self._stub.ListApiKeys, request, self._seconds(timeout))
            yield from map(_key, page.keys)
            token = page.next_page_token
            if not token:
                return


def _key(message: pb.ApiKey) -> ApiKey:
    return ApiKey(
        key_id=message.key_id,
        name=message.name,
        scopes=tuple(message.scopes),
        caller=message.caller,
        principals=tuple(message.limits.principals),
        resources=tuple(message.limits.resources),
        created_at=messages.instant(message.created_at),
        created_by=message.created_by,
        revision=message.revision,
        expires_at=messages.optional_instant(message, "expires_at"),
        overlap_ends_at=messages.optional_instant(message, "overlap_ends_at"),
        replaces=message.replaces,
        replaced_by=message.replaced_by,
        ended_at=messages.optional_instant(message, "ended_at"),
        ended_by=message.ended_by,
        end_reason=message.end_reason,
        last_used_at=messages.optional_instant(message, "last_used_at"),
    )
