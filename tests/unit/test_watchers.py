"""The places of those who watch."""

from __future__ import annotations

from threading import Event

import pytest

from licet.domain.errors import ExhaustedError
from licet.server.watchers import Watchers


class Call:
    """A call that notes that it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = Event()

    def cancel(self) -> None:
        self.cancelled.set()


def test_there_are_so_many_places() -> None:
    watchers = Watchers(2)
    with watchers.place(Call()):
        with watchers.place(Call()):
            with pytest.raises(ExhaustedError), watchers.place(Call()):
                pass
            assert len(watchers) == 2
        with watchers.place(Call()):
            pass
    assert len(watchers) == 0


def test_a_message_that_is_not_taken_costs_the_place() -> None:
    watchers = Watchers(2, stuck_seconds=0.1)
    watchers.start()
    stuck, idle = Call(), Call()
    with watchers.place(stuck) as place, watchers.place(idle) as quiet:
        with quiet.sending():
            pass
        with place.sending():
            assert stuck.cancelled.wait(20)
        assert not idle.cancelled.is_set()
    watchers.stop()


def test_a_message_may_take_its_time_until_the_server_drains() -> None:
    watchers = Watchers(1)
    watchers.start()
    call = Call()
    with watchers.place(call) as place, place.sending():
        assert not call.cancelled.wait(1)
        watchers.drain()
        assert call.cancelled.wait(20)
    watchers.stop()


def test_a_stream_that_is_dropped_gives_its_place_back() -> None:
    watchers = Watchers(1)
    stream = watchers.sent(Call(), iter(range(3)))
    assert next(stream) == 0
    assert len(watchers) == 1
    del stream
    assert len(watchers) == 0
    assert list(watchers.sent(Call(), range(3))) == [0, 1, 2]
    assert len(watchers) == 0
