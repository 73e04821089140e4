"""When a stream of decisions ends, and who sends its last word."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread
from typing import cast

import grpc
import pytest

from licet.domain.errors import ExhaustedError, UnavailableError
from licet.server.status import status_of
from licet.server.streams import GO_ON_ELSEWHERE, Stream, Streams

ELSEWHERE = status_of(UnavailableError(GO_ON_ELSEWHERE))


class Call:
    """A call that notes what it ended with."""

    def __init__(self) -> None:
        self.code: object = None
        self.sent: list[object] = []
        self.over = Event()

    def set_code(self, code: object) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        assert "go on with a new stream" in details

    def set_trailing_metadata(self, metadata: object) -> None:
        assert metadata

    def send(self, answer: object) -> None:
        self.sent.append(answer)
        if answer is None:
            self.over.set()

    def stream(self) -> Stream:
        return Stream(cast("grpc.ServicerContext", self), self.send)


def echo(messages: Iterator[int]) -> Iterator[int]:
    yield from messages


def test_so_many_may_be_open() -> None:
    streams = Streams(1)
    first = streams.answered(Call().stream(), [1, 2], echo)
    assert next(first) == 1
    assert len(streams) == 1
    with pytest.raises(ExhaustedError):
        next(streams.answered(Call().stream(), [1], echo))
    assert list(first) == [2]
    assert len(streams) == 0


def test_what_was_asked_is_answered_and_then_the_stream_ends() -> None:
    streams, stopped = Streams(1), Event()
    answers = streams.answered(Call().stream(), [1, 2], echo)
    assert next(answers) == 1
    stopped.set()
    streams.end(stopped)
    with pytest.raises(UnavailableError):
        next(answers)
    assert len(streams) == 0


def test_one_that_waits_for_a_message_is_ended_from_outside_and_once() -> None:
    streams, stopped, call = Streams(1), Event(), Call()
    stream, waiting = call.stream(), Event()

    def nothing_more() -> Iterator[int]:
        yield 1
        waiting.set()
        assert call.over.wait(20)

    def serve() -> None:
        for answer in streams.answered(stream, nothing_more(), echo):
            call.send(answer)
        stream.finish()

    serving = Thread(target=serve)
    serving.start()
    assert waiting.wait(20)
    streams.end(stopped)
    serving.join(20)
    assert call.code is grpc.StatusCode.UNAVAILABLE
    assert call.sent == [1, None]


def test_a_message_that_came_when_the_stream_had_ended_is_not_answered() -> None:
    call = Call()
    stream = call.stream()

    def late() -> Iterator[int]:
        stream.end_idle(ELSEWHERE)
        yield 1

    assert list(Streams(1).answered(stream, late(), echo)) == []
    stream.finish()
    assert call.sent == [None]


def test_one_that_answers_is_not_ended_from_outside() -> None:
    call = Call()
    stream = call.stream()
    answers = Streams(1).answered(stream, [1], echo)
    next(answers)
    stream.end_idle(ELSEWHERE)
    assert call.sent == []
    assert list(answers) == []
    stream.finish()
    assert call.sent == [None]


def test_none_is_opened_when_the_server_ends() -> None:
    streams = Streams(1)
    streams.end(Event())
    with pytest.raises(UnavailableError):
        next(streams.answered(Call().stream(), [1], echo))
