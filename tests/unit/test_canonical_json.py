"""Canonical JSON: each rule of the text, and each refusal."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from licet.domain.canonical_json import (
    EMPTY,
    MAX_DEPTH,
    JsonObject,
    JsonValue,
    NotCanonicalError,
    canonical,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        ({"a": None}, '{"a": null}'),
        ({"a": True, "b": False}, '{"a": true, "b": false}'),
        ({"a": []}, '{"a": []}'),
        ({"a": {}}, '{"a": {}}'),
        ({"a": [1, [2, "x"], {"b": None}]}, '{"a": [1, [2, "x"], {"b": null}]}'),
        ({"a": (1, 2)}, '{"a": [1, 2]}'),
        ({"a": MappingProxyType({"b": 1})}, '{"a": {"b": 1}}'),
        # Keys: by length in UTF-8, then by bytes.
        ({"b": 1, "a": 2, "": 3}, '{"": 3, "a": 2, "b": 1}'),
        ({"aa": 1, "b": 2}, '{"b": 2, "aa": 1}'),
        ({"é": 1, "aa": 2, "z": 3, "aaa": 4}, '{"z": 3, "aa": 2, "é": 1, "aaa": 4}'),
        ({"\U0001f98a": 1, "\uffff": 2}, '{"\uffff": 2, "\U0001f98a": 1}'),
        # Strings: what must be escaped is, and nothing else.
        ({"a": '"\\/'}, '{"a": "\\"\\\\/"}'),
        ({"a": "\b\f\n\r\t"}, '{"a": "\\b\\f\\n\\r\\t"}'),
        ({"a": "\x01\x0b\x1f\x7f"}, '{"a": "\\u0001\\u000b\\u001f\x7f"}'),
        ({"a": "é名\u2028🦊"}, '{"a": "é名\u2028🦊"}'),
        # Numbers: plain decimal.
        ({"a": 0, "b": -1}, '{"a": 0, "b": -1}'),
        ({"a": 9_223_372_036_854_775_807}, '{"a": 9223372036854775807}'),
        ({"a": -9_223_372_036_854_775_808}, '{"a": -9223372036854775808}'),
        ({"a": 0.0, "b": -0.0}, '{"a": 0.0, "b": 0.0}'),
        ({"a": 1.0, "b": -2.5}, '{"a": 1.0, "b": -2.5}'),
        ({"a": 0.1, "b": 1e-7}, '{"a": 0.1, "b": 0.0000001}'),
        ({"a": 1e16, "b": 1.5e300}, '{"a": 10000000000000000, "b": 15' + "0" * 299 + "}"),
        ({"a": 5e-324}, '{"a": 0.' + "0" * 323 + "5}"),
    ],
)
def test_an_object_has_one_text(value: Mapping[str, JsonValue], text: str) -> None:
    assert canonical(value) == text


def nested(levels: int) -> Mapping[str, JsonValue]:
    value: dict[str, JsonValue] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ({"a": "x\0"}, "must not hold U+0000"),
        ({"a\0": 1}, "must not hold U+0000"),
        ({"a": "\ud800"}, "must be valid UTF-8"),
        ({"\udfff": 1}, "must be valid UTF-8"),
        ({"a": float("nan")}, "must hold finite numbers only"),
        ({"a": float("inf")}, "must hold finite numbers only"),
        ({"a": [float("-inf")]}, "must hold finite numbers only"),
        ({"a": 9_223_372_036_854_775_808}, "must hold integers of 64 bits only"),
        ({"a": -9_223_372_036_854_775_809}, "must hold integers of 64 bits only"),
    ],
)
def test_what_has_no_canonical_text_is_refused(value: Mapping[str, JsonValue], rule: str) -> None:
    with pytest.raises(NotCanonicalError) as caught:
        canonical(value)
    assert str(caught.value).startswith(rule)


def test_objects_may_be_nested_to_a_limit() -> None:
    # A value inside the innermost object is one level more.
    assert canonical(nested(MAX_DEPTH + 1)).count("{") == MAX_DEPTH + 1
    with pytest.raises(NotCanonicalError, match=f"at most {MAX_DEPTH} levels"):
        canonical(nested(MAX_DEPTH + 2))


def test_lists_count_as_levels() -> None:
    value: JsonValue = []
    for _ in range(MAX_DEPTH):
        value = [value]
    with pytest.raises(NotCanonicalError, match=f"at most {MAX_DEPTH} levels"):
        canonical({"a": value})


def test_the_empty_object_is_a_constant() -> None:
    assert canonical({}) == EMPTY == JsonObject("{}")
