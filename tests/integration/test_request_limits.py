"""How much may be asked: by a caller, from an address, and at once; and what they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from threading import Event
from time import monotonic
from typing import Any, cast

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from licet.server import strangers
from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2, identity_pb2
from tests.fakes.api import refused, rows
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Failure, Served, serving
from tests.integration.test_metrics import scraped

QUESTION = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
# Never full again while a test runs, but for the burst.
SLOW = 0.001
BURST = 1000
TOO_MANY = grpc.StatusCode.RESOURCE_EXHAUSTED


def ask(services: As) -> object:
    return services.authorization.Authorize(QUESTION, timeout=10)


def batch(services: As, size: int) -> object:
    request = pb.BatchAuthorizeRequest(requests=[QUESTION] * size)
    return services.authorization.BatchAuthorize(request, timeout=20)


def stream(services: As, *sizes: int) -> list[int]:
    messages = [pb.StreamAuthorizeRequest(requests=[QUESTION] * size) for size in sizes]
    answers = services.authorization.StreamAuthorize(iter(messages), timeout=20)
    return [len(answer.responses) for answer in answers]


def limited(call: Callable[[], object], limit: str) -> timedelta:
    """Return how long a call that is refused for a rate is told to wait."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    status = rpc_status.from_call(cast("grpc.Call", raised.value))
    assert status is not None
    failed = refused_as(raised.value)
    assert (failed.code, failed.reason) == (TOO_MANY, "RATE_LIMITED")
    assert failed.metadata == {"limit": limit}
    for detail in status.details:
        retry = RetryInfo()
        if detail.Unpack(retry):
            return retry.retry_delay.ToTimedelta()
    raise AssertionError(failed)


def refused_as(error: grpc.RpcError) -> Failure:
    return refused(partial(_raise, error))


def _raise(error: Exception) -> None:
    raise error


@contextmanager
def keyed(database: Database, **settings: object) -> Iterator[tuple[Served, str, str]]:
    """Serve a database with two keys, made before there are limits."""
    with serving(database) as served, calling(served.address) as admin:
        tokens = [make_key(admin, "authorize", "read").token for _ in range(2)]
    with serving(database, **settings) as served:
        yield served, tokens[0], tokens[1]


def test_a_caller_gets_its_burst_and_another_its_own(database: Database) -> None:
    with (
        keyed(database, caller_rate=SLOW, rate_burst=BURST) as (served, one, two),
        holding(served.address, one) as busy,
        holding(served.address, two) as quiet,
    ):
        # A batch counts with its questions, an empty or malformed one like one.
        batch(busy, 500)
        assert refused(lambda: batch(busy, 0)).code is grpc.StatusCode.INVALID_ARGUMENT
        # A stream counts when it is opened, and with the questions of each message.
        assert stream(busy, 100, 98) == [100, 98]
        batch(busy, 299)
        ask(busy)
        assert limited(lambda: ask(busy), "caller") >= timedelta(seconds=999)
        assert limited(lambda: batch(busy, 10), "caller") >= timedelta(seconds=9999)
        request = identity_pb2.GetCallerRequest()
        limited(lambda: busy.identity.GetCaller(request, timeout=10), "caller")
        ask(quiet)


def test_a_stream_ends_when_its_caller_has_asked_enough(database: Database) -> None:
    settings = {"caller_rate": SLOW, "rate_burst": BURST, "heartbeat_seconds": 0.1}
    with (
        keyed(database, **settings) as (served, one, two),
        holding(served.address, one) as busy,
        holding(served.address, two) as quiet,
    ):
        messages = [pb.StreamAuthorizeRequest(requests=[QUESTION] * 600)] * 2
        answers = busy.authorization.StreamAuthorize(iter(messages), timeout=20)
        assert len(next(answers).responses) == 600
        limited(lambda: next(answers), "caller")
        # What is sent to a watch is not what somebody asks.
        watch = quiet.authorization.WatchChanges(pb.WatchChangesRequest(), timeout=20)
        for _ in range(10):
            assert next(watch).HasField("heartbeat")
        watch.cancel()
        batch(quiet, 999)
        limited(lambda: ask(quiet), "caller")


@pytest.mark.parametrize("way", ["auto", "stock"])
def test_a_question_counts_once_though_what_it_needs_is_not_in_memory(
    database: Database, way: str
) -> None:
    """Then it is attempted twice: on gRPC's thread, which must not wait, and on another."""
    settings = {"caller_rate": SLOW, "address_rate": SLOW, "rate_burst": BURST, "serving": way}
    with (
        keyed(database, **settings) as (served, one, _),
        holding(served.address, one) as busy,
    ):
        for number in range(50):
            questions = [
                pb.AuthorizeRequest(
                    principal=f"agent:{number}-{i}", action="read", resource="doc:x"
                )
                for i in range(20)
            ]
            request = pb.BatchAuthorizeRequest(requests=questions)
            assert len(busy.authorization.BatchAuthorize(request, timeout=20).responses) == 20
        refused(lambda: ask(busy))


def test_what_is_in_memory_is_answered_while_every_place_is_taken(database: Database) -> None:
    with (
        serving(database, threads=2, max_calls=4, audit_durability="none") as served,
        ThreadPoolExecutor(4) as clients,
    ):
        served.authorize("agent:a", "read", "doc:x")
        with locked(database):
            ask_unknown = partial(served.authorize, "agent:unknown", "read", "doc:x")
            waiting = [clients.submit(ask_unknown) for _ in range(4)]
            assert eventually(lambda: served.licet.server.decisions.under_way == 4)
            assert refused(ask_unknown).code is TOO_MANY
            served.authorize("agent:a", "read", "doc:x")
        for call in waiting:
            assert call.result(20).decision == decision_pb2.DECISION_DENY


def test_who_waits_as_long_as_told_gets_through(database: Database) -> None:
    with (
        keyed(database, caller_rate=2000.0, rate_burst=BURST) as (served, one, _),
        holding(served.address, one) as busy,
    ):
        batch(busy, 1000)
        told = limited(lambda: batch(busy, 1000), "caller")
        assert timedelta(0) < told <= timedelta(seconds=0.5)
        Event().wait(told.total_seconds())
        batch(busy, 1000)


def test_an_address_has_a_limit_for_all_that_call_from_there(database: Database) -> None:
    with (
        keyed(database, address_rate=SLOW, rate_burst=BURST, listen="[::]:0", insecure_bind=True)
        as (served, one, two),
        holding(served.address, one) as first,
        holding(served.address, two) as second,
        holding(f"[::1]:{served.licet.server.port}", one) as elsewhere,
    ):  # fmt: skip
        batch(first, 999)
        ask(second)
        for caller in (first, second):
            assert limited(partial(ask, caller), "address")
        ask(elsewhere)


def test_without_the_settings_nobody_is_limited(database: Database) -> None:
    with keyed(database) as (served, one, _), holding(served.address, one) as busy:
        for _ in range(5):
            batch(busy, 1000)
        assert served.licet.server.authority.limited["caller"]._count == 0  # noqa: SLF001 - untouched


def wrong(token: str) -> str:
    """Return a text with the id of a key and another secret; it is not even one that was made."""
    return f"Bearer {token[:-20]}{'0' * 20}"


def test_whoever_fails_too_often_shuts_out_nobody_who_is_known(database: Database) -> None:
    settings = {"authentication": "required", "failure_rate": 0.5, "metrics_listen": "127.0.0.1:0"}
    with (
        keyed(database, **settings) as (served, known, unknown),
        holding(served.address, known) as good,
        holding(served.address, unknown) as late,
        calling(served.address, wrong(known)) as bad,
        calling(served.address) as without,
    ):
        ask(good)
        codes = [refused(partial(ask, bad)).code for _ in range(6)]
        # A burst of ten seconds' worth, and then no more of them is verified.
        assert codes == [grpc.StatusCode.UNAUTHENTICATED] * 5 + [TOO_MANY]
        assert limited(lambda: ask(bad), "failures") <= timedelta(seconds=2)
        ask(good)
        assert stream(good, 1) == [1]
        # Wrong, unknown and right: of what is not verified nothing is told.
        told = limited(lambda: ask(late), "failures")
        invented = "Bearer licet_" + "0" * 16 + "_" + "0" * 59
        with calling(served.address, invented) as guess:
            limited(lambda: ask(guess), "failures")
        # Who sends nothing tries nothing.
        assert refused(lambda: ask(without)).code is grpc.StatusCode.UNAUTHENTICATED
        Event().wait(told.total_seconds())
        ask(late)
        ask(late)
        found = scraped(served)
        assert found["licet_limited_failures_calls_total"] >= 4
        assert found["licet_calls_refused_total"] >= 10
    reasons = rows(database, "SELECT DISTINCT reason FROM audit.events WHERE actor ~ '^address'")
    assert {reason for (reason,) in reasons} == {"UNAUTHENTICATED", "RATE_LIMITED"}


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Let nobody read capabilities until the block ends."""
    with database.connect() as connection:
        connection.autocommit = False
        connection.execute("LOCK TABLE licet.capabilities IN ACCESS EXCLUSIVE MODE")
        try:
            yield
        finally:
            connection.rollback()


@pytest.mark.parametrize("kind", ["decisions", "reads"])
def test_what_comes_when_too_many_are_under_way_is_refused_at_once(
    database: Database, kind: str
) -> None:
    with (
        serving(database, threads=2, max_calls=6, metrics_listen="127.0.0.1:0") as served,
        ThreadPoolExecutor(6) as clients,
    ):
        calls: dict[str, Callable[[], object]] = {
            "decisions": partial(served.authorize, "agent:unknown", "read", "doc:x"),
            "reads": partial(
                served.stub.ListCapabilities, pb.ListCapabilitiesRequest(), timeout=20
            ),
        }
        served.authorize("agent:a", "read", "doc:x")
        other = {"decisions": "reads", "reads": "decisions"}[kind]
        with locked(database):
            waiting = [clients.submit(calls[kind]) for _ in range(6)]
            assert eventually(lambda: scraped(served)[f"licet_{kind}_under_way"] == 6)
            began = monotonic()
            full = refused(calls[kind])
            assert (full.code, full.reason, full.retry) == (TOO_MANY, "EXHAUSTED", True)
            for service in ("", "licet.v1.AuthorizationService"):
                assert healthy(served.channel, service) == HealthCheckResponse.SERVING
            assert reflected(served)
            # The other kind has threads and places of its own: this one is in memory.
            if kind == "reads":
                served.authorize("agent:a", "read", "doc:x")
            assert monotonic() - began < 1.5
        for call in waiting:
            assert call.result(20)
        assert eventually(lambda: scraped(served)[f"licet_{kind}_under_way"] == 0)
        assert calls[kind]()
        found = scraped(served)
        assert (found[f"licet_shed_{kind}_total"], found[f"licet_shed_{other}_total"]) == (1, 0)


def reflected(served: Served) -> bool:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    return bool(list(stub.ServerReflectionInfo(iter([request]), timeout=5)))


def test_a_caller_does_not_have_all_the_streams(database: Database) -> None:
    settings = {"max_streams_per_caller": 2, "max_streams": 3, "metrics_listen": "127.0.0.1:0"}
    over = Event()

    def opened(services: As) -> object:
        def messages() -> Iterator[pb.StreamAuthorizeRequest]:
            yield pb.StreamAuthorizeRequest(requests=[QUESTION])
            over.wait(30)

        answers = services.authorization.StreamAuthorize(messages(), timeout=30)
        next(answers)
        return answers

    with (
        keyed(database, **settings) as (served, one, two),
        holding(served.address, one) as greedy,
        holding(served.address, two) as other,
    ):
        try:
            kept = [opened(greedy)]
            watch = greedy.authorization.WatchChanges(pb.WatchChangesRequest(), timeout=30)
            next(watch)
            full = refused(lambda: opened(greedy))
            assert (full.code, full.reason, full.retry) == (TOO_MANY, "EXHAUSTED", True)
            assert "a caller may have 2" in full.message
            kept += [opened(other), opened(other)]
            watch.cancel()
            # Its part is free again, and now there are too many of all callers.
            assert eventually(lambda: "too many streams" in refused(lambda: opened(greedy)).message)
            assert scraped(served)["licet_shed_streams_total"] >= 2
        finally:
            over.set()


def test_a_connection_more_than_there_may_be_is_closed_and_one_less_makes_room(
    database: Database,
) -> None:
    alone = [("grpc.use_local_subchannel_pool", 1)]
    with serving(database, max_connections=2) as served:
        served.authorize("agent:a", "read", "doc:x")
        with grpc.insecure_channel(served.address, alone) as second:
            assert healthy(second) == HealthCheckResponse.SERVING
            with grpc.insecure_channel(served.address, alone) as third:
                assert refused(partial(healthy, third)).code is grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(served.address, alone) as again:
            assert healthy(again, wait_for_ready=True) == HealthCheckResponse.SERVING


def healthy(channel: grpc.Channel, service: str = "", *, wait_for_ready: bool = False) -> object:
    stub: Any = HealthStub(channel)
    request = HealthCheckRequest(service=service)
    return stub.Check(request, timeout=10, wait_for_ready=wait_for_ready).status


def test_a_connection_has_so_many_calls_under_way_and_its_client_waits_with_more(
    database: Database,
) -> None:
    with serving(database, max_connection_calls=1) as served:
        served.authorize("agent:a", "read", "doc:x")
        watch = served.stub.WatchChanges(pb.WatchChangesRequest(), timeout=30)
        next(watch)
        late = refused(lambda: served.stub.Authorize(QUESTION, timeout=0.3))
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        with calling(served.address) as elsewhere:
            ask(elsewhere)
        watch.cancel()
        served.authorize("agent:a", "read", "doc:x")


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_flood_waits_and_nobody_who_is_known_does(
    database: Database,
    is_stream: bool,
) -> None:
    many = 1000
    settings = {
        "authentication": "required",
        "metrics_listen": "127.0.0.1:0",
        "threads": 4,
        "max_connection_calls": many,
    }
    with (
        keyed(database, **settings) as (served, known, _),
        holding(served.address, known) as good,
        calling(served.address, wrong(known)) as bad,
    ):
        ask(good)
        begin = monotonic()
        flood: list[Any] = [
            bad.authorization.StreamAuthorize(iter(()), timeout=30)
            if is_stream
            else bad.authorization.Authorize.future(QUESTION, timeout=30)
            for _ in range(many)
        ]
        if not is_stream:  # a client takes longer to begin streams than they are made to wait
            assert eventually(lambda: scraped(served)["licet_strangers_under_way"] > many // 2)
        for _ in range(20):
            ask(good)
        # All were answered while the flood was not.
        assert is_stream or scraped(served)["licet_strangers_under_way"] > 0
        codes = [call.code() for call in flood]
        assert monotonic() - begin > (many - strangers.BURST) / strangers.PACE - 0.5
        assert codes.count(grpc.StatusCode.UNAUTHENTICATED) >= 100
        assert set(codes) == {grpc.StatusCode.UNAUTHENTICATED, TOO_MANY}
        assert eventually(lambda: scraped(served)["licet_strangers_under_way"] == 0)
        assert scraped(served)["licet_calls_refused_total"] == many
