"""Users: people who call licet, with roles; and what each role may use.

A user is a principal `user:<name>`. The keys that act as it may use what they were given, as far as
its roles go, at the moment of each call; of a user who is disabled they may use nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from licet.domain import names
from licet.domain.caller import EVERYTHING, Scope
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant
from licet.domain.names import Caller, Principal


class Role(StrEnum):
    """What a user does; the values are stored and sent."""

    USER = "user"
    DEVELOPER = "developer"
    SRE = "sre"
    SECURITY = "security"
    AUDITOR = "auditor"
    ADMIN = "admin"


SCOPES: Final[Mapping[Role, frozenset[Scope]]] = {
    Role.USER: frozenset({Scope.AUTHORIZE}),
    Role.DEVELOPER: frozenset({Scope.AUTHORIZE, Scope.READ, Scope.APPROVE}),
    Role.SRE: frozenset(
        {
            Scope.AUTHORIZE,
            Scope.GRANT,
            Scope.REVOKE,
            Scope.READ,
            Scope.AUDIT,
            Scope.APPROVE,
        }
    ),
    Role.SECURITY: frozenset(
        {
            Scope.AUTHORIZE,
            Scope.REVOKE,
            Scope.READ,
            Scope.AUDIT,
            Scope.APPROVE,
        }
    ),
    Role.AUDITOR: frozenset({Scope.READ, Scope.AUDIT}),
    Role.ADMIN: EVERYTHING,
}
"""What each role may use: the one table."""

APPROVERS: Final = tuple(role.value for role in Role if Scope.APPROVE in SCOPES[role])
"""The roles that a policy may demand an approval of: nobody with another could give one."""

TYPE: Final = "user:"
EMAIL_BYTES: Final = 254
_LOCAL_BYTES: Final = 64
_LOCAL: Final = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class User(NamedTuple):
    """A user as stored.

    Attributes:
        principal: as whom it acts.
        name: for people.
        email: in lower case; nobody else has it.
        roles: what it does.
        created_at: when it was made.
        created_by: the caller who made it.
        revision: of its latest change.
        disabled_at: when it was disabled, with the next two; None: it is not.
        disabled_by: by whom.
        disable_reason: why.
    """

    principal: Principal
    name: str
    email: str
    roles: tuple[Role, ...]
    created_at: Instant
    created_by: Caller
    revision: int
    disabled_at: Instant | None
    disabled_by: str
    disable_reason: str

    @property
    def powers(self) -> frozenset[Scope]:
        """What its roles may use."""
        return powers_of(self.roles)


def powers_of(roles: Iterable[Role]) -> frozenset[Scope]:
    """Return what any of these roles may use."""
    return frozenset[Scope]().union(*(SCOPES[role] for role in roles))


def within(scopes: Collection[Scope], roles: Iterable[Role]) -> frozenset[Scope]:
    """Return what is left of the scopes of a key whose user has these roles; perhaps nothing.

    `admin` stands for all scopes: of an admin's key whose user is no longer one, what the roles may
    use is left.
    """
    powers = powers_of(roles)
    if Scope.ADMIN in scopes and Scope.ADMIN not in powers:
        return powers
    return powers.intersection(scopes)


def user_name(text: str, field: str = "principal") -> Principal:
    """Parse the principal of a user.

    Raises:
        InvalidRequestError: it is none, or not of the type `user`.
    """
    found = names.principal(text, field)
    if not found.startswith(TYPE):
        raise InvalidRequestError.of(field, "must be of the type `user`, as in `user:alice`")
    return found


def email_address(text: str, field: str = "email") -> str:
    """Parse an e-mail address, and return the form in which it is unique: in lower case.

    In theory the part before the `@` has its own rules at each host; in practice two people whose
    addresses differ in case are one person, or an attack.

    Raises:
        InvalidRequestError: it is none.
    """
    if not text:
        raise InvalidRequestError.of(field, "is required")
    if not text.isascii():
        raise InvalidRequestError.of(
            field, "must be ASCII; a domain with other letters is written `xn--...`"
        )
    if len(text) > EMAIL_BYTES:
        raise InvalidRequestError.of(field, f"must have at most {EMAIL_BYTES} bytes")
    lower = text.lower()
    local, _, domain = lower.rpartition("@")
    labels = domain.split(".")
    if (
        _LOCAL.fullmatch(local) is None
        or len(local) > _LOCAL_BYTES
        or len(labels) < 2  # noqa: PLR2004 - a host and its domain
        or not all(map(_LABEL.fullmatch, labels))
    ):
        raise InvalidRequestError.of(field, "must be an e-mail address, as in `alice@example.org`")
    return lower
