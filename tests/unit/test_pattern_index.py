"""What the index of a policy set finds is what the patterns cover."""

from __future__ import annotations

import pytest

from licet.domain.names import Resource
from licet.domain.pattern import ResourcePattern, contains
from licet.domain.pattern_index import PatternIndex

PATTERNS = [
    ResourcePattern(text)
    for text in (
        *("fs:**", "fs:/**", "fs:/etc", "fs:/etc/**", "fs:*/etc", "fs:/*", "fs:*", "fs:*/**"),
        *("fs:/*/ssh", "fs:/*/*", "fs:a/*/c", "fs:a/**", "fs:a/*/**", "doc:**", "doc:*", "fs:a"),
    )
]


@pytest.mark.parametrize(
    "resource",
    ["fs:/etc", "fs:/", "fs:/etc/ssh", "fs:etc", "fs:a", "fs:a/b", "fs:a/b/c", "doc:x", "doc:/x"],
)
def test_exactly_what_covers_a_resource_is_found(resource: str) -> None:
    index = PatternIndex({pattern: 1 << n for n, pattern in enumerate(PATTERNS)})

    bits = index.covering(Resource(resource))

    found = {pattern for n, pattern in enumerate(PATTERNS) if bits >> n & 1}
    assert found == {p for p in PATTERNS if contains(p, ResourcePattern(resource))}


def test_bits_of_one_pattern_are_found_together() -> None:
    index = PatternIndex({ResourcePattern("doc:**"): 0b101, ResourcePattern("doc:a"): 0b10})

    assert index.covering(Resource("doc:a")) == 0b111
    assert index.covering(Resource("doc:b")) == 0b101
    assert PatternIndex({}).covering(Resource("doc:a")) == 0
