"""Users: made, changed, disabled, enabled and listed.

Nobody gives or takes roles whose scopes they have not, and nobody changes what they themselves may:
so no user raises itself, and whoever takes the last but one admin's role away is an admin who
stays one. What a change was checked against is compared once more under the mutation lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from licet.app.administration import AdminChange
from licet.app.new_keys import digest
from licet.app.ports import Clock, Deadline, Ids, PageTokens
from licet.app.read import Page, cut
from licet.app.user_ports import (
    UserChanged,
    UserChanges,
    UserFilter,
    UserStore,
    powers_now,
    seen,
)
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.caller import OUTSIDE_LIMITS, Identity, Scope
from licet.domain.canonical_json import JsonObject, JsonValue, canonical
from licet.domain.errors import NotFoundError, NotPermittedError
from licet.domain.names import Principal
from licet.domain.user import Role, User, powers_of

_ITEM_BYTES: Final = 3000
"""What a user weighs at most in a message."""


class CreateUserCommand(NamedTuple):
    """The user that a caller asks for, its fields checked."""

    principal: Principal
    name: str
    email: str
    roles: tuple[Role, ...]
    request_id: str


class UpdateUserCommand(NamedTuple):
    """What is to become of a user; None: as it is."""

    principal: Principal
    name: str | None
    email: str | None
    roles: tuple[Role, ...] | None
    request_id: str


class UserStandingCommand(NamedTuple):
    """The user to disable or enable."""

    principal: Principal
    reason: str
    request_id: str


class ManageUsers:
    """Makes, changes, disables, enables and lists users."""

    def __init__(
        self,
        changes: UserChanges,
        users: UserStore,
        ids: Ids,
        clock: Clock,
        tokens: PageTokens,
    ) -> None:
        """Compose the use cases."""
        self._changes = changes
        self._users = users
        self._ids = ids
        self._clock = clock
        self._tokens = tokens

    def create(
        self, command: CreateUserCommand, caller: Identity, deadline: Deadline
    ) -> UserChanged:
        """Make a user. The keys that act as it already are bound by its roles from then on.

        Raises:
            NotPermittedError: the roles have scopes that the caller has not, or it is the caller
                itself; the attempt is on record. Others: see `UserChanges.change`.
        """
        fields = {"name": command.name, "email": command.email, "roles": list(command.roles)}
        facts: dict[str, JsonValue] = {"roles": command.roles}
        return self._change(EventType.USER_CREATED, command, fields, facts, caller, deadline)

    def update(
        self, command: UpdateUserCommand, caller: Identity, deadline: Deadline
    ) -> UserChanged:
        """Change a user. What its keys may follows its roles at once.

        Raises:
            NotPermittedError: the user's roles, or the new ones, have scopes that the caller has
                not, or they are the caller's own; the attempt is on record. Others: see
                `UserChanges.change`.
        """
        roles = None if command.roles is None else list(command.roles)
        fields = {"name": command.name, "email": command.email, "roles": roles}
        facts: dict[str, JsonValue] = {
            # Not what they were changed to: the log cannot forget a person.
            "changed": [name for name, value in fields.items() if value is not None],
            "roles": command.roles,
        }
        return self._change(EventType.USER_UPDATED, command, fields, facts, caller, deadline)

    def disable(
        self, command: UserStandingCommand, caller: Identity, deadline: Deadline
    ) -> UserChanged:
        """Let nobody call as this user any more.

        Raises:
            NotPermittedError: the user's roles have scopes that the caller has not, or it is the
                caller itself; the attempt is on record. Others: see `UserChanges.change`.
        """
        fields = {"reason": command.reason}
        return self._change(
            EventType.USER_DISABLED, command, fields, dict(fields), caller, deadline
        )

    def enable(
        self, command: UserStandingCommand, caller: Identity, deadline: Deadline
    ) -> UserChanged:
        """Let the keys of a user count again that have not ended.

        Raises:
            NotPermittedError: the user's roles have scopes that the caller has not; the attempt is
                on record. Others: see `UserChanges.change`.
        """
        fields = {"reason": command.reason}
        return self._change(EventType.USER_ENABLED, command, fields, dict(fields), caller, deadline)

    def get(self, principal: Principal | None, email: str, deadline: Deadline) -> User:
        """Return a user, by its principal or else by its e-mail address.

        Raises:
            NotFoundError: there is no such user.
            UnavailableError, DeadlineError: see `UserStore`.
        """
        if principal is None:
            found = self._users.with_email(email, deadline)
        else:
            found = self._users.find([principal], deadline).get(principal)
        if found is None:
            raise NotFoundError("there is no such user")
        return found

    def page(self, wanted: UserFilter, size: int, token: str, deadline: Deadline) -> Page[User]:
        """Return one page, in the order of principals.

        Raises:
            InvalidRequestError: the token is not of this list.
            UnavailableError, DeadlineError: see `UserStore`.
        """
        listed = digest(["users", *wanted])
        after = self._tokens.open(listed, token) if token else ""
        found = self._users.page(wanted, after, size + 1, deadline)
        return cut(
            found,
            size,
            lambda _: _ITEM_BYTES,
            lambda last: self._tokens.seal(listed, last.principal),
        )

    def _change(  # noqa: PLR0913, PLR0917 - a change and who asks for it
        self,
        kind: EventType,
        command: CreateUserCommand | UpdateUserCommand | UserStandingCommand,
        fields: Mapping[str, JsonValue],
        facts: dict[str, JsonValue],
        caller: Identity,
        deadline: Deadline,
    ) -> UserChanged:
        principal = command.principal
        found = self._users.find([principal, caller.caller], deadline)
        new_roles = None if isinstance(command, UserStandingCommand) else command.roles
        recorded = canonical(facts)
        target = found.get(principal)
        # Of a principal that is no user yet, its keys say what it may, and would be bound by roles.
        held = self._users.key_scopes(principal, deadline) if target is None else target.powers
        try:
            _check_authority(
                principal,
                held,
                new_roles,
                _Authority(caller, powers_now(caller, found)),
                is_about_rights=new_roles is not None or isinstance(command, UserStandingCommand),
            )
        except NotPermittedError as refusal:
            self._changes.refuse(
                self._refusal(kind, caller, principal, refusal.code, recorded), deadline
            )
            raise
        # Whether there is a user to be made already, the database says: it knows repetitions.
        checked = [caller.caller] if kind is EventType.USER_CREATED else [principal, caller.caller]
        return self._changes.change(
            AdminChange(
                event_type=kind,
                request_id=command.request_id or self._ids.request_id(),
                digest=digest([kind, caller.caller, *command[:-1]]),
                actor=caller.caller,
                facts=recorded,
                details={**fields, "principal": principal, "seen": seen(found, *checked)},
            ),
            deadline,
        )

    def _refusal(
        self, kind: EventType, caller: Identity, principal: Principal, code: str, facts: JsonObject
    ) -> AuditEvent:
        return AuditEvent(
            occurred_at=self._clock.now(),
            event_type=kind,
            actor=caller.caller,
            principal=principal,
            action="",
            resource="",
            capability_id="",
            result=Result.REFUSED,
            reason=code,
            policy_id="",
            session_id="",
            trace_id="",
            revision=0,
            metadata=facts,
        )


class _Authority(NamedTuple):
    """Who asks for a change, and what it may at this moment."""

    caller: Identity
    powers: frozenset[Scope]


def _check_authority(
    principal: Principal,
    held: frozenset[Scope],
    new_roles: tuple[Role, ...] | None,
    authority: _Authority,
    *,
    is_about_rights: bool,
) -> None:
    """Check that a caller may change a user like this."""
    # (1) Limits.
    if not authority.caller.limits.cover_principal(principal):
        raise NotPermittedError(OUTSIDE_LIMITS, "the user is outside the caller's limits")
    # (2) Itself.
    if is_about_rights and authority.caller.acts_as(principal):
        raise NotPermittedError("OWN_RIGHTS", "nobody changes what they may themselves")
    # (3) Scopes: those that it gives, and those that the user has.
    extra = sorted((powers_of(new_roles or ()) | held) - authority.powers)
    if extra:
        raise NotPermittedError("SCOPES_WIDER", f"the caller has not {', '.join(extra)} itself")
