"""Conditions as use cases and memory have them: compiled, kept, left to other threads."""

from __future__ import annotations

import pytest

from licet.app.authorize import Authorize
from licet.app.conditions import (
    MAX_AT_ONCE,
    MAX_CONTEXT_AT_ONCE,
    Evaluation,
    check_condition,
    no_conditions,
)
from licet.app.ports import AT_ONCE, NotAtOnceError
from licet.domain import names
from licet.domain.canonical_json import JsonValue, canonical
from licet.domain.capability_set import HeldCapability
from licet.domain.condition import Condition, ExpressionError
from licet.domain.decision import Reason, Verdict
from licet.domain.errors import InvalidRequestError
from licet.domain.names import Action
from licet.domain.policy_facts import Facts
from licet.policies.cel import compile_condition
from licet.replica.conditions import CompiledConditions
from tests.unit.builders import CALLER, NOW, PATIENT, StillClock, asking, held
from tests.unit.policies import authorizing
from tests.unit.test_authorize import Log, Memory, no_policies

FACTS = Facts(asking(), held(1), NOW, NOW)


class Compiler:
    """Compiles with the real engine, and counts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> Condition:
        self.texts.append(text)
        return compile_condition(text)


def authorize(*capabilities: HeldCapability) -> tuple[Authorize, Memory, Log]:
    clock, log = StillClock(), Log()
    memory = Memory(clock, *capabilities)
    conditions = CompiledConditions(compile_condition)
    return authorizing(memory, log, clock, no_policies, conditions=conditions), memory, log


def test_a_text_is_compiled_once() -> None:
    compiler = Compiler()
    compiled = CompiledConditions(compiler)
    for _ in range(3):
        assert compiled("action == 'read'", PATIENT)(FACTS) is True
    assert compiled("action == 'write'", PATIENT)(FACTS) is False
    assert compiler.texts == ["action == 'read'", "action == 'write'"]
    assert len(compiled) == 2


def test_memory_is_bounded_by_the_texts_and_keeps_what_is_used() -> None:
    compiler = Compiler()
    compiled = CompiledConditions(compiler, 3 * 64)
    for name in "abc":
        compiled(f"action == '{name}'", PATIENT)
    compiled("action == 'a'", PATIENT)
    compiled("action == 'd'", PATIENT)
    assert len(compiled) == 3
    compiled("action == 'a'", PATIENT)
    assert len(compiler.texts) == 4
    compiled("action == 'b'", PATIENT)
    assert compiler.texts[-1] == "action == 'b'"
    # A long one takes the place of several.
    compiled(f"action == '{'x' * 150}'", PATIENT)
    assert len(compiled) == 1


def test_nothing_is_compiled_at_once() -> None:
    compiler = Compiler()
    compiled = CompiledConditions(compiler)
    with pytest.raises(NotAtOnceError):
        compiled("true", AT_ONCE)
    assert not compiler.texts
    compiled("true", PATIENT)
    assert compiled("true", AT_ONCE)(FACTS) is True


def test_what_cannot_be_compiled_is_an_error_each_time() -> None:
    def broken(_: str) -> Condition:
        raise ZeroDivisionError

    for compiled in (CompiledConditions(broken), CompiledConditions(compile_condition)):
        for _ in range(2):
            with pytest.raises(ExpressionError):
                compiled("a b", PATIENT)
        assert len(compiled) == 0
    with pytest.raises(ExpressionError):
        no_conditions("true", PATIENT)


def test_only_so_many_are_evaluated_at_once() -> None:
    compiled = CompiledConditions(compile_condition)
    compiled("true", PATIENT)
    evaluate = Evaluation(compiled, AT_ONCE)
    for _ in range(MAX_AT_ONCE):
        assert evaluate("true", FACTS)
    with pytest.raises(NotAtOnceError):
        evaluate("true", FACTS)
    patient = Evaluation(compiled, PATIENT)
    for _ in range(MAX_AT_ONCE + 1):
        assert patient("true", FACTS)


@pytest.mark.parametrize(
    ("text", "length", "is_at_once"),
    [
        ("context.x != ''", MAX_CONTEXT_AT_ONCE, True),
        ("context.x != ''", MAX_CONTEXT_AT_ONCE + 1, False),
        ("resource.path.matches('^r')", 9, False),
    ],
)
def test_what_may_take_long_is_not_evaluated_at_once(
    text: str, length: int, is_at_once: bool
) -> None:
    request = asking()._replace(context=canonical({"x": "y" * (length - len('{"x": ""}'))}))
    assert len(request.context) == length
    facts = Facts(request, held(1), NOW, NOW)
    compiled = CompiledConditions(compile_condition)
    assert Evaluation(compiled, PATIENT)(text, facts)
    if is_at_once:
        assert Evaluation(compiled, AT_ONCE)(text, facts)
    else:
        with pytest.raises(NotAtOnceError):
            Evaluation(compiled, AT_ONCE)(text, facts)


@pytest.mark.parametrize(
    ("text", "resource", "count"),
    [
        # One that compares the whole context, a hundred times.
        (" && ".join(["context == context"] * 92), "doc:x", 1),
        (
            " && ".join(["resource.segments == resource.segments"] * 46),
            "doc:" + "/".join("a" * 200),
            1,
        ),
        (" && ".join(["capability.actions == capability.actions"] * 46), "doc:x", 8),
        (" && ".join(["1 < 2"] * 200), "doc:x", 8),
        # What reads one field is handed all fields.
        ("context.x[0] == 1", "doc:x", 3),
    ],
)
def test_little_work_is_done_at_once(text: str, resource: str, count: int) -> None:
    numbers: list[JsonValue] = [1] * 300
    request = asking()._replace(
        context=canonical({"x": numbers}), resource=names.resource(resource)
    )
    capability = held(1)._replace(actions=tuple(Action(f"a{n}") for n in range(32)))
    facts = Facts(request, capability, NOW, NOW)
    compiled = CompiledConditions(compile_condition)
    at_once, patient = Evaluation(compiled, AT_ONCE), Evaluation(compiled, PATIENT)
    for _ in range(count):
        assert patient(text, facts)
    with pytest.raises(NotAtOnceError):
        all(at_once(text, facts) for _ in range(count))


@pytest.mark.parametrize(
    ("times", "count", "expected"),
    [
        (1, 15, Verdict.APPLIES),  # what reads one thing of a large context
        (92, 1, Verdict.CONDITION_FAILED),  # what compares all of it, again and again
        (12, 12, Verdict.CONDITION_FAILED),  # and what does so in parts
    ],
)
def test_work_is_bounded_for_a_condition_and_for_a_question(
    times: int, count: int, expected: Verdict
) -> None:
    """No other thread of the process runs while the engine works."""
    large: list[JsonValue] = [{}] * 4000
    request = asking()._replace(context=canonical({"x": large}), explain=True)
    text = " && ".join(["context == context"] * times) if times > 1 else "size(context.x) > 0"
    use_case, _, _ = authorize(held(1, conditions=(text,) * count))
    use_case(asking(), CALLER, PATIENT)
    answer = use_case(request, CALLER, PATIENT)
    assert answer.decision.allowed == (expected is Verdict.APPLIES)
    assert answer.explanation is not None
    (candidate,) = answer.explanation.candidates
    assert candidate.verdict is expected
    if candidate.unmet is not None:
        assert answer.decision.reason is Reason.POLICY_ERROR
        assert "would take too long" in candidate.unmet.error


def test_ordinary_conditions_are_evaluated_at_once() -> None:
    facts = Facts(asking()._replace(context=canonical({"amount": 7})), held(1), NOW, NOW)
    compiled = CompiledConditions(compile_condition)
    text = "context.amount < 100 && resource.segments[0] != 'secret'"
    compiled(text, PATIENT)
    evaluate = Evaluation(compiled, AT_ONCE)
    for _ in range(MAX_AT_ONCE):
        assert evaluate(text, facts)


def test_whatever_goes_wrong_is_an_error_of_the_condition() -> None:
    def failing(_: Facts) -> bool:
        raise RecursionError

    with pytest.raises(ExpressionError, match="RecursionError"):
        Evaluation(lambda *_: failing, PATIENT)("true", FACTS)


@pytest.mark.parametrize("questions", [1, 2])
def test_a_call_is_left_to_another_thread_before_anything_happened(questions: int) -> None:
    count = MAX_AT_ONCE // questions + 1
    use_case, memory, log = authorize(
        *(held(n, conditions=("action == 'write'",)) for n in range(1, count + 1))
    )
    # So that it is compiled.
    use_case(asking(), CALLER, PATIENT)
    memory.deadline = log.deadline = AT_ONCE
    before = len(log.events), use_case.condition_denials
    with pytest.raises(NotAtOnceError):
        use_case.batch_deferred([asking()] * questions, CALLER, AT_ONCE, lambda _: print)
    if questions == 1:
        with pytest.raises(NotAtOnceError):
            use_case.deferred(asking(), CALLER, AT_ONCE, lambda _: print)
    assert (len(log.events), use_case.condition_denials) == before
    # One less for each is decided.
    use_case, memory, log = authorize(
        *(held(n, conditions=("action == 'write'",)) for n in range(1, count))
    )
    use_case(asking(), CALLER, PATIENT)
    memory.deadline = log.deadline = AT_ONCE
    use_case.batch_deferred([asking()] * questions, CALLER, AT_ONCE, lambda _: print)
    assert len(log.events) == 1 + questions


def test_conditions_are_decided_by_recorded_and_counted() -> None:
    use_case, _, log = authorize(
        held(1, conditions=("context.level >= 2",)), held(2, "doc:other", conditions=("false",))
    )
    contexts = [{"level": 2}, {"level": 1}, {}]
    questions = [
        asking()._replace(context=canonical(context), explain=True) for context in contexts
    ]
    expected = [Reason.GRANTED, Reason.CONDITION_FAILED, Reason.POLICY_ERROR]
    for answers in (
        [use_case(question, CALLER, PATIENT) for question in questions],
        use_case.batch(questions, CALLER, PATIENT),
    ):
        assert [answer.decision.reason for answer in answers] == expected
        verdicts = [a.explanation.candidates[0].verdict for a in answers if a.explanation]
        assert verdicts == [
            Verdict.APPLIES,
            Verdict.CONDITION_FAILED,
            Verdict.CONDITION_FAILED,
        ]
    assert {event.capability_id for event in log.events} == {held(1).id}
    assert [event.reason for event in log.events[3:]] == ["", *expected[1:]]
    assert (use_case.condition_denials, use_case.condition_errors) == (4, 2)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("action = 'read'", "line 1, column"),
        ("action", "must be a bool"),
        ("resource.typ == 'doc'", "cannot be used: line 1"),
        ("   ", "cannot be used"),
        ("context.l.all(x, x)", "cannot be used"),
        ("action.matches('(a{1,99}){1,99}')", "the counts of the pattern"),
    ],
)
def test_a_condition_that_cannot_be_used_is_refused_with_its_reason(text: str, rule: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        check_condition(text, CompiledConditions(compile_condition), PATIENT)
    (violation,) = refused.value.violations
    assert violation.field == "condition"
    assert rule in violation.rule


@pytest.mark.parametrize(
    ("text", "context", "holds"),
    [
        ("context.mfa == true", {"mfa": True}, True),
        ("context.mfa == true", {"mfa": "true"}, False),
        ('action == "write" || context.amount < 1000', {"amount": 999.5}, True),
        ('action == "write" || context.amount < 1000', {"amount": 1000}, False),
        ('session_id == "s-81"', {}, False),
        # NOW is a Friday.
        ("now.getDayOfWeek() in [1, 2, 3, 4, 5]", {}, True),
        ("now.getDayOfWeek() in [0, 6]", {}, False),
    ],
)
def test_what_the_pages_show_is_so(text: str, context: dict[str, JsonValue], holds: bool) -> None:
    facts = Facts(asking()._replace(context=canonical(context)), held(1), NOW, NOW)
    evaluate = Evaluation(CompiledConditions(compile_condition), PATIENT)
    assert evaluate(text, facts) is holds


@pytest.mark.parametrize("text", ["", "true", "action == 'read' &&\n\taction != 'é'\r\n"])
def test_a_condition_that_can_be_used_is_taken(text: str) -> None:
    check_condition(text, CompiledConditions(compile_condition), PATIENT)
