"""What a capability is, and the rules of delegation.

A child is inside its parent in every dimension, and has all its conditions.

Invariants of a stored capability, kept by constraints of the database as well:

- Nothing but its end ever changes. Whatever was true of a parent when a child was checked against
  it still is, so that only "the parent is alive" needs the mutation lock.
- A child ends no later than its parent: by expiry because of the rules here, by revocation because
  of the cascade.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from licet.domain import names
from licet.domain.canonical_json import JsonObject
from licet.domain.errors import InvalidRequestError, NotPermittedError, PreconditionError
from licet.domain.instant import Instant
from licet.domain.names import ANY_ACTION, Action, Caller, CapabilityId, Principal
from licet.domain.pattern import ResourcePattern, contains

MAX_ACTIONS: Final = 32
MAX_DELEGATION_DEPTH: Final = 64
MAX_CONDITIONS: Final = 16
"""How many conditions a capability has, those of its ancestors included; the database knows this
number, too."""


class EndCause(StrEnum):
    """How a capability ended; the values are stored."""

    REVOKED = "REVOKED"
    CASCADE = "CASCADE"
    EXPIRED = "EXPIRED"
    SESSION_ENDED = "SESSION_ENDED"
    USED = "USED"
    """It was for one use."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a capability before its time."""

    at: Instant
    by: Caller
    reason: str
    cause: EndCause


@dataclass(frozen=True, slots=True)
class Terms:
    """What a capability is to allow, before it is granted.

    `None` for an instant means: unbounded. `inherited` are the conditions of the ancestors.
    """

    principal: Principal
    actions: tuple[Action, ...]
    resource: ResourcePattern
    not_before: Instant | None
    expires_at: Instant | None
    delegation_depth: int
    session_id: str
    metadata: JsonObject
    condition: str = ""
    inherited: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[str, ...]:
        """All that must hold: those of its ancestors, the root's first, and its own."""
        return (*self.inherited, self.condition) if self.condition else self.inherited


@dataclass(frozen=True, slots=True)
class Capability:
    """A capability as stored; one with `approved_roles` is for one use: see `approval.py`."""

    id: CapabilityId
    terms: Terms
    parent_id: CapabilityId | None
    granted_by: Caller
    granted_at: Instant
    revision: int
    end: End | None
    approved_roles: tuple[str, ...] = ()


def checked_actions(actions: Sequence[str], field: str = "actions") -> tuple[Action, ...]:
    """Check the actions of a capability.

    Raises:
        InvalidRequestError: there are none or too many, two are the same, or one is no action.
    """
    if list(actions) == [ANY_ACTION]:
        return (ANY_ACTION,)
    if not 1 <= len(actions) <= MAX_ACTIONS:
        raise InvalidRequestError.of(
            field, f"must have 1 to {MAX_ACTIONS} items, not {len(actions)}"
        )
    if ANY_ACTION in actions:
        raise InvalidRequestError.of(field, "must have `*` alone or not at all")
    checked = tuple(names.action(action, f"{field}[{i}]") for i, action in enumerate(actions))
    if len(set(checked)) != len(checked):
        raise InvalidRequestError.of(field, "must be distinct")
    return checked


def inherit(terms: Terms, parent: Capability) -> Terms:
    """Fill the times that a delegation left open with its parent's, and add its conditions."""
    return Terms(
        principal=terms.principal,
        actions=terms.actions,
        resource=terms.resource,
        not_before=parent.terms.not_before if terms.not_before is None else terms.not_before,
        expires_at=parent.terms.expires_at if terms.expires_at is None else terms.expires_at,
        delegation_depth=terms.delegation_depth,
        session_id=terms.session_id,
        metadata=terms.metadata,
        condition=terms.condition,
        inherited=parent.terms.conditions,
    )


def check_attenuation(child: Terms, parent: Capability, now: Instant) -> None:
    """Check that a delegation stays inside its parent. `child` went through `inherit`.

    Raises:
        PreconditionError: the parent has ended, has expired or has no depth left, or has too many
            conditions for another one.
        NotPermittedError: the child is wider; `code` names the dimension.
    """
    bound = parent.terms
    # (1) The parent is alive.
    if parent.end is not None:
        raise PreconditionError("PARENT_ENDED", "the parent capability has been revoked")
    if bound.expires_at is not None and bound.expires_at <= now:
        raise PreconditionError("PARENT_EXPIRED", "the parent capability has expired")
    # (2) Depth.
    if bound.delegation_depth == 0:
        raise PreconditionError("NO_DEPTH_LEFT", "the parent capability may not be delegated")
    if child.delegation_depth > bound.delegation_depth - 1:
        raise NotPermittedError(
            "DEPTH_WIDER",
            f"delegation_depth may be at most {bound.delegation_depth - 1} below this parent",
        )
    # (3) Actions.
    extra = [action for action in child.actions if action not in bound.actions]
    if extra and ANY_ACTION not in bound.actions:
        raise NotPermittedError(
            "ACTIONS_WIDER", f"the parent capability does not allow {', '.join(extra)}"
        )
    # (4) Resource.
    if not contains(bound.resource, child.resource):
        raise NotPermittedError(
            "RESOURCE_WIDER", f"the resource is not inside the parent's, {bound.resource}"
        )
    # (5) Time.
    if bound.expires_at is not None and (
        child.expires_at is None or child.expires_at > bound.expires_at
    ):
        raise NotPermittedError("EXPIRY_WIDER", "expires_at is later than the parent's")
    if bound.not_before is not None and (
        child.not_before is None or child.not_before < bound.not_before
    ):
        raise NotPermittedError("NOT_BEFORE_WIDER", "not_before is earlier than the parent's")
    # (6) Conditions: there may be more of them, not fewer.
    if len(child.conditions) > MAX_CONDITIONS:
        raise PreconditionError(
            "TOO_MANY_CONDITIONS",
            f"with those of its ancestors a capability has at most {MAX_CONDITIONS} conditions",
        )
