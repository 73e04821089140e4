"""Random values of licet's kinds, for hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from unicodedata import is_normalized

from hypothesis import strategies as st

from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.canonical_json import JsonObject, JsonValue, canonical
from licet.domain.capability import EndCause
from licet.domain.capability_set import ALWAYS, NEVER, HeldCapability
from licet.domain.instant import Instant
from licet.domain.names import Action, Resource
from licet.domain.pattern import MAX_WILDCARDS, ResourcePattern
from tests.properties.models import PATTERNS, RESOURCES
from tests.unit.builders import NOW, identifier

INSTANTS: Final = tuple(Instant(NOW + offset) for offset in range(-3, 4))
"""Few instants, so that they meet."""
_OFTEN: Final = [ResourcePattern(text) for text in ("x:**", "x:a", "x:*", "x:a/**", "x:*/**")]
"""Patterns that cover the same resources, so that one request meets several capabilities."""
requested: Final = st.sampled_from(
    [Resource("x:a"), Resource("x:a"), Resource("x:a/b")]
) | st.sampled_from(RESOURCES)
"""Resources, those that such patterns cover in front."""
ACTION_LISTS: Final = tuple(
    tuple(Action(word) for word in words.split()) for words in ("a", "b", "a b", "b c", "*")
)

texts: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
"""Every text that PostgreSQL stores."""


def _is_segment(text: str) -> bool:
    return (
        text not in {"", ".", ".."}
        and text.isprintable()
        and is_normalized("NFC", text)
        and not set(text) & set("/*")
    )


segments: Final = (
    st.sampled_from(
        ["a", "b", "a.b", "a+b", "(", "a b", "a\\d", "[^/]+", ".*", "$", "^a", "-", "é"]
    )
    | st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/*"), min_size=1)
).filter(_is_segment)
"""Path segments, those that a regular expression would misread in front."""


@st.composite
def patterns(draw: st.DrawFn, words: st.SearchStrategy[str] = segments) -> ResourcePattern:
    """Return patterns of up to eight segments."""
    path = draw(st.lists(words | st.just("*"), max_size=8))
    while path.count("*") > MAX_WILDCARDS:
        path.remove("*")
    is_open = draw(st.booleans()) or not path
    if draw(st.booleans()):
        path.insert(0, "")
    if is_open:
        path.append("**")
    return ResourcePattern("x:" + "/".join(path))


@st.composite
def pattern_pairs(draw: st.DrawFn) -> tuple[ResourcePattern, ResourcePattern]:
    """Return pairs of patterns; the second is often the first with a few segments replaced."""
    outer = draw(patterns())
    if draw(st.booleans()):
        return outer, draw(patterns())
    path = outer.removeprefix("x:").split("/")
    inner = [
        draw(segments) if segment == "*" and draw(st.booleans()) else segment
        for segment in path
        if segment != "**"
    ]
    if path[-1] == "**" or draw(st.integers(0, 9)) == 0:
        inner += draw(st.lists(segments, max_size=3))
        if draw(st.booleans()) or inner in ([], [""]):
            inner.append("**")
    return outer, ResourcePattern("x:" + "/".join(inner))


@st.composite
def held_capabilities(draw: st.DrawFn) -> Sequence[HeldCapability]:
    """Return what a principal of the small world may hold."""
    count = draw(st.integers(0, 8))
    capabilities = []
    for number in range(count):
        not_before = draw(st.just(ALWAYS) | st.sampled_from(INSTANTS[:-1]))
        later = [instant for instant in INSTANTS if instant > not_before]
        ended_at = draw(st.none() | st.sampled_from(INSTANTS))
        capabilities.append(
            HeldCapability(
                identifier(number),
                draw(st.sampled_from(_OFTEN) | st.sampled_from(PATTERNS)),
                draw(st.sampled_from(ACTION_LISTS)),
                not_before,
                draw(st.just(NEVER) | st.sampled_from(later)),
                None if ended_at is None else draw(st.sampled_from(EndCause)),
                NEVER if ended_at is None else ended_at,
            )
        )
    return capabilities


json_values: Final[st.SearchStrategy[JsonValue]] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
json_objects: Final = st.dictionaries(texts, json_values, max_size=5)

DAY: Final = 86_400_000_000
FIRST_DAY: Final = NOW // DAY * DAY
"""The day of the events below, so that a test can make its partition."""

_short: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60
)
events: Final[st.SearchStrategy[AuditEvent]] = st.builds(
    AuditEvent,
    occurred_at=st.sampled_from([FIRST_DAY, FIRST_DAY + DAY - 1]).map(Instant)
    | st.integers(FIRST_DAY, FIRST_DAY + DAY - 1).map(Instant),
    event_type=st.sampled_from(EventType),
    actor=_short,
    principal=_short,
    action=_short,
    resource=_short,
    capability_id=_short,
    result=st.sampled_from(Result),
    reason=_short,
    policy_id=_short,
    session_id=_short,
    trace_id=_short,
    revision=st.integers(-(1 << 63), (1 << 63) - 1),
    metadata=json_objects.map(lambda value: JsonObject(canonical(value))),
)
"""Every event that the log can hold, of one day."""
