"""Group commit on a store that answers or fails: what is sent together, what callers are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from uuid import UUID

import pytest

from licet.app.ports import Applied, Deadline
from licet.domain.errors import (
    ConflictError,
    DeadlineError,
    LicetError,
    UnavailableError,
    UnconfirmedError,
)
from licet.writer.acknowledgements import Waiter
from licet.writer.group_commit import BATCH, GroupCommit
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


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
def occupied(store: Store, commit: GroupCommit, pool: ThreadPoolExecutor) -> Future[Applied]:
    """Provide a commit that is under way until `store.go_on` is set."""
    store.go_on.clear()
    first = pool.submit(commit.submit, revoke("first"), PATIENT)
    assert store.begun.wait(_SECONDS)
    return first


def queued(commit: GroupCommit, count: int) -> None:
    pause = Event()
    for _ in range(1000):
        if commit._queue.qsize() == count:  # noqa: SLF001 - nobody else is told
            return
        pause.wait(0.01)
    pytest.fail(f"{count} mutations do not wait")


def test_what_waits_while_another_commits_is_committed_together(
    store: Store, commit: GroupCommit, pool: ThreadPoolExecutor, occupied: Future[Applied]
) -> None:
    calls = [pool.submit(commit.submit, revoke(name), PATIENT) for name in "abc"]
    queued(commit, 3)
    store.go_on.set()
    assert occupied.result(_SECONDS).revision == 1
    assert [call.result(_SECONDS).revision for call in calls] == [2, 2, 2]
    assert store.batches[0] == ["first"]
    assert sorted(store.batches[1]) == ["a", "b", "c"]


def test_a_batch_has_a_bound(store: Store) -> None:
    group = GroupCommit(store)
    with ThreadPoolExecutor(BATCH + 1) as many:
        calls = [many.submit(group.submit, revoke(str(n)), PATIENT) for n in range(BATCH + 1)]
        queued(group, BATCH + 1)
        group.start()
        for call in calls:
            call.result(_SECONDS)
    group.stop()
    assert [len(batch) for batch in store.batches] == [BATCH, 1]


def test_each_caller_is_told_of_his_own(store: Store, commit: GroupCommit) -> None:
    assert [commit.submit(revoke(name), PATIENT).revision for name in "aba"] == [1, 2, 1]
    assert store.applied == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "error", [UnavailableError("gone"), ConflictError("collided"), DeadlineError("late")]
)
def test_what_surely_failed_is_told_to_all_and_not_tried_again(
    store: Store,
    commit: GroupCommit,
    pool: ThreadPoolExecutor,
    occupied: Future[Applied],
    error: LicetError,
) -> None:
    calls = [pool.submit(commit.submit, revoke(name), PATIENT) for name in "ab"]
    queued(commit, 2)
    store.faults = [(error, False), (error, False)]
    store.go_on.set()
    for call in (occupied, *calls):
        with pytest.raises(type(error)):
            call.result(_SECONDS)
    assert len(store.batches) == 2
    assert not store.applied
    # The next one is not in their way.
    assert commit.submit(revoke("next"), PATIENT).revision == 3


def test_a_bug_is_told_as_what_it_is_and_the_next_is_committed(
    store: Store, commit: GroupCommit
) -> None:
    store.faults = [(ZeroDivisionError(), False)]
    with pytest.raises(ZeroDivisionError):
        commit.submit(revoke("a"), PATIENT)
    assert commit.submit(revoke("b"), PATIENT).revision == 2


@pytest.mark.parametrize(
    ("left", "error"), [(0.0, DeadlineError), (1.0, UnavailableError)], ids=["late", "too-long"]
)
def test_one_who_gives_up_before_it_is_sent_is_told_so_and_it_is_never_sent(
    store: Store,
    commit: GroupCommit,
    occupied: Future[Applied],
    left: float,
    error: type[LicetError],
) -> None:
    lefts = iter([0.01])
    with pytest.raises(error):
        commit.submit(revoke("late"), Deadline(lambda: next(lefts, left)))
    store.go_on.set()
    occupied.result(_SECONDS)
    commit.submit(revoke("next"), PATIENT)
    assert store.batches == [["first"], ["next"]]


def test_a_batch_lives_as_long_as_its_most_patient_caller(
    store: Store, commit: GroupCommit, pool: ThreadPoolExecutor, occupied: Future[Applied]
) -> None:
    short, long = Patience(5.0), Patience(9.0)
    calls = [
        pool.submit(commit.submit, revoke(name), patience.deadline)
        for name, patience in (("short", short), ("long", long))
    ]
    queued(commit, 2)
    store.go_on.set()
    for call in (occupied, *calls):
        call.result(_SECONDS)
    assert store.lefts == [15.0, 9.0]


def test_what_waits_when_it_is_stopped_is_committed(store: Store) -> None:
    group = GroupCommit(store)
    with ThreadPoolExecutor(1) as one:
        call = one.submit(group.submit, revoke("a"), PATIENT)
        queued(group, 1)
        group.start()
        group.stop()
        assert call.result(_SECONDS).revision == 1


def test_who_does_not_sleep_is_told_what_was_done(store: Store, commit: GroupCommit) -> None:
    told = Told()
    commit.begin(revoke("a"), PATIENT, told)
    assert told.outcome() == Applied("done", 1, {})
    assert store.batches == [["a"]]
    assert not len(commit._expiries)  # noqa: SLF001 - or all would be kept until they are late


@pytest.mark.parametrize("happened", [False, True])
def test_who_does_not_sleep_is_told_what_failed(
    store: Store, commit: GroupCommit, happened: bool
) -> None:
    told, error = Told(), UnavailableError("gone")
    store.faults = [(error, happened)]
    commit.begin(revoke("a"), PATIENT, told)
    assert told.outcome() is error


def test_who_does_not_sleep_and_is_late_before_it_is_sent_is_told_so_and_it_is_never_sent(
    store: Store, commit: GroupCommit, occupied: Future[Applied]
) -> None:
    told, patience = Told(), Patience(0.0)
    commit.begin(revoke("late"), patience.deadline, told)
    assert isinstance(told.outcome(), DeadlineError)
    store.go_on.set()
    occupied.result(_SECONDS)
    commit.submit(revoke("next"), PATIENT)
    assert store.batches == [["first"], ["next"]]
    assert len(told.outcomes) == 1


def test_who_fails_when_it_is_told_is_in_nobodys_way(
    store: Store, commit: GroupCommit, occupied: Future[Applied]
) -> None:
    def failing(_: Applied | Exception) -> None:
        raise ZeroDivisionError

    told = Told()
    commit.begin(revoke("a"), PATIENT, failing)
    commit.begin(revoke("b"), PATIENT, told)
    store.go_on.set()
    occupied.result(_SECONDS)
    assert told.outcome() == Applied("done", 2, {})
    assert commit.submit(revoke("c"), PATIENT).revision == 3


class Confirming:
    """Replicas that confirm when a test says so."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[tuple[Waiter, Callable[[Waiter], None]]] = SimpleQueue()

    def when_confirmed(
        self, revision: int, history: UUID | None, callers: int, then: Callable[[Waiter], None]
    ) -> None:
        self.asked.put((Waiter(revision, history=history, callers=callers), then))


@pytest.mark.parametrize("sleeps", [False, True])
def test_one_whose_replicas_are_too_slow_is_told_that_it_is_committed_and_once(
    store: Store, pool: ThreadPoolExecutor, sleeps: bool
) -> None:
    replicas, told = Confirming(), Told()
    group = GroupCommit(store, replicas)
    group.start()
    patience = Deadline(lambda: 0.2)
    if sleeps:
        with pytest.raises(UnconfirmedError, match="committed at revision 1"):
            group.submit(revoke("a"), patience)
    else:
        group.begin(revoke("a"), patience, told)
        outcome = told.outcome()
        assert isinstance(outcome, UnconfirmedError)
        assert "committed at revision 1" in str(outcome)
    waiter, then = replicas.asked.get(timeout=_SECONDS)
    waiter.confirmed = 2
    then(waiter)
    assert len(told.outcomes) == (not sleeps)
    # Who is in time is told how many there are.
    calls = [pool.submit(group.submit, revoke("b"), PATIENT)]
    waiter, then = replicas.asked.get(timeout=_SECONDS)
    waiter.confirmed = 2
    then(waiter)
    assert calls[0].result(_SECONDS).confirmation == (2, 0)
    group.stop()
