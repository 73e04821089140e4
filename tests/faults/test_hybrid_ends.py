"""Calls that cannot be ended, and servers that hardly began: who counts is told all the same."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from typing_extensions import override

from licet.domain.errors import UnavailableError
from licet.server import hybrid
from licet.server.replies import Call
from licet.server.status import internal, status_of
from licet.spool.system import System
from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.fakes.api import refused
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, calls_left, serving
from tests.faults.test_hybrid import PATIENCE, code_of, question


def test_a_call_that_waits_for_the_disk_and_cannot_be_ended_gives_its_place_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    asked = Event()

    def failing(*_: object) -> None:
        asked.wait(PATIENCE)
        raise OSError

    with serving(database, serving="auto", audit_durability="group") as served:
        served.authorize("agent:a", "read", "doc:x")
        with monkeypatch.context() as plant:
            plant.setattr(System, "sync", failing)
            call: Any = served.stub.Authorize.future(question(), timeout=PATIENCE)
            assert eventually(lambda: served.licet.server.decisions.under_way == 1)
            plant.setattr(hybrid._Call, "finish", planted)  # noqa: SLF001 - a bug in it
            asked.set()
            assert code_of(call) is grpc.StatusCode.CANCELLED
        assert eventually(lambda: calls_left(served) == (0, 0))
        assert eventually(lambda: served.licet.server.decisions.under_way == 0)


def test_a_server_that_is_stopped_while_it_starts_stops() -> None:
    """A method is forgotten when it is told that no more calls come: gRPC must know it by then."""
    server = grpc.server(ThreadPoolExecutor(1), maximum_concurrent_rpcs=8)
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda *_: b"")
    server.add_registered_method_handlers("a.B", {"C": handler})
    stopped = Event()

    def stop() -> None:
        server.stop(None).wait()
        stopped.set()

    stopping = threading.Thread(target=stop, daemon=True)

    class Slow(set[object]):
        @override
        def add(self, element: object, /) -> None:
            stopping.start()
            stopped.wait(0.5)
            super().add(element)

    state: Any = server._state  # type: ignore[attr-defined] # noqa: SLF001 - what is private is its matter
    begin = hybrid.take_over(
        server, {"/a.B/C": lambda _: cast("Any", SimpleNamespace(is_stream=False))}
    )
    state.rpc_states = Slow()
    server.start()
    begin()
    assert stopped.wait(PATIENCE)


class Streams:
    """Streams whose messages are taken by a function, each by the serving thread."""

    is_stream = True

    def __init__(self, take: Callable[[Any, bytes | None], None]) -> None:
        self.receive = take

    def begin(self, call: Call) -> None:
        call.watch()
        call.proceed()

    def refuse(self, call: Call) -> None:
        call.end(internal())


@contextmanager
def streaming(take: Callable[[Any, bytes | None], None]) -> Iterator[tuple[Any, Any]]:
    """Provide the method of a client, and the state of the server that takes its messages so."""
    server = grpc.server(ThreadPoolExecutor(1), maximum_concurrent_rpcs=8)
    handler: Any = grpc.stream_stream_rpc_method_handler(lambda *_: iter(()))
    server.add_registered_method_handlers("a.B", {"C": handler})
    begin = hybrid.take_over(server, {"/a.B/C": lambda _: Streams(take)})
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    begin()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel.stream_stream("/a.B/C"), server._state  # type: ignore[attr-defined] # noqa: SLF001 - what is private is its matter
    finally:
        assert server.stop(None).wait(PATIENCE)


def test_a_message_that_comes_while_its_stream_is_told_to_go_is_not_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would be decided and recorded, and its client be told to ask elsewhere."""
    received: list[bytes | None] = []
    going = status_of(UnavailableError("go on elsewhere"))
    taking = hybrid._Call._received  # noqa: SLF001 - the moment that matters is inside

    def told_at_the_last_moment(call: Any, event: Any) -> Any:  # noqa: ANN401 - gRPC's
        call.end_idle(going)
        return taking(call, event)

    monkeypatch.setattr(hybrid._Call, "_received", told_at_the_last_moment)  # noqa: SLF001 - as above
    with streaming(lambda _, message: received.append(message)) as (stream, _):
        call = stream(iter([b"a"]), timeout=PATIENCE)
        assert code_of(call) is grpc.StatusCode.UNAVAILABLE
    assert received == []


def test_a_mark_of_a_call_that_is_forgotten_does_no_harm() -> None:
    """GRPC's serving thread would end if it were to forget one twice."""
    kept: list[Any] = []

    def take(call: Any, message: bytes | None) -> None:  # noqa: ANN401 - gRPC's
        if message == b"keep":
            kept.append(call)
            return
        for other in kept:
            other.mark()
        call.finish(message)

    with streaming(take) as (stream, state):
        gone = stream(iter([b"keep"]), timeout=PATIENCE)
        assert eventually(lambda: len(kept) == 1)
        gone.cancel()
        assert eventually(lambda: kept[0] not in state.rpc_states)
        for _ in range(2):
            assert list(stream(iter([b"a"]), timeout=PATIENCE)) == [b"a"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_batch_that_grpc_refuses_is_waited_for_by_nobody(count: int) -> None:
    """Then its core returns a number, and what the batch was to bring never comes."""

    def take(call: Any, message: bytes | None) -> None:  # noqa: ANN401 - gRPC's
        if message == b"doomed":
            operate, refused = call._operate, [8] * count  # noqa: SLF001 - for so many batches

            def refusing(operations: Any, tag: Any) -> Any:  # noqa: ANN401 - gRPC's
                return refused.pop() if refused else operate(operations, tag)

            call._operate = refusing  # noqa: SLF001 - as above
        call.finish(message)

    with streaming(take) as (stream, _):
        doomed = stream(iter([b"doomed"]), timeout=PATIENCE)
        with suppress(grpc.RpcError):
            assert list(doomed) == [b"doomed"]
        codes = (grpc.StatusCode.OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)
        assert code_of(doomed) is codes[count]
        assert list(stream(iter([b"a"]), timeout=PATIENCE)) == [b"a"]


def _kinds(served: Served) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield calls that are answered in different ways, each with a name."""
    stub, question = served.stub, pb.AuthorizeRequest(principal="agent:a", action="read")
    asking = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
    explained = pb.AuthorizeRequest(
        principal="agent:a", action="read", resource="doc:x", explain=True
    )
    yield "hit", lambda: stub.Authorize(asking, timeout=10)
    yield "explained", lambda: stub.Authorize(explained, timeout=10)
    yield "refused", lambda: refused(lambda: stub.Authorize(question, timeout=10))
    for size in (1, 3, 100, 300):
        batch = pb.BatchAuthorizeRequest(requests=[asking] * size)
        yield f"batch of {size}", partial(stub.BatchAuthorize, batch, timeout=10)
    wrong = pb.BatchAuthorizeRequest(requests=[asking, question])
    yield "refused batch", lambda: refused(lambda: stub.BatchAuthorize(wrong, timeout=10))
    for size in (1, 2):
        message = pb.StreamAuthorizeRequest(requests=[asking] * size)
        yield f"stream of {size}", partial(_streamed, stub, message)
    grant = pb.GrantRequest(principal="agent:b", actions=["read"], resource="doc:x")
    yield "grant", lambda: stub.Grant(grant, timeout=10)
    nothing = pb.RevokeRequest(capability_id="0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f")
    yield "revoke", lambda: refused(lambda: stub.Revoke(nothing, timeout=10))


def _streamed(stub: AuthorizationServiceStub, message: pb.StreamAuthorizeRequest) -> list[object]:
    return list(stub.StreamAuthorize(iter([message] * 2), timeout=10))


@pytest.mark.parametrize("durability", ["none", "group"])
def test_what_was_answered_leaves_nothing_of_its_call(database: Database, durability: str) -> None:
    """Else a connection would be short of streams until the garbage is collected."""
    with serving(database, max_connection_calls=4, audit_durability=durability) as served:
        served.grant("agent:a", "read", "doc:x")
        gc.collect()
        gc.disable()
        try:
            for name, call in _kinds(served):
                for _ in range(10):
                    assert call(), name
        finally:
            gc.enable()
