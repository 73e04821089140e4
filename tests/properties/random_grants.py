"""Random grants, delegations, filters and requests, for hypothesis: such as meet each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from hypothesis import strategies as st

from tests.properties.models import PATTERNS, RESOURCES, Known

SOON: Final = 25_000
"""Microseconds after which some capabilities expire: long enough to be used, and to wait for."""
FAR: Final = 3_600_000_000

holders = st.integers(0, 2)
# Few names often, so that capabilities cover requests, delegations pass, and ends are met.
patterns = st.sampled_from(["x:**", "x:**", "x:a/**", "x:*", "x:a"]) | st.sampled_from(PATTERNS)
resources = st.sampled_from(["x:a", "x:a", "x:a/b", "x:b"]) | st.sampled_from(RESOURCES)
action_lists = st.sampled_from(["*", "a b", "a", "b"]).map(str.split)
actions = st.sampled_from("aaabc")
depths = st.sampled_from([3, 2, 1, 0])
# A filter that matches everything would leave nothing to look at.
filters = (
    st.tuples(holders, patterns)
    | st.tuples(st.none(), st.sampled_from(PATTERNS))
    | st.tuples(holders, st.none())
)


class Life(NamedTuple):
    """When a capability begins and ends, relative to now."""

    not_before: int | None = None
    ttl: int | None = None


lives = st.sampled_from(
    [Life(), Life(ttl=SOON), Life(ttl=FAR), Life(ttl=SOON), Life(FAR), Life(FAR, 2 * FAR)]
)


class Wanted(NamedTuple):
    """What a grant or a delegation asks for."""

    holder: int
    actions: Sequence[str]
    resource: str
    depth: int
    life: Life


wishes = st.builds(Wanted, holders, action_lists, patterns, depths, lives)

Pick: TypeAlias = Callable[[Sequence[Known]], Known]
picks: Final[st.SearchStrategy[Pick]] = st.integers(0, 99).map(
    lambda number: lambda known: known[number % len(known)]
)
"""Picks one of those granted so far. Not a bundle of hypothesis: how many there are depends on the
time at which things happened, and what is drawn must not."""
