"""What one principal holds, and whether it is suspended.

How a match costs the depth of the resource's path and not the number held is in
`capability_index.py`; here it is said which capabilities are looked at.

Living capabilities with conditions have an index of their own, which is looked at when none without
allows: whoever has no conditions pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from licet.domain.capability import EndCause
from licet.domain.capability_index import Entry
from licet.domain.indexing import indexed, parted, weight
from licet.domain.instant import Instant
from licet.domain.names import Action, CapabilityId, Principal, Resource
from licet.domain.pattern import ResourcePattern

ALWAYS: Final = Instant(0)
"""`not_before` of a capability without one."""
NEVER: Final = Instant((1 << 63) - 1)
"""`expires_at` of a capability without one."""

MAX_ENDED: Final = 1000
"""How many ended capabilities of a principal, the latest, are kept to tell why a request is
denied."""


class HeldCapability(NamedTuple):
    """The part of a capability that decides. A tuple, because a principal may hold 100,000."""

    id: CapabilityId
    resource: ResourcePattern
    actions: tuple[Action, ...]
    not_before: Instant
    expires_at: Instant
    end_cause: EndCause | None = None
    ended_at: Instant = NEVER
    conditions: tuple[str, ...] = ()
    """Its own and those of its ancestors; all must hold."""


class OneUse(NamedTuple):
    """A capability for one use, with the roles that approved it; see `approval.py`."""

    capability: HeldCapability
    parent_id: CapabilityId
    roles: frozenset[str]


_NONE: Final[tuple[Entry, ...]] = ()


class Standing(StrEnum):
    """What a principal is counted for, whatever it holds; the values are those of the statement."""

    GOOD = "GOOD"
    DISABLED = "DISABLED"
    """A user as whom nobody may call; what it holds counts."""
    SUSPENDED = "SUSPENDED"
    """Nobody may call as it, and nothing that it holds counts."""


class CapabilitySet:
    """The capabilities of one principal at one revision.

    Immutable once built, so threads share it.
    """

    __slots__ = (
        *("_conditional", "_ended", "_for_one_use", "_living", "extra_bytes", "has_conditions"),
        *("is_barred", "is_suspended", "principal", "revision", "size"),
    )

    def __init__(  # noqa: PLR0913, PLR0917 - one argument per kind
        self,
        principal: Principal,
        revision: int,
        living: Iterable[HeldCapability],
        ended: Iterable[HeldCapability] = (),
        standing: Standing = Standing.GOOD,
        for_one_use: Sequence[OneUse] = (),
    ) -> None:
        """Index the capabilities.

        `ended` are those revoked before their time; `for_one_use` none of `living`.
        """
        self.principal = principal
        self.revision = revision
        self.is_suspended = standing is Standing.SUSPENDED
        """Whether it may do nothing, whatever it holds."""
        self.is_barred = standing is not Standing.GOOD
        """Whether nobody may call as this principal: it is suspended, or a user who is disabled."""
        plain, conditional = parted(living)
        self._living = indexed(plain)
        self._conditional = indexed(conditional)
        self._ended = indexed(ended)
        self.has_conditions = bool(conditional)
        """Whether any living capability has conditions."""
        self.extra_bytes = weight(conditional)
        """What the conditions weigh, by estimate."""
        self._for_one_use = tuple(for_one_use)
        self.size = (
            self._living.size + self._conditional.size + self._ended.size + len(self._for_one_use)
        )
        """How many capabilities are in the set, the ended ones included."""

    def exact(self, action: Action, resource: Resource) -> HeldCapability | None:
        """Return the capability not revoked that names this action and resource literally.

        One without conditions. Of several, the one that expires last. Most requests need no more
        than this look.
        """
        return self._living.exact(action, resource)

    def living(self, action: Action, resource: Resource) -> Iterable[Entry]:
        """Return the entries of capabilities not revoked that cover the action and the resource.

        Of those without conditions.
        """
        return self._living.entries(action, resource)

    def conditional(self, action: Action, resource: Resource) -> Iterable[Entry]:
        """Return the entries of those with conditions."""
        return self._conditional.entries(action, resource) if self.has_conditions else _NONE

    def ended(self, action: Action, resource: Resource) -> Iterable[Entry]:
        """Return the entries of revoked capabilities that covered the action and the resource."""
        return self._ended.entries(action, resource) if self._ended.size else _NONE

    def for_one_use(self, action: Action, resource: Resource) -> Iterator[OneUse]:
        """Yield the capabilities for one use of exactly this; they are in no other answer."""
        exactly = ResourcePattern(resource)
        for one in self._for_one_use:
            if one.capability.resource == exactly and one.capability.actions == (action,):
                yield one

    def covering(self, resource: Resource) -> Iterator[HeldCapability]:
        """Yield every ordinary capability whose pattern covers the resource.

        Whatever its actions and its state; each once.
        """
        for index in (self._living, self._conditional, self._ended):
            yield from index.covering(resource)
