"""Finds, of what a principal holds, what covers an action and a resource.

So that a match costs the depth of the resource's path and not the number held. The index of one
action is a table by the patterns' text, probed in this order:

- exact: with the resource itself;
- prefix: with what stands before each number of segments that a pattern with no wildcard but its
  final `**` has, the longest first;
- closed and open: for patterns with `*`, without and with a final `**`, by the number of segments
  and the positions of `*`: with the resource's own segments masked at those positions.
  `pattern.MAX_WILDCARDS` bounds the number of masks.

Capabilities of one pattern and action share an entry, the one that expires last in front: when it
has expired, so have the others, and a principal who was granted the same thing again and again
still costs one look.

How they are made is in `indexing.py`: that may take long, and lets other threads run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeAlias

from licet.domain.names import ANY_ACTION, Action, CapabilityId, Resource
from licet.domain.pattern import ONE, REST

if TYPE_CHECKING:  # a set of them has indexes
    from licet.domain.capability_set import HeldCapability

Entry: TypeAlias = "Sequence[HeldCapability]"
# Nearly all entries have one capability, which is kept as it is: a tuple of itself would weigh
# half as much as the capability.
Stored: TypeAlias = "HeldCapability | list[HeldCapability]"
Mask: TypeAlias = tuple[int, ...]
"""The positions of `*` in a pattern."""
_NONE: Final[tuple[Entry, ...]] = ()
_REST_OF_PATH: Final = f"/{REST}"
_ANY_PATH: Final = f":{REST}"
_NOTHING: Final = "\0"
"""Stands for an empty segment, which `*` does not match; no pattern has this character."""


class ActionIndex:
    """The patterns of one action. Immutable once made.

    Args:
        by_pattern: by the pattern's text, what has that pattern.
        prefixes: how many segments stand before the final `**` of patterns with no other wildcard,
            the most first.
        closed: of patterns with `*` and no final `**`, by the number of segments, the masks.
        opened: of those with both, by the number of segments before that.
    """

    __slots__ = ("_closed", "_opened", "_prefixes", "by_pattern")

    def __init__(
        self,
        by_pattern: dict[str, Stored],
        prefixes: tuple[int, ...],
        closed: Mapping[int, Sequence[Mask]],
        opened: Mapping[int, Sequence[Mask]],
    ) -> None:
        self.by_pattern = by_pattern
        self._prefixes = prefixes
        self._closed = closed
        self._opened = opened

    def entries(self, resource: Resource) -> Iterator[Entry]:
        """Yield the entries of patterns that cover a resource."""
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
        for length, masks in self._opened.items():
            if length < count:
                yield from self._probe(masks, segments[:length], _REST_OF_PATH)

    def _probe(self, masks: Sequence[Mask], segments: list[str], rest: str) -> list[Entry]:
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


class CapabilityIndex:
    """The indexes of a set's capabilities, by action, and how many capabilities they have."""

    __slots__ = ("by_action", "size")

    def __init__(self, by_action: dict[Action, ActionIndex], size: int) -> None:
        self.by_action = by_action
        self.size = size

    def exact(self, action: Action, resource: Resource) -> HeldCapability | None:
        """Return what names this action and resource literally, the one that expires last."""
        index = self.by_action.get(action)
        if index is None:
            return None
        stored = index.by_pattern.get(resource)
        return stored[0] if isinstance(stored, list) else stored

    def entries(self, action: Action, resource: Resource) -> Iterable[Entry]:
        """Return the entries that cover an action and a resource."""
        index, for_any = self.by_action.get(action), self.by_action.get(ANY_ACTION)
        if index is None:
            return _NONE if for_any is None else for_any.entries(resource)
        if for_any is None or for_any is index:
            return index.entries(resource)
        return chain(index.entries(resource), for_any.entries(resource))

    def covering(self, resource: Resource) -> Iterator[HeldCapability]:
        """Yield what covers a resource, whatever its actions; each once."""
        seen: set[CapabilityId] = set()
        for index in dict.fromkeys(self.by_action.values()):
            for entry in index.entries(resource):
                for capability in entry:
                    if capability.id not in seen:
                        seen.add(capability.id)
                        yield capability


def _first(segments: list[str]) -> str:
    kind, _, first = segments[0].partition(":")
    return f"{kind}:{ONE if first else _NOTHING}"


def _type(resource: Resource) -> str:
    return resource.partition(":")[0]
