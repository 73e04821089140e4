"""The thread that serves decides what is in memory: it waits for nobody, and no bug ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from licet.app.ports import Deadline
from licet.replica.capability_sets import Cached
from licet.server import attempts, hybrid
from licet.spool.log import SpoolAuditLog
from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import struct
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import calls_left, serving
from tests.faults.test_hybrid import PATIENCE, SERVICE, message, question


def outcome(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as exc:
        return exc.code()
    return grpc.StatusCode.OK


def test_a_hit_is_decided_by_grpcs_thread_once_and_a_miss_by_the_one_that_reads_ahead(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, tried = Cached.get, []
    here, ahead, pool = "", "licet-ahead", "licet-rpc"

    def noting(sets: Any, name: Any, deadline: Deadline) -> Any:  # noqa: ANN401 - as the method
        if name == "agent:a":
            thread = threading.current_thread().name
            tried.append(next((known for known in (ahead, pool) if thread.startswith(known)), here))
        return get(sets, name, deadline)

    monkeypatch.setattr(Cached, "get", noting)
    with serving(database, serving="auto") as served:
        decisions = served.licet._trail.log  # noqa: SLF001 - what is on record
        for expected in ([here, ahead], [here], [here]):
            before = decisions.decisions
            tried.clear()
            served.authorize("agent:a", "read", "doc:x")
            assert tried == expected
            assert decisions.decisions == before + 1
        tried.clear()
        served.authorize("agent:a", "read", "doc:x", explain=True)
        assert tried == [pool]
        # What is large makes the others wait, even if it is refused in the end.
        tried.clear()
        large = struct(text="x" * 16_300)
        served.authorize("agent:a", "read", "doc:" + "x" * 300, context=large)
        assert tried == [pool]


def test_a_bug_after_the_answer_changes_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    when_durable = SpoolAuditLog.when_durable

    def answering_and_failing(*given: Any) -> None:  # noqa: ANN401 - as the method
        when_durable(*given)
        raise RuntimeError("planted")

    with serving(database, serving="auto", audit_durability="none") as served:
        served.authorize("agent:a", "read", "doc:x")
        with monkeypatch.context() as planted:
            planted.setattr(SpoolAuditLog, "when_durable", answering_and_failing)
            for number in range(5):
                answer = served.stub.Authorize(question(number), timeout=PATIENCE)
                assert answer.correlation_id == str(number)
        assert eventually(lambda: calls_left(served) == (0, 0))
    assert "a request failed on a bug" in caplog.text
    assert "could not be ended" not in caplog.text


def test_hits_are_answered_while_every_thread_waits_for_the_database(database: Database) -> None:
    with serving(database, serving="auto", threads=2) as served:
        served.grant("agent:a", "read", "doc:x")
        served.authorize("agent:a", "read", "doc:x")
        with database.connect() as other, other.transaction():
            other.execute("LOCK TABLE licet.capabilities")
            strangers: list[Any] = [
                served.stub.Authorize.future(
                    pb.AuthorizeRequest(principal=f"agent:{n}", action="read", resource="doc:x"),
                    timeout=PATIENCE,
                )
                for n in range(4)
            ]
            for number in range(20):
                assert served.stub.Authorize(question(number), timeout=2).capability_id
            assert not any(call.done() for call in strangers)
        for call in strangers:
            assert not call.result(PATIENCE).capability_id


@pytest.mark.parametrize(
    ("part", "step"),
    [
        *((hybrid._Call, step) for step in ("__init__", "proceed", "finish", "watch")),  # noqa: SLF001 - bugs in them
        *((attempts._Unary, step) for step in ("begin", "receive")),  # noqa: SLF001 - as above
        *((attempts._Conversation, step) for step in ("begin", "receive")),  # noqa: SLF001 - as above
    ],
)
@pytest.mark.parametrize("bug", [RuntimeError, SystemExit])
def test_a_bug_on_the_serving_thread_does_not_end_it(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    part: object,
    step: str,
    bug: type[BaseException],
) -> None:
    def planted(*_: object, **__: object) -> None:
        raise bug("planted")

    with serving(database, serving="auto") as served:
        silent: Any = served.channel.stream_unary(f"{SERVICE}/Authorize")
        served.authorize("agent:a", "read", "doc:x")  # in memory: it waits for nothing but the disk
        seen: set[grpc.StatusCode] = set()
        with monkeypatch.context() as plant:
            plant.setattr(part, step, planted)
            for call in (
                lambda: silent(iter([]), timeout=PATIENCE),
                lambda: served.stub.Authorize(question(), timeout=PATIENCE),
                lambda: list(served.stub.StreamAuthorize(iter([message()]), timeout=PATIENCE)),
                lambda: list(served.stub.StreamAuthorize(iter([]), timeout=PATIENCE)),
            ):
                seen.add(outcome(call))
        # Not even INTERNAL can be said without `finish`.
        unsaid = step in {"__init__", "finish"}
        expected = grpc.StatusCode.CANCELLED if unsaid else grpc.StatusCode.INTERNAL
        assert expected in seen
        assert seen <= {grpc.StatusCode.OK, expected, grpc.StatusCode.UNIMPLEMENTED}
        for _ in range(2):
            assert served.authorize("agent:a", "read", "doc:x").decision_id
        assert list(served.stub.StreamAuthorize(iter([message()]), timeout=PATIENCE))
        assert eventually(lambda: calls_left(served) == (0, 0))
        # Whatever was counted for a call is given back.
        assert eventually(lambda: served.licet.server.decisions.under_way == 0)
        assert len(served.licet.server.shares) == len(served.licet.server.streams) == 0
