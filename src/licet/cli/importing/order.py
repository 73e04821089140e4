"""Capabilities, each after its parent."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Final

_UNKNOWN: Final = -1
_ON_THE_WAY: Final = -2
CYCLIC: Final = -3
"""The level of what descends from itself, and of what descends from that."""


def levels(count: int, parents: Mapping[int, str], positions: Mapping[str, int]) -> array[int]:
    """Return for each capability how many ancestors it has in the file, or CYCLIC.

    Args:
        count: how many there are.
        parents: the ids of their parents, where they have one.
        positions: by id; a parent that is not there counts as none.
    """
    found = array("q", [_UNKNOWN]) * count
    for position in range(count):
        way = []
        at: int | None = position
        while at is not None and found[at] == _UNKNOWN:
            found[at] = _ON_THE_WAY
            way.append(at)
            parent = parents.get(at)
            at = None if parent is None else positions.get(parent)
        level = -1 if at is None else found[at]
        if level == _ON_THE_WAY:
            level = CYCLIC
        for one in reversed(way):
            level = CYCLIC if level == CYCLIC else level + 1
            found[one] = level
    return found


def by_level(levels_: array[int]) -> Iterator[list[int]]:
    """Yield the positions of each level, those of cycles first and then from the roots on."""
    groups: dict[int, list[int]] = {}
    for position, level in enumerate(levels_):
        groups.setdefault(level, []).append(position)
    for level in sorted(groups):
        yield groups[level]
