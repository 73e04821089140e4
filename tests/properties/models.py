"""Naive models of the rules, written apart from the code that they judge, and small worlds.

A small world is every pattern and every resource over a few segments. One segment, `z`, occurs in
resources only: to a pattern it stands for all the segments that nobody thought of, which is what
makes containment in the small world the same as containment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Final

from licet.domain.capability import EndCause
from licet.domain.capability_set import ALWAYS, NEVER, CapabilitySet, HeldCapability
from licet.domain.decision import Reason, Request
from licet.domain.instant import Instant
from licet.domain.names import Action, CapabilityId, Principal, Resource
from licet.domain.pattern import ResourcePattern


def matches(pattern: str, resource: str) -> bool:
    """Say whether a pattern covers a resource, by the sentence that defines it."""
    pattern_type, _, pattern_path = pattern.partition(":")
    resource_type, _, resource_path = resource.partition(":")
    return pattern_type == resource_type and _covers(
        pattern_path.split("/"), resource_path.split("/")
    )


def _covers(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    if not pattern or not segments:
        return not pattern and not segments
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return True
    return (first == segments[0] or (first == "*" and segments[0] != "")) and _covers(
        rest, segments[1:]
    )


def _paths(segments: Iterable[str], longest: int, least: int = 1) -> Iterable[tuple[str, ...]]:
    """Yield every path of at most so many segments; the first one may be empty before another."""
    words = tuple(segments)
    for length in range(least, longest + 1):
        yield from product(words, repeat=length)
        if length > 1:
            yield from (("", *rest) for rest in product(words, repeat=length - 1))


ROOT: Final = "x:/"
"""The one path that ends in an empty segment."""
RESOURCES: Final = (
    *(Resource("x:" + "/".join(path)) for path in _paths("abz", 4)),
    Resource(ROOT),
)
"""Every resource of up to four segments."""
PATTERNS: Final = (
    *(ResourcePattern("x:" + "/".join(path)) for path in _paths("ab*", 3)),
    ResourcePattern(ROOT),
    *(ResourcePattern("x:" + "/".join((*path, "**"))) for path in _paths("ab*", 3, 0)),
    ResourcePattern("x:/**"),
)
"""Every pattern of up to three segments, each of them also before a final `**`.

A resource may be one segment longer, so that `**` differs from every fixed length.
"""


def allows(pattern: str, actions: Sequence[str], action: str, resource: str) -> bool:
    """Say whether a capability of this pattern and these actions covers a request."""
    return (action in actions or "*" in actions) and matches(pattern, resource)


def end_of(capability: HeldCapability) -> int:
    """Return when a capability ends or ended, by whatever comes first."""
    return min(capability.expires_at, capability.ended_at)


def expected(
    capabilities: Iterable[HeldCapability], request: Request, now: int
) -> tuple[set[Reason], set[CapabilityId]]:
    """Decide as the four steps say, by looking at every capability.

    Returns:
        The reasons that are right, which are two only if two capabilities ended at one instant for
        different ones, and the capabilities that may be named, which are none if there is none.
    """
    covering = [
        c
        for c in capabilities
        if allows(c.resource, c.actions, request.action, request.resource)
        and request.capability_id in {None, c.id}
    ]
    living = [c for c in covering if c.end_cause is None and now < c.expires_at]
    valid = [c for c in living if c.not_before <= now]
    if valid:
        return {Reason.GRANTED}, {c.id for c in valid}
    if living:
        first = min(c.not_before for c in living)
        return {Reason.NOT_YET_VALID}, {c.id for c in living if c.not_before == first}
    if covering:
        last = max(end_of(c) for c in covering)
        latest = [c for c in covering if end_of(c) == last]
        reasons = {
            Reason.CAPABILITY_EXPIRED if c.expires_at <= c.ended_at else Reason.CAPABILITY_REVOKED
            for c in latest
        }
        return reasons, {c.id for c in latest}
    return {Reason.NO_CAPABILITY}, set()


def found(capabilities: CapabilitySet, action: str, resource: str) -> list[CapabilityId]:
    """Return the ids of the living capabilities that a look-up finds."""
    entries = capabilities.living(Action(action), Resource(resource))
    return [capability.id for entry in entries for capability in entry]


@dataclass(slots=True)
class Known:
    """What the model knows of a capability."""

    id: CapabilityId
    principal: Principal
    actions: Sequence[str]
    resource: str
    not_before: int | None
    expires_at: int | None
    depth: int
    parent: Known | None
    ended_at: int | None = None
    cause: EndCause | None = None
    children: list[Known] = field(default_factory=list)

    def held(self) -> HeldCapability:
        """Return it as the model of decisions takes it."""
        return HeldCapability(
            self.id,
            ResourcePattern(self.resource),
            tuple(map(Action, self.actions)),
            Instant(self.not_before or ALWAYS),
            Instant(self.expires_at or NEVER),
            self.cause,
            Instant(self.ended_at or NEVER),
        )

    def living_subtree(self) -> list[Known]:
        """Return it and its descendants, as far as they have not been ended."""
        if self.ended_at is not None:
            return []
        return [self, *(k for child in self.children for k in child.living_subtree())]


@cache
def is_inside(inner: str, outer: str) -> bool:
    """Say whether a pattern is inside another, by looking at every resource."""
    return all(matches(outer, r) for r in RESOURCES if matches(inner, r))


def refusal(parent: Known, child: Known, now: int) -> str:
    """Return why a delegation is refused, or nothing; `child` has its parent's times already."""
    rules: Sequence[tuple[str, bool]] = (
        ("PARENT_ENDED", parent.ended_at is not None),
        ("PARENT_EXPIRED", parent.expires_at is not None and parent.expires_at <= now),
        ("NO_DEPTH_LEFT", parent.depth == 0),
        ("DEPTH_WIDER", child.depth >= parent.depth),
        ("ACTIONS_WIDER", not ("*" in parent.actions or set(child.actions) <= {*parent.actions})),
        ("RESOURCE_WIDER", not is_inside(child.resource, parent.resource)),
        ("EXPIRY_WIDER", (child.expires_at or NEVER) > (parent.expires_at or NEVER)),
        ("NOT_BEFORE_WIDER", (child.not_before or 0) < (parent.not_before or 0)),
        ("INVALID_REQUEST", (child.not_before or 0) >= (child.expires_at or NEVER)),
        ("INVALID_REQUEST", (child.expires_at or NEVER) <= now),
    )
    return next((code for code, is_broken in rules if is_broken), "")
