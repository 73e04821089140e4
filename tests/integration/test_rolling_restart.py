"""A worker leaves without a failed call, also of clients that do not retry."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread
from typing import Self

import grpc
import pytest

from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import failure
from tests.fakes.terminal import Running
from tests.integration.test_cli_workers import supervised, workers_of

_SECONDS = 60.0
_ASKED = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
# Connections live for a second here, so that it does not take a minute to leave one's clients.
_SETTINGS = {"LICET_CONNECTION_SECONDS": "1"}


@contextmanager
def connected(address: str) -> Iterator[AuthorizationServiceStub]:
    """Provide a plain stub on a connection of its own: without retries but gRPC's own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        yield AuthorizationServiceStub(channel)


class Load:
    """Clients that call all the time, some on one connection and some on many."""

    def __init__(self, address: str, key: str = "") -> None:
        """Call the server at an address, with an API key if it wants one."""
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._address = address
        self._over = Event()
        self._threads = [
            *(Thread(target=self._on_one_connection) for _ in range(5)),
            Thread(target=self._on_many_connections),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_SECONDS)

    def _on_one_connection(self) -> None:
        with connected(self._address) as stub:
            while not self._over.is_set():
                self._call("one", stub)

    def _on_many_connections(self) -> None:
        while not self._over.is_set():
            with connected(self._address) as stub:
                self._call("many", stub)

    def _call(self, kind: str, stub: AuthorizationServiceStub) -> None:
        try:
            stub.Authorize(_ASKED, timeout=_SECONDS / 2, metadata=self._metadata)
        except grpc.RpcError as exc:
            self.failures.append(f"{kind}: {failure(exc)}")
        else:
            self.answers[kind] += 1


def replaced(server: Running, before: set[int]) -> bool:
    """Say whether none of the workers of before is left, and two others are there."""
    now = workers_of(server)
    return len(now) == 2 and not now & before


@pytest.mark.timeout(180)
def test_no_call_fails_while_every_worker_is_replaced_three_times(database: Database) -> None:
    with supervised(database, **_SETTINGS) as (server, address), Load(address) as load:
        for _ in range(3):
            before, answers = workers_of(server), load.answers.copy()
            server.process.send_signal(signal.SIGHUP)
            assert eventually(partial(replaced, server, before), _SECONDS)
            assert all(load.answers[kind] > answers[kind] for kind in ("one", "many"))
    assert load.failures == []


@pytest.mark.timeout(120)
def test_no_call_fails_when_one_worker_is_told_to_go(database: Database) -> None:
    with supervised(database, **_SETTINGS) as (server, address), Load(address) as load:
        gone = min(workers_of(server))
        os.kill(gone, signal.SIGTERM)
        assert eventually(lambda: gone not in workers_of(server), _SECONDS)
        assert eventually(lambda: len(workers_of(server)) == 2, _SECONDS)
    assert load.failures == []


@pytest.mark.timeout(120)
def test_streams_are_told_to_go_on_elsewhere_and_can(database: Database) -> None:
    with supervised(database, **_SETTINGS) as (server, address), connected(address) as stub:
        outgoing: SimpleQueue[pb.StreamAuthorizeRequest | None] = SimpleQueue()
        decisions = stub.StreamAuthorize(iter(outgoing.get, None))
        changes = stub.WatchChanges(pb.WatchChangesRequest())
        outgoing.put(pb.StreamAuthorizeRequest(requests=[_ASKED]))
        assert len(next(decisions).responses) == 1
        next(changes)
        before = workers_of(server)
        server.process.send_signal(signal.SIGHUP)
        for stream in (decisions, changes):
            with pytest.raises(grpc.RpcError) as told:
                for _ in stream:
                    pass
            assert failure(told.value).code is grpc.StatusCode.UNAVAILABLE
            assert "this replica is stopping" in failure(told.value).message
        # At once, and on the same channel: its worker is not called any more.
        again = stub.StreamAuthorize(iter([pb.StreamAuthorizeRequest(requests=[_ASKED])]))
        assert len(next(again).responses) == 1
        outgoing.put(None)
        assert eventually(lambda: replaced(server, before), _SECONDS)
