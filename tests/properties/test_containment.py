"""Containment is sound and complete, and its three implementations are one relation."""

from __future__ import annotations

import re
from functools import cache

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

from licet.domain import names
from licet.domain.names import Resource
from licet.domain.pattern import (
    ResourcePattern,
    containment_regex,
    contains,
    resource_pattern,
)
from tests.properties.models import PATTERNS, RESOURCES, matches
from tests.properties.strategies import pattern_pairs, patterns


@cache
def language(pattern: ResourcePattern) -> frozenset[Resource]:
    """Return every resource of the small world that a pattern covers."""
    return frozenset(resource for resource in RESOURCES if matches(pattern, resource))


def test_the_small_world_has_only_what_licet_takes_and_leaves_nothing_out() -> None:
    assert all(names.resource(resource) == resource for resource in RESOURCES)
    assert all(resource_pattern(pattern) == pattern for pattern in PATTERNS)
    assert len(set(RESOURCES)) == len(RESOURCES) == 160
    assert len(set(PATTERNS)) == len(PATTERNS) == 105
    assert all(language(pattern) for pattern in PATTERNS)


def test_containment_is_sound_and_complete() -> None:
    for outer in PATTERNS:
        for inner in PATTERNS:
            assert contains(outer, inner) == (language(inner) <= language(outer)), (outer, inner)


def test_a_pattern_contains_a_resource_exactly_if_it_covers_it() -> None:
    for pattern in PATTERNS:
        for resource in RESOURCES:
            assert contains(pattern, ResourcePattern(resource)) == matches(pattern, resource)


def test_the_regular_expression_is_containment() -> None:
    for outer in PATTERNS:
        regex = re.compile(containment_regex(outer))
        for inner in (*PATTERNS, *map(ResourcePattern, RESOURCES)):
            assert bool(regex.search(inner)) == contains(outer, inner), (outer, inner)


def test_the_regular_expression_is_containment_in_postgresql(
    postgres: psycopg.Connection,
) -> None:
    inside = postgres.execute(
        """
        SELECT outer_.text, inner_.text
        FROM unnest(%s::text[], %s::text[]) AS outer_ (text, regex)
        CROSS JOIN unnest(%s::text[]) AS inner_ (text)
        WHERE inner_.text ~ outer_.regex
        """,
        [list(PATTERNS), [containment_regex(p) for p in PATTERNS], list(PATTERNS)],
    ).fetchall()
    assert set(inside) == {(a, b) for a in PATTERNS for b in PATTERNS if contains(a, b)}


@given(pattern_pairs())
def test_the_regular_expression_takes_every_name_literally(
    pair: tuple[ResourcePattern, ResourcePattern],
) -> None:
    outer, inner = map(resource_pattern, pair)
    assert bool(re.search(containment_regex(outer), inner)) == contains(outer, inner)


@settings(max_examples=20)
@given(pairs=st.lists(pattern_pairs(), min_size=1, max_size=50))
def test_the_regular_expression_takes_every_name_literally_in_postgresql(
    postgres: psycopg.Connection, pairs: list[tuple[ResourcePattern, ResourcePattern]]
) -> None:
    rows = postgres.execute(
        "SELECT inside.text ~ inside.regex FROM unnest(%s::text[], %s::text[]) "
        "WITH ORDINALITY AS inside (text, regex, position) ORDER BY inside.position",
        [[inner for _, inner in pairs], [containment_regex(outer) for outer, _ in pairs]],
    ).fetchall()
    for (outer, inner), (inside,) in zip(pairs, rows, strict=True):
        assert inside == contains(outer, inner), (outer, inner)


@given(patterns())
def test_containment_is_reflexive(pattern: ResourcePattern) -> None:
    assert contains(pattern, pattern)
    assert contains(ResourcePattern("x:**"), pattern)
    assert not contains(ResourcePattern("y:**"), pattern)


def test_containment_is_transitive_and_antisymmetric() -> None:
    inside = {a: [b for b in PATTERNS if contains(a, b)] for a in PATTERNS}
    for outer in PATTERNS:
        for middle in inside[outer]:
            assert set(inside[middle]) <= set(inside[outer])
            assert outer == middle or not contains(middle, outer)
