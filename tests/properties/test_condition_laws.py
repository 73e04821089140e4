"""Conditions against a model: they only take away, and hold for all that descends from one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from licet.domain.capability import MAX_CONDITIONS, Terms, check_attenuation, inherit
from licet.domain.capability_set import ALWAYS, NEVER, CapabilitySet, HeldCapability
from licet.domain.condition import ExpressionError
from licet.domain.decision import Reason, Request, Verdict, decide, describe, explain
from licet.domain.errors import PreconditionError
from licet.domain.instant import Instant
from licet.domain.names import CapabilityId
from licet.domain.policy_facts import Facts
from tests.properties.models import allows
from tests.properties.strategies import INSTANTS, held_capabilities
from tests.properties.test_decision_laws import readings, requests
from tests.unit.builders import HOLDER, NOW, asking, capability, holding, identifier, terms

HOLDS, FAILS, BREAKS = "holds", "fails", "breaks"
TEXTS: Final = (HOLDS, HOLDS, FAILS, BREAKS)
some_conditions: Final = st.lists(st.sampled_from(TEXTS), max_size=3).map(tuple)


def evaluate(text: str, facts: Facts) -> bool:
    assert facts.capability.conditions
    if text == BREAKS:
        raise ExpressionError("broken")
    return text == HOLDS


@st.composite
def conditional(draw: st.DrawFn) -> Sequence[HeldCapability]:
    return [c._replace(conditions=draw(some_conditions)) for c in draw(held_capabilities())]


def modelled(
    capabilities: Sequence[HeldCapability], request: Request, now: int
) -> tuple[Reason | None, set[CapabilityId]]:
    """Decide by looking at all; None: no condition has a say in it."""
    valid = [
        c
        for c in capabilities
        if allows(c.resource, c.actions, request.action, request.resource)
        and request.capability_id in {None, c.id}
        and c.end_cause is None
        and c.not_before <= now < c.expires_at
    ]
    plain = {c.id for c in valid if not c.conditions}
    if plain:
        return Reason.GRANTED, plain
    met = {c.id for c in valid if set(c.conditions) == {HOLDS}}
    if met:
        return Reason.GRANTED, met
    first = {c.id: next(text for text in c.conditions if text != HOLDS) for c in valid}
    broken = {c for c, text in first.items() if text == BREAKS}
    if broken:
        return Reason.POLICY_ERROR, broken
    return (Reason.CONDITION_FAILED, set(first)) if first else (None, set())


@settings(max_examples=300)
@given(conditional(), requests, readings)
def test_a_decision_is_the_models(
    capabilities: Sequence[HeldCapability], request: Request, reading: list[Instant]
) -> None:
    read_at, now = reading
    held = holding(*capabilities, now=read_at)
    decision = decide(held, request, now, None, evaluate)
    reason, named = modelled(capabilities, request, now)
    if reason is None:
        # As if there were no conditions: whatever else is wrong is wrong without them, too.
        bare = [c._replace(conditions=()) for c in capabilities]
        without = decide(holding(*bare, now=read_at), request, now)
        assert (decision.reason, decision.allowed) == (without.reason, False)
    else:
        assert decision.reason is reason
        assert decision.capability is not None
        assert decision.capability.id in named
    assert decision.allowed == (decision.reason is Reason.GRANTED)
    assert describe(decision, request)
    verdicts = {c.capability.id: c.verdict for c in explain(held, request, now, None, evaluate)[0]}
    assert (Verdict.APPLIES in verdicts.values()) == decision.allowed
    if reason is not None and not decision.allowed:
        assert {verdicts[c] for c in named} == {Verdict.CONDITION_FAILED}


@settings(max_examples=300)
@given(conditional(), requests, st.sampled_from(INSTANTS), st.data())
def test_a_condition_more_never_turns_a_denial_into_an_allow(
    capabilities: Sequence[HeldCapability], request: Request, now: Instant, data: st.DataObject
) -> None:
    more = [
        c._replace(conditions=(*c.conditions, *data.draw(some_conditions))) for c in capabilities
    ]
    before = decide(holding(*capabilities, now=now), request, now, None, evaluate)
    after = decide(holding(*more, now=now), request, now, None, evaluate)
    assert before.allowed or not after.allowed


@given(
    st.lists(st.sampled_from(["", *TEXTS]), min_size=1, max_size=20),
    st.data(),
)
def test_a_descendant_is_never_allowed_against_an_ancestor(
    chain: list[str], data: st.DataObject
) -> None:
    """The chain is the own condition of each, from the root on."""
    above: Terms | None = None
    granted: list[Terms] = []
    for depth, text in enumerate(chain):
        wanted = terms("a", "doc:**", delegation_depth=len(chain) - depth, condition=text)
        if above is not None:
            wanted = inherit(wanted, capability(1, above))
            try:
                check_attenuation(wanted, capability(1, above), NOW)
            except PreconditionError as refused:
                assert refused.code == "TOO_MANY_CONDITIONS"  # noqa: PT017 - of a law
                assert sum(map(bool, chain[: depth + 1])) == MAX_CONDITIONS + 1
                break
        granted.append(wanted)
        above = wanted
    depth = data.draw(st.integers(0, len(granted) - 1))
    own = [text for text in chain[: depth + 1] if text]
    assert list(granted[depth].conditions) == own
    held = HeldCapability(
        identifier(1),
        granted[depth].resource,
        granted[depth].actions,
        ALWAYS,
        NEVER,
        conditions=granted[depth].conditions,
    )
    request = asking("doc:x", "a")
    decision = decide(CapabilitySet(HOLDER, 1, [held]), request, NOW, None, evaluate)
    assert decision.allowed is (set(own) <= {HOLDS})
    if not decision.allowed:
        assert decision.unmet is not None
        held_before = list(takewhile(lambda text: text == HOLDS, own))
        assert decision.unmet.condition == own[len(held_before)]
