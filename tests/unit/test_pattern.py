"""Resource patterns: the grammar, containment, and containment as a regular expression."""

from __future__ import annotations

import re

import pytest

from licet.domain.errors import InvalidRequestError
from licet.domain.pattern import (
    ResourcePattern,
    Shape,
    containment_regex,
    contains,
    resource_pattern,
    shape,
)


@pytest.mark.parametrize(
    "text",
    [
        "doc:a",
        "doc:*",
        "doc:**",
        "doc:a/*",
        "doc:*/a",
        "doc:a/**",
        "doc:*/**",
        "fs:/",
        "fs:/*",
        "fs:/**",
        "doc:*/*/*/*",
        "doc:*/*/*/*/**",
        "doc:" + "a/" * 15 + "*",
        "doc:" + "a/" * 16 + "**",
        "doc:" + "a/" * 15 + "*/**",
    ],
)
def test_a_pattern_is_taken_as_it_is(text: str) -> None:
    assert resource_pattern(text) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is required"),
        ("*", "must be `type:id`"),
        ("*:a", "must be `type:id`"),
        ("doc:", "must be `type:id`"),
        ("doc:**/a", "must have `**` as its last segment only"),
        ("doc:**/**", "must have `**` as its last segment only"),
        ("doc:a*", "must have `*` and `**` as whole segments only"),
        ("doc:*a/b", "must have `*` and `**` as whole segments only"),
        ("doc:a/b*c/d", "must have `*` and `**` as whole segments only"),
        ("doc:***", "must have `*` and `**` as whole segments only"),
        ("doc:a**", "must have `*` and `**` as whole segments only"),
        ("doc:a:*", "must have `*` and `**` as whole segments only"),
        ("doc:*/*/*/*/*", "must have at most 4 `*`, within the first 16 segments"),
        ("doc:*/*/*/*/*/**", "must have at most 4 `*`, within the first 16 segments"),
        ("doc:" + "a/" * 16 + "*", "must have at most 4 `*`, within the first 16 segments"),
        ("doc:" + "a/" * 16 + "*/**", "must have at most 4 `*`, within the first 16 segments"),
        ("doc:*/", "must be normalised: no empty segment, no final `/`"),
        ("doc:a//**", "must be normalised: no empty segment, no final `/`"),
        ("doc:*/../b", "must be normalised: no `.` or `..` segment"),
        ("doc:./**", "must be normalised: no `.` or `..` segment"),
        ("doc:" + "x/" * 510 + "*", "must have at most 1024 bytes of UTF-8, not 1025"),
        ("doc:\n/*", "must hold printable characters only"),
    ],
)
def test_a_pattern_that_breaks_a_rule_is_refused(text: str, rule: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        resource_pattern(text, "filter.resource")
    (violation,) = caught.value.violations
    assert violation.field == "filter.resource"
    assert violation.rule.startswith(rule)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("doc:a", Shape("doc", ("a",), is_open=False)),
        ("doc:a/*/b", Shape("doc", ("a", "*", "b"), is_open=False)),
        ("doc:**", Shape("doc", (), is_open=True)),
        ("doc:a/**", Shape("doc", ("a",), is_open=True)),
        ("fs:/", Shape("fs", ("", ""), is_open=False)),
        ("fs:/**", Shape("fs", ("",), is_open=True)),
        ("doc:a:b/c", Shape("doc", ("a:b", "c"), is_open=False)),
    ],
)
def test_a_pattern_is_taken_apart(text: str, expected: Shape) -> None:
    assert shape(ResourcePattern(text)) == expected


INSIDE = [
    ("doc:a", "doc:a"),
    ("doc:*", "doc:a"),
    ("doc:*", "doc:*"),
    ("doc:**", "doc:a"),
    ("doc:**", "doc:*"),
    ("doc:**", "doc:**"),
    ("doc:**", "doc:a/**"),
    ("doc:**", "doc:*/**"),
    ("doc:a/*", "doc:a/b"),
    ("doc:*/b", "doc:a/b"),
    ("doc:*/b", "doc:*/b"),
    ("doc:*/*", "doc:a/*"),
    ("doc:a/**", "doc:a/b"),
    ("doc:a/**", "doc:a/*"),
    ("doc:a/**", "doc:a/b/c"),
    ("doc:a/**", "doc:a/b/**"),
    ("doc:a/**", "doc:a/*/**"),
    ("doc:*/**", "doc:a/**"),
    ("doc:*/**", "doc:a/b"),
    ("doc:*/*/**", "doc:a/b/**"),
    ("fs:**", "fs:/"),
    ("fs:**", "fs:/etc"),
    ("fs:/**", "fs:/"),
    ("fs:/**", "fs:/etc"),
    ("fs:/*", "fs:/etc"),
    ("doc:a.b/**", "doc:a.b/c"),
]
OUTSIDE = [
    ("doc:a", "doc:b"),
    ("doc:a", "doc:*"),
    ("doc:a", "doc:**"),
    ("doc:a", "doc:a/b"),
    ("doc:a", "doc:A"),
    ("doc:*", "doc:a/b"),
    ("doc:*", "doc:**"),
    ("doc:*", "fs:a"),
    ("doc:**", "docs:a"),
    ("doc:a/**", "doc:a"),
    ("doc:a/**", "doc:ab/c"),
    ("doc:a/**", "doc:b/c"),
    ("doc:a/**", "doc:**"),
    ("doc:a/**", "doc:*/**"),
    ("doc:a/b/**", "doc:a/**"),
    ("doc:*/**", "doc:**"),
    ("doc:*/**", "doc:a"),
    ("doc:*/*", "doc:*/**"),
    ("doc:a/*", "doc:a/**"),
    ("doc:a/*", "doc:*/b"),
    ("doc:a/*", "doc:a"),
    ("fs:*", "fs:/"),
    ("fs:/*", "fs:/"),
    ("fs:*/etc", "fs:/etc"),
    ("fs:*/**", "fs:/etc"),
    ("fs:/", "fs:/**"),
    ("doc:a.b/**", "doc:axb/c"),
]


@pytest.mark.parametrize(("outer", "inner"), INSIDE)
def test_a_pattern_contains_what_is_inside_it(outer: str, inner: str) -> None:
    assert contains(ResourcePattern(outer), ResourcePattern(inner))
    assert re.search(containment_regex(ResourcePattern(outer)), inner)


@pytest.mark.parametrize(("outer", "inner"), OUTSIDE)
def test_a_pattern_does_not_contain_what_is_outside_it(outer: str, inner: str) -> None:
    assert not contains(ResourcePattern(outer), ResourcePattern(inner))
    assert not re.search(containment_regex(ResourcePattern(outer)), inner)


@pytest.mark.parametrize(
    "text", [r"doc:a.b", "doc:a+(b)[c]{2}|^$?", r"doc:\d", "doc:a b#c&d~e-f", "doc:é/名"]
)
def test_the_regular_expression_takes_literal_text_literally(text: str) -> None:
    pattern = containment_regex(ResourcePattern(text))
    assert re.search(pattern, text)
    assert not re.search(pattern, text + "x")
    assert not re.search(pattern, "x" + text)


def test_the_regular_expression_starts_with_the_literal_beginning() -> None:
    assert containment_regex(ResourcePattern("doc:reports/2026/**")).startswith(
        "^doc:reports/2026/"
    )
