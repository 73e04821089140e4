"""Answers that leave together: whoever is silent holds nobody, and a bug in one ends that one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Timer
from time import monotonic
from typing import Any

import grpc
import pytest

from licet.server import hybrid
from licet.server.bunches import MAX_HELD, Bunch
from licet.v1 import authorization_pb2 as pb
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, calls_left, serving
from tests.faults.test_hybrid import PATIENCE, SERVICE, code_of, message, question

CALLS = 3 * MAX_HELD


@pytest.fixture
def served(database: Database) -> Iterator[Served]:
    """Provide a server whose serving thread answers, because it waits for no disk."""
    with serving(database, serving="auto", audit_durability="none") as made:
        made.authorize("agent:a", "read", "doc:x")
        yield made
        assert eventually(lambda: calls_left(made) == (0, 0), PATIENCE)


@contextmanager
def silent(served: Served, count: int) -> Iterator[list[Any]]:
    """Begin calls whose message does not come before the end."""
    bunch = bunch_of(served)
    ended = Event()

    def later() -> Iterator[pb.AuthorizeRequest]:
        assert ended.wait(PATIENCE)
        yield question("late")

    call = served.channel.stream_unary(
        f"{SERVICE}/Authorize",
        request_serializer=pb.AuthorizeRequest.SerializeToString,
        response_deserializer=pb.AuthorizeResponse.FromString,
    )
    calls = [call.future(later(), timeout=2 * PATIENCE) for _ in range(count)]
    assert eventually(lambda: len(bunch.awaited) == count)
    try:
        yield calls
    finally:
        ended.set()


def bunch_of(served: Served) -> Bunch:
    server: Any = served.licet.server
    for state in server._grpc._state.rpc_states:  # noqa: SLF001 - the methods are among the calls
        if isinstance(state, hybrid._Method):  # noqa: SLF001 - as above
            return state.bunch
    raise AssertionError("no method is served by hybrid.py")


def test_calls_whose_message_does_not_come_hold_no_answer(served: Served) -> None:
    with silent(served, 3) as late:
        for number in range(20):
            answer = served.authorize("agent:a", "read", "doc:x", correlation_id=str(number))
            assert answer.correlation_id == str(number)
        calls = [served.stub.Authorize.future(question(n), timeout=PATIENCE) for n in range(CALLS)]
        answers = [call.result() for call in calls]
        assert [answer.correlation_id for answer in answers] == [str(n) for n in range(CALLS)]
        assert not any(call.done() for call in late)
    assert [call.result().correlation_id for call in late] == ["late"] * 3
    assert not bunch_of(served).awaited


def test_a_silent_call_that_is_cancelled_is_awaited_no_more(served: Served) -> None:
    with silent(served, 2) as late:
        late[0].cancel()
        assert eventually(lambda: len(bunch_of(served).awaited) == 1)
    assert late[1].result().correlation_id == "late"


def test_answers_of_calls_that_are_cancelled_while_held_are_nobodys(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []

    def never_met(call: object) -> None:
        held.append(call)

    monkeypatch.setattr(hybrid._Call, "mark", never_met)  # noqa: SLF001 - see its name
    with silent(served, 1) as late:
        gone = served.stub.Authorize.future(question("gone"), timeout=PATIENCE)
        other = served.stub.Authorize.future(question("other"), timeout=PATIENCE)
        assert eventually(lambda: len(bunch_of(served)._held) == 2)  # noqa: SLF001 - see the name
        gone.cancel()
        assert code_of(gone) is grpc.StatusCode.CANCELLED
    # The last that was awaited has its message: all leave.
    assert [call.result().correlation_id for call in (other, *late)] == ["other", "late"]
    assert len(held) == 1


def test_a_server_that_stops_while_an_answer_is_held_stops(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = hybrid._Call.mark  # noqa: SLF001 - when it is met is what matters
    later: list[Timer] = []

    def late(call: Any) -> None:  # noqa: ANN401 - gRPC's
        later.append(Timer(0.5, mark, (call,)))
        later[0].start()

    monkeypatch.setattr(hybrid._Call, "mark", late)  # noqa: SLF001 - as above
    with serving(database, serving="auto", audit_durability="none") as served:
        served.authorize("agent:a", "read", "doc:x")
        bunch = bunch_of(served)
        with silent(served, 1):
            held: Any = served.stub.Authorize.future(question(), timeout=PATIENCE)
            assert eventually(lambda: len(bunch._held) == 1)  # noqa: SLF001 - see the name
            began = monotonic()
            served.licet.server.drain(0.2)
            assert monotonic() - began < PATIENCE / 2
            gone = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
            assert code_of(held) in gone
            assert not bunch._held  # noqa: SLF001 - as above
    assert len(later) == 1


@pytest.mark.parametrize("happened", [False, True])
def test_a_mark_that_cannot_be_put_holds_no_answer(
    served: Served, monkeypatch: pytest.MonkeyPatch, *, happened: bool
) -> None:
    mark = hybrid._Call.mark  # noqa: SLF001 - a bug in it

    def planted(call: Any) -> None:  # noqa: ANN401 - gRPC's
        if happened:
            mark(call)
        raise RuntimeError("planted")

    with silent(served, 1) as late:
        monkeypatch.setattr(hybrid._Call, "mark", planted)  # noqa: SLF001 - as above
        for name in "ab":
            answer = served.authorize("agent:a", "read", "doc:x", correlation_id=name)
            assert answer.correlation_id == name
        assert not late[0].done()
    assert late[0].result().correlation_id == "late"


@pytest.mark.parametrize("happened", [False, True])
def test_an_answer_that_cannot_be_sent_ends_its_call_and_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, happened: bool
) -> None:
    finish = hybrid._Call.finish  # noqa: SLF001 - a bug in it
    doomed: list[object] = []

    def planted(call: Any, answer: bytes | None = None, status: object = None) -> None:  # noqa: ANN401 - gRPC's
        fails = answer is not None and b"doomed" in answer
        if happened or not fails:
            finish(call, answer, status)
        if fails:
            doomed.append(call)
            raise RuntimeError("planted")

    monkeypatch.setattr(hybrid._Call, "finish", planted)  # noqa: SLF001 - before a method takes it
    with serving(database, serving="auto", audit_durability="none") as served:
        served.authorize("agent:a", "read", "doc:x")
        with silent(served, 1):
            names = ["a", "doomed", "b", "c"]
            calls: list[Any] = [
                served.stub.Authorize.future(question(name), timeout=PATIENCE) for name in names
            ]
            codes = [code_of(call) for call in calls]
        ok = grpc.StatusCode.OK
        assert codes == [ok, ok if happened else grpc.StatusCode.INTERNAL, ok, ok]
        assert len(doomed) == 1
        assert eventually(lambda: calls_left(served) == (0, 0), PATIENCE)


def test_many_streams_at_once_are_answered_together_each_in_its_order(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    leave = Bunch.flush

    def noting(bunch: Bunch) -> None:
        together.append(len(bunch._held))  # noqa: SLF001 - what leaves
        leave(bunch)

    monkeypatch.setattr(Bunch, "flush", noting)
    streams, messages = 40, 50
    answers = [
        served.stub.StreamAuthorize(
            iter([message(f"{stream}-{n}") for n in range(messages)]), timeout=PATIENCE
        )
        for stream in range(streams)
    ]
    for stream, given in enumerate(answers):
        ids = [answer.responses[0].correlation_id for answer in given]
        assert ids == [f"{stream}-{n}" for n in range(messages)]
    assert max(together) > 1
