"""Whatever a document or a condition says: a clear error or a working set, soon."""

from __future__ import annotations

from time import perf_counter

from hypothesis import example, given
from hypothesis import strategies as st

from licet.domain.condition import ExpressionError
from licet.domain.policy_facts import VARIABLES, Facts
from licet.policies.cel import compile_condition
from licet.policies.reading import built_in_names, built_in_text, compile_set
from tests.unit.builders import NOW
from tests.unit.policies import ANYTHING, document, faults, judged, question

_SECONDS = 2.0
_WORDS = (
    *(
        "version",
        "policies",
        "include",
        "name",
        "match",
        "when",
        "deny",
        "require",
        "time",
        "limit",
    ),
    *("zone", "hours", "except", "rate", "mfa", "max_age", "resources", "actions", "principals"),
    *(": ", "- ", "\n", "\n  ", "\n    ", "{", "}", "[", "]", ",", "'", '"', "|", ">", "&a", "*a"),
    *("!!str", "---", "%", "#", "?", "1", "09:00-17:00", "UTC", "doc:**", "true", "closed", "\t"),
)
_SOURCES = [built_in_text(name) or "" for name in built_in_names()]
_PARTS = (
    *VARIABLES,
    *("1", "0", "1.5", "'x'", "true", "null", "[", "]", "{", "}", "(", ")", ".", ",", "?", ":"),
    *("==", "!=", "<", "&&", "||", "!", "-", "+", "/", "%", " in ", ".matches('a{9}')", ".size()"),
    *("timestamp(", "duration(", "int(", "string(", "dyn(", ".all(x,", "has(", "r'\\'", "`", "\n"),
    *(".getHours('UTC')", ".startsWith('d')", "context.a", "[0]", '"""', "b'x'", "1u", "//"),
)


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(_SOURCES))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = (
            text[:start] + "".join(draw(st.lists(st.sampled_from(_WORDS), max_size=3))) + text[end:]
        )
    return text


@given(_mutated() | st.lists(st.sampled_from(_WORDS), max_size=60).map("".join) | st.text())
@example("version: 1\npolicies: [{name: a, deny: b, when: 'true ? true : false'}]")
@example("a: " * 3000)
@example("[" * 3000)
def test_a_document_is_refused_or_works(source: str) -> None:
    started = perf_counter()
    found = faults(source)
    if not found:
        judged(compile_set(source), question())
    assert perf_counter() - started < _SECONDS
    assert len(found) <= 20
    assert all(fault.place.line >= 1 and fault.message for fault in found)


@given(st.lists(st.sampled_from(_PARTS), max_size=25).map("".join) | st.text(max_size=200))
@example("r'\\'.matches(\"(x{100}){100}\") || r'' == ''")
def test_a_condition_is_refused_or_told(text: str) -> None:
    started = perf_counter()
    told = _told(text)
    assert perf_counter() - started < _SECONDS
    assert isinstance(told, bool) or len(told) < 1000


def _told(text: str) -> bool | str:
    try:
        return compile_condition(text)(Facts(question(a=1), ANYTHING, NOW, NOW))
    except ExpressionError as exc:
        return str(exc)


def test_a_working_document_is_among_what_is_tried() -> None:
    assert judged(compile_set(document("name: p, deny: x")), question()).policy_id == "p"
