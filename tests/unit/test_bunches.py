"""Which answers leave together, when, and that none is forgotten or sent twice."""

from __future__ import annotations

import gc
from threading import Thread
from weakref import ref

from hypothesis import given
from hypothesis import strategies as st

from licet.server.bunches import MAX_HELD, TRIED, Bunch


class Call:
    """Notes what is delivered, and the marks that it is to put."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench = bench
        self.name = name

    def deliver(self, message: bytes, /) -> None:
        self.bench.delivered.append((self.name, message))

    def mark(self) -> None:
        self.bench.marks += 1
        if self.bench.is_broken:
            raise RuntimeError("no mark")


class Bench:
    """A bunch of this thread."""

    def __init__(self, limit: int = MAX_HELD) -> None:
        self.bunch = Bunch(limit)
        self.delivered: list[tuple[str, bytes]] = []
        self.marks = 0
        self.is_broken = False
        self.bunch.begun("the first", is_awaited=False)

    def begin(self, *names: str) -> None:
        for name in names:
            self.bunch.begun(name, is_awaited=True)

    def come(self, name: str) -> None:
        """Have a call's message come, and answer it."""
        self.bunch.awaited.discard(name)
        self.bunch.send(Call(self, name), name.encode(), is_stream=False)

    def say(self, name: str) -> None:
        """Answer a message of a stream."""
        self.bunch.send(Call(self, name), name.encode(), is_stream=True)

    @property
    def names(self) -> list[str]:
        assert all(name.encode() == message for name, message in self.delivered)
        return [name for name, _ in self.delivered]


def test_what_comes_alone_is_answered_at_once_and_without_a_mark() -> None:
    bench = Bench()
    bench.begin("a")
    bench.come("a")
    assert (bench.names, bench.marks) == (["a"], 0)


def test_calls_that_come_together_are_answered_when_the_last_has_its_message() -> None:
    bench = Bench()
    bench.begin("a", "b", "c")
    bench.come("a")
    bench.come("b")
    assert (bench.names, bench.marks) == ([], 1)
    bench.come("c")
    assert bench.names == ["a", "b", "c"]
    bench.bunch.flush()
    assert (bench.names, bench.marks) == (["a", "b", "c"], 1)


def test_a_call_whose_message_never_comes_holds_nobody_behind_the_mark() -> None:
    bench = Bench()
    bench.begin("a", "silent", "b")
    bench.come("a")
    bench.come("b")
    assert bench.names == []
    bench.bunch.flush()
    assert bench.names == ["a", "b"]


def test_a_call_whose_message_never_comes_costs_the_others_one_mark() -> None:
    bench = Bench()
    bench.begin("a", "silent")
    bench.come("a")
    bench.begin("later")
    bench.bunch.flush()
    bench.begin("b")
    bench.come("later")
    assert (bench.names, bench.marks) == (["a"], 2)
    bench.come("b")
    assert bench.names == ["a", "later", "b"]
    bench.bunch.flush()
    bench.begin("c")
    bench.come("c")
    assert (bench.names, bench.marks) == (["a", "later", "b", "c"], 2)
    bench.come("silent")
    assert bench.names[-1] == "silent"


def test_a_call_that_has_ended_is_not_kept() -> None:
    bench = Bench()
    silent = Call(bench, "silent")
    kept = ref(silent)
    bench.bunch.begun(silent, is_awaited=True)
    bench.begin("a")
    bench.come("a")
    bench.bunch.flush()
    bench.bunch.awaited.discard(silent)
    del silent
    gc.collect()
    assert kept() is None


def test_so_many_leave_together_at_most() -> None:
    bench = Bench(limit=3)
    bench.begin("silent", *"abcd")
    for name in "abcd":
        bench.come(name)
    assert bench.names == ["a", "b", "c"]
    bench.bunch.flush()
    assert (bench.names, bench.marks) == (["a", "b", "c", "d"], 1)


def test_the_answer_of_another_thread_is_sent_at_once() -> None:
    bench = Bench()
    bench.begin("a", "silent")
    bench.come("a")
    other = Thread(target=lambda: bench.bunch.send(Call(bench, "b"), b"b", is_stream=False))
    other.start()
    other.join()
    assert (bench.names, bench.marks) == (["b"], 1)


def test_without_a_mark_nothing_is_held() -> None:
    bench = Bench()
    bench.begin("silent", "a", "b")
    bench.is_broken = True
    bench.come("a")
    assert (bench.names, bench.marks) == (["a"], 1)
    bench.is_broken = False
    bench.come("b")
    assert (bench.names, bench.marks) == (["a"], 2)
    bench.bunch.flush()
    assert bench.names == ["a", "b"]


def test_a_mark_that_was_put_though_it_failed_sends_what_is_held_then() -> None:
    bench = Bench()
    bench.begin("silent", "a", "b")
    bench.is_broken = True
    bench.come("a")
    bench.is_broken = False
    bench.come("b")
    bench.bunch.flush()  # the one that failed
    assert bench.names == ["a", "b"]
    bench.bunch.flush()
    assert bench.names == ["a", "b"]


def test_messages_of_streams_are_held_while_that_finds_others() -> None:
    bench = Bench()
    for _ in range(TRIED - 1):
        bench.say("alone")
    assert (len(bench.names), bench.marks) == (TRIED - 1, 0)
    bench.delivered.clear()
    # The try, and it finds another one.
    bench.say("a")
    bench.say("b")
    assert (bench.names, bench.marks) == ([], 1)
    bench.bunch.flush()
    assert bench.names == ["a", "b"]
    bench.say("c")
    assert (bench.names, bench.marks) == (["a", "b"], 2)
    # It was alone: the next ones are not held.
    bench.bunch.flush()
    bench.say("d")
    assert (bench.names, bench.marks) == (["a", "b", "c", "d"], 2)


def test_a_full_bunch_of_streams_counts_as_others() -> None:
    bench = Bench(limit=2)
    for _ in range(TRIED - 1):
        bench.say("alone")
    bench.delivered.clear()
    bench.say("a")
    bench.say("b")
    assert bench.names == ["a", "b"]
    bench.bunch.flush()
    bench.say("c")
    assert (bench.names, bench.marks) == (["a", "b"], 2)


@given(
    limit=st.integers(1, 5),
    steps=st.lists(st.sampled_from(["begin", "come", "say", "met", "gone"]), max_size=80),
)
def test_every_answer_is_sent_once_in_its_order_and_none_is_held_without_a_mark(
    limit: int, steps: list[str]
) -> None:
    bench = Bench(limit)
    open_calls: list[str] = []
    answered: list[str] = []
    met = 0
    for number, step in enumerate(steps):
        name = str(number)
        if step == "begin":
            bench.begin(name)
            open_calls.append(name)
        elif step == "say":
            answered.append(name)
            bench.say(name)
        elif step == "met" and met < bench.marks:
            met += 1
            bench.bunch.flush()
        elif open_calls and step == "come":
            answered.append(open_calls[0])
            bench.come(open_calls.pop(0))
        elif open_calls and step == "gone":
            bench.bunch.awaited.discard(open_calls.pop(0))
        assert bench.names == answered[: len(bench.names)]
        assert len(answered) - len(bench.names) < limit
        assert 0 <= bench.marks - met <= 1
        assert bench.names == answered or bench.marks > met
    if met < bench.marks:
        bench.bunch.flush()
    assert bench.names == answered
