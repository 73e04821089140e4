"""The history checker itself, on histories with and without a planted violation."""

from __future__ import annotations

import random

import pytest

from tests.chaos.history import Answer, Call, Operation, check, summary


def grant(name: str, start: float, end: float, answer: str = "OK", parent: str = "") -> Call:
    return Call(Operation.GRANT, name, start, end, Answer(answer), parent)


def revoke(name: str, start: float, end: float, answer: str = "OK") -> Call:
    return Call(Operation.REVOKE, name, start, end, Answer(answer))


def authorize(name: str, start: float, end: float, answer: str) -> Call:
    return Call(Operation.AUTHORIZE, name, start, end, Answer(answer))


C = grant("c", 0, 1)
D = grant("d", 2, 3, parent="c")
E = grant("e", 4, 5, parent="d")


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([C, authorize("c", 2, 3, "ALLOW")], id="allowed after the grant"),
        pytest.param([C, authorize("c", 0.5, 3, "DENY")], id="denied during the grant"),
        pytest.param([C, authorize("c", 0.5, 0.6, "ALLOW")], id="allowed during the grant"),
        pytest.param([C, authorize("c", -2, -1, "DENY")], id="denied before the grant"),
        pytest.param(
            [C, revoke("c", 5, 9), authorize("c", 8, 30, "ALLOW")], id="allowed during the revoke"
        ),
        pytest.param(
            [C, revoke("c", 5, 9), authorize("c", 4, 5.5, "DENY")], id="denied during the revoke"
        ),
        pytest.param(
            [C, revoke("c", 5, 9), authorize("c", 9, 10, "ALLOW")], id="started as it returned"
        ),
        pytest.param(
            [C, revoke("c", 5, 9, "FAILED"), authorize("c", 10, 11, "ALLOW")],
            id="the revoke may not have happened",
        ),
        pytest.param(
            [C, revoke("c", 5, 9, "FAILED"), authorize("c", 10, 11, "DENY")],
            id="the revoke may have happened",
        ),
        pytest.param(
            [grant("c", 0, 1, "FAILED"), authorize("c", 2, 3, "DENY")],
            id="the grant may not have happened",
        ),
        pytest.param(
            [grant("c", 0, 1, "FAILED"), authorize("c", 2, 3, "ALLOW")],
            id="the grant may have happened",
        ),
        pytest.param(
            [C, D, E, revoke("e", 6, 7), authorize("d", 8, 9, "ALLOW")],
            id="a revoke ends no ancestor",
        ),
        pytest.param(
            [C, D, revoke("c", 6, 7), authorize("d", 8, 9, "DENY")],
            id="a revoke ends what descends",
        ),
        pytest.param(
            [C, revoke("c", 5, 9), authorize("c", 10, 11, "FAILED")], id="a failure is no answer"
        ),
    ],
)
def test_what_the_promise_allows_is_no_violation(history: list[Call]) -> None:
    assert check(history) == []


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        pytest.param(
            [C, revoke("c", 5, 9), authorize("c", 9.1, 10, "ALLOW")],
            "after the revocation",
            id="stale",
        ),
        pytest.param(
            [C, D, E, revoke("c", 6, 9), authorize("e", 10, 11, "ALLOW")],
            "after the revocation",
            id="stale descendant",
        ),
        pytest.param(
            [C, revoke("c", 5, 30, "FAILED"), revoke("c", 6, 9), authorize("c", 10, 11, "ALLOW")],
            "after the revocation",
            id="one of two revocations returned",
        ),
        pytest.param(
            [grant("c", 0, 1, "FAILED"), revoke("c", 5, 9), authorize("c", 10, 11, "ALLOW")],
            "after the revocation",
            id="granted by a call that failed",
        ),
        pytest.param(
            [C, authorize("c", 1.1, 2, "DENY")], "after the grant", id="grant not honoured"
        ),
        pytest.param(
            [C, D, authorize("d", 4, 5, "DENY"), revoke("c", 5.1, 6)],
            "after the grant",
            id="delegation not honoured",
        ),
        pytest.param(
            [C, D, E, revoke("e", 6, 7), authorize("d", 8, 9, "DENY")],
            "after the grant",
            id="an ancestor ended with its descendant",
        ),
        pytest.param(
            [grant("c", 5, 6), authorize("c", 1, 2, "ALLOW")], "before the grant", id="too early"
        ),
    ],
)
def test_what_breaks_the_promise_is_found_in_any_order(history: list[Call], rule: str) -> None:
    for seed in range(5):
        shuffled = history[:]
        random.Random(seed).shuffle(shuffled)
        (violation,) = check(shuffled)
        assert rule in violation.rule
        assert violation.calls[-1].operation in {Operation.AUTHORIZE, Operation.GRANT}


def test_the_shortest_violation_comes_first_and_reads_well() -> None:
    history = [
        C,
        D,
        revoke("c", 5, 9),
        authorize("c", 20, 21, "ALLOW"),
        authorize("d", 9.25, 9.5, "ALLOW"),
    ]
    first, second = check(history)
    assert first.seconds < second.seconds
    assert str(first).splitlines() == [
        "a request that started after the revocation had returned was allowed:",
        "        0.00 ..    4000.00 ms  worker 0: revoke c -> OK",
        "     4250.00 ..    4500.00 ms  worker 0: authorize d -> ALLOW",
    ]


def test_the_summary_counts_answers() -> None:
    calls = [C, D, authorize("c", 2, 3, "ALLOW"), authorize("c", 2, 3, "FAILED")]
    assert summary(calls) == "4 calls (authorize ALLOW: 1, authorize FAILED: 1, grant OK: 2)"


def test_a_history_of_a_correct_register_has_no_violation() -> None:
    # One place decides everything at one moment between each call's start and its end.
    rng = random.Random(7)
    calls: list[Call] = []
    for number in range(200):
        name, born = f"c{number}", rng.uniform(0, 10)
        dead = born + rng.uniform(0, 5)
        calls.append(grant(name, born - rng.random(), born + rng.random()))
        calls.append(revoke(name, dead - rng.random(), dead + rng.random()))
        for _ in range(20):
            at = rng.uniform(0, 16)
            answer = "ALLOW" if born <= at < dead else "DENY"
            calls.append(authorize(name, at - rng.random(), at + rng.random(), answer))
    assert check(calls) == []
