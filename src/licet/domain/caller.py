"""Who calls licet, and what that caller may do with licet itself.

A caller is not a principal that asks for a decision: it is the client that brings the question, and
its authority comes from scopes, never from capabilities. So no grant, to whomever, gives authority
over licet's own administration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from licet.domain import names
from licet.domain.errors import ForbiddenError, InvalidRequestError, NotPermittedError
from licet.domain.instant import Instant
from licet.domain.names import Caller, Principal, Resource
from licet.domain.pattern import ResourcePattern, contains


class Scope(StrEnum):
    """What a caller may use of the API; the values are stored and sent."""

    AUTHORIZE = "authorize"
    GRANT = "grant"
    REVOKE = "revoke"
    READ = "read"
    AUDIT = "audit"
    POLICY = "policy"
    IDENTITY = "identity"
    APPROVE = "approve"
    ADMIN = "admin"
    """All the others, and what only an administrator may."""


class Credential(StrEnum):
    """With what a caller was authenticated, as far as that says what it may call."""

    ORDINARY = "ordinary"
    """An API key, a certificate, or nothing where nothing is asked for: its scopes say it all."""
    AGENT = "agent token"
    BOOTSTRAP = "bootstrap token"


EVERYTHING: Final = frozenset(Scope)
SCOPE_MISSING: Final = "SCOPE_MISSING"
OUTSIDE_LIMITS: Final = "OUTSIDE_LIMITS"
_NOBODYS_TYPES: Final = ("caller:", "address:", "bootstrap:")
_OWN_TYPES: Final = ("key:", *_NOBODYS_TYPES)
_OWN_NAME: Final = "service:licet"


class Limits(NamedTuple):
    """What decisions and changes may be about: patterns; an empty tuple is no limit.

    A principal is matched as the one resource that it reads like: `agent:*` is any agent whose name
    has no `/`, `agent:**` any at all.
    """

    principals: tuple[ResourcePattern, ...] = ()
    resources: tuple[ResourcePattern, ...] = ()

    @classmethod
    def of(
        cls, principals: Iterable[ResourcePattern], resources: Iterable[ResourcePattern]
    ) -> Limits:
        """Return such limits; if there are none, `UNLIMITED` itself, which is found out soonest."""
        limits = cls(tuple(principals), tuple(resources))
        return UNLIMITED if limits == UNLIMITED else limits

    def cover_principal(self, principal: Principal) -> bool:
        """Say whether a principal is inside."""
        return not self.principals or _inside(self.principals, ResourcePattern(principal))

    def cover_resource(self, resource: Resource | ResourcePattern) -> bool:
        """Say whether a resource, or everything that a pattern matches, is inside."""
        return not self.resources or _inside(self.resources, ResourcePattern(resource))

    def cover(self, inner: Limits) -> bool:
        """Say whether whatever is inside the other limits is inside these."""
        return _narrower(self.principals, inner.principals) and _narrower(
            self.resources, inner.resources
        )


UNLIMITED: Final = Limits()


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller that was authenticated.

    Attributes:
        caller: as whom it acts: recorded as the actor, and the holder of what this principal holds.
        scopes: those that it was given.
        powers: the scopes with what they imply; `admin` implies all.
        limits: of what it may ask about and change.
        key_id: of its API key; empty: it has none.
        expires_at: when its credential ends; None: it does not.
        credential: of what kind that is.
    """

    caller: Caller
    scopes: frozenset[Scope]
    powers: frozenset[Scope]
    limits: Limits = UNLIMITED
    key_id: str = ""
    expires_at: Instant | None = None
    credential: Credential = Credential.ORDINARY

    @classmethod
    def of(  # noqa: PLR0913, PLR0917 - one argument per attribute
        cls,
        caller: Caller,
        scopes: Iterable[Scope],
        limits: Limits = UNLIMITED,
        key_id: str = "",
        expires_at: Instant | None = None,
        credential: Credential = Credential.ORDINARY,
    ) -> Identity:
        """Return the identity of a caller with these scopes."""
        given = frozenset(scopes)
        powers = EVERYTHING if Scope.ADMIN in given else given
        return cls(caller, given, powers, limits, key_id, expires_at, credential)

    def may(self, scope: Scope) -> bool:
        """Say whether it has a scope, or `admin`."""
        return scope in self.powers

    def acts_as(self, principal: Principal) -> bool:
        """Say whether it is this principal, and so has what it holds."""
        return Principal(self.caller) == principal

    @property
    def is_limited(self) -> bool:
        """Whether there is anything that it may not ask about or change, whatever its scopes."""
        # Most callers have none, and this is on the way of every decision.
        return self.limits is not UNLIMITED and self.limits != UNLIMITED

    @property
    def delegation_limits(self) -> Limits:
        """What delegations may be about.

        An agent gives to whom it likes: that it gives of its own principal's, its being the
        parent's holder sees to.
        """
        if self.credential is Credential.AGENT:
            return self.limits._replace(principals=())
        return self.limits

    def check_scope(self, scope: Scope) -> None:
        """Check that it has a scope for a change; the attempt is to be recorded.

        Raises:
            NotPermittedError: it has not.
        """
        if not self.may(scope):
            raise NotPermittedError(SCOPE_MISSING, f"this needs the scope {scope}")

    def check_unlimited(self, what: str) -> None:
        """Check that it has no limits, for a change that may be about anything.

        Raises:
            ForbiddenError: it has.
        """
        if self.is_limited:
            raise ForbiddenError(OUTSIDE_LIMITS, f"{what} are about more than the caller's limits")

    def check_question(self, principal: Principal, resource: Resource) -> None:
        """Check that it may ask about this.

        Raises:
            ForbiddenError: it is outside the limits.
        """
        if self.is_limited:
            check_limits(self.limits, principal, resource)


ANONYMOUS: Final = Identity.of(Caller("caller:anonymous"), {Scope.ADMIN})
"""Whoever calls where callers are not authenticated."""


def acting_name(text: str, field: str) -> Principal:
    """Parse the name of a principal as whom a caller is to act; none by which licet means others.

    Raises:
        InvalidRequestError: it is no such name.
    """
    if text.startswith(_OWN_TYPES) or text == _OWN_NAME:
        raise InvalidRequestError.of(field, "must not be of a type that is licet's own")
    return names.principal(text, field)


def suspendable_name(text: str, field: str) -> Principal:
    """Parse the name of a principal that can be suspended: not licet itself, nor who is nobody.

    Raises:
        InvalidRequestError: it is no such name.
    """
    if text.startswith(_NOBODYS_TYPES) or text == _OWN_NAME:
        raise InvalidRequestError.of(field, "must not be of a type that is licet's own")
    return names.principal(text, field)


def check_limits(
    limits: Limits, principal: Principal, resource: Resource | ResourcePattern
) -> None:
    """Check that a principal and a resource are inside limits.

    Raises:
        ForbiddenError: one is not.
    """
    if not limits.cover_principal(principal):
        raise ForbiddenError(OUTSIDE_LIMITS, "the principal is outside the caller's limits")
    if not limits.cover_resource(resource):
        raise ForbiddenError(OUTSIDE_LIMITS, "the resource is outside the caller's limits")


def check_change(limits: Limits, principal: Principal, resource: ResourcePattern) -> None:
    """Check that a change is inside limits: as a question, and the attempt is to be recorded.

    Raises:
        NotPermittedError: it is not.
    """
    try:
        check_limits(limits, principal, resource)
    except ForbiddenError as exc:
        raise NotPermittedError(exc.code, exc.message) from None


def _inside(outer: Sequence[ResourcePattern], inner: ResourcePattern) -> bool:
    return any(contains(pattern, inner) for pattern in outer)


def _narrower(outer: Sequence[ResourcePattern], inner: Sequence[ResourcePattern]) -> bool:
    """Say whether each of the inner patterns is inside one of the outer; none at all is any."""
    return not outer or (bool(inner) and all(_inside(outer, pattern) for pattern in inner))
