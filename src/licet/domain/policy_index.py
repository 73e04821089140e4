"""Which policies match a principal, an action and a resource, however many there are.

A policy is a bit. For each of the three there is a set of bits, of those that it lets match, and
what all three have is what matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from licet.domain.names import Action, Principal, Resource
from licet.domain.pattern import REST, ResourcePattern
from licet.domain.pattern_index import PatternIndex
from licet.domain.policy import Limit, Policy


class PolicyIndex:
    """Finds, of policies in an order, those that match. Never changes."""

    def __init__(self, ordered: Sequence[Policy]) -> None:
        """Index policies in the order in which those that match are returned."""
        self._ordered = tuple(ordered)
        self._principals = _Patterns(policy.match.principals for policy in ordered)
        self._resources = _Patterns(policy.match.resources for policy in ordered)
        self._any_action = 0
        self._actions: dict[Action, int] = {}
        # Of policies that name principals: those of all of a type, and of some of it only.
        self._of_all: dict[str, int] = {}
        self._of_some: dict[str, int] = {}
        self._of_anybody = self._limits = 0
        for number, policy in enumerate(ordered):
            self._limits |= isinstance(policy.effect, Limit) << number
            self._of_anybody |= (not policy.match.principals) << number
            for named in {pattern.partition(":")[0] for pattern in policy.match.principals}:
                has_all = f"{named}:{REST}" in policy.match.principals
                bits = self._of_all if has_all else self._of_some
                bits[named] = bits.get(named, 0) | 1 << number
            if not policy.match.actions:
                self._any_action |= 1 << number
            for action in policy.match.actions:
                self._actions[action] = self._actions.get(action, 0) | 1 << number

    def matching(
        self, principal: Principal, action: Action, resource: Resource
    ) -> tuple[Policy, ...]:
        """Return those that match all three."""
        bits = self._about(action, resource)
        if bits:
            bits &= self._principals.matching(Resource(principal))
        return self._of(bits)

    def shared(self, of_type: str, action: Action, resource: Resource) -> tuple[Policy, ...] | None:
        """Return those that match all principals of a type; None: it matters which one it is."""
        bits = self._about(action, resource)
        of_all = self._of_anybody | self._of_all.get(of_type, 0)
        if bits & (self._of_some.get(of_type, 0) | (self._limits & of_all)):
            return None
        return self._of(bits & of_all)

    def _about(self, action: Action, resource: Resource) -> int:
        bits = self._actions.get(action, 0) | self._any_action
        if bits:
            bits &= self._resources.matching(resource)
        return bits

    def _of(self, bits: int) -> tuple[Policy, ...]:
        found = []
        while bits:
            lowest = bits & -bits
            found.append(self._ordered[lowest.bit_length() - 1])
            bits ^= lowest
        return tuple(found)


class _Patterns:
    def __init__(self, patterns: Iterable[Sequence[ResourcePattern]]) -> None:
        self._any = 0
        merged: dict[ResourcePattern, int] = {}
        for number, several in enumerate(patterns):
            if not several:
                self._any |= 1 << number
            for pattern in several:
                merged[pattern] = merged.get(pattern, 0) | 1 << number
        self._index = PatternIndex(merged)

    def matching(self, resource: Resource) -> int:
        return self._any | self._index.covering(resource)
