"""Users, and principals that are suspended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import uuid4

import grpc

from licet.client import messages, transport
from licet.v1 import users_pb2 as pb
from licet.v1.identity_pb2_grpc import IdentityServiceStub

MAX_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class User:
    """A user; the fields are those of the API."""

    principal: str
    name: str
    email: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str
    revision: int
    disabled_at: datetime | None
    disabled_by: str
    disable_reason: str


@dataclass(frozen=True, slots=True)
class UserChange:
    """What a change of a user did. `already`: it had been so before."""

    user: User
    revision: int
    already: bool


@dataclass(frozen=True, slots=True)
class Suspension:
    """That a principal is suspended, or was; the fields are those of the API."""

    principal: str
    reason: str
    suspended_at: datetime
    suspended_by: str
    revision: int
    resumed_at: datetime | None
    resumed_by: str
    resume_reason: str


@dataclass(frozen=True, slots=True)
class StandingChange:
    """What suspending or resuming a principal did. `already`: it had been so before."""

    revision: int
    already: bool


class Users:
    """The calls about users; `Client.callers.users`.

    Each raises LicetCallError; see there for what is known then.
    """

    def __init__(self, channel: grpc.Channel, seconds: Callable[[float | None], float]) -> None:
        """Call over this channel; `seconds` gives each call its timeout."""
        self._stub = IdentityServiceStub(channel)
        self._seconds = seconds

    def create(  # noqa: PLR0913 - one argument per field
        self,
        principal: str,
        email: str,
        roles: Iterable[str],
        *,
        name: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> UserChange:
        """Make a user, `user:` and a name."""
        request = messages.build(
            pb.CreateUserRequest,
            principal=principal,
            name=name,
            email=email,
            roles=tuple(roles),
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.CreateUser, request, self._seconds(timeout))
        return UserChange(_user(answer.user), answer.revision, already=False)

    def get(self, principal: str = "", *, email: str = "", timeout: float | None = None) -> User:
        """Return a user, by its principal or by its e-mail address."""
        request = messages.build(pb.GetUserRequest, principal=principal, email=email)
        return _user(transport.read(self._stub.GetUser, request, self._seconds(timeout)).user)

    def update(  # noqa: PLR0913 - one argument per field
        self,
        principal: str,
        *,
        name: str | None = None,
        email: str | None = None,
        roles: Iterable[str] = (),
        request_id: str = "",
        timeout: float | None = None,
    ) -> UserChange:
        """Change a user; what is not given stays as it is."""
        request = messages.build(
            pb.UpdateUserRequest,
            principal=principal,
            name=name,
            email=email,
            roles=tuple(roles),
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.UpdateUser, request, self._seconds(timeout))
        return UserChange(_user(answer.user), answer.revision, already=False)

    def disable(
        self,
        principal: str,
        *,
        reason: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> UserChange:
        """Let nobody call as a user any more."""
        request = messages.build(
            pb.DisableUserRequest,
            principal=principal,
            reason=reason,
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.DisableUser, request, self._seconds(timeout))
        return UserChange(_user(answer.user), answer.revision, answer.already_disabled)

    def enable(
        self,
        principal: str,
        *,
        reason: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> UserChange:
        """Let those keys of a user count again that have not ended."""
        request = messages.build(
            pb.EnableUserRequest,
            principal=principal,
            reason=reason,
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.EnableUser, request, self._seconds(timeout))
        return UserChange(_user(answer.user), answer.revision, answer.already_enabled)

    def list(
        self,
        *,
        role: str = "",
        include_disabled: bool = False,
        page_size: int = MAX_PAGE,
        timeout: float | None = None,
    ) -> Iterator[User]:
        """Iterate over users in the order of principals; pages are read as they are needed."""
        token = ""
        while True:
            request = messages.build(
                pb.ListUsersRequest,
                role=role,
                include_disabled=include_disabled,
                page_size=page_size,
                page_token=token,
            )
            page = transport.read(self._stub.ListUsers, request, self._seconds(timeout))
            yield from map(_user, page.users)
            token = page.next_page_token
            if not token:
                return


class Principals:
    """The calls about who is suspended; `Client.callers.principals`.

    Each raises LicetCallError; see there for what is known then.
    """

    def __init__(self, channel: grpc.Channel, seconds: Callable[[float | None], float]) -> None:
        """Call over this channel; `seconds` gives each call its timeout."""
        self._stub = IdentityServiceStub(channel)
        self._seconds = seconds

    def suspend(
        self,
        principal: str,
        *,
        reason: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> StandingChange:
        """Deny a principal everything, and let nobody call as it."""
        request = messages.build(
            pb.SuspendPrincipalRequest,
            principal=principal,
            reason=reason,
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.SuspendPrincipal, request, self._seconds(timeout))
        return StandingChange(answer.revision, answer.already_suspended)

    def resume(
        self,
        principal: str,
        *,
        reason: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> StandingChange:
        """Let what a principal holds count again, and its keys."""
        request = messages.build(
            pb.ResumePrincipalRequest,
            principal=principal,
            reason=reason,
            request_id=request_id or uuid4().hex,
        )
        answer = transport.change(self._stub.ResumePrincipal, request, self._seconds(timeout))
        return StandingChange(answer.revision, answer.already_resumed)

    def suspensions(
        self,
        *,
        principal: str = "",
        include_ended: bool = False,
        page_size: int = MAX_PAGE,
        timeout: float | None = None,
    ) -> Iterator[Suspension]:
        """Iterate over suspensions, oldest first; pages are read as they are needed."""
        token = ""
        while True:
            request = messages.build(
                pb.ListSuspensionsRequest,
                principal=principal,
                include_ended=include_ended,
                page_size=page_size,
                page_token=token,
            )
            page = transport.read(self._stub.ListSuspensions, request, self._seconds(timeout))
            yield from map(_suspension, page.suspensions)
            token = page.next_page_token
            if not token:
                return


def _user(message: pb.User) -> User:
    return User(
        principal=message.principal,
        name=message.name,
        email=message.email,
        roles=tuple(message.roles),
        scopes=tuple(message.scopes),
        created_at=messages.instant(message.created_at),
        created_by=message.created_by,
        revision=message.revision,
        disabled_at=messages.optional_instant(message, "disabled_at"),
        disabled_by=message.disabled_by,
        disable_reason=message.disable_reason,
    )


def _suspension(message: pb.Suspension) -> Suspension:
    return Suspension(
        principal=message.principal,
        reason=message.reason,
        suspended_at=messages.instant(message.suspended_at),
        suspended_by=message.suspended_by,
        revision=message.revision,
        resumed_at=messages.optional_instant(message, "resumed_at"),
        resumed_by=message.resumed_by,
        resume_reason=message.resume_reason,
    )
