"""Calls of an import: many at once, each outcome seen, and none begun after one that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from threading import Barrier, Event

import pytest

from licet.cli.importing.sending import each, is_refusal, violations_of
from licet.client import LicetCallError
from licet.domain.errors import Violation

GONE = LicetCallError("UNAVAILABLE", "gone")
REFUSED = LicetCallError("PERMISSION_DENIED", "too wide", reason="ACTIONS_WIDER")


def raising(error: LicetCallError) -> Callable[[], int]:
    def call() -> int:
        raise error

    return call


def test_each_call_is_made_once_and_some_at_once() -> None:
    together = Barrier(4, timeout=10)

    def wait() -> int:
        return together.wait() * 0

    found = list(each(((n, wait) for n in range(40)), threads=4))
    assert sorted(found) == [(n, 0) for n in range(40)]


def test_jobs_are_taken_as_they_are_needed() -> None:
    taken = []

    def jobs() -> Iterator[tuple[int, Callable[[], int]]]:
        for n in range(1000):
            taken.append(n)
            yield n, lambda: 0

    next(each(jobs(), threads=2))
    assert len(taken) <= 8


def test_a_refusal_is_an_outcome() -> None:
    assert list(each([("a", raising(REFUSED))])) == [("a", REFUSED)]


def test_after_a_failure_nothing_is_begun_and_what_runs_is_seen() -> None:
    failed, begun = Event(), []

    def fail() -> int:
        failed.set()
        raise GONE

    def run() -> int:
        assert failed.wait(10)
        begun.append("run")
        return 7

    jobs = [("a", run), ("b", fail), *((f"c-{n}", run) for n in range(50))]
    seen: list[object] = []

    def collect() -> None:
        for _, outcome in each(jobs, threads=2):
            seen.append(outcome)

    with pytest.raises(LicetCallError) as raised:
        collect()
    assert raised.value is GONE
    assert seen == [7] * len(begun)
    assert 1 <= len(begun) < 10


def test_a_server_that_is_busy_is_asked_again() -> None:
    answers = iter([1, 2])

    def call() -> int:
        if next(answers, None) is not None:
            raise LicetCallError(
                "RESOURCE_EXHAUSTED",
                "busy",
                reason="EXHAUSTED",
                retry_after=timedelta(milliseconds=1),
            )
        return 3

    assert list(each([("a", call)])) == [("a", 3)]


def test_what_is_not_about_the_record_is_no_refusal() -> None:
    for reason in ("", "SCOPE_MISSING", "HISTORY_UNCONFIRMED", "CALLER_BARRED"):
        assert not is_refusal(LicetCallError("FAILED_PRECONDITION", "x", reason=reason))
    for code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNAUTHENTICATED", "INTERNAL", "ABORTED"):
        assert not is_refusal(LicetCallError(code, "x", reason="WHY"))
    for code in ("INVALID_ARGUMENT", "ALREADY_EXISTS", "NOT_FOUND"):
        assert is_refusal(LicetCallError(code, "x", reason="WHY"))


def test_a_refusal_names_the_field_of_the_record() -> None:
    assert violations_of(REFUSED) == (Violation("actions", "too wide (ACTIONS_WIDER)"),)
    invalid = LicetCallError("INVALID_ARGUMENT", "x", violations=(Violation("a", "b"),))
    assert violations_of(invalid) == (Violation("a", "b"),)
