"""Group commit when nobody knows if it happened: what is sent again, and what callers are told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from licet.app.ports import Deadline
from licet.domain.errors import (
    ConflictError,
    DeadlineError,
    LicetError,
    OutcomeUnknownError,
    UnavailableError,
)
from licet.writer import group_commit
from licet.writer.group_commit import GroupCommit
from tests.fakes.committing import Patience, Store, Told, committing, revoke
from tests.unit.builders import PATIENT

_SECONDS = 10.0


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def commit(store: Store) -> Iterator[GroupCommit]:
    with committing(store) as group:
        yield group


@pytest.mark.parametrize("happened", [False, True])
def test_after_a_lost_answer_the_same_batch_is_sent_again(
    store: Store, commit: GroupCommit, happened: bool
) -> None:
    store.faults = [(OutcomeUnknownError("lost"), happened)]
    # The first outcome when it did happen, and else that of the second attempt.
    assert commit.submit(revoke("a"), PATIENT).revision == (1 if happened else 2)
    assert store.batches == [["a"], ["a"]]


@pytest.mark.parametrize("happened", [False, True])
@pytest.mark.parametrize("error", [UnavailableError("gone"), ConflictError("collided")])
def test_whatever_comes_after_a_lost_answer_it_is_asked_for_until_it_is_known(
    store: Store, commit: GroupCommit, happened: bool, error: LicetError
) -> None:
    lost = OutcomeUnknownError("lost")
    store.faults = [(lost, happened), (error, False), (lost, happened), (error, False)]
    assert commit.submit(revoke("a"), PATIENT).revision == (1 if happened else 5)
    assert store.batches == [["a"]] * 5


@pytest.mark.parametrize("happened", [False, True])
@pytest.mark.parametrize("error", [UnavailableError("gone"), DeadlineError("late")])
def test_after_a_lost_answer_nobody_is_told_that_nothing_happened(
    store: Store, commit: GroupCommit, happened: bool, error: LicetError
) -> None:
    store.faults = [(OutcomeUnknownError("lost"), happened), (error, False)]
    patience = Patience()
    store.meanwhile = lambda: setattr(patience, "left", 0.0)
    with pytest.raises(OutcomeUnknownError, match="request_id"):
        commit.submit(revoke("a"), patience.deadline)
    assert ("a" in store.applied) == happened
    # Whoever asks again under the same key learns it.
    again = commit.submit(revoke("a"), PATIENT)
    assert again.revision == (1 if happened else 3)


def test_one_who_gives_up_when_it_is_sent_does_not_know_and_it_happens(
    store: Store, commit: GroupCommit
) -> None:
    def left() -> float:
        assert store.begun.wait(_SECONDS)
        return 0.01

    store.go_on.clear()
    with pytest.raises(OutcomeUnknownError, match="request_id late"):
        commit.submit(revoke("late"), Deadline(left))
    store.go_on.set()
    assert commit.submit(revoke("late"), PATIENT).revision == 1


def test_stopping_ends_the_asking_after_a_lost_answer(store: Store) -> None:
    group = GroupCommit(store)
    group.start()
    store.fails_always = OutcomeUnknownError("lost")
    with ThreadPoolExecutor(1) as one:
        call = one.submit(group.submit, revoke("a"), PATIENT)
        assert store.begun.wait(_SECONDS)
        group.stop()
        with pytest.raises(OutcomeUnknownError):
            call.result(_SECONDS)


@pytest.mark.parametrize("sleeps", [False, True])
def test_a_change_is_not_sent_any_more_when_callers_without_a_deadline_have_given_up(
    store: Store, commit: GroupCommit, monkeypatch: pytest.MonkeyPatch, sleeps: bool
) -> None:
    """Else a grant might come to be long after its caller was told, and after a revocation."""
    store.fails_always = OutcomeUnknownError("lost")
    endless, told = Deadline(lambda: None), Told()
    with monkeypatch.context() as hurried:
        hurried.setattr(group_commit, "MUTATION_SECONDS", 0.2)
        if sleeps:
            with pytest.raises(OutcomeUnknownError):
                commit.submit(revoke("a"), endless)
        else:
            commit.begin(revoke("a"), endless, told)
            assert isinstance(told.outcome(), OutcomeUnknownError)
    store.begun.clear()
    commit.begin(revoke("b"), PATIENT, Told())
    for _ in range(50):
        assert store.begun.wait(_SECONDS)
        store.begun.clear()
        if store.batches[-1] == ["b"]:
            return
    pytest.fail("the first is sent for ever")


def test_who_does_not_sleep_and_is_late_when_it_is_sent_does_not_know_and_is_told_once(
    store: Store, commit: GroupCommit
) -> None:
    told = Told()

    def left() -> float:
        return 0.0 if store.begun.is_set() else 0.05

    store.go_on.clear()
    commit.begin(revoke("late"), Deadline(left), told)
    outcome = told.outcome()
    assert isinstance(outcome, OutcomeUnknownError)
    assert "request_id late" in str(outcome)
    store.go_on.set()
    # It happens, and is not told a second time.
    assert commit.submit(revoke("late"), PATIENT).revision == 1
    assert told.outcomes == [outcome]


def test_a_bug_in_settling_ends_neither_the_thread_nor_a_call_with_ok(
    store: Store, commit: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(store, "apply", lambda *_: [])
        with pytest.raises(OutcomeUnknownError, match="request_id one"):
            commit.submit(revoke("one"), PATIENT)
    assert commit.submit(revoke("two"), PATIENT).status == "done"
