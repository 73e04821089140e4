"""Decisions under limits: an ALLOW costs its tokens, once, and is none without them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from typing_extensions import override

from licet.app.authorize import Answer, Authorize
from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.app.recording import Acknowledge, Recorded
from licet.domain.decision import Decision, Reason, Request
from licet.domain.errors import UnavailableError
from licet.domain.instant import Instant
from licet.domain.names import Caller
from tests.fakes.limits import Tokens
from tests.unit.builders import CALLER, PATIENT, StillClock, asking, held
from tests.unit.policies import authorizing, policy_set
from tests.unit.test_authorize import Log, Memory

A = "name: a, limit: {rate: 1/s}"
B = "name: b, limit: {rate: 1/s}"


def authorize(tokens: Tokens, *policies: str, log: Log | None = None) -> Authorize:
    clock = StillClock()
    compiled = policy_set(*policies)
    memory, log = Memory(clock, held(1)), log or Log()
    return authorizing(memory, log, clock, lambda _: compiled, limits=tokens)


def at_once(decides: Authorize, memory_of: Deadline = AT_ONCE) -> list[Answer]:
    """Decide on the thread that must not wait, and return the answer."""
    prepared: list[Answer] = []

    def prepare(answer: Answer) -> Acknowledge:
        prepared.append(answer)
        return lambda _: None

    decides._sets.deadline = memory_of  # type: ignore[attr-defined] # noqa: SLF001 - of the fake
    decides.deferred(asking(), CALLER, memory_of, prepare)
    return prepared


def test_an_allow_takes_a_token_and_without_one_it_is_a_denial_on_record() -> None:
    tokens, log = Tokens(a=1), Log()
    decides = authorize(tokens, A, log=log)

    first, second = (decides(asking(), CALLER, PATIENT) for _ in range(2))

    assert first.decision.allowed
    assert second.decision.reason is Reason.RATE_LIMITED
    assert second.decision.judgement is not None
    assert second.decision.judgement.retry_after == 1_500_000
    assert [(e.reason, e.policy_id) for e in log.events] == [("", ""), ("RATE_LIMITED", "a")]
    assert (decides.policy_denials, decides.policy_errors) == (1, 0)


def test_what_is_denied_anyway_takes_none() -> None:
    tokens = Tokens(a=1)

    denied = authorize(tokens, A, "name: p, deny: nope")(asking(), CALLER, PATIENT)
    nobody = authorize(tokens, A)(asking(resource="doc:other"), CALLER, PATIENT)

    assert denied.decision.reason is Reason.POLICY_DENIED
    assert nobody.decision.reason is Reason.NO_CAPABILITY
    assert tokens.left == {"a": 1}


def test_a_denial_by_the_second_limit_leaves_the_first_as_it_was() -> None:
    tokens = Tokens(a=1, b=0)

    denied = authorize(tokens, A, B)(asking(), CALLER, PATIENT)

    assert denied.decision.judgement is not None
    assert denied.decision.judgement.policy_id == "b"
    assert tokens.left == {"a": 1, "b": 0}


def test_an_explanation_takes_nothing_beyond_its_decision() -> None:
    tokens = Tokens(a=2)

    answer = authorize(tokens, A)(asking()._replace(explain=True), CALLER, PATIENT)

    assert answer.explanation is not None
    assert tokens.left == {"a": 1}


@pytest.mark.parametrize("is_deferred", [False, True])
def test_a_batch_takes_in_order_and_denies_what_finds_nothing(is_deferred: bool) -> None:
    tokens = Tokens(a=2)
    decides = authorize(tokens, A)
    answers: list[Answer] = []

    def prepare(found: list[Answer]) -> Acknowledge:
        answers.extend(found)
        return lambda _: None

    asked = [asking(), asking(resource="doc:other"), asking(), asking()]
    if is_deferred:
        decides.batch_deferred(asked, CALLER, PATIENT, prepare)
    else:
        answers = decides.batch(asked, CALLER, PATIENT)

    reasons = [answer.decision.reason for answer in answers]
    granted, nothing, limited = Reason.GRANTED, Reason.NO_CAPABILITY, Reason.RATE_LIMITED
    assert reasons == [granted, nothing, granted, limited]
    assert (tokens.left, decides.policy_denials) == ({"a": 0}, 1)


@pytest.mark.parametrize("size", [1, 3])
def test_without_knowledge_nothing_is_decided_nor_recorded(size: int) -> None:
    tokens, log = Tokens(a=9), Log()
    tokens.error = UnavailableError("the database cannot be reached")
    decides = authorize(tokens, A, log=log)

    with pytest.raises(UnavailableError):
        decides.batch([asking()] * size, CALLER, PATIENT)
    with pytest.raises(UnavailableError):
        decides(asking(), CALLER, PATIENT)
    assert (log.events, tokens.left) == ([], {"a": 9})


def test_at_once_it_is_decided_or_nothing_has_happened() -> None:
    tokens, log = Tokens(a=1), Log()
    decides = authorize(tokens, A, log=log)
    tokens.is_far = True
    with pytest.raises(NotAtOnceError):
        at_once(decides)
    assert (log.events, tokens.left) == ([], {"a": 1})

    (answer,) = at_once(decides, PATIENT)
    assert (answer.decision.allowed, tokens.left) == (True, {"a": 0})


class Crowded(Log):
    """Has no room for whoever cannot wait."""

    @override
    def record_early(
        self,
        caller: Caller,
        now: Instant,
        requests: Sequence[Request],
        decisions: Sequence[Decision],
        deadline: Deadline,
    ) -> Recorded:
        if deadline is AT_ONCE:
            raise NotAtOnceError
        return super().record_early(caller, now, requests, decisions, deadline)


def test_what_is_decided_again_elsewhere_takes_its_tokens_once() -> None:
    tokens = Tokens(a=5, b=5)
    decides = authorize(tokens, A, B, log=Crowded())
    with pytest.raises(NotAtOnceError):
        at_once(decides)
    assert tokens.left == {"a": 5, "b": 5}

    at_once(decides, PATIENT)
    assert tokens.left == {"a": 4, "b": 4}

    decides._sets.deadline = AT_ONCE  # type: ignore[attr-defined] # noqa: SLF001 - of the fake
    with pytest.raises(NotAtOnceError):
        decides.batch_deferred([asking()] * 3, CALLER, AT_ONCE, lambda _: lambda _: None)
    assert tokens.left == {"a": 4, "b": 4}


def test_a_token_stays_spent_when_the_decision_cannot_be_recorded() -> None:
    tokens = Tokens(a=1)
    with pytest.raises(UnavailableError):
        authorize(tokens, A, log=Log(room=0))(asking(), CALLER, PATIENT)
    assert tokens.left == {"a": 0}
