"""Reading ahead: misses that share a read, and what becomes of those for whom it brings nothing."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Queue
from threading import Event, Thread
from typing import Any

import pytest

from licet.app.ports import Deadline
from licet.domain.capability_set import CapabilitySet
from licet.domain.errors import UnavailableError
from licet.domain.names import Principal
from licet.replica import reading_ahead
from licet.replica.reading_ahead import READ_SECONDS, TOGETHER, WAITING
from tests.unit.reads import Scene, stopped

ALICE, BOB, CAROL = (Principal(f"user:{name}") for name in ("alice", "bob", "carol"))
PATIENT = Deadline(lambda: 10.0)
_SECONDS = 10.0


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(reading_ahead, "LATE_SECONDS", 1000.0)
    with stopped(Scene()) as scene:
        scene.ahead.start()
        yield scene


def test_those_who_come_during_a_read_share_the_next(scene: Scene) -> None:
    first = scene.miss(ALICE)
    assert scene.reads.await_read() == [ALICE]
    assert scene.reads.seconds == READ_SECONDS
    others = [scene.miss(principal) for principal in (BOB, CAROL, BOB)]
    scene.reads.land()
    assert (held := first.get()) is not None
    assert held.principal == ALICE
    assert scene.reads.await_read() == [BOB, CAROL]
    scene.reads.land()
    assert [held.principal for other in others if (held := other.get())] == [BOB, CAROL, BOB]
    assert (scene.sets.reads, scene.sets.misses, scene.sets.joined) == (2, 4, 1)


def test_no_read_is_larger_than_others_can_wait_for(scene: Scene) -> None:
    first = scene.miss(ALICE)
    assert scene.reads.await_read() == [ALICE]
    names = [Principal(f"user:{number:03}") for number in range(TOGETHER + 1)]
    answers = [scene.miss(name) for name in names]
    for expected in (names[:TOGETHER], names[TOGETHER:]):
        scene.reads.land()
        assert scene.reads.await_read() == expected
    scene.reads.land()
    assert all(answer.get() for answer in (first, *answers))


def test_what_was_read_meanwhile_is_not_read_again(scene: Scene) -> None:
    first = scene.miss(ALICE)
    scene.reads.await_read()
    second = scene.miss(BOB)
    scene.own.land()
    scene.sets.get(BOB, PATIENT)
    scene.reads.land()
    assert first.get()
    assert second.get()
    assert scene.sets.reads == 2


def test_what_another_reads_is_left_to_it(scene: Scene) -> None:
    """A principal is read once at a time, by whomever."""
    first = scene.miss(ALICE)
    scene.reads.await_read()
    own = scene.sets._board(BOB)  # noqa: SLF001 - as if a thread that may wait read it
    assert own[1]
    second = scene.miss(BOB)
    scene.reads.land()
    assert first.get()
    assert second.get() is None
    assert scene.sets.reads == 1


@pytest.mark.parametrize("error", [UnavailableError("planted"), RuntimeError("a bug")])
def test_when_a_read_fails_each_is_told_and_finds_nothing(scene: Scene, error: Exception) -> None:
    answers = [scene.miss(ALICE)]
    scene.reads.await_read()
    answers += [scene.miss(BOB), scene.miss(CAROL)]
    scene.reads.land()
    scene.reads.await_read()
    scene.reads.fail(error)
    assert [answer.get() is None for answer in answers] == [False, True, True]
    assert scene.ahead.turned_away == 2
    assert not scene.sets._fills  # noqa: SLF001 - nothing is left behind
    assert not scene.sets._flights  # noqa: SLF001 - as above
    # The next read is as good as any, and so is reading for oneself.
    again = scene.miss(BOB)
    scene.reads.await_read()
    scene.reads.land()
    assert again.get()
    scene.own.land()
    assert scene.sets.get(CAROL, PATIENT).principal == CAROL


def test_who_holds_much_reads_for_himself_and_keeps_nobody_else(scene: Scene) -> None:
    scene.reads.large.add(BOB)
    first = scene.miss(ALICE)
    scene.reads.await_read()
    large, other = scene.miss(BOB), scene.miss(CAROL)
    scene.reads.land()
    assert first.get()
    assert scene.reads.await_read() == [BOB, CAROL]
    scene.reads.land()
    assert large.get() is None
    assert other.get()
    # Nor was he counted: he is when he reads.
    assert (scene.sets.misses, BOB in scene.sets) == (2, False)


@pytest.mark.parametrize("principals", [[ALICE], None])
def test_what_was_read_before_an_eviction_is_not_found_after_it(
    scene: Scene, principals: list[Principal] | None
) -> None:
    answer = scene.miss(ALICE)
    scene.reads.await_read()
    scene.sets.evict(principals, 2)
    scene.reads.land()
    assert answer.get() is None
    scene.reads.revision = 2
    answer = scene.miss(ALICE)
    scene.reads.await_read()
    scene.reads.land()
    assert answer.get()


def test_what_lands_after_the_lease_is_not_used(scene: Scene) -> None:
    answer = scene.miss(ALICE)
    scene.reads.await_read()
    scene.lease.end()
    scene.reads.land()
    assert answer.get() is None


def test_without_a_lease_nothing_is_read_ahead(scene: Scene) -> None:
    scene.lease.end()
    assert not scene.miss(ALICE).is_promised


def test_a_request_that_may_wait_does_not_use_a_read_older_than_itself(scene: Scene) -> None:
    ahead = scene.miss(ALICE)
    scene.reads.await_read()
    scene.sets.evict([ALICE], 2)
    scene.own.revision = 2
    scene.own.land()
    joining: Queue[CapabilitySet] = Queue()
    waits = Thread(target=lambda: joining.put(scene.sets.get(ALICE, PATIENT)), daemon=True)
    waits.start()
    pause = Event()
    while scene.sets.joined == 0:
        pause.wait(0.01)
    scene.reads.land()
    assert ahead.get() is None
    assert joining.get(timeout=_SECONDS).revision == 2


def test_nobody_who_comes_during_a_slow_read_waits_for_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = scene.miss(ALICE)
    scene.reads.await_read()
    early = scene.miss(BOB)
    monkeypatch.setattr(reading_ahead, "LATE_SECONDS", -1.0)
    assert not scene.miss(CAROL).is_promised
    scene.reads.land()
    assert slow.get()
    # Nor does one who came before for the next, which may be as slow.
    assert early.is_promised
    assert early.get() is None
    assert scene.sets.reads == 1
    assert scene.ahead.turned_away == 2
    late = scene.miss(CAROL)
    assert scene.reads.await_read() == [CAROL]
    scene.reads.land()
    assert late.get()


def test_when_a_read_fails_late_nobody_waits_for_the_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the last of a thousand would wait for thirty reads, each of which may take a second."""
    answers = [scene.miss(ALICE)]
    scene.reads.await_read()
    answers += [scene.miss(Principal(f"user:{number}")) for number in range(TOGETHER + 1)]
    monkeypatch.setattr(reading_ahead, "LATE_SECONDS", -1.0)
    scene.reads.fail(UnavailableError("planted"))
    assert [answer.get() for answer in answers] == [None] * len(answers)
    assert scene.sets.reads == 1


def test_no_more_wait_than_a_few_reads_can_serve(scene: Scene) -> None:
    first = scene.miss(ALICE)
    scene.reads.await_read()
    answers = [scene.miss(Principal(f"user:{number}")) for number in range(WAITING + 1)]
    assert [answer.is_promised for answer in answers] == [True] * WAITING + [False]
    assert scene.ahead.turned_away == 1
    scene.reads.land()
    for _ in range(WAITING // TOGETHER):
        scene.reads.await_read()
        scene.reads.land()
    assert all(answer.get() for answer in (first, *answers[:-1]))
    assert scene.sets.reads == 1 + WAITING // TOGETHER


def test_one_who_fails_when_he_is_told_does_not_keep_the_others(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise RuntimeError("planted")

    first = scene.miss(ALICE)
    scene.reads.await_read()
    assert scene.ahead.ask(BOB, fails)
    other = scene.miss(CAROL)
    scene.reads.land()
    scene.reads.await_read()
    scene.reads.land()
    assert first.get()
    assert other.get()
    assert "planted" in caplog.text


def test_with_nothing_to_do_it_lets_go_of_what_it_keeps(scene: Scene) -> None:
    answer = scene.miss(ALICE)
    scene.reads.await_read()
    scene.reads.land()
    assert answer.get()
    assert scene.reads.rests.wait(_SECONDS)
    answer = scene.miss(BOB)
    assert scene.reads.await_read() == [BOB]
    scene.reads.land()
    assert answer.get()


def test_it_goes_on_when_it_cannot_let_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = Event()

    def fails() -> None:
        tried.set()
        raise RuntimeError("planted")

    with stopped(Scene()) as scene:
        monkeypatch.setattr(scene.reads, "rest", fails)
        scene.ahead.start()
        assert tried.wait(_SECONDS)
        answer = scene.miss(ALICE)
        assert scene.reads.await_read() == [ALICE]
        scene.reads.land()
        assert answer.get()
    assert "planted" in caplog.text


def test_whoever_waits_when_it_stops_is_told() -> None:
    with stopped(Scene()) as scene:
        scene.ahead.start()
        answers = [scene.miss(ALICE)]
        scene.reads.await_read()
        answers += [scene.miss(BOB) for _ in range(TOGETHER + 2)]
        scene.reads.land()
        scene.ahead._over.set()  # noqa: SLF001 - as `stop` begins
        scene.reads.land()
        scene.ahead.stop()
        assert [answer.is_promised for answer in answers] == [True] * len(answers)
        assert answers[0].get()
        assert len([answer.get() for answer in answers[1:]]) == len(answers) - 1
        assert not scene.miss(CAROL).is_promised
        assert scene.reads.rests.is_set()


def test_whoever_comes_when_the_thread_has_just_ended_is_told() -> None:
    scene, told = Scene(), Event()
    queue = scene.ahead._queue  # noqa: SLF001 - for the moment between two looks

    class EndsFirst:
        """The queue of a thread that ends after the look whether it has."""

        def put(self, item: Any) -> None:  # noqa: ANN401 - as the queue
            scene.ahead._queue = queue  # noqa: SLF001 - as above
            scene.ahead.stop()
            queue.put(item)

        def qsize(self) -> int:
            return 0

    scene.ahead.start()
    scene.ahead._queue = EndsFirst()  # type: ignore[assignment] # noqa: SLF001 - as above
    assert scene.ahead.ask(ALICE, told.set)
    assert told.is_set()


def test_one_who_comes_while_it_stops_does_not_take_the_word_to_end() -> None:
    """It calls whatever waits, and that word waits as well."""
    scene, told = Scene(), Event()
    queue = scene.ahead._queue  # noqa: SLF001 - for the moment between two looks

    class Stopping:
        """The queue of a thread that is told to end after the look whether it has."""

        def put(self, item: Any) -> None:  # noqa: ANN401 - as the queue
            scene.ahead._queue = queue  # noqa: SLF001 - as above
            scene.ahead._over.set()  # noqa: SLF001 - as `stop` begins
            queue.put(None)
            queue.put(item)

        def qsize(self) -> int:
            return 0

    scene.ahead._queue = Stopping()  # type: ignore[assignment] # noqa: SLF001 - as above
    assert scene.ahead.ask(ALICE, told.set)
    assert told.is_set()
    assert queue.get_nowait() is None
