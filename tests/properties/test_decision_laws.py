"""The decision and its explanation against a model that looks at every capability."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from licet.domain.capability import EndCause
from licet.domain.capability_set import HeldCapability, Standing
from licet.domain.decision import Reason, Request, Verdict, decide, describe, explain
from licet.domain.instant import Instant
from licet.domain.names import Action
from tests.properties.models import expected, matches
from tests.properties.strategies import INSTANTS, held_capabilities, requested
from tests.unit.builders import HOLDER, holding, identifier

VERDICT_OF = {
    Reason.GRANTED: Verdict.APPLIES,
    Reason.NOT_YET_VALID: Verdict.NOT_YET_VALID,
    Reason.CAPABILITY_EXPIRED: Verdict.EXPIRED,
    Reason.CAPABILITY_REVOKED: Verdict.REVOKED,
}

requests = st.builds(
    Request,
    st.just(HOLDER),
    st.sampled_from([Action(word) for word in "aaabcd"]),
    requested,
    capability_id=st.none() | st.integers(0, 9).map(identifier),
)
readings = st.tuples(st.sampled_from(INSTANTS), st.sampled_from(INSTANTS)).map(sorted)
"""When the set was read, and when the decision is taken."""


@settings(max_examples=200)
@given(held_capabilities(), requests, readings)
def test_a_decision_is_the_models(
    capabilities: Sequence[HeldCapability], request: Request, reading: list[Instant]
) -> None:
    read_at, now = reading
    decision = decide(holding(*capabilities, now=read_at), request, now)
    reasons, named = expected(capabilities, request, now)
    assert decision.reason in reasons
    assert decision.allowed == (decision.reason is Reason.GRANTED)
    if decision.capability is None:
        assert not named
    else:
        assert decision.capability.id in named
    if decision.allowed:
        assert decision.capability is not None
        assert (decision.valid_until or decision.capability.expires_at) > now
    else:
        assert decision.valid_until is None
    assert describe(decision, request)


@given(held_capabilities(), requests, readings)
def test_an_explanation_agrees_with_the_decision(
    capabilities: Sequence[HeldCapability], request: Request, reading: list[Instant]
) -> None:
    read_at, now = reading
    held = holding(*capabilities, now=read_at)
    decision = decide(held, request, now)
    candidates, total, *_ = explain(held, request, now)
    verdicts = {candidate.capability.id: candidate.verdict for candidate in candidates}
    assert verdicts.keys() == {c.id for c in capabilities if matches(c.resource, request.resource)}
    assert total == len(candidates) == len(verdicts)
    assert (Verdict.APPLIES in verdicts.values()) == decision.allowed
    if decision.capability is not None:
        assert verdicts[decision.capability.id] is VERDICT_OF[decision.reason]
    else:
        assert set(verdicts.values()) <= {Verdict.OTHER_ACTION, Verdict.NOT_REQUESTED}


@given(held_capabilities(), requests, st.sampled_from(INSTANTS), st.data())
def test_ending_capabilities_never_turns_a_denial_into_an_allow(
    capabilities: Sequence[HeldCapability], request: Request, now: Instant, data: st.DataObject
) -> None:
    revoked = {c.id for c in capabilities if data.draw(st.booleans())}
    fewer = [
        c._replace(end_cause=EndCause.REVOKED, ended_at=now)
        if c.id in revoked and c.end_cause is None
        else c
        for c in capabilities
    ]
    before = decide(holding(*capabilities, now=now), request, now)
    after = decide(holding(*fewer, now=now), request, now)
    assert before.allowed or not after.allowed
    if after.allowed:
        assert after.capability is not None
        assert after.capability.id not in revoked


@given(held_capabilities(), requests, st.sampled_from(INSTANTS))
def test_a_decision_does_not_depend_on_the_order_of_what_is_held(
    capabilities: Sequence[HeldCapability], request: Request, now: Instant
) -> None:
    forwards = decide(holding(*capabilities, now=now), request, now)
    backwards = decide(holding(*reversed(capabilities), now=now), request, now)
    assert forwards.allowed == backwards.allowed


@given(held_capabilities(), requests, readings)
def test_a_suspended_principal_is_denied_whatever_it_holds(
    capabilities: Sequence[HeldCapability], request: Request, reading: list[Instant]
) -> None:
    read_at, now = reading
    decision = decide(
        holding(*capabilities, now=read_at, standing=Standing.SUSPENDED), request, now
    )
    assert (decision.allowed, decision.reason) == (False, Reason.PRINCIPAL_SUSPENDED)
