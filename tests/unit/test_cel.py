"""Conditions: what the adapter of the CEL engine lets through, and what it makes of errors."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import pytest

from licet.domain.condition import ExpressionError
from licet.domain.policy_facts import VARIABLES, Facts
from licet.policies.cel import compile_condition
from tests.unit.builders import NOW
from tests.unit.policies import ANYTHING, question


def told(condition: str, /, **context: Any) -> bool:  # noqa: ANN401 - any context
    return compile_condition(condition)(Facts(question(**context), ANYTHING, NOW, NOW))


def refusal(text: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        compile_condition(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("false", False),
        ("'n' in context && context.n == 3", True),
        ("'m' in context && context.m == 3", False),
        ("context.n > 2.5", True),
        ("context.deep.list[1] == 'b'", True),
        ("'é'.size() == 1", True),
        ("now.getHours('Europe/Berlin') == 9", True),
        ("now.getDayOfWeek() == 5", True),
        ("now + duration('1h') > timestamp('2027-01-15T08:59:00Z')", True),
        ("resource.path.matches('^[a-z]/b$')", True),
        (r"resource.path.matches(r'^\w/b$')", True),
        # Whatever a text says is a text.
        ("context.t == 'x.matches(y)'", False),
        ("resource . type == 'doc'", True),
        ("resource == 'x' || true // == false", True),
    ],
)
def test_a_condition_is_told(text: str, expected: bool) -> None:
    assert told(text, n=3, t="t", deep={"list": ["a", "b"]}) is expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Syntax error"),
        ("true &&", "line 1, column 8"),
        ("nobody == 'x'", "undeclared reference to 'nobody'"),
        ("resource.kind == 'x'", "line 1, column 9"),
        ("true\n&& principle == 'x'", "line 2, column 4"),
        ("action == 1", "no matching overload"),
        ("1", "must be a bool"),
        ("'true'", "must be a bool"),
        ("context.flag", "must be a bool"),
        ("dyn(true)", "must be a bool"),
        ("[1].all(x, x > 0)", "undeclared reference"),
        ("[1].exists(x, x > 0)", "undeclared reference"),
        ("[1].map(x, x).size() == 1", "undeclared reference"),
        ("has(context.x)", "undeclared reference to 'has'"),
        ("true || " * 300 + "true", "more than 2048 bytes"),
        ("é" * 1025, "more than 2048 bytes"),
        ("(" * 200 + "true" + ")" * 200, "recursion"),
        ("context.a.matches(context.b)", "must be called as"),
        ("matches(resource, 'x')", "must be called as"),
        ("resource.matches('x' + 'y')", "must be called as"),
        ("resource.matches('" + "x" * 256 + "')", "more than 256 characters"),
        ("resource.matches('(x{1,20}){1,20}')", "multiply"),
        ("resource.matches('(x{11}){11}')", "multiply"),
        (r"resource.matches('(x\x7b1,1000})')", "escaped"),
        (r"resource.matches('(x\1731,1000})')", "escaped"),
        (" || ".join(["resource.matches('x')"] * 5), "more than 4 times"),
        ("context.`a` == 1", "backtick"),
        ("\ud800", ""),
        ("\0", ""),
    ],
)
def test_what_is_no_condition_is_refused(text: str, why: str) -> None:
    assert why in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "context.missing == 1",
        "1 / context.zero == 1",
        "context.text > 1",
        "context.zero.matches('x')",
        "now.getHours('Mars/Olympus') == 1",
        "timestamp(context.text) < now",
        "int(context.text) == 1",
        "resource.segments[7] == 'x'",
        "9223372036854775807 + context.one == 1",
    ],
)
def test_an_error_is_never_true(text: str) -> None:
    for condition in (text, f"!({text})"):
        with pytest.raises(ExpressionError):
            told(condition, zero=0, one=1, text="t")


def test_every_variable_reaches_its_condition() -> None:
    for name in VARIABLES:
        assert told(f"{name} == {name}"), name


@pytest.mark.parametrize(
    "text",
    [
        " || ".join([r"context.s.matches('(x{1,10}){1,10}z')"] * 4),
        " || ".join(["context.s.contains('" + "x" * 30 + "y')"] * 33),
        " || ".join(["context.s + context.s + context.s == 'x'"] * 45),
        " || ".join(["context.l == context.l + [1]"] * 60),
        "!" * 2000 + "false",
    ],
)
def test_the_heaviest_conditions_end_soon(text: str) -> None:
    condition = compile_condition(text)
    facts = Facts(question(s="x" * 12_000, l=[1] * 1_000), ANYTHING, NOW, NOW)
    started = perf_counter()

    condition(facts)

    assert perf_counter() - started < 0.5
