"""What one principal holds.

Indexed so that a match costs the depth of the resource's path and not the number held.

The index of one action has four parts, probed in this order:

- exact: the pattern's text;
- prefix: patterns whose only wildcard is their final `**`, by what stands before it, the longest
  first;
- closed and open: patterns with `*`, without and with a final `**`, by the number of segments and
  the positions of `*`; a probe masks the resource's own segments at those positions.
  `pattern.MAX_WILDCARDS` bounds the number of groups.

Capabilities of one pattern and action share an entry, the one that expires last in front: when it
has expired, so have the others, and a principal who was granted the same thing again and again
still costs one look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

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


class HasPattern(Protocol):
    """What an index of patterns holds."""

    @property
    def resource(self) -> ResourcePattern:
        """The pattern."""
        ...


_Held = TypeVar("_Held", bound=HasPattern)
Entry: TypeAlias = Sequence[HeldCapability]
# The segments' text -> entry.
_Table: TypeAlias = dict[str, Sequence[_Held]]
# Number of segments (before a final `**`) -> positions of `*` -> table.
_Groups: TypeAlias = dict[int, dict[tuple[int, ...], _Table[_Held]]]
_NONE: Final[tuple[Entry, ...]] = ()


class CapabilitySet:
    """The capabilities of one principal at one revision.

    Immutable once built, so threads share it.
    """

    __slots__ = ("_ended", "_living", "principal", "revision", "size")

    def __init__(
        self,
        principal: Principal,
        revision: int,
        living: Iterable[HeldCapability],
        ended: Iterable[HeldCapability] = (),
    ) -> None:
        """Index the capabilities; `ended` are those revoked before their time."""
        self.principal = principal
        self.revision = revision
        self._living = _Index(living)
        self._ended = _Index(ended)
        self.size = self._living.size + self._ended.size
        """How many capabilities are in the set, the ended ones included."""

    def exact(self, action: Action, resource: Resource) -> HeldCapability | None:
        """Return the capability not revoked that names this action and resource literally.

        Of several, the one that expires last. Most requests need no more than this look.
        """
        index = self._living.by_action.get(action)
        if index is None:
            return None
        entry = index.exact.get(resource)
        return None if entry is None else entry[0]

    def living(self, action: Action, resource: Resource) -> Iterable[Entry]:
        """Return the entries of capabilities not revoked that cover the action and the resource."""
        return self._living.entries(action, resource)

    def ended(self, action: Action, resource: Resource) -> Iterable[Entry]:
        """Return the entries of revoked capabilities that covered the action and the resource."""
        return self._ended.entries(action, resource) if self._ended.size else _NONE

    def covering(self, resource: Resource) -> Iterator[HeldCapability]:
        """Yield every capability whose pattern covers the resource, whatever its actions and state.

        Each once.
        """
        for index in (self._living, self._ended):
            yield from index.covering(resource)


class _Index:
    __slots__ = ("by_action", "size")

    def __init__(self, capabilities: Iterable[HeldCapability]) -> None:
        self.by_action: dict[Action, PatternIndex[HeldCapability]] = {}
        # The order of insertion is the order within an entry.
        ordered = sorted(capabilities, key=_by_expiry, reverse=True)
        self.size = len(ordered)
        for capability in ordered:
            for action in capability.actions:
                index = self.by_action.get(action)
                if index is None:
                    index = self.by_action[action] = PatternIndex()
                index.add(capability)

    def entries(self, action: Action, resource: Resource) -> Iterable[Entry]:
        index, for_any = self.by_action.get(action), self.by_action.get(ANY_ACTION)
        if index is None:
            return _NONE if for_any is None else for_any.entries(resource)
        if for_any is None:
            return index.entries(resource)
        return chain(index.entries(resource), for_any.entries(resource))

    def covering(self, resource: Resource) -> Iterator[HeldCapability]:
        seen: set[CapabilityId] = set()
        for index in self.by_action.values():
            for entry in index.entries(resource):
                for capability in entry:
                    if capability.id not in seen:
                        seen.add(capability.id)
                        yield capability


class PatternIndex(Generic[_Held]):
    """Finds what has a pattern that covers a resource; `exact` are the patterns without `*`."""

    __slots__ = ("_closed", "_open", "_prefix", "exact")

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.exact: _Table[_Held] = {}
        # Number of segments before the `**`, the highest first -> their text -> entry.
        self._prefix: dict[int, _Table[_Held]] = {}
        self._open: _Groups[_Held] = {}
        self._closed: _Groups[_Held] = {}

    def add(self, capability: _Held) -> None:
        """Hold one more, behind those with the same pattern."""
        table, key = self._place(capability.resource)
        entry = table.get(key)
        if entry is None:
            table[key] = (
                capability,
            )  # nearly all entries have one, and a tuple is smaller than a list
        elif isinstance(entry, list):
            entry.append(capability)
        else:
            table[key] = [*entry, capability]

    def _place(self, pattern: ResourcePattern) -> tuple[_Table[_Held], str]:
        if "*" not in pattern:
            return self.exact, pattern
        parts = shape(pattern)
        length = len(parts.fixed)
        text = f"{parts.type}:{'/'.join(parts.fixed)}" if length else parts.type
        mask = tuple(i for i, segment in enumerate(parts.fixed) if segment == ONE)
        if mask:
            groups = self._open if parts.is_open else self._closed
            return groups.setdefault(length, {}).setdefault(mask, {}), text
        if length not in self._prefix:
            self._prefix = dict(sorted([*self._prefix.items(), (length, {})], reverse=True))
        return self._prefix[length], text

    def entries(self, resource: Resource) -> Iterator[Sequence[_Held]]:
        """Yield what covers a resource, those with the same pattern together."""
        # One flat generator: whoever has found what he looks for stops the probing.
        entry = self.exact.get(resource)
        if entry is not None:
            yield entry
        # The type stays with the first segment: hardly any mask covers it.
        segments = resource.split("/")
        count = len(segments)
        for length, table in self._prefix.items():
            if length < count:
                entry = table.get("/".join(segments[:length]) if length else _type(resource))
                if entry is not None:
                    yield entry
        if count in self._closed:
            yield from _probe(self._closed[count], segments)
        for length, tables in self._open.items():
            if length < count:
                yield from _probe(tables, segments[:length])


def _probe(
    tables: dict[tuple[int, ...], _Table[_Held]], segments: list[str]
) -> list[Sequence[_Held]]:
    found = []
    for mask, table in tables.items():
        masked = segments.copy()
        for position in mask:
            # No fixed segment reads like what stands for an empty one, which `*` does not match.
            masked[position] = (ONE if masked[position] else REST) if position else _first(segments)
        entry = table.get("/".join(masked))
        if entry is not None:
            found.append(entry)
    return found


def _first(segments: list[str]) -> str:
    kind, _, first = segments[0].partition(":")
    return f"{kind}:{ONE if first else REST}"


def _type(resource: Resource) -> str:
    return resource.partition(":")[0]


def _by_expiry(capability: HeldCapability) -> tuple[Instant, CapabilityId]:
    return capability.expires_at, capability.id
