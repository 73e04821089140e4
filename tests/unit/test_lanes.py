"""How many calls of a kind are under way, and how many of something a caller has."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from time import monotonic
from typing import Any

import pytest

from licet.domain.caller import ANONYMOUS
from licet.domain.errors import ExhaustedError, NotFoundError, RateLimitedError
from licet.server.authority import CREDENTIALS, RULES
from licet.server.lanes import Lane, Shares
from licet.server.lifecycle import READS, pools_of
from licet.server.limits import ServerLimits
from licet.server.rates import Buckets
from licet.server.strangers import Strangers
from licet.server.streams import OpenStreams, Streams


class Call:
    """A call that ends when a test says so."""

    def __init__(self, *, has_ended: bool = False) -> None:
        self._has_ended = has_ended
        self.callbacks: list[Callable[[], None]] = []

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return not self._has_ended


def test_what_waits_for_a_thread_is_under_way_until_it_has_run() -> None:
    lane, go = Lane(1, "test", 3), Event()
    try:
        waiting = [lane.submit(go.wait, 10) for _ in range(3)]
        assert (lane.under_way, lane.is_full) == (3, True)
        go.set()
        assert all(call.result(10) for call in waiting)
        assert (lane.under_way, lane.is_full) == (0, False)
    finally:
        go.set()
        lane.shutdown()


def test_a_call_that_fails_is_under_way_no_more() -> None:
    with Lane(1, "test", 1) as lane:
        failing = lane.submit(_fail, "no")
        assert isinstance(failing.exception(10), NotFoundError)
        assert lane.under_way == 0


def _fail(message: str) -> None:
    raise NotFoundError(message)


def test_a_call_without_a_thread_is_under_way_until_it_ends() -> None:
    with Lane(1, "test", 1) as lane:
        call = Call()
        lane.hold(call)
        assert (lane.under_way, lane.is_full) == (1, True)
        for callback in call.callbacks:
            callback()
        assert (lane.under_way, lane.is_full) == (0, False)
        lane.hold(Call(has_ended=True))
        assert lane.under_way == 0


def test_a_call_that_is_left_to_others_by_its_thread_is_counted_once_until_it_ends() -> None:
    call, ended = Call(), Call(has_ended=True)
    with Lane(1, "test", 2) as lane:
        lane.submit(lane.hold, call).result(10)
        assert lane.under_way == 1
        lane.submit(int, 1).result(10)
        assert lane.under_way == 1
        lane.submit(lane.hold, ended).result(10)
        assert lane.under_way == 1
        for callback in call.callbacks:
            callback()
        assert lane.under_way == 0


def test_what_a_thread_counts_is_its_own() -> None:
    # Compiled, a class derived from `local` has the same attributes for all threads.
    began, go, call = Event(), Event(), Call()
    with Lane(2, "test", 9) as lane:
        staying = lane.submit(_wait, began, go)
        assert began.wait(10)
        lane.submit(lane.hold, call).result(10)
        assert lane.under_way == 2
        go.set()
        staying.result(10)
        assert lane.under_way == 1
        call.callbacks[0]()
        assert lane.under_way == 0


def _wait(began: Event, go: Event) -> None:
    began.set()
    go.wait(10)


def test_a_caller_has_its_share_and_others_have_theirs() -> None:
    shares = Shares(2)
    with shares.of("a"), shares.of("a"), shares.of("b"):
        with pytest.raises(ExhaustedError), shares.of("a"):
            pass
        with shares.of("b"):
            assert len(shares) == 2
    assert int(shares.refused) == 1
    # Nothing is kept of who has none.
    assert len(shares) == 0
    with shares.of("a"), shares.of("a"):
        pass


def test_a_share_is_given_back_when_what_it_was_for_fails() -> None:
    shares = Shares(1)
    for _ in range(2):
        with pytest.raises(NotFoundError), shares.of("a"):
            raise NotFoundError("no")


def test_strangers_are_refused_at_a_measured_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    strangers = Strangers(Buckets(1.0, 1))
    refusal = RateLimitedError("failures", "no", 1.0)
    began = monotonic()
    for _ in range(300):
        strangers.slow_down(refusal)
    assert 0.4 < monotonic() - began < 2.0
    # Whoever turns out to be known is told at once what else is wrong.
    began = monotonic()
    for _ in range(300):
        strangers.slow_down(NotFoundError("they were known after all"))
    # And with too many waiting, nobody has to.
    monkeypatch.setattr(Lane, "is_full", property(lambda _: True))
    for _ in range(300):
        strangers.slow_down(refusal)
    assert monotonic() - began < 0.3


def test_strangers_wait_no_more_when_the_server_stops() -> None:
    strangers = Strangers()
    strangers.end()
    for _ in range(2000):
        strangers.slow_down(RateLimitedError("failures", "no", 1.0))
    strangers.lane.shutdown()


def test_only_what_memory_answers_runs_on_the_threads_of_decisions() -> None:
    pools = pools_of(ServerLimits(threads=1, streams=1, watchers=1, exports=1, mutations=1))
    others = {*RULES, *CREDENTIALS} - {*pools, *READS}
    assert {method.rpartition("/")[2] for method in others} == {
        *("Authorize", "BatchAuthorize", "GetCaller", "AgentHeartbeat")
    }


class Talk:
    """A stream whose client has gone."""

    licet_identity = ANONYMOUS

    def is_active(self) -> bool:
        return False

    def proceed(self) -> None:
        pass


def test_a_stream_that_finds_no_room_when_its_client_has_gone_gives_its_share_back() -> None:
    """Its end was told before it was open, while its key was looked for, and is not told again."""
    streams, shares = Streams(1), Shares(1)
    other: Any = Talk()
    late: Any = Talk()
    streams.open(other)
    opened = OpenStreams(streams, shares)
    opened.close(late)
    with pytest.raises(ExhaustedError):
        opened.open(None, late, late)
    assert (len(streams), len(shares)) == (1, 0)


def test_a_stream_whose_client_has_gone_is_counted_no_more() -> None:
    streams, shares = Streams(1), Shares(1)
    late: Any = Talk()
    opened = OpenStreams(streams, shares)
    opened.close(late)
    opened.open(None, late, late)
    assert (len(streams), len(shares)) == (0, 0)
