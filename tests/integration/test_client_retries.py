"""What the client library repeats and what it gives up, against a server that answers by script."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.message import Message

from licet.client import AuthorizeRequest, Client, LicetCallError
from licet.domain.errors import (
    ConflictError,
    DeadlineError,
    ExhaustedError,
    LicetError,
    OutcomeUnknownError,
    PreconditionError,
    RateLimitedError,
    UnavailableError,
)
from licet.server.status import status_of
from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2

SERVICE = "licet.v1.AuthorizationService"
REQUESTS: dict[str, type[Message]] = {
    "Authorize": pb.AuthorizeRequest,
    "BatchAuthorize": pb.BatchAuthorizeRequest,
    "Grant": pb.GrantRequest,
    "Revoke": pb.RevokeRequest,
}
ALLOW = pb.AuthorizeResponse(
    decision=decision_pb2.DECISION_ALLOW, reason=decision_pb2.REASON_GRANTED
)
GRANTED = pb.GrantResponse(revision=1)
UNKNOWN = OutcomeUnknownError("the connection was lost")
DOWN = UnavailableError("the database does not answer")

Answer: TypeAlias = "Message | LicetError | grpc.StatusCode | Event"


@dataclass
class Script:
    """A server that answers its calls one after the other as told; the last answer stays."""

    answers: deque[Answer]
    received: list[Any] = field(default_factory=list)
    address: str = ""

    def answer(self, request: Message, context: grpc.ServicerContext) -> Message:
        self.received.append(request)
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        match answer:
            case Message():
                return answer
            case LicetError():
                context.abort_with_status(status_of(answer))
            case grpc.StatusCode():
                context.abort(answer, "from in between")
            case Event():
                answer.wait(10)
        raise AssertionError


@contextmanager
def answering(*answers: Answer) -> Iterator[Script]:
    script = Script(deque(answers))

    def serialize(message: Message) -> bytes:
        return message.SerializeToString()

    handlers = {
        method: grpc.unary_unary_rpc_method_handler(script.answer, kind.FromString, serialize)
        for method, kind in REQUESTS.items()
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    script.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield script
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize(
    "passing", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, DOWN, ConflictError("race")]
)
def test_a_decision_is_asked_for_again_when_the_server_could_not_answer(
    passing: LicetError | grpc.StatusCode,
) -> None:
    with answering(passing, passing, ALLOW) as server, Client(server.address) as client:
        assert client.authorize("agent:a", "read", "doc:x").allowed
    assert len(server.received) == 3


@pytest.mark.parametrize("final", [grpc.StatusCode.RESOURCE_EXHAUSTED, DeadlineError("too late")])
def test_what_would_not_change_by_asking_again_is_not_repeated(
    final: LicetError | grpc.StatusCode,
) -> None:
    with answering(final) as server, Client(server.address) as client:
        with pytest.raises(LicetCallError):
            client.authorize("agent:a", "read", "doc:x")
        assert len(server.received) == 1


def grant(client: Client) -> object:
    return client.grant("agent:a", "read", "doc:x")


def decide(client: Client) -> object:
    return client.authorize("agent:a", "read", "doc:x")


@pytest.mark.parametrize(("call", "done"), [(decide, ALLOW), (grant, GRANTED)])
def test_who_is_told_when_to_come_again_does_so_then(
    call: Callable[[Client], object], done: Message
) -> None:
    limited = RateLimitedError("caller", "slow down", 0.3)
    with answering(limited, limited, done) as server, Client(server.address) as client:
        started = time.monotonic()
        call(client)
        assert 0.6 <= time.monotonic() - started < 2
    assert len(server.received) == 3


@pytest.mark.parametrize("call", [decide, grant])
def test_who_cannot_wait_so_long_or_is_limited_again_and_again_is_told(
    call: Callable[[Client], object],
) -> None:
    for seconds, attempts in ((5.0, 1), (0.01, 4)):
        limited = RateLimitedError("caller", "slow down", seconds)
        with answering(limited) as server, Client(server.address, timeout=3) as client:
            with pytest.raises(LicetCallError, match="slow down") as error:
                call(client)
            assert (error.value.code, error.value.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
            assert error.value.retry_after == timedelta(seconds=seconds)
            assert len(server.received) == attempts


def test_an_outage_is_reported_with_all_that_the_server_says_of_it() -> None:
    with answering(DOWN) as server, Client(server.address) as client:
        with pytest.raises(LicetCallError, match="the database does not answer") as error:
            client.authorize("agent:a", "read", "doc:x")
        assert (error.value.code, error.value.reason) == ("UNAVAILABLE", "UNAVAILABLE")
        assert error.value.retry_after == timedelta(milliseconds=250)
        assert len(server.received) == 4


def test_nobody_there_is_noticed_at_once_and_has_no_reason() -> None:
    started = time.monotonic()
    with Client("127.0.0.1:1") as client, pytest.raises(LicetCallError) as error:
        client.authorize("agent:a", "read", "doc:x")
    assert (error.value.code, error.value.reason) == ("UNAVAILABLE", "")
    assert time.monotonic() - started < 4


def test_a_decision_that_does_not_come_in_time_is_given_up() -> None:
    never = Event()
    with answering(never) as server, Client(server.address, timeout=0.2) as client:
        with pytest.raises(LicetCallError) as error:
            client.authorize("agent:a", "read", "doc:x")
        assert (error.value.code, error.value.reason) == ("DEADLINE_EXCEEDED", "")
        with pytest.raises(LicetCallError) as error:
            client.authorize("agent:a", "read", "doc:x", timeout=0.1)
        assert error.value.code == "DEADLINE_EXCEEDED"
        never.set()


def revoke(client: Client) -> object:
    return client.revoke(principal="agent:a")


@pytest.mark.parametrize(("change", "done"), [(grant, GRANTED), (revoke, pb.RevokeResponse())])
@pytest.mark.parametrize("passing", [UNKNOWN, DOWN, grpc.StatusCode.CANCELLED])
def test_a_change_is_repeated_under_the_same_request_id(
    change: Callable[[Client], object], done: Message, passing: LicetError | grpc.StatusCode
) -> None:
    with answering(passing, passing, done) as server, Client(server.address) as client:
        change(client)
    assert len(server.received) == 3
    assert len({request.request_id for request in server.received}) == 1
    assert server.received[0].request_id


def test_each_change_has_a_request_id_of_its_own_unless_one_is_given() -> None:
    with answering(GRANTED) as server, Client(server.address) as client:
        grant(client)
        grant(client)
        client.grant("agent:a", "read", "doc:x", request_id="mine")
    first, second, given = [request.request_id for request in server.received]
    assert first != second
    assert given == "mine"


def test_a_dry_run_has_no_request_id() -> None:
    with answering(pb.RevokeResponse()) as server, Client(server.address) as client:
        client.revoke(principal="agent:a", dry_run=True)
    assert server.received[0].request_id == ""


def test_a_refusal_after_an_unknown_outcome_settles_it() -> None:
    refusal = PreconditionError("PARENT_ENDED", "the parent capability has been revoked")
    with answering(UNKNOWN, refusal) as server, Client(server.address) as client:
        with pytest.raises(LicetCallError) as error:
            grant(client)
        assert (error.value.code, error.value.reason) == ("FAILED_PRECONDITION", "PARENT_ENDED")


@pytest.mark.parametrize(
    "then", [UNKNOWN, DOWN, DeadlineError("too late"), ExhaustedError("too many changes")]
)
def test_an_outcome_that_stays_unknown_is_reported_as_such(then: LicetError) -> None:
    with answering(UNKNOWN, then) as server, Client(server.address, timeout=1) as client:
        with pytest.raises(LicetCallError) as error:
            grant(client)
        assert error.value.reason == "OUTCOME_UNKNOWN"
        assert len(server.received) > 1


def test_a_change_that_is_not_answered_in_time_has_an_unknown_outcome() -> None:
    never = Event()
    with answering(never) as server, Client(server.address, timeout=0.2) as client:
        with pytest.raises(LicetCallError) as error:
            grant(client)
        assert (error.value.code, error.value.reason) == ("DEADLINE_EXCEEDED", "OUTCOME_UNKNOWN")
        never.set()


def test_a_change_that_the_server_says_did_not_happen_in_time_did_not_happen() -> None:
    with answering(DeadlineError("nothing happened")) as server, Client(server.address) as client:
        with pytest.raises(LicetCallError, match="nothing happened") as error:
            grant(client)
        assert error.value.reason == "DEADLINE_EXCEEDED"
        assert len(server.received) == 1


def test_an_answer_of_a_later_release_never_allows_by_accident() -> None:
    later = pb.AuthorizeResponse(decision=99, reason=77)  # type: ignore[arg-type] # not known here
    with answering(later) as server, Client(server.address) as client:
        decision = client.authorize("agent:a", "read", "doc:x")
    assert not decision.allowed
    assert decision.reason == "77"


def test_an_empty_answer_does_not_allow() -> None:
    with answering(pb.AuthorizeResponse()) as server, Client(server.address) as client:
        decision = client.authorize("agent:a", "read", "doc:x")
    assert not decision.allowed
    assert decision.reason == ""


def test_answers_that_cannot_be_paired_with_their_requests_are_an_error() -> None:
    short = pb.BatchAuthorizeResponse(responses=[ALLOW])
    requests = [AuthorizeRequest("agent:a", "read", f"doc:{i}") for i in range(2)]
    with (
        answering(short) as server,
        Client(server.address) as client,
        pytest.raises(LicetCallError, match="1 answers to 2 requests"),
    ):
        client.authorize_many(requests)


def test_an_error_from_in_between_is_no_error_of_licets() -> None:
    with answering(grpc.StatusCode.INTERNAL) as server, Client(server.address) as client:
        with pytest.raises(LicetCallError, match="from in between") as error:
            client.authorize("agent:a", "read", "doc:x")
        assert (error.value.code, error.value.reason) == ("INTERNAL", "")
