"""Makes the indexes of what a principal holds; how they are looked at is in `capability_index.py`.

It may hold 100,000 capabilities, which takes a good part of a second: this is never compiled,
because C would keep all other threads waiting (docs/decisions/0048).

Most principals hold a few, each for the same actions, and there may be 100,000 of them in memory:
actions that were granted together share an index, and what an index has nothing of takes no room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from licet.domain.capability_index import ActionIndex, CapabilityIndex, Mask, Stored
from licet.domain.names import Action
from licet.domain.pattern import ONE, shape

if TYPE_CHECKING:  # a set of them has indexes
    from licet.domain.capability_set import HeldCapability

_LIST_BYTES: Final = 40
_REFERENCE_BYTES: Final = 8
_TEXT_BYTES: Final = 60
_SHAPES: Final = 4096
"""How many combinations of masks are kept once for all sets; most sets have one of a few."""

_EMPTY: Final = CapabilityIndex({}, 0)
_by_expiry: Final = attrgetter("expires_at", "id")


def parted(
    capabilities: Iterable[HeldCapability],
) -> tuple[Sequence[HeldCapability], Sequence[HeldCapability]]:
    """Return those without conditions, and those with."""
    everything = tuple(capabilities)
    conditional = [capability for capability in everything if capability.conditions]
    if not conditional:
        return everything, ()
    return [capability for capability in everything if not capability.conditions], conditional


def indexed(capabilities: Iterable[HeldCapability]) -> CapabilityIndex:
    """Index capabilities."""
    # The order of insertion is the order within an entry.
    ordered = sorted(capabilities, key=_by_expiry, reverse=True)
    return CapabilityIndex(_by_action(ordered), len(ordered)) if ordered else _EMPTY


def weight(conditional: Iterable[HeldCapability]) -> int:
    """Return what lists of conditions take, and their texts, which capabilities share; in bytes."""
    texts: set[str] = set()
    weight = 0
    for capability in conditional:
        texts.update(capability.conditions)
        weight += _LIST_BYTES + _REFERENCE_BYTES * len(capability.conditions)
    return weight + sum(_TEXT_BYTES + len(text) for text in texts)


def _by_action(ordered: Sequence[HeldCapability]) -> dict[Action, ActionIndex]:
    kinds = {capability.actions for capability in ordered}
    if len(kinds) == 1:  # as most do
        return dict.fromkeys(kinds.pop(), _action_index(ordered))
    held: dict[Action, list[HeldCapability]] = {}
    for capability in ordered:
        for action in capability.actions:
            held.setdefault(action, []).append(capability)
    shared: dict[tuple[int, ...], ActionIndex] = {}
    by_action = {}
    for action, of_action in held.items():
        key = tuple(map(id, of_action))
        if key not in shared:
            shared[key] = _action_index(of_action)
        by_action[action] = shared[key]
    return by_action


def _action_index(capabilities: Iterable[HeldCapability]) -> ActionIndex:
    table: dict[str, Stored] = {}
    prefixes: set[int] = set()
    opened: set[tuple[int, Mask]] = set()
    closed: set[tuple[int, Mask]] = set()
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
    return ActionIndex(
        table,
        tuple(sorted(prefixes, reverse=True)),
        _grouped(frozenset(closed)),
        _grouped(frozenset(opened)),
    )


def _append(table: dict[str, Stored], capability: HeldCapability) -> None:
    """Add one whose pattern is in the table."""
    stored = table[capability.resource]
    if isinstance(stored, list):
        stored.append(capability)
    else:
        table[capability.resource] = [stored, capability]


@lru_cache(_SHAPES)
def _grouped(shapes: frozenset[tuple[int, Mask]]) -> Mapping[int, Sequence[Mask]]:
    """Return the masks by the number of segments; the same ones for all who have the same."""
    grouped: dict[int, list[Mask]] = {}
    for length, mask in sorted(shapes):
        grouped.setdefault(length, []).append(mask)
    return {length: tuple(masks) for length, masks in grouped.items()}
