"""What one principal holds.

Indexed so that a match costs the depth of the resource's path and not the number held.

The index of one action has three parts, probed in this order:

- exact: the pattern's text;
- prefix: a pattern whose only wildcard is its final `**`, by the text before it, from the longest
  down;
- masked: patterns with `*`, grouped by length and by the positions of `*`; a probe masks the
  resource's own segments at those positions. `pattern.MAX_WILDCARDS` bounds the number of groups.

Capabilities of one pattern and action share an entry, the one that expires last in front: when it
has expired, so have the others, and a principal who was granted the same thing again and again
still costs one look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

from licet.domain.capability import EndCause
from licet.domain.instant import Instant
from licet.domain.names import ANY_ACTION, Action, CapabilityId, Principal, Resource
from licet.domain.pattern import ONE, ResourcePattern, shape

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


Entry: TypeAlias = Sequence[HeldCapability]
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

    def living(self, action: Action, resource: Resource) -> Iterable[Entry]:
        """Return the entries of capabilities not revoked that cover the action and the resource."""
        return self._living.entries(action, resource)

    def ended(self, action: Action, resource: Resource) -> Iterable[Entry]:
        """Return the entries of revoked capabilities that covered the action and the resource."""
        return self._ended.entries(action, resource)

    def covering(self, resource: Resource) -> Iterator[HeldCapability]:
        """Yield every capability whose pattern covers the resource, whatever its actions and state.

        Each once.
        """
        for index in (self._living, self._ended):
            yield from index.covering(resource)


class _Index:
    __slots__ = ("_by_action", "size")

    def __init__(self, capabilities: Iterable[HeldCapability]) -> None:
        self._by_action: dict[Action, _ActionIndex] = {}
        # The order of insertion is the order within an entry.
        ordered = sorted(capabilities, key=_by_expiry, reverse=True)
        self.size = len(ordered)
        for capability in ordered:
            for action in capability.actions:
                index = self._by_action.get(action)
                if index is None:
                    index = self._by_action[action] = _ActionIndex()
                index.add(capability)

    def entries(self, action: Action, resource: Resource) -> Iterable[Entry]:
        # No generator: it would be one more to go through for each entry.
        index, for_any = self._by_action.get(action), self._by_action.get(ANY_ACTION)
        if index is None:
            return _NONE if for_any is None else for_any.entries(resource)
        if for_any is None:
            return index.entries(resource)
        return chain(index.entries(resource), for_any.entries(resource))

    def covering(self, resource: Resource) -> Iterator[HeldCapability]:
        seen: set[CapabilityId] = set()
        for index in self._by_action.values():
            for entry in index.entries(resource):
                for capability in entry:
                    if capability.id not in seen:
                        seen.add(capability.id)
                        yield capability


class _ActionIndex:
    __slots__ = ("_exact", "_masked", "_masked_open", "_prefix")

    def __init__(self) -> None:
        self._exact: dict[str, Entry] = {}
        self._prefix: dict[str, Entry] = {}
        # Number of segments -> positions of `*` -> masked text -> entry.
        self._masked: dict[int, dict[tuple[int, ...], dict[str, Entry]]] | None = None
        # The same for patterns that end in `**`; the number is that of the segments before it.
        self._masked_open: dict[int, dict[tuple[int, ...], dict[str, Entry]]] | None = None

    def add(self, capability: HeldCapability) -> None:
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

    def _place(self, pattern: ResourcePattern) -> tuple[dict[str, Entry], str]:
        if "*" not in pattern:
            return self._exact, pattern
        parts = shape(pattern)
        mask = tuple(i for i, segment in enumerate(parts.fixed) if segment == ONE)
        if not mask:
            return self._prefix, pattern[:-2]
        if parts.is_open:
            self._masked_open = masked = self._masked_open or {}
        else:
            self._masked = masked = self._masked or {}
        key = f"{parts.type}:{'/'.join(parts.fixed)}"
        return masked.setdefault(len(parts.fixed), {}).setdefault(mask, {}), key

    def entries(self, resource: Resource) -> Iterator[Entry]:
        entry = self._exact.get(resource)
        if entry is not None:
            yield entry
        if self._prefix:
            yield from self._probe_prefixes(resource)
        if self._masked is not None or self._masked_open is not None:
            yield from self._probe_masked(resource)

    def _probe_prefixes(self, resource: Resource) -> Iterator[Entry]:
        prefix = self._prefix
        end = resource.rfind("/")
        while end >= 0:
            entry = prefix.get(resource[: end + 1])
            if entry is not None:
                yield entry
            end = resource.rfind("/", 0, end)
        entry = prefix.get(resource[: resource.index(":") + 1])
        if entry is not None:
            yield entry

    def _probe_masked(self, resource: Resource) -> Iterator[Entry]:
        kind, _, path = resource.partition(":")
        segments = path.split("/")
        if self._masked is not None:
            closed = self._masked.get(len(segments))
            if closed is not None:
                yield from _probe(closed, kind, segments)
        if self._masked_open is not None:
            for length, groups in self._masked_open.items():
                if length < len(segments):
                    yield from _probe(groups, kind, segments[:length])


def _probe(
    groups: dict[tuple[int, ...], dict[str, Entry]], kind: str, segments: list[str]
) -> Iterator[Entry]:
    for mask, table in groups.items():
        masked = segments.copy()
        for position in mask:
            if not masked[position]:
                break  # `*` does not match an empty segment
            masked[position] = ONE
        else:
            entry = table.get(f"{kind}:{'/'.join(masked)}")
            if entry is not None:
                yield entry


def _by_expiry(capability: HeldCapability) -> tuple[Instant, CapabilityId]:
    return capability.expires_at, capability.id
