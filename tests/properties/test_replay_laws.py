"""The law of replay: what it says is what would have come out, whatever the context was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from licet.domain.canonical_json import JsonObject
from licet.domain.decision import Request, decide
from licet.domain.instant import Instant
from licet.domain.names import Action, Principal
from licet.domain.policy_facts import NOT_RECORDED
from licet.domain.policy_replay import Outcome, Past, replay
from licet.policies.reading import compile_set
from tests.properties.strategies import requested
from tests.unit.builders import NOW, held, holding
from tests.unit.policies import document

_EFFECTS = [
    "deny: nope",
    "require: {mfa: true}",
    "require: {mfa: {max_age: 1h}, security_level: 2}",
    "require: {session: true, security_level: 1}",
    "require: {mfa: true, approval: admin}",
    "time: {zone: Europe/Berlin, hours: '09:00-17:00'}",
    "limit: {rate: 1/s}",
]
_CONDITIONS = [
    "",
    "when: context.x == 1",
    "when: '\"x\" in context'",
    "when: action == 'a'",
    "when: capability.resource == 'x:**'",
    "when: context.y / 0 == 1",
]
_MATCHES = ["", "match: {resources: ['x:**']}", "match: {actions: [b]}"]
_policies = st.lists(
    st.builds(
        lambda *parts: ", ".join(part for part in parts if part),
        st.sampled_from(_EFFECTS),
        st.sampled_from(_CONDITIONS),
        st.sampled_from(_MATCHES),
    ),
    max_size=4,
)
_CONTEXTS = [
    JsonObject(text)
    for text in (
        "{}",
        '{"x": 1}',
        '{"x": 2, "y": 1}',
        '{"mfa": true, "mfa_at": 1799999999, "security_level": 2}',
        '{"x": 1, "mfa": true, "mfa_at": 1, "security_level": 1}',
    )
]
_asked = st.builds(
    Request,
    st.just(Principal("x:a")),
    st.just(Action("a")),
    requested,
    st.sampled_from(_CONTEXTS),
    st.none(),
    st.sampled_from(["", "run-1"]),
)


@given(
    st.none() | _policies,
    _policies,
    _asked,
    st.booleans(),
    st.booleans(),
    st.integers(0, 86_400),
)
def test_what_replay_says_is_what_would_have_come_out(  # noqa: PLR0913, PLR0917 - what decides
    before: list[str] | None,
    draft: list[str],
    asked: Request,
    holds: bool,
    knows_capability: bool,
    later: int,
) -> None:
    then = None if before is None else compile_set(_numbered("p", before), 7)
    policies = compile_set(_numbered("q", draft), 0)
    capability, now = held(1, "x:**", "*"), Instant(NOW + later * 1_000_000)
    without = decide(holding(*[capability] * holds), asked, now)
    decided = without if then is None else then.judge(without, asked, now)
    judgement = decided.judgement
    past = Past(
        asked._replace(context=NOT_RECORDED),
        now,
        decided.allowed,
        decided.reason,
        "" if judgement is None else judgement.policy_id,
        "" if decided.capability is None else decided.capability.id,
        0 if judgement is None else judgement.version,
    )

    found = replay(policies, past, then, capability if knows_capability else None)

    would_be = policies.judge(without, asked, now)
    assert found.outcome is Outcome.NOT_KNOWN or would_be.allowed is (
        found.outcome is Outcome.ALLOW
    )
    assert bool(found.needs) is (found.outcome is Outcome.NOT_KNOWN)
    if then is not None and before == draft:
        # The set that held is always known to say what it said.
        assert found.outcome is not Outcome.NOT_KNOWN
        assert found.reason == decided.reason


def _numbered(prefix: str, policies: list[str]) -> str:
    return document(*(f"name: {prefix}{n}, {text}" for n, text in enumerate(policies)))
