"""Names: what is taken, what is refused, and by which rule; one row per boundary."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from licet.domain import names
from licet.domain.errors import InvalidRequestError

CANONICAL_ID = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"


def refusal(check: Callable[[str], object], text: str) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        check(text)
    (violation,) = caught.value.violations
    return violation.rule


@pytest.mark.parametrize(
    "text",
    [
        "a:b",
        "agent:worker-17",
        "a0_-:x",
        "a" + "z" * 31 + ":x",
        "user:" + "x" * 251,
        "user:" + "é" * 125 + "x",
        "user:a:b/c//d/../e",
        "user: x ",
        "user:*",
        "user:Ω.名前🦊",
        "user:\N{LATIN SMALL LETTER E WITH ACUTE}",
    ],
)
def test_a_principal_is_taken_as_it_is(text: str) -> None:
    assert names.principal(text) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is required"),
        (":", "must be `type:id`"),
        (":x", "must be `type:id`"),
        ("user", "must be `type:id`"),
        ("user:", "must be `type:id`"),
        ("User:x", "must be `type:id`"),
        ("0user:x", "must be `type:id`"),
        ("-user:x", "must be `type:id`"),
        (" user:x", "must be `type:id`"),
        ("us er:x", "must be `type:id`"),
        ("usér:x", "must be `type:id`"),
        ("user\N{FULLWIDTH COLON}x", "must be `type:id`"),
        ("a" + "z" * 32 + ":x", "must be `type:id`"),
        ("user:" + "x" * 252, "must have at most 256 bytes of UTF-8, not 257"),
        ("user:" + "é" * 126, "must have at most 256 bytes of UTF-8, not 257"),
        ("user:\0", "must hold printable characters only"),
        ("user:\n", "must hold printable characters only"),
        ("user:a\n", "must hold printable characters only"),
        ("user:\x7f", "must hold printable characters only"),
        ("user:\N{NO-BREAK SPACE}", "must hold printable characters only"),
        ("user:\N{ZERO WIDTH SPACE}", "must hold printable characters only"),
        ("user:\N{RIGHT-TO-LEFT OVERRIDE}x", "must hold printable characters only"),
        ("user:\N{SOFT HYPHEN}x", "must hold printable characters only"),
        ("user:\N{LINE SEPARATOR}", "must hold printable characters only"),
        ("user:\ue000", "must hold printable characters only"),
        ("user:\U0010ffff", "must hold printable characters only"),
        ("user:e\N{COMBINING ACUTE ACCENT}", "must be in Unicode normalisation form C"),
        ("user:\N{ANGSTROM SIGN}", "must be in Unicode normalisation form C"),
        ("user:\ud800", "must be valid UTF-8"),
    ],
)
def test_a_principal_that_breaks_a_rule_is_refused(text: str, rule: str) -> None:
    assert refusal(names.principal, text).startswith(rule)


@pytest.mark.parametrize("text", ["a", "read", "a0_.-", "a" + "z" * 63])
def test_an_action_is_taken_as_it_is(text: str) -> None:
    assert names.action(text) == text


@pytest.mark.parametrize(
    "text",
    ["*", "Read", "0read", ".read", "read ", "read\n", "re*d", "réad", "ａ", "a" + "z" * 64],
)
def test_an_action_that_breaks_a_rule_is_refused(text: str) -> None:
    assert refusal(names.action, text).startswith("must be an action")


def test_an_action_is_required() -> None:
    assert refusal(names.action, "") == "is required"


@pytest.mark.parametrize(
    "text",
    [
        "doc:a",
        "doc:a/b/c",
        "fs:/",
        "fs:/etc/passwd",
        "doc:...",
        "doc:.a/..b/c./d..",
        "doc:a.b/..c",
        "doc:a:b/c",
        "doc::",
        "doc: / ",
        "doc:" + "x" * 1020,
    ],
)
def test_a_resource_is_taken_as_it_is(text: str) -> None:
    assert names.resource(text) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is required"),
        ("doc:", "must be `type:id`"),
        ("doc:*", "must be a resource without `*`"),
        ("doc:a/**", "must be a resource without `*`"),
        ("doc:a*b", "must be a resource without `*`"),
        ("doc:.", "must be normalised: no `.` or `..` segment"),
        ("doc:..", "must be normalised: no `.` or `..` segment"),
        ("doc:./a", "must be normalised: no `.` or `..` segment"),
        ("doc:../a", "must be normalised: no `.` or `..` segment"),
        ("doc:a/./b", "must be normalised: no `.` or `..` segment"),
        ("doc:a/../b", "must be normalised: no `.` or `..` segment"),
        ("doc:a/.", "must be normalised: no `.` or `..` segment"),
        ("doc:a/..", "must be normalised: no `.` or `..` segment"),
        ("fs:/..", "must be normalised: no `.` or `..` segment"),
        ("doc:a//b", "must be normalised: no empty segment, no final `/`"),
        ("doc:a/", "must be normalised: no empty segment, no final `/`"),
        ("fs:/etc/", "must be normalised: no empty segment, no final `/`"),
        ("fs://", "must be normalised: no empty segment, no final `/`"),
        ("fs://etc", "must be normalised: no empty segment, no final `/`"),
        ("doc:" + "x" * 1021, "must have at most 1024 bytes of UTF-8, not 1025"),
        ("doc:a\0", "must hold printable characters only"),
    ],
)
def test_a_resource_that_breaks_a_rule_is_refused(text: str, rule: str) -> None:
    assert refusal(names.resource, text).startswith(rule)


@pytest.mark.parametrize("text", ["", "x", "trace 1/2", "x" * 128, "é" * 64])
def test_a_label_may_be_empty_and_is_taken_as_it_is(text: str) -> None:
    assert names.label(text, "trace_id") == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("x" * 129, "must have at most 128 bytes of UTF-8, not 129"),
        ("é" * 64 + "x", "must have at most 128 bytes of UTF-8, not 129"),
        ("a\tb", "must hold printable characters only"),
        ("\N{ZERO WIDTH JOINER}", "must hold printable characters only"),
        ("e\N{COMBINING ACUTE ACCENT}", "must be in Unicode normalisation form C"),
        ("\udfff", "must be valid UTF-8"),
    ],
)
def test_a_label_that_breaks_a_rule_is_refused(text: str, rule: str) -> None:
    assert refusal(lambda label: names.label(label, "trace_id"), text).startswith(rule)


def test_a_label_may_have_a_limit_of_its_own() -> None:
    assert names.label("x" * 1024, "reason", names.REASON_BYTES) == "x" * 1024
    with pytest.raises(InvalidRequestError, match="at most 1024 bytes"):
        names.label("x" * 1025, "reason", names.REASON_BYTES)


@pytest.mark.parametrize("text", [CANONICAL_ID, CANONICAL_ID.upper(), CANONICAL_ID[:-1] + "F"])
def test_a_capability_id_is_brought_to_lower_case(text: str) -> None:
    assert names.capability_id(text) == CANONICAL_ID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        CANONICAL_ID[:-1],
        CANONICAL_ID + "0",
        CANONICAL_ID[:-1] + "g",
        CANONICAL_ID[:-1] + "\N{FULLWIDTH DIGIT ONE}",
        CANONICAL_ID.replace("-", ""),
        # Shapes of 36 characters that the standard library takes for a UUID.
        "{" + CANONICAL_ID.replace("-", "") + "}--",
        "urn:" + CANONICAL_ID.replace("-", ""),
        "0199c5f06a5e-7cc3-98c4-dc0c0c0-7398f",
        "0199c5f0-6a5e-7cc3-98c4dc0c0c07-398f",
    ],
)
def test_what_is_no_uuid_in_its_usual_form_is_no_capability_id(text: str) -> None:
    assert refusal(names.capability_id, text).startswith("must be a UUID")


@pytest.mark.parametrize(
    "check",
    [names.principal, names.action, names.resource, names.capability_id],
)
def test_a_refusal_names_the_field_that_it_was_given(check: Callable[[str, str], str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check("", "requests[3].x")
    assert caught.value.violations[0].field == "requests[3].x"
    assert str(caught.value).startswith("requests[3].x ")


def test_a_refusal_does_not_repeat_the_text() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        names.principal("user:\x1b[31mgotcha")
    assert "gotcha" not in str(caught.value)
