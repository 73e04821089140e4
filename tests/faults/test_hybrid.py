"""Decisions from memory hold no thread; whatever clients do, both ways of serving do the same."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import grpc
import pytest

from licet.domain import names
from licet.server import known_grpc
from licet.server.streams import GO_ON_ELSEWHERE
from licet.spool.log import SpoolAuditLog
from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import all_stored, refused
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.serving import Served, calls_left, serving

SERVICE = "/licet.v1.AuthorizationService"
PATIENCE = 20.0
STREAMS = 1000
ENDED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}
"""What a client may see that goes, or whose server does."""


@pytest.fixture(scope="module")
def storm(cluster: Cluster, migrated_template: Database, both_ways: str) -> Iterator[Served]:
    """Provide a server that all storms hit, with few threads."""
    assert both_ways
    with (
        cluster.database(migrated_template) as database,
        serving(
            database,
            threads=4,
            max_streams=STREAMS,
            max_streams_per_caller=STREAMS,
            max_connection_calls=2 * STREAMS,
        ) as served,
    ):
        served.grant("agent:a", "read", "doc:x")
        yield served


@pytest.fixture
def survives(storm: Served) -> Iterator[None]:
    """Whatever a test did, nothing is left of it, and the server decides and records."""
    yield
    assert eventually(lambda: len(storm.licet.server.streams) == 0, PATIENCE)
    assert eventually(lambda: calls_left(storm) == (0, 0), PATIENCE)
    answer = storm.authorize("agent:a", "read", "doc:x", correlation_id="after")
    assert (answer.correlation_id, bool(answer.capability_id)) == ("after", True)
    assert all_stored(storm.database, [answer.decision_id])


def question(number: object = "", resource: str = "doc:x") -> pb.AuthorizeRequest:
    return pb.AuthorizeRequest(
        principal="agent:a", action="read", resource=resource, correlation_id=str(number)
    )


def message(number: object = "", count: int = 1) -> pb.StreamAuthorizeRequest:
    return pb.StreamAuthorizeRequest(requests=[question(number)] * count)


def code_of(call: Any) -> grpc.StatusCode:  # noqa: ANN401 - a call
    code = call.code()
    assert isinstance(code, grpc.StatusCode)
    return code


class Waiting:
    """Streams that have sent their messages and stay open until `end`."""

    def __init__(self, served: Served, count: int, messages: int = 1) -> None:
        self.end = Event()
        self.calls: list[Any] = [
            served.stub.StreamAuthorize(self._messages(number, messages), timeout=3 * PATIENCE)
            for number in range(count)
        ]

    def _messages(self, number: int, count: int) -> Iterator[pb.StreamAuthorizeRequest]:
        for _ in range(count):
            yield message(number)
        self.end.wait(3 * PATIENCE)


@pytest.mark.usefixtures("survives")
def test_a_storm_of_calls_that_are_cancelled_or_late_leaves_nothing_behind(storm: Served) -> None:
    calls: list[Any] = []
    for number in range(900):
        late = number % 3 == 0
        call = storm.stub.Authorize.future(question(number), timeout=0.0005 if late else PATIENCE)
        calls.append(call)
        if number % 3 == 1:
            call.cancel()
    seen: Counter[tuple[int, grpc.StatusCode]] = Counter()
    for number, call in enumerate(calls):
        code = code_of(call)
        seen[number % 3, code] += 1
        if code is grpc.StatusCode.OK:
            assert call.result().correlation_id == str(number)
    assert {code for _, code in seen} <= ENDED
    assert seen[2, grpc.StatusCode.OK] == 300, seen
    assert seen[0, grpc.StatusCode.DEADLINE_EXCEEDED]
    assert seen[1, grpc.StatusCode.CANCELLED]


@pytest.mark.usefixtures("survives")
@pytest.mark.parametrize("method", ["Authorize", "BatchAuthorize"])
def test_what_is_no_call_is_refused_in_the_same_words(storm: Served, method: str) -> None:
    raw: Callable[..., bytes] = storm.channel.unary_unary(f"{SERVICE}/{method}")
    for garbage in (b"\xff", b"\xff" * 20_000):
        invalid = refused(lambda g=garbage: raw(g, timeout=PATIENCE))  # type: ignore[misc] # bound now
        assert (invalid.code, invalid.fields) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            ("request",),
        )
    silent: Any = storm.channel.stream_unary(f"{SERVICE}/{method}")
    none = refused(lambda: silent(iter([]), timeout=PATIENCE))
    assert none.code is grpc.StatusCode.UNIMPLEMENTED
    assert none.message == "\"b''\" requires exactly one request message."
    oversized = refused(lambda: raw(bytes(5 * 1024 * 1024), timeout=PATIENCE))
    assert oversized.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    unknown: Callable[..., bytes] = storm.channel.unary_unary(f"{SERVICE}/{method}2")
    missing = refused(lambda: unknown(b"", timeout=PATIENCE))
    assert missing.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.usefixtures("survives")
def test_a_stream_without_messages_and_one_with_garbage_end_as_they_should(storm: Served) -> None:
    raw: Any = storm.channel.stream_stream(f"{SERVICE}/StreamAuthorize")
    silent = raw(iter([]), timeout=PATIENCE)
    assert list(silent) == []
    assert code_of(silent) is grpc.StatusCode.OK
    invalid = refused(lambda: list(raw(iter([b"\xff"]), timeout=PATIENCE)))
    assert (invalid.code, invalid.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("request",))
    oversized = refused(lambda: list(raw(iter([bytes(5 * 1024 * 1024)]), timeout=PATIENCE)))
    assert oversized.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.usefixtures("survives")
def test_a_thousand_idle_streams_leave_room_for_calls(storm: Served, both_ways: str) -> None:
    waiting = Waiting(storm, STREAMS)
    try:
        for number, call in enumerate(waiting.calls):
            (answer,) = next(call).responses
            assert answer.correlation_id == str(number)
        assert len(storm.licet.server.streams) == STREAMS
        excess = refused(lambda: next(storm.stub.StreamAuthorize(iter([message()]))))
        assert excess.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert storm.authorize("agent:a", "read", "doc:x").capability_id
        held = sum(thread.name.startswith("licet-stream") for thread in threading.enumerate())
        assert held == (0 if both_ways == "auto" else STREAMS + 1)
        for call in waiting.calls[::2]:
            call.cancel()
    finally:
        waiting.end.set()
    for call in waiting.calls[1::2]:
        assert list(call) == []
        assert code_of(call) is grpc.StatusCode.OK


@pytest.mark.usefixtures("survives")
def test_who_reads_nothing_is_asked_for_nothing_more(storm: Served) -> None:
    total, count = 600, 100
    sent: list[int] = []

    def messages() -> Iterator[pb.StreamAuthorizeRequest]:
        for number in range(total):
            sent.append(number)
            yield message(number, count)

    log = storm.licet._trail.log  # noqa: SLF001 - what was decided, and not yet taken by the client
    before = log.decisions
    call: Any = storm.stub.StreamAuthorize(messages(), timeout=3 * PATIENCE)
    assert eventually(lambda: log.decisions > before, PATIENCE)
    still = Event()
    seen = -1
    while seen != (seen := log.decisions):
        still.wait(0.5)
    # A window of HTTP/2, and the answer that does not fit into it any more.
    assert log.decisions - before < total * count / 2
    assert [m.responses[0].correlation_id for m in call] == [str(n) for n in range(total)]
    assert log.decisions - before == total * count


CLIENT = """
import sys, threading, grpc
from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
stub = AuthorizationServiceStub(grpc.insecure_channel(sys.argv[1]))
question = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
def messages():
    while True:
        yield pb.StreamAuthorizeRequest(requests=[question] * 20)
def stream():
    for answer in stub.StreamAuthorize(messages()): pass
for _ in range(10):
    threading.Thread(target=stream, daemon=True).start()
for number in range(10**9):
    calls = [stub.Authorize.future(question) for _ in range(50)]
    calls[0].result()
    if number == 3:
        print("busy", flush=True)
"""


@pytest.mark.usefixtures("survives")
def test_a_client_that_is_killed_leaves_nothing_behind(storm: Served) -> None:
    command = [sys.executable, "-c", CLIENT, storm.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"busy\n"
        assert calls_left(storm)[0] > 0
        client.kill()


@pytest.mark.usefixtures("survives")
@pytest.mark.parametrize("where", ["check", "decision"])
def test_a_bug_is_an_internal_error_and_no_more(
    storm: Served, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as planted:
        if where == "check":
            planted.setattr(names, "action", bug)
        else:
            for method in ("record", "record_all", "record_early"):
                planted.setattr(SpoolAuditLog, method, bug)
        batch = pb.BatchAuthorizeRequest(requests=[question()])
        for call in (
            lambda: storm.stub.Authorize(question(), timeout=PATIENCE),
            lambda: storm.stub.BatchAuthorize(batch, timeout=PATIENCE),
            lambda: list(storm.stub.StreamAuthorize(iter([message()]), timeout=PATIENCE)),
        ):
            failed = refused(call)
            assert (failed.code, failed.message) == (grpc.StatusCode.INTERNAL, "internal error")


@contextmanager
def busy(served: Served, clients: int) -> Iterator[list[tuple[grpc.StatusCode, str]]]:
    """Keep calling until calls fail; provide how each ended, with the decision's id."""
    ended: list[tuple[grpc.StatusCode, str]] = []

    def client() -> None:
        while True:
            try:
                answer = served.stub.Authorize(question(), timeout=PATIENCE)
            except grpc.RpcError as exc:
                ended.append((exc.code(), ""))
                return
            ended.append((grpc.StatusCode.OK, answer.decision_id))

    with ThreadPoolExecutor(clients) as pool:
        for _ in range(clients):
            pool.submit(client)
        yield ended


@pytest.mark.parametrize("durability", ["none", "group"])
def test_draining_answers_or_refuses_each_and_loses_none(
    database: Database, both_ways: str, durability: str
) -> None:
    with serving(database, serving=both_ways, audit_durability=durability) as served:
        idle = Waiting(served, 20)
        for call in idle.calls:
            next(call)
        with busy(served, 8) as ended:
            assert eventually(lambda: len(ended) > 100, PATIENCE)
            served.licet.stop()
        for call in idle.calls:
            gone = refused(lambda c=call: list(c))  # type: ignore[misc] # bound now
            assert (gone.code, gone.message) == (grpc.StatusCode.UNAVAILABLE, GO_ON_ELSEWHERE)
        idle.end.set()
    assert {code for code, _ in ended} <= ENDED
    assert all_stored(database, [decision for _, decision in ended if decision])


def test_calls_whose_message_never_comes_are_refused_beyond_a_bound(database: Database) -> None:
    with serving(database, serving="auto") as served:
        inner: Any = served.licet.server._grpc  # noqa: SLF001 - nothing else knows
        inner._state.maximum_concurrent_rpcs = 20  # noqa: SLF001 - of thousands
        end = Event()

        def never() -> Iterator[bytes]:
            end.wait(PATIENCE)
            yield from ()

        silent: Any = served.channel.stream_unary(f"{SERVICE}/Authorize")
        calls = [silent.future(never(), timeout=PATIENCE) for _ in range(30)]
        assert eventually(lambda: sum(call.done() for call in calls) >= 10, PATIENCE)
        for call in calls:
            if call.done():
                assert code_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
        full = refused(lambda: served.stub.Authorize(question(), timeout=PATIENCE))
        assert full.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        end.set()
        assert eventually(lambda: calls_left(served) == (0, 0), PATIENCE)
        assert served.authorize("agent:a", "read", "doc:x").decision_id


def test_a_grpc_that_is_not_known_is_served_with_its_own_threads(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(known_grpc, "is_possible", lambda: False)
    with serving(database, serving="auto") as served:
        assert "is not known" in caplog.text
        waiting = Waiting(served, 1)
        next(waiting.calls[0])
        assert any(t.name.startswith("licet-stream") for t in threading.enumerate())
        waiting.end.set()
        assert served.authorize("agent:a", "read", "doc:x").decision_id
