"""Users and suspensions from protobuf to the core's values, checked once, and back."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from licet.app.read import Page
from licet.app.suspend import SuspendCommand
from licet.app.user_ports import (
    StandingChanged,
    Suspension,
    SuspensionFilter,
    UserChanged,
    UserFilter,
)
from licet.app.users import CreateUserCommand, UpdateUserCommand, UserStandingCommand
from licet.domain import names
from licet.domain.caller import suspendable_name
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant
from licet.domain.names import Principal
from licet.domain.user import Role, User, email_address, user_name
from licet.server.render import timestamp
from licet.v1 import users_pb2 as pb


def create(message: pb.CreateUserRequest) -> CreateUserCommand:
    """Check a CreateUserRequest. Raises InvalidRequestError."""
    return CreateUserCommand(
        principal=user_name(message.principal),
        name=names.label(message.name, "name"),
        email=email_address(message.email),
        roles=_roles(message.roles),
        request_id=names.label(message.request_id, "request_id"),
    )


def update(message: pb.UpdateUserRequest) -> UpdateUserCommand:
    """Check an UpdateUserRequest. Raises InvalidRequestError."""
    principal = user_name(message.principal)
    if not (message.HasField("name") or message.HasField("email") or message.roles):
        raise InvalidRequestError.of("roles", "must be set, or name, or email")
    return UpdateUserCommand(
        principal=principal,
        name=names.label(message.name, "name") if message.HasField("name") else None,
        email=email_address(message.email) if message.HasField("email") else None,
        roles=_roles(message.roles) if message.roles else None,
        request_id=names.label(message.request_id, "request_id"),
    )


def disable(message: pb.DisableUserRequest) -> UserStandingCommand:
    """Check a DisableUserRequest. Raises InvalidRequestError."""
    return _standing(message)


def enable(message: pb.EnableUserRequest) -> UserStandingCommand:
    """Check an EnableUserRequest. Raises InvalidRequestError."""
    return _standing(message)


def get(message: pb.GetUserRequest) -> tuple[Principal | None, str]:
    """Check a GetUserRequest: a principal, or an e-mail address. Raises InvalidRequestError."""
    if bool(message.principal) == bool(message.email):
        raise InvalidRequestError.of("principal", "must be set, or email, and not both")
    if message.principal:
        return user_name(message.principal), ""
    return None, email_address(message.email)


def wanted(message: pb.ListUsersRequest) -> UserFilter:
    """Check which users to list. Raises InvalidRequestError."""
    role = _role(message.role, "role") if message.role else None
    return UserFilter(role, message.include_disabled)


def suspend(message: pb.SuspendPrincipalRequest) -> SuspendCommand:
    """Check a SuspendPrincipalRequest. Raises InvalidRequestError."""
    return _suspension_of(message)


def resume(message: pb.ResumePrincipalRequest) -> SuspendCommand:
    """Check a ResumePrincipalRequest. Raises InvalidRequestError."""
    return _suspension_of(message)


def wanted_suspensions(message: pb.ListSuspensionsRequest) -> SuspensionFilter:
    """Check which suspensions to list. Raises InvalidRequestError."""
    principal = names.principal(message.principal) if message.principal else None
    return SuspensionFilter(principal, message.include_ended)


def created(changed: UserChanged) -> pb.CreateUserResponse:
    """Render a user that was made."""
    return pb.CreateUserResponse(user=_user(changed.user), revision=changed.revision)


def updated(changed: UserChanged) -> pb.UpdateUserResponse:
    """Render a user that was changed."""
    return pb.UpdateUserResponse(user=_user(changed.user), revision=changed.revision)


def disabled(changed: UserChanged) -> pb.DisableUserResponse:
    """Render what disabling a user did."""
    return pb.DisableUserResponse(
        user=_user(changed.user),
        revision=changed.revision,
        already_disabled=changed.already,
        replicas_confirmed=changed.confirmed,
        replicas_fenced=changed.fenced,
    )


def enabled(changed: UserChanged) -> pb.EnableUserResponse:
    """Render what enabling a user did."""
    return pb.EnableUserResponse(
        user=_user(changed.user), revision=changed.revision, already_enabled=changed.already
    )


def found(user: User) -> pb.GetUserResponse:
    """Render a user."""
    return pb.GetUserResponse(user=_user(user))


def page(found_users: Page[User]) -> pb.ListUsersResponse:
    """Render a page of users."""
    return pb.ListUsersResponse(
        users=map(_user, found_users.items), next_page_token=found_users.next_token
    )


def suspended(changed: StandingChanged) -> pb.SuspendPrincipalResponse:
    """Render what suspending a principal did."""
    return pb.SuspendPrincipalResponse(
        revision=changed.revision,
        already_suspended=changed.already,
        replicas_confirmed=changed.confirmed,
        replicas_fenced=changed.fenced,
    )


def resumed(changed: StandingChanged) -> pb.ResumePrincipalResponse:
    """Render what resuming a principal did."""
    return pb.ResumePrincipalResponse(revision=changed.revision, already_resumed=changed.already)


def suspensions(found_suspensions: Page[Suspension]) -> pb.ListSuspensionsResponse:
    """Render a page of suspensions."""
    return pb.ListSuspensionsResponse(
        suspensions=map(_suspension, found_suspensions.items),
        next_page_token=found_suspensions.next_token,
    )


def _standing(message: pb.DisableUserRequest | pb.EnableUserRequest) -> UserStandingCommand:
    return UserStandingCommand(
        principal=user_name(message.principal),
        reason=names.label(message.reason, "reason", names.REASON_BYTES),
        request_id=names.label(message.request_id, "request_id"),
    )


def _suspension_of(
    message: pb.SuspendPrincipalRequest | pb.ResumePrincipalRequest,
) -> SuspendCommand:
    return SuspendCommand(
        principal=suspendable_name(message.principal, "principal"),
        reason=names.label(message.reason, "reason", names.REASON_BYTES),
        request_id=names.label(message.request_id, "request_id"),
    )


def _roles(texts: Sequence[str]) -> tuple[Role, ...]:
    roles = [_role(text, f"roles[{position}]") for position, text in enumerate(texts)]
    if not roles or len(set(roles)) != len(roles):
        raise InvalidRequestError.of("roles", "must be at least one, and distinct")
    return tuple(sorted(roles))


def _role(text: str, field: str) -> Role:
    if text not in tuple(Role):
        raise InvalidRequestError.of(field, f"must be one of {', '.join(Role)}")
    return Role(text)


def _user(user: User) -> pb.User:
    return pb.User(
        principal=user.principal,
        name=user.name,
        email=user.email,
        roles=user.roles,
        scopes=sorted(user.powers),
        created_at=timestamp(user.created_at),
        created_by=user.created_by,
        revision=user.revision,
        disabled_at=_moment(user.disabled_at),
        disabled_by=user.disabled_by,
        disable_reason=user.disable_reason,
    )


def _suspension(suspension: Suspension) -> pb.Suspension:
    return pb.Suspension(
        principal=suspension.principal,
        reason=suspension.reason,
        suspended_at=timestamp(suspension.suspended_at),
        suspended_by=suspension.suspended_by,
        revision=suspension.revision,
        resumed_at=_moment(suspension.resumed_at),
        resumed_by=suspension.resumed_by,
        resume_reason=suspension.resume_reason,
    )


def _moment(at: Instant | None) -> Timestamp | None:
    return None if at is None else timestamp(at)
