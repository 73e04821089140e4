"""Authorize in batches and on streams: in which order, how many, and what a bad question ends."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2 as d
from tests.fakes.api import all_stored, count, refused, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving

pytestmark = pytest.mark.usefixtures("both_ways")

_INVALID = grpc.StatusCode.INVALID_ARGUMENT


def _ask(principal: str, resource: str = "doc:x", **fields: Any) -> pb.AuthorizeRequest:  # noqa: ANN401 - a field
    return pb.AuthorizeRequest(principal=principal, action="read", resource=resource, **fields)


def _revoke(served: Served, capability_id: str) -> None:
    served.stub.Revoke(pb.RevokeRequest(capability_id=capability_id), timeout=10)


def test_a_batch_is_answered_in_order_at_one_instant(served: Served, database: Database) -> None:
    ids = {i: served.grant(f"agent:{i}", "read", "doc:x") for i in range(0, 20, 2)}
    requests = [_ask(f"agent:{i}", correlation_id=f"c-{i}") for i in range(20)]
    for _ in range(2):  # from the database, then from memory
        answers = served.stub.BatchAuthorize(
            pb.BatchAuthorizeRequest(requests=requests), timeout=10
        ).responses
        assert [a.correlation_id for a in answers] == [r.correlation_id for r in requests]
        assert [a.capability_id for a in answers] == [ids.get(i, "") for i in range(20)]
        assert all_stored(database, [a.decision_id for a in answers])
        instants = rows(
            database,
            "SELECT DISTINCT occurred_at FROM audit.events WHERE event_id = ANY (%s::uuid[])",
            [a.decision_id for a in answers],
        )
        assert len(instants) == 1


def test_a_batch_of_a_thousand_is_answered_and_one_more_is_refused(served: Served) -> None:
    served.grant("agent:a", "read", "doc:x")
    full = pb.BatchAuthorizeRequest(requests=[_ask("agent:a")] * 1000)
    assert len(served.stub.BatchAuthorize(full, timeout=10).responses) == 1000
    full.requests.append(_ask("agent:a"))
    for batch in (full, pb.BatchAuthorizeRequest()):
        invalid = refused(lambda b=batch: served.stub.BatchAuthorize(b, timeout=10))  # type: ignore[misc] # bound now
        assert (invalid.code, invalid.fields) == (_INVALID, ("requests",))


def test_one_malformed_item_refuses_the_whole_batch(served: Served, database: Database) -> None:
    requests = [_ask("agent:a"), _ask("agent:a"), _ask("nobody"), _ask("")]
    invalid = refused(
        lambda: served.stub.BatchAuthorize(pb.BatchAuthorizeRequest(requests=requests), timeout=10)
    )
    assert (invalid.code, invalid.fields) == (_INVALID, ("requests[2].principal",))
    marker = served.authorize("agent:marker", "read", "doc:x").decision_id
    assert all_stored(database, [marker])
    decisions = "SELECT count(*) FROM audit.events WHERE event_type = 'decision'"
    assert count(database, decisions) == 1


class Stream:
    """A stream that the test writes to and reads from step by step."""

    def __init__(self, served: Served) -> None:
        """Open it."""
        self._requests: SimpleQueue[pb.StreamAuthorizeRequest | None] = SimpleQueue()
        self.call = served.stub.StreamAuthorize(self._sent(), timeout=20)

    def _sent(self) -> Iterator[pb.StreamAuthorizeRequest]:
        while (request := self._requests.get()) is not None:
            yield request

    def send(self, *requests: pb.AuthorizeRequest) -> None:
        """Send one message."""
        self._requests.put(pb.StreamAuthorizeRequest(requests=requests))

    def finish(self) -> None:
        """Send no more."""
        self._requests.put(None)

    def ask(self, *requests: pb.AuthorizeRequest) -> list[pb.AuthorizeResponse]:
        """Send one message and wait for its answer."""
        self.send(*requests)
        return list(next(self.call).responses)


@pytest.fixture
def stream(served: Served) -> Iterator[Stream]:
    opened = Stream(served)
    yield opened
    opened.finish()
    opened.call.cancel()


def test_a_stream_answers_in_order_and_sees_changes(served: Served, stream: Stream) -> None:
    allowed = served.grant("agent:a", "read", "doc:x")
    for number in range(50):
        stream.send(*(_ask("agent:a", correlation_id=f"{number}-{i}") for i in range(3)))
    for number in range(50):
        answers = next(stream.call).responses
        assert [a.correlation_id for a in answers] == [f"{number}-{i}" for i in range(3)]
        assert {a.capability_id for a in answers} == {allowed}
    _revoke(served, allowed)
    (denied,) = stream.ask(_ask("agent:a"))
    assert denied.reason == d.REASON_CAPABILITY_REVOKED
    stream.finish()
    assert list(stream.call) == []
    assert stream.call.code() is grpc.StatusCode.OK


def test_a_malformed_request_ends_a_stream_after_what_came_before(stream: Stream) -> None:
    stream.send(_ask("agent:a", correlation_id="1"))
    stream.send(_ask("agent:a", correlation_id="2"))
    stream.send(_ask("agent:a"), _ask("agent:a", resource="doc:*"))
    stream.send(_ask("agent:a", correlation_id="never"))
    answered: list[str] = []
    invalid = refused(
        lambda: answered.extend(r.correlation_id for m in stream.call for r in m.responses)
    )
    assert answered == ["1", "2"]
    assert (invalid.code, invalid.fields) == (_INVALID, ("requests[1].resource",))


def test_streams_beyond_the_limit_are_refused_and_a_closed_one_makes_room(
    database: Database,
) -> None:
    with serving(database, max_streams=2, threads=2) as served:
        streams = [Stream(served) for _ in range(2)]
        for opened in streams:
            opened.ask(_ask("agent:a"))
        excess = Stream(served)
        too_many = refused(lambda: excess.ask(_ask("agent:a")))
        assert (too_many.code, too_many.retry) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        # Idle streams do not stand in the way of other calls.
        for _ in range(5):
            assert served.authorize("agent:a", "read", "doc:x").decision == d.DECISION_DENY
        streams[0].finish()
        assert list(streams[0].call) == []
        # A client that goes away makes room, too.
        streams[1].call.cancel()

        def has_room() -> bool:
            opened = Stream(served)
            streams.append(opened)
            try:
                return len(opened.ask(_ask("agent:a"))) == 1
            except grpc.RpcError:
                return False

        assert eventually(has_room)
        assert eventually(has_room)
        for opened in (*streams, excess):
            opened.finish()
            opened.call.cancel()
