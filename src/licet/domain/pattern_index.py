"""Finds by patterns that cover a resource what is kept with them, as sets of bits.

At a cost that depends on the depth of the resource's path and not on how many patterns there are;
as `capability_set.py` does, for fewer patterns that never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from licet.domain.names import Resource
from licet.domain.pattern import ONE, ResourcePattern, shape

_NOTHING: Final = "\0"
"""Stands for an empty segment, which `*` does not match; no pattern has this character."""
_Mask: TypeAlias = tuple[int, ...]
"""The positions of `*` in a pattern."""
# Number of segments (before a final `**`) and positions of `*` -> the segments' text -> bits.
_Tables: TypeAlias = dict[tuple[int, _Mask], dict[str, int]]


class PatternIndex:
    """Which bits belong to the patterns that cover a resource."""

    __slots__ = ("_closed", "_exact", "_open")

    def __init__(self, bits: Mapping[ResourcePattern, int]) -> None:
        """Index patterns, each with its bits."""
        self._exact: dict[str, int] = {}
        self._open: _Tables = {}
        self._closed: _Tables = {}
        for pattern, value in bits.items():
            if "*" not in pattern:
                self._exact[pattern] = value
                continue
            parts = shape(pattern)
            mask = tuple(i for i, segment in enumerate(parts.fixed) if segment == ONE)
            tables = self._open if parts.is_open else self._closed
            table = tables.setdefault((len(parts.fixed), mask), {})
            table["/".join((parts.type, *parts.fixed))] = value

    def covering(self, resource: Resource) -> int:
        """Return the bits of all patterns that cover a resource."""
        found = self._exact.get(resource, 0)
        if not self._open and not self._closed:
            return found
        kind, _, path = resource.partition(":")
        segments = path.split("/")
        count = len(segments)
        for (length, mask), table in self._closed.items():
            if length == count:
                found |= table.get(_masked(kind, segments, mask), 0)
        for (length, mask), table in self._open.items():
            # `**` is one segment at least.
            if length < count:
                found |= table.get(_masked(kind, segments[:length], mask), 0)
        return found


def _masked(kind: str, segments: list[str], mask: _Mask) -> str:
    if mask:
        segments = segments.copy()
        for position in mask:
            segments[position] = ONE if segments[position] else _NOTHING
    return "/".join((kind, *segments))
