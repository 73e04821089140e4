"""What the use cases of users and suspensions need from the outside; see `ports.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from licet.app.administration import AdminChange
from licet.app.ports import Deadline
from licet.domain.audit_event import AuditEvent
from licet.domain.caller import Identity, Scope
from licet.domain.errors import ConflictError
from licet.domain.instant import Instant
from licet.domain.names import Caller, Principal
from licet.domain.user import TYPE, Role, User


class UserChanged(NamedTuple):
    """What a change of a user did, now or when the same request came first.

    Attributes:
        user: as it was after the change.
        revision: of the change.
        confirmed: how many replicas know of it.
        fenced: how many were shut out instead.
        already: it had been so before.
    """

    user: User
    revision: int
    confirmed: int
    fenced: int
    already: bool


class UserChanges(Protocol):
    """The only way to change users. When a method returns, the change holds on every replica."""

    def change(self, change: AdminChange, deadline: Deadline) -> UserChanged:
        """Change a user and record it in the audit log, in one transaction.

        Raises:
            NotFoundError: there is no such user; the attempt is on record.
            PreconditionError: the principal or the e-mail address is taken; the attempt is on
                record.
            NotPermittedError, RequestIdReusedError, ConflictError, UnavailableError,
                OutcomeUnknownError: see `AdminChanges.make`.
        """
        ...

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """Record an attempt that the rules do not allow. See `ports.Mutations.refuse`."""
        ...


class UserFilter(NamedTuple):
    """Which users to list: those that match every field that is set."""

    role: Role | None = None
    include_disabled: bool = False


class UserStore(Protocol):
    """Users as stored. Every method raises UnavailableError or DeadlineError."""

    def key_scopes(self, principal: Principal, deadline: Deadline) -> frozenset[Scope]:
        """Return the scopes that the keys of a principal have together, but for ended ones."""
        ...

    def find(self, principals: Collection[str], deadline: Deadline) -> Mapping[str, User]:
        """Return those of the principals that are users."""
        ...

    def with_email(self, email: str, deadline: Deadline) -> User | None:
        """Return the user with an e-mail address in lower case, if there is one."""
        ...

    def page(
        self, wanted: UserFilter, after: str, limit: int, deadline: Deadline
    ) -> Sequence[User]:
        """Return the first `limit` users after a principal, in the order of principals."""
        ...


class Suspension(NamedTuple):
    """That a principal is suspended, or was.

    Attributes:
        principal: who.
        reason: why.
        suspended_at: since when.
        suspended_by: by which caller.
        revision: of the change.
        resumed_at: until when, with the next two; None: it lasts.
        resumed_by: by which caller.
        resume_reason: why it does not any more.
    """

    principal: Principal
    reason: str
    suspended_at: Instant
    suspended_by: Caller
    revision: int
    resumed_at: Instant | None
    resumed_by: str
    resume_reason: str


class StandingChanged(NamedTuple):
    """What suspending or resuming a principal did; see `UserChanged`."""

    revision: int
    confirmed: int
    fenced: int
    already: bool


class StandingChanges(Protocol):
    """The only way to suspend and resume; the change holds on every replica then."""

    def change(self, change: AdminChange, deadline: Deadline) -> StandingChanged:
        """Suspend or resume a principal and record it in the audit log, in one transaction.

        Raises:
            NotPermittedError, RequestIdReusedError, UnavailableError, OutcomeUnknownError: see
                `AdminChanges.make`.
        """
        ...

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """Record an attempt that the rules do not allow. See `ports.Mutations.refuse`."""
        ...


class SuspensionFilter(NamedTuple):
    """Which suspensions to list: those that match every field that is set."""

    principal: Principal | None = None
    include_ended: bool = False


class SuspensionStore(Protocol):
    """Suspensions as stored. Every method raises UnavailableError or DeadlineError."""

    def page(
        self, wanted: SuspensionFilter, after: int, limit: int, deadline: Deadline
    ) -> Sequence[Suspension]:
        """Return the first `limit` suspensions after a revision, oldest first."""
        ...


def powers_now(caller: Identity, users: Mapping[str, User]) -> frozenset[Scope]:
    """Return what a caller may now: its user's roles may have changed since it was let in.

    Of a caller with a certificate its scopes are the operator's, and no roles bind them.
    """
    own = users.get(caller.caller)
    return caller.powers if own is None or not caller.key_id else caller.powers & own.powers


def seen(users: Mapping[str, User], *principals: str) -> dict[str, int]:
    """Return the latest change of each of these users, for what is checked against them."""
    return {name: users[name].revision if name in users else 0 for name in principals}


def seen_of(caller: Identity, users: UserStore, deadline: Deadline) -> dict[str, int]:
    """Return the state of a caller's user, which allows it what it was let in with.

    It goes into the `details` of a change, so that nothing happens if the user is changed before;
    not into its digest: a request that comes again after that is the same one.

    Raises:
        ConflictError: it does no longer; nothing happened.
        UnavailableError, DeadlineError: see `UserStore`.
    """
    if not caller.key_id or not caller.caller.startswith(TYPE):
        return {}
    found = users.find([caller.caller], deadline)
    if powers_now(caller, found) != caller.powers:
        raise ConflictError("the roles of the caller have changed meanwhile")
    return seen(found, caller.caller)


def user_of(found: Mapping[str, Any]) -> User:
    """Return a user from what licet.user_as_json makes of it."""
    disabled_at = found["disabled_at"]
    return User(
        principal=Principal(found["principal"]),
        name=found["name"],
        email=found["email"],
        roles=tuple(map(Role, found["roles"])),
        created_at=Instant(found["created_at"]),
        created_by=Caller(found["created_by"]),
        revision=found["revision"],
        disabled_at=None if disabled_at is None else Instant(disabled_at),
        disabled_by=found["disabled_by"],
        disable_reason=found["disable_reason"],
    )
