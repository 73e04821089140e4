"""Calls that cannot be ended, and servers that hardly began: who counts is told all the same."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from typing_extensions import override

from licet.server import hybrid
from licet.spool.system import System
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import serving
from tests.faults.test_hybrid import PATIENCE, calls_left, code_of, question


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
