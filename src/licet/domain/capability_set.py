"""What one principal holds, and whether it is suspended.

Indexed so that a match costs the depth of the resource's path and not the number held.

The index of one action is a table by the patterns' text, probed in this order:

- exact: with the resource itself;
- prefix: with what stands before each number of segments that a pattern with no wildcard but its
  final `**` has, the longest first;
- closed and open: for patterns with `*`, without and with a final `**`, by the number of segments
  and the positions of `*`: with the resource's own segments masked at those positions.
  `pattern.MAX_WILDCARDS` bounds the number of masks.

Most principals hold a few capabilities, each for the same actions, and there may be 100,000 of
them in memory: actions that were granted together share an index, and what an index has nothing of
takes no room.

Capabilities of one pattern and action share an entry, the one that expires last in front: when it
has expired, so have the others, and a principal who was granted the same thing again and again
still costs one look.

Living capabilities with conditions have an index of their own, which is looked at when none without
allows: whoever has no conditions pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias

from licet.domain.capability import EndCause
from licet.domain.instant import Instant
from licet.domain.names import ANY_ACTION, Action, CapabilityId, Principal, Resource
from licet.domain.pattern import ONE, REST, ResourcePattern, shape

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


Entry: TypeAlias = Sequence[HeldCapability]
# Nearly all entries have one capability, which is kept as it is: a tuple of itself would weigh
# half as much as the capability.
_Stored: TypeAlias = HeldCapability | list[HeldCapability]
_Mask: TypeAlias = tuple[int, ...]
"""The positions of `*` in a pattern."""
_NONE: Final[tuple[Entry, ...]] = ()
_REST_OF_PATH: Final = f"/{REST}"
_ANY_PATH: Final = f":{REST}"
_NOTHING: Final = "\0"
"""Stands for an empty segment, which `*` does not match; no pattern has this character."""
_LIST_BYTES: Final = 40
_REFERENCE_BYTES: Final = 8
_TEXT_BYTES: Final = 60
_SHAPES: Final = 4096
"""How many combinations of masks are kept once for all sets; most sets have one of a few."""


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
        alive = tuple(living)
        conditional = [capability for capability in alive if capability.conditions]
        self._living = _index(
            [capability for capability in alive if not capability.conditions]
            if conditional
            else alive
        )
        self._conditional = _index(conditional)
        self._ended = _index(ended)
        self.has_conditions = bool(conditional)
        """Whether any living capability has conditions."""
        self.extra_bytes = _weight(conditional)
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
        index = self._living.by_action.get(action)
        if index is None:
            return None
        stored = index.by_pattern.get(resource)
        return stored[0] if isinstance(stored, list) else stored

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


class _Index:
    __slots__ = ("by_action", "size")

    by_action: dict[Action, _ActionIndex]

    def __init__(self, ordered: Sequence[HeldCapability]) -> None:
        # The order of insertion is the order within an entry.
        self.size = len(ordered)
        kinds = {capability.actions for capability in ordered}
        if len(kinds) == 1:  # as most do
            self.by_action = dict.fromkeys(kinds.pop(), _ActionIndex(ordered))
            return
        held: dict[Action, list[HeldCapability]] = {}
        for capability in ordered:
            for action in capability.actions:
                held.setdefault(action, []).append(capability)
        shared: dict[tuple[int, ...], _ActionIndex] = {}
        self.by_action = {}
        for action, of_action in held.items():
            key = tuple(map(id, of_action))
            if key not in shared:
                shared[key] = _ActionIndex(of_action)
            self.by_action[action] = shared[key]

    def entries(self, action: Action, resource: Resource) -> Iterable[Entry]:
        index, for_any = self.by_action.get(action), self.by_action.get(ANY_ACTION)
        if index is None:
            return _NONE if for_any is None else for_any.entries(resource)
        if for_any is None or for_any is index:
            return index.entries(resource)
        return chain(index.entries(resource), for_any.entries(resource))

    def covering(self, resource: Resource) -> Iterator[HeldCapability]:
        seen: set[CapabilityId] = set()
        for index in dict.fromkeys(self.by_action.values()):
            for entry in index.entries(resource):
                for capability in entry:
                    if capability.id not in seen:
                        seen.add(capability.id)
                        yield capability


class _ActionIndex:
    __slots__ = ("_closed", "_open", "_prefixes", "by_pattern")

    def __init__(self, capabilities: Iterable[HeldCapability]) -> None:
        self.by_pattern: dict[str, _Stored] = {}
        prefixes: set[int] = set()
        opened: set[tuple[int, _Mask]] = set()
        closed: set[tuple[int, _Mask]] = set()
        table = self.by_pattern
        for capability in capabilities:
            resource = capability.resource
            if table.setdefault(resource, capability) is not capability:
                _append(table, capability)
            if "*" not in resource:
                continue
            parts = shape(resource)
            length = len(parts.fixed)
            mask = tuple(i for i, segment in enumerate(parts.fixed) if segment == ONE)
            if not mask:
                prefixes.add(length)
            elif parts.is_open:
                opened.add((length, mask))
            else:
                closed.add((length, mask))
        # By the number of segments, before a final `**`.
        self._prefixes = tuple(sorted(prefixes, reverse=True))
        self._open = _grouped(frozenset(opened))
        self._closed = _grouped(frozenset(closed))

    def entries(self, resource: Resource) -> Iterator[Entry]:
        # One flat generator: whoever has found what he looks for stops the probing.
        stored = self.by_pattern.get(resource)
        if stored is not None:
            yield stored if isinstance(stored, list) else (stored,)
        # The type stays with the first segment: hardly any mask covers it.
        segments = resource.split("/")
        count = len(segments)
        for length in self._prefixes:
            if length < count:
                head = "/".join(segments[:length]) if length else _type(resource)
                stored = self.by_pattern.get(head + (_REST_OF_PATH if length else _ANY_PATH))
                if stored is not None:
                    yield stored if isinstance(stored, list) else (stored,)
        if count in self._closed:
            yield from self._probe(self._closed[count], segments, "")
        for length, masks in self._open.items():
            if length < count:
                yield from self._probe(masks, segments[:length], _REST_OF_PATH)

    def _probe(self, masks: Sequence[_Mask], segments: list[str], rest: str) -> list[Entry]:
        found: list[Entry] = []
        for mask in masks:
            masked = segments.copy()
            for position in mask:
                masked[position] = (
                    (ONE if masked[position] else _NOTHING) if position else _first(segments)
                )
            stored = self.by_pattern.get("/".join(masked) + rest)
            if stored is not None:
                found.append(stored if isinstance(stored, list) else (stored,))
        return found


@lru_cache(_SHAPES)
def _grouped(shapes: frozenset[tuple[int, _Mask]]) -> Mapping[int, Sequence[_Mask]]:
    """Return the masks by the number of segments; the same ones for all who have the same."""
    grouped: dict[int, list[_Mask]] = {}
    for length, mask in sorted(shapes):
        grouped.setdefault(length, []).append(mask)
    return {length: tuple(masks) for length, masks in grouped.items()}


def _append(table: dict[str, _Stored], capability: HeldCapability) -> None:
    """Add one whose pattern is in the table."""
    stored = table[capability.resource]
    if isinstance(stored, list):
        stored.append(capability)
    else:
        table[capability.resource] = [stored, capability]


def _first(segments: list[str]) -> str:
    kind, _, first = segments[0].partition(":")
    return f"{kind}:{ONE if first else _NOTHING}"


def _type(resource: Resource) -> str:
    return resource.partition(":")[0]


def _weight(conditional: Iterable[HeldCapability]) -> int:
    """Return what the lists of conditions take, and their texts, which capabilities share."""
    texts: set[str] = set()
    weight = 0
    for capability in conditional:
        texts.update(capability.conditions)
        weight += _LIST_BYTES + _REFERENCE_BYTES * len(capability.conditions)
    return weight + sum(_TEXT_BYTES + len(text) for text in texts)


_EMPTY: Final = _Index(())
_by_expiry: Final = attrgetter("expires_at", "id")


def _index(capabilities: Iterable[HeldCapability]) -> _Index:
    ordered = sorted(capabilities, key=_by_expiry, reverse=True)
    return _Index(ordered) if ordered else _EMPTY
