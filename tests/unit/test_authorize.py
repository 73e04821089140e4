"""Authorize: one clock reading, one record for each decision, and no ALLOW without a record."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pytest
from typing_extensions import override

from licet.app.authorize import Answer, Authorize
from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.app.recording import Acknowledge, Recorded
from licet.domain.audit_event import AuditEvent, Result, event_id, event_id_text
from licet.domain.capability_set import CapabilitySet, HeldCapability
from licet.domain.decision import Candidate, Decision, Explanation, Reason, Request, Verdict
from licet.domain.decision_event import decision_event
from licet.domain.errors import UnavailableError
from licet.domain.instant import Instant
from licet.domain.names import Caller, EventId, Principal
from licet.domain.policy_set import PolicySet
from tests.fakes.limits import NO_LIMITS
from tests.unit.builders import (
    CALLER,
    HOLDER,
    NOW,
    PATIENT,
    StillClock,
    asking,
    event,
    held,
    holding,
    identifier,
)
from tests.unit.policies import policy_set


class Memory:
    """Capability sets of one principal, who is looked up while the clock goes on."""

    def __init__(self, clock: StillClock, *capabilities: HeldCapability) -> None:
        self._clock = clock
        self._capabilities = capabilities
        self.seconds = 0
        self.deadline = PATIENT

    def get(self, principal: Principal, deadline: Deadline) -> CapabilitySet:
        return self.get_many([principal], deadline)[principal]

    def get_many(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        assert deadline is self.deadline
        self._clock.instant = type(self._clock.instant)(NOW + self.seconds * 1_000_000)
        return {
            p: holding(*self._capabilities) if p == HOLDER else CapabilitySet(p, 7, ())
            for p in principals
        }


class Log:
    """An audit log that keeps what it is given, up to a number."""

    def __init__(self, room: int = 1000) -> None:
        self.events: list[AuditEvent] = []
        self.waiting: list[Acknowledge] = []
        self.deadline = PATIENT
        self._room = room

    def record(self, caller: Caller, now: Instant, request: Request, decision: Decision) -> EventId:
        return self.record_all(caller, now, [request], [decision])[0]

    def record_early(
        self,
        caller: Caller,
        now: Instant,
        requests: Sequence[Request],
        decisions: Sequence[Decision],
        deadline: Deadline,
    ) -> Recorded:
        assert deadline is self.deadline
        return Recorded(self.record_all(caller, now, requests, decisions), len(self.events))

    def when_durable(
        self, recorded: Recorded, acknowledge: Acknowledge, deadline: Deadline
    ) -> None:
        assert deadline is self.deadline
        assert recorded.sequence == len(self.events)
        self.waiting.append(acknowledge)

    def record_all(
        self,
        caller: Caller,
        now: Instant,
        requests: Sequence[Request],
        decisions: Sequence[Decision],
    ) -> Sequence[EventId]:
        if len(self.events) + len(requests) > self._room:
            raise UnavailableError("full")
        first = len(self.events) + 1
        for request, decision in zip(requests, decisions, strict=True):
            self.events.append(decision_event(caller, now, request, decision))
        return [event_id_text(event_id(1, first + i)) for i in range(len(requests))]


def no_policies(_: Deadline) -> PolicySet | None:
    """Hold no policies."""
    return None


def test_an_allow_is_on_record_before_it_is_returned() -> None:
    clock, log = StillClock(), Log()
    authorize = Authorize(Memory(clock, held(1)), log, clock, no_policies, NO_LIMITS)
    request = asking()._replace(session_id="s", trace_id="t")
    answer = authorize(request, CALLER, PATIENT)
    assert answer.request is request
    assert answer.decision.reason is Reason.GRANTED
    assert answer.event_id == event_id_text(event_id(1, 1))
    assert answer.explanation is None
    assert log.events == [event(session_id="s", trace_id="t")]


@pytest.mark.parametrize(
    ("capability", "reason", "closest"),
    [
        (held(1, allowed="write"), "NO_CAPABILITY", ""),
        (held(1, ended_at=NOW - 1), "CAPABILITY_REVOKED", identifier(1)),
    ],
)
def test_a_denial_is_on_record_with_its_reason(
    capability: HeldCapability, reason: str, closest: str
) -> None:
    clock, log = StillClock(), Log()
    answer = Authorize(Memory(clock, capability), log, clock, no_policies, NO_LIMITS)(
        asking(), CALLER, PATIENT
    )
    assert not answer.decision.allowed
    assert log.events == [event(result=Result.DENY, reason=reason, capability_id=closest)]


def test_what_cannot_be_recorded_is_not_returned() -> None:
    clock = StillClock()
    authorize = Authorize(Memory(clock, held(1)), Log(room=0), clock, no_policies, NO_LIMITS)
    with pytest.raises(UnavailableError):
        authorize(asking(), CALLER, PATIENT)


def test_a_deferred_answer_is_on_record_before_it_is_prepared_and_leaves_when_it_is_told() -> None:
    clock, log = StillClock(), Log()
    authorize = Authorize(Memory(clock, held(1)), log, clock, no_policies, NO_LIMITS)
    prepared: list[Answer] = []
    told: list[UnavailableError | None] = []

    def prepare(answer: Answer) -> Acknowledge:
        assert len(log.events) == 1
        prepared.append(answer)
        return told.append

    authorize.deferred(asking()._replace(explain=True), CALLER, PATIENT, prepare)
    (answer,), (leave,) = prepared, log.waiting
    assert told == []
    leave(None)
    assert told == [None]
    assert answer == Authorize(Memory(clock, held(1)), Log(), clock, no_policies, NO_LIMITS)(
        answer.request, CALLER, PATIENT
    )


def test_a_deferred_batch_is_on_record_before_it_is_prepared_and_leaves_when_it_is_told() -> None:
    clock, log = StillClock(), Log()
    authorize = Authorize(Memory(clock, held(1)), log, clock, no_policies, NO_LIMITS)
    prepared: list[list[Answer]] = []
    told: list[UnavailableError | None] = []
    requests = [asking()._replace(explain=True), asking(action="write")]

    def prepare(answers: list[Answer]) -> Acknowledge:
        assert len(log.events) == 2
        prepared.append(answers)
        return told.append

    authorize.batch_deferred(requests, CALLER, PATIENT, prepare)
    (answers,), (leave,) = prepared, log.waiting
    assert told == []
    leave(None)
    assert told == [None]
    assert [answer.decision.allowed for answer in answers] == [True, False]
    assert answers == Authorize(Memory(clock, held(1)), Log(), clock, no_policies, NO_LIMITS).batch(
        requests, CALLER, PATIENT
    )


def test_what_cannot_be_recorded_is_not_even_prepared() -> None:
    clock, log = StillClock(), Log(room=0)
    prepared: list[Answer] = []

    def prepare(answer: Answer) -> Acknowledge:
        prepared.append(answer)
        raise AssertionError

    with pytest.raises(UnavailableError):
        Authorize(Memory(clock, held(1)), log, clock, no_policies, NO_LIMITS).deferred(
            asking(), CALLER, PATIENT, prepare
        )
    assert not prepared
    assert not log.waiting


def test_the_clock_is_read_after_the_look_up_so_that_a_slow_one_can_only_deny() -> None:
    clock = StillClock()
    memory = Memory(clock, held(1, expires_at=NOW + 1_000_000))
    authorize = Authorize(memory, Log(), clock, no_policies, NO_LIMITS)
    assert authorize(asking(), CALLER, PATIENT).decision.allowed
    memory.seconds = 1
    assert not authorize(asking(), CALLER, PATIENT).decision.allowed
    assert not authorize.batch([asking()], CALLER, PATIENT)[0].decision.allowed


def test_an_explanation_is_given_when_it_is_asked_for() -> None:
    clock = StillClock()
    authorize = Authorize(Memory(clock, held(1)), Log(), clock, no_policies, NO_LIMITS)
    answer = authorize(asking()._replace(explain=True), CALLER, PATIENT)
    assert answer.explanation == Explanation((Candidate(held(1), Verdict.APPLIES),), 1)


def test_policies_are_asked_after_the_lookup_and_their_denial_is_on_record() -> None:
    clock, log = StillClock(), Log()
    policies = policy_set("name: stop, deny: nothing goes")
    authorize = Authorize(Memory(clock, held(1)), log, clock, lambda _: policies, NO_LIMITS)
    single = authorize(asking()._replace(explain=True), CALLER, PATIENT)
    (batched,) = authorize.batch([asking()], CALLER, PATIENT)
    prepared: list[Answer] = []

    def prepare(answer: Answer) -> Acknowledge:
        prepared.append(answer)
        return lambda _: None

    authorize.deferred(asking(), CALLER, PATIENT, prepare)
    for answer in (single, batched, *prepared):
        assert answer.decision.reason is Reason.POLICY_DENIED
    assert {recorded.policy_id for recorded in log.events} == {"stop"}
    assert single.explanation is not None
    assert [policy.policy_id for policy in single.explanation.policies] == ["stop"]
    assert (authorize.policy_denials, authorize.policy_errors) == (3, 0)


class Overtaken(Memory):
    """Loses all capabilities, and then a policy is lifted, just after a look-up."""

    def __init__(self, clock: StillClock, policies: list[PolicySet]) -> None:
        super().__init__(clock, held(1))
        self._policies = policies

    @override
    def get_many(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        found = super().get_many(principals, deadline)
        self._capabilities = ()
        del self._policies[1:]
        return found


@pytest.mark.parametrize("is_batch", [False, True])
def test_who_lost_a_right_before_the_policy_against_it_was_lifted_is_never_allowed(
    is_batch: bool,
) -> None:
    clock, log = StillClock(), Log()
    policies = [policy_set(), policy_set("name: stop, deny: nothing goes")]
    authorize = Authorize(Overtaken(clock, policies), log, clock, lambda _: policies[-1], NO_LIMITS)
    if is_batch:
        (answer,) = authorize.batch([asking()], CALLER, PATIENT)
    else:
        answer = authorize(asking(), CALLER, PATIENT)
    assert answer.decision.reason is Reason.NO_CAPABILITY


def test_nothing_is_decided_when_the_policies_cannot_be_known() -> None:
    def unknown(_: Deadline) -> PolicySet | None:
        raise UnavailableError("the set cannot be used")

    clock, log = StillClock(), Log()
    authorize = Authorize(Memory(clock, held(1)), log, clock, unknown, NO_LIMITS)
    with pytest.raises(UnavailableError):
        authorize(asking(), CALLER, PATIENT)
    with pytest.raises(UnavailableError):
        authorize.batch([asking()], CALLER, PATIENT)
    with pytest.raises(UnavailableError):
        authorize.deferred(asking(), CALLER, PATIENT, lambda _: lambda _: None)
    assert not log.events


def test_a_policy_that_cannot_be_told_is_counted() -> None:
    clock = StillClock()
    policies = policy_set("name: p, when: context.x == 1, deny: nope")
    authorize = Authorize(Memory(clock, held(1)), Log(), clock, lambda _: policies, NO_LIMITS)
    assert authorize(asking(), CALLER, PATIENT).decision.reason is Reason.POLICY_ERROR
    assert (authorize.policy_denials, authorize.policy_errors) == (1, 1)


def test_a_batch_is_decided_in_order_at_one_instant() -> None:
    clock, log = StillClock(), Log()
    authorize = Authorize(Memory(clock, held(1)), log, clock, no_policies, NO_LIMITS)
    requests = [
        asking(),
        asking(action="write"),
        asking()._replace(principal=Principal("agent:other")),
        asking()._replace(explain=True),
    ]
    answers = authorize.batch(requests, CALLER, PATIENT)
    assert [answer.request for answer in answers] == requests
    assert [answer.decision.allowed for answer in answers] == [True, False, False, True]
    assert [answer.explanation is None for answer in answers] == [True, True, True, False]
    assert [recorded.principal for recorded in log.events] == [r.principal for r in requests]
    assert len({answer.event_id for answer in answers}) == 4
    assert clock.readings == 1


def test_a_batch_that_cannot_be_recorded_whole_is_not_returned() -> None:
    clock, log = StillClock(), Log(room=1)
    authorize = Authorize(Memory(clock, held(1)), log, clock, no_policies, NO_LIMITS)
    with pytest.raises(UnavailableError):
        authorize.batch([asking(), asking()], CALLER, PATIENT)
    assert not log.events


@pytest.mark.parametrize(
    ("count", "questions", "is_at_once"),
    [(50, 1, True), (51, 1, False), (25, 2, True), (26, 2, False)],
)
def test_with_many_conditions_of_policies_nothing_is_decided_at_once(
    count: int, questions: int, is_at_once: bool
) -> None:
    policies = policy_set(
        *(f"name: p{number}, when: action == 'write', deny: nope" for number in range(count))
    )
    clock, log = StillClock(), Log()
    memory = Memory(clock, held(1))
    authorize = Authorize(memory, log, clock, lambda _: policies, NO_LIMITS)
    memory.deadline = log.deadline = AT_ONCE
    try:
        if questions == 1:
            authorize.deferred(asking(), CALLER, AT_ONCE, lambda _: print)
        else:
            authorize.batch_deferred([asking()] * questions, CALLER, AT_ONCE, lambda _: print)
    except NotAtOnceError:
        assert not is_at_once
    else:
        assert is_at_once
    assert len(log.events) == is_at_once * questions
