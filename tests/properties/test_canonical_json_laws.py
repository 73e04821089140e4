"""Canonical JSON is PostgreSQL's text of a jsonb value, and two values never share one."""

from __future__ import annotations

import json
from random import Random

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

from licet.domain.canonical_json import JsonValue, canonical
from tests.properties.strategies import json_objects

_CHARACTERS = 'aé名🦊"\\/\b\f\n\r\t\x01\x1f\x7f\u2028\uffff {}[]:,'


def random_value(random: Random, depth: int = 0) -> JsonValue:
    """Return a value; hypothesis makes better ones, and this makes thousands."""
    if depth < 4 and random.random() < 0.2:
        return [random_value(random, depth + 1) for _ in range(random.randrange(4))]
    if depth < 4 and random.random() < 0.2:
        return random_object(random, depth + 1)
    scalars: tuple[JsonValue, ...] = (
        None,
        random.random() < 0.5,
        random.randrange(-(1 << 63), 1 << 63) >> random.randrange(64),
        random.uniform(-1, 1) * 10.0 ** random.randrange(-320, 308),
        float(random.randrange(-(10**17), 10**17)) / 10 ** random.randrange(18),
        random_text(random),
    )
    return random.choice(scalars)


def random_text(random: Random) -> str:
    return "".join(random.choices(_CHARACTERS, k=random.randrange(6)))


def random_object(random: Random, depth: int = 0) -> dict[str, JsonValue]:
    return {
        random_text(random): random_value(random, depth + 1) for _ in range(random.randrange(6))
    }


def test_thousands_of_values_have_postgresqls_text(postgres: psycopg.Connection) -> None:
    random = Random(20_010)
    values = [random_object(random) for _ in range(20_000)]
    # In another spelling: escapes for all that is not ASCII, exponents, keys in any order.
    rows = postgres.execute(
        "SELECT given.text::jsonb::text FROM unnest(%s::text[]) "
        "WITH ORDINALITY AS given (text, position) ORDER BY given.position",
        [[json.dumps(value) for value in values]],
    ).fetchall()
    for value, (text,) in zip(values, rows, strict=True):
        assert canonical(value) == text


@settings(max_examples=150)
@given(json_objects)
def test_a_value_has_postgresqls_text(
    postgres: psycopg.Connection, value: dict[str, JsonValue]
) -> None:
    (text,) = postgres.execute("SELECT %s::jsonb::text", [json.dumps(value)]).fetchone() or ("",)
    assert canonical(value) == text


def tells(read: JsonValue, value: JsonValue) -> bool:
    """Say whether what was read from the text is the value; for Python, true would be 1."""
    if isinstance(value, dict):
        return (
            isinstance(read, dict)
            and read.keys() == value.keys()
            and all(tells(read[key], item) for key, item in value.items())
        )
    if isinstance(value, list):
        return isinstance(read, list) and all(map(tells, read, value)) and len(read) == len(value)
    if isinstance(value, float) and isinstance(read, int | float):
        # From 1e16 on a float is written as a whole number, which reads as an int.
        return not isinstance(read, bool) and float(read) == value
    return type(read) is type(value) and read == value


@given(json_objects)
def test_the_text_tells_the_value(value: dict[str, JsonValue]) -> None:
    # So that two values never share a text.
    assert tells(json.loads(canonical(value)), value)


@given(json_objects, st.randoms(use_true_random=False))
def test_the_text_does_not_depend_on_the_order_of_keys(
    value: dict[str, JsonValue], random: Random
) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert canonical({key: value[key] for key in keys}) == canonical(value)


@given(json_objects)
def test_the_text_of_what_was_read_back_is_the_same(value: dict[str, JsonValue]) -> None:
    text = canonical(value)
    again = json.loads(text, parse_float=float, parse_int=_number)
    assert canonical(again) == text


def _number(text: str) -> float:
    # Whole numbers above 64 bits stand for a float.
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 63 else float(text)
