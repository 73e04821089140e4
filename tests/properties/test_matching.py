"""The index of a capability set finds what looking at every capability would find."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from licet.domain.capability_set import HeldCapability
from licet.domain.names import Action, Resource
from licet.domain.pattern import ResourcePattern, contains
from tests.properties.models import PATTERNS, RESOURCES, allows, found, matches
from tests.properties.strategies import held_capabilities, requested
from tests.unit.builders import NOW, held, holding, identifier


def test_the_index_of_every_pattern_at_once_finds_what_covers_each_resource() -> None:
    capabilities = holding(*(held(n, pattern) for n, pattern in enumerate(PATTERNS)))
    for resource in RESOURCES:
        assert sorted(found(capabilities, "read", resource)) == [
            identifier(n) for n, pattern in enumerate(PATTERNS) if matches(pattern, resource)
        ]


def test_the_index_of_one_pattern_agrees_with_containment() -> None:
    for pattern in PATTERNS:
        capabilities = holding(held(1, pattern))
        for resource in RESOURCES:
            is_found = found(capabilities, "read", resource) == [identifier(1)]
            assert is_found == contains(pattern, ResourcePattern(resource)), (pattern, resource)


@given(held_capabilities(), st.sampled_from("aabcd"), requested)
def test_a_look_up_finds_exactly_what_covers_the_request(
    capabilities: Sequence[HeldCapability], action: str, resource: Resource
) -> None:
    index = holding(*capabilities)
    covering = {c for c in capabilities if allows(c.resource, c.actions, action, resource)}
    living = [c for entry in index.living(Action(action), resource) for c in entry]
    ended = [c for entry in index.ended(Action(action), resource) for c in entry]
    assert len(living) + len(ended) == len(covering)
    assert {*living, *ended} == covering
    assert all(c.end_cause is None and c.expires_at > NOW for c in living)


@given(held_capabilities(), requested)
def test_covering_finds_each_capability_of_the_resource_once(
    capabilities: Sequence[HeldCapability], resource: Resource
) -> None:
    covering = list(holding(*capabilities).covering(resource))
    assert sorted(c.id for c in covering) == [
        c.id for c in capabilities if matches(c.resource, resource)
    ]


@given(held_capabilities(), st.sampled_from("aabcd"), requested)
def test_the_entries_of_a_look_up_have_the_last_to_expire_in_front(
    capabilities: Sequence[HeldCapability], action: str, resource: Resource
) -> None:
    for entry in holding(*capabilities).living(Action(action), resource):
        expiries = [c.expires_at for c in entry]
        assert expiries == sorted(expiries, reverse=True)
        assert len({c.resource for c in entry}) == 1
