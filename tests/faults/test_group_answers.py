"""Decisions that wait for the disk hold no thread; each client is answered once, or told why."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import grpc
import pytest

from licet.app.recording import Acknowledge
from licet.server import known_grpc
from licet.server.streams import GO_ON_ELSEWHERE
from licet.spool.system import System
from licet.spool.writer import SpoolWriter
from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import all_stored, stored_decisions
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Failure, Served, failure, serving

CLIENTS = 64
THREADS = 16
"""How many calls a server runs at once."""
PATIENCE = 20.0


class Disk:
    """Syncs when it is let, and fails on demand: before it happens, or after."""

    def __init__(self) -> None:
        self.goes_on = Event()
        self.goes_on.set()
        self.fails = False
        self.happened = False
        self.asked: list[int] = []
        """The sequences of decisions that somebody wants to be told of."""

    def stop(self) -> None:
        """Hang, from the next sync on, and forget who asked before."""
        self.asked.clear()
        self.goes_on.clear()

    def has_been_asked(self, times: int) -> bool:
        return eventually(lambda: len(self.asked) >= times, PATIENCE)

    def sync(self, descriptor: int) -> None:
        assert self.goes_on.wait(PATIENCE)
        if self.happened or not self.fails:
            os.fdatasync(descriptor)
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()
    when = SpoolWriter.when

    def noting(
        writer: SpoolWriter, sequence: int, acknowledge: Acknowledge, *, waits: bool = True
    ) -> None:
        when(writer, sequence, acknowledge, waits=waits)
        made.asked.append(sequence)

    monkeypatch.setattr(System, "sync", lambda _, descriptor: made.sync(descriptor))
    monkeypatch.setattr(SpoolWriter, "when", noting)
    yield made
    made.goes_on.set()


def ask(served: Served, number: int, seconds: float = PATIENCE) -> list[grpc.Future[Any]]:
    """Begin calls, and return without waiting for their answers."""
    begun: list[Any] = [
        served.stub.Authorize.future(
            pb.AuthorizeRequest(
                principal="agent:a", action="read", resource="doc:x", correlation_id=str(i)
            ),
            timeout=seconds,
        )
        for i in range(number)
    ]
    return begun


def refusal(call: grpc.Future[Any]) -> Failure:
    with pytest.raises(grpc.RpcError) as caught:
        call.result(PATIENCE)
    return failure(caught.value)


def warm(served: Served) -> None:
    """Bring what the principal holds into memory, so that calls wait for the disk only."""
    served.authorize("agent:a", "read", "doc:x")


def answered(calls: list[grpc.Future[Any]]) -> list[str]:
    """Wait for all answers: each to its own question, no two with one event; return their ids."""
    answers = [call.result(PATIENCE) for call in calls]
    assert [answer.correlation_id for answer in answers] == [str(i) for i in range(len(calls))]
    ids = [answer.decision_id for answer in answers]
    assert len(set(ids)) == len(ids)
    return ids


def takes_other_calls(served: Served) -> bool:
    try:
        served.stub.ListCapabilities(pb.ListCapabilitiesRequest(), timeout=PATIENCE / 4)
    except grpc.RpcError:
        return False
    return True


def test_no_answer_leaves_before_its_sync_and_those_who_wait_hold_no_thread(
    database: Database, disk: Disk
) -> None:
    with serving(database) as served:
        warm(served)
        disk.stop()
        calls = ask(served, CLIENTS)
        assert disk.has_been_asked(CLIENTS)
        assert takes_other_calls(served)
        assert not any(call.done() for call in calls)
        disk.goes_on.set()
        ids = answered(calls)
        assert all_stored(database, ids)
    assert len(stored_decisions(database)) == len(set(stored_decisions(database))) == CLIENTS + 1


def test_clients_that_never_stop_asking_are_each_answered_once(database: Database) -> None:
    with serving(database) as served, ThreadPoolExecutor(CLIENTS) as pool:
        warm(served)

        def client(number: int) -> list[str]:
            asked = [f"{number}-{i}" for i in range(10)]
            answers = [
                served.authorize("agent:a", "read", "doc:x", correlation_id=i) for i in asked
            ]
            assert [answer.correlation_id for answer in answers] == asked
            return [answer.decision_id for answer in answers]

        ids = [i for told in pool.map(client, range(CLIENTS)) for i in told]
        assert len(set(ids)) == CLIENTS * 10
        assert all_stored(database, ids)


@pytest.mark.parametrize("happened", [False, True], ids=["failed", "happened"])
def test_a_failed_sync_refuses_all_who_wait_and_all_who_come(
    database: Database, disk: Disk, happened: bool
) -> None:
    with serving(database) as served:
        warm(served)
        disk.stop()
        calls = ask(served, CLIENTS)
        assert disk.has_been_asked(CLIENTS)
        disk.fails, disk.happened = True, happened
        disk.goes_on.set()
        for refused in map(refusal, calls):
            assert refused.code is grpc.StatusCode.UNAVAILABLE
            assert (refused.reason, refused.retry) == ("UNAVAILABLE", True)
            assert "writing to the disk failed" in refused.message
        disk.fails = False
        for refused in map(refusal, ask(served, THREADS)):
            assert refused.code is grpc.StatusCode.UNAVAILABLE
            assert "cannot be recorded" in refused.message


def test_clients_that_go_while_the_disk_hangs_leave_nothing_behind(
    database: Database, disk: Disk
) -> None:
    with serving(database, drain_seconds=PATIENCE) as served:
        warm(served)
        disk.stop()
        late, gone, stay = ask(served, CLIENTS, 2.0), ask(served, CLIENTS), ask(served, CLIENTS)
        assert disk.has_been_asked(3 * CLIENTS)
        for call in gone:
            call.cancel()
        assert {refusal(call).code for call in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        disk.goes_on.set()
        answered(stay)
        answered(ask(served, CLIENTS))
        # A call that is not over would hold up the draining until its grace is over.
        served.licet.stop()
    # Decided, and on record, though nobody was there to be told.
    assert len(stored_decisions(database)) >= 4 * CLIENTS + 1


def test_clients_that_go_before_a_sync_fails_leave_nothing_behind(
    database: Database, disk: Disk
) -> None:
    with serving(database) as served:
        warm(served)
        disk.stop()
        gone, stay = ask(served, CLIENTS), ask(served, CLIENTS)
        assert disk.has_been_asked(2 * CLIENTS)
        for call in gone:
            call.cancel()
        disk.fails = True
        disk.goes_on.set()
        assert {refusal(call).code for call in stay} == {grpc.StatusCode.UNAVAILABLE}


def test_draining_waits_for_those_who_wait_for_the_disk(database: Database, disk: Disk) -> None:
    with (
        serving(database, drain_seconds=PATIENCE) as served,
        ThreadPoolExecutor(1) as pool,
    ):
        warm(served)
        disk.stop()
        calls = ask(served, CLIENTS)
        assert disk.has_been_asked(CLIENTS)
        stopping = pool.submit(served.licet.stop)
        assert eventually(lambda: not takes_other_calls(served))
        assert not stopping.done()
        disk.goes_on.set()
        ids = answered(calls)
        stopping.result(PATIENCE)
    assert set(ids) < set(stored_decisions(database))


def test_a_stream_that_waits_for_the_disk_is_answered_before_the_server_goes(
    database: Database, disk: Disk
) -> None:
    over = Event()

    def one_message() -> Iterator[pb.StreamAuthorizeRequest]:
        asked = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
        yield pb.StreamAuthorizeRequest(requests=[asked])
        over.wait(PATIENCE)

    with (
        serving(database, drain_seconds=PATIENCE) as served,
        ThreadPoolExecutor(1) as pool,
    ):
        warm(served)
        disk.stop()
        stream: Any = served.stub.StreamAuthorize(one_message(), timeout=PATIENCE)
        assert disk.has_been_asked(1)
        stopping = pool.submit(served.licet.stop)
        assert eventually(lambda: not takes_other_calls(served))
        pause = Event()
        pause.wait(0.2)  # in which the server looks for idle streams several times
        disk.goes_on.set()
        (answer,) = next(stream).responses
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        over.set()
        assert failure(caught.value).message == GO_ON_ELSEWHERE
        stopping.result(PATIENCE)
    assert answer.decision_id in stored_decisions(database)


def test_without_what_is_private_to_grpc_decisions_wait_in_their_threads(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_grpc, "is_possible", lambda: False)
    with serving(database) as served:
        warm(served)
        answered(ask(served, CLIENTS))


def test_what_waits_for_the_disk_is_under_way_and_one_more_is_refused(
    database: Database, disk: Disk
) -> None:
    with serving(database, threads=2, max_calls=8) as served:
        warm(served)
        lane = served.licet.server.decisions
        disk.stop()
        waiting = ask(served, 8)
        assert disk.has_been_asked(8)
        assert eventually(lambda: lane.under_way == 8)
        full = refusal(*ask(served, 1))
        assert (full.code, full.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "EXHAUSTED")
        disk.goes_on.set()
        answered(waiting)
        assert eventually(lambda: lane.under_way == 0)
        answered(ask(served, 1))
