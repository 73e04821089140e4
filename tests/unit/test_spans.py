"""Which calls are sampled, and that no span fails a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from licet.server.spans import SampledCall, SpanInterceptor, Spans
from licet.telemetry.tracing import Attributes, Parent, parent_of
from licet.v1 import authorization_pb2 as pb

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
METHOD = "/licet.v1.AuthorizationService/Authorize"


class Recorded:
    """A span, and what was said of it."""

    def __init__(self, name: str, parent: Parent | None) -> None:
        self.name = name
        self.parent = parent
        self.ends: list[tuple[Attributes, bool]] = []

    def end(self, attributes: Attributes, *, is_error: bool) -> None:
        self.ends.append((attributes, is_error))


class Recorder:
    """A tracer that keeps its spans."""

    sent = 0
    lost = 3

    def __init__(self) -> None:
        self.spans: list[Recorded] = []

    def start(self, name: str, parent: Parent | None, attributes: Attributes) -> Recorded:
        assert attributes["rpc.method"] == name.rpartition("/")[2]
        self.spans.append(Recorded(name, parent))
        return self.spans[-1]


class Broken(Recorder):
    """A tracer with a defect."""

    @override
    def start(self, name: str, parent: Parent | None, attributes: Attributes) -> Recorded:
        raise RuntimeError("planted")


class Ending:
    """What is needed of a call that ends."""

    def __init__(self, code: grpc.StatusCode | None = None, *, is_over: bool = False) -> None:
        self._code = code
        self._is_over = is_over
        self.callbacks: list[Callable[[], None]] = []

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if not self._is_over:
            self.callbacks.append(callback)
        return not self._is_over

    def code(self) -> grpc.StatusCode | None:
        return self._code


def followed(sampled: SampledCall, call: Ending) -> None:
    sampled.follow(cast("grpc.ServicerContext", call))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"00-{TRACE}-{CALLER}-00", False),
        (f"00-{TRACE}-{CALLER}-01", True),
        (f"00-{TRACE}-{CALLER}-02", False),
        (f"00-{TRACE}-{CALLER}-ff", True),
        (f"cc-{TRACE}-{CALLER}-01", True),
        (f"cc-{TRACE}-{CALLER}-01-what.the-future.brings", True),
        (f"fe-{TRACE}-{CALLER}-01-", True),
        (f"00-{TRACE}-{CALLER}-01-", None),
        (f"00-{TRACE}-{CALLER}-01-more", None),
        (f"cc-{TRACE}-{CALLER}-01.more", None),
        (f"ff-{TRACE}-{CALLER}-01", None),
        (f"00-{'0' * 32}-{CALLER}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE[1:]}-{CALLER}-01", None),
        (f"00-{TRACE}0-{CALLER}-01", None),
        (f"00-{TRACE}-{CALLER[1:]}-01", None),
        (f"00-{TRACE}-{CALLER}-1", None),
        (f"00-{TRACE}-{CALLER}-0x", None),
        (f"0-{TRACE}-{CALLER}-01", None),
        (f"00-{TRACE.upper()}-{CALLER}-01", None),
        (f" 00-{TRACE}-{CALLER}-01", None),
        (f"00-{TRACE}-{CALLER}-01\n", None),
        (f"00_{TRACE}_{CALLER}_01", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_the_w3c_says(text: str, expected: bool | None) -> None:
    parent = parent_of(text)
    if expected is None:
        assert parent is None
    else:
        assert parent == (int(TRACE, 16), int(CALLER, 16), expected)


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.*"))
def test_no_traceparent_is_too_odd(text: str) -> None:
    parent = parent_of(text)
    assert parent is None or (parent.trace_id > 0 and parent.span_id > 0)


@pytest.mark.parametrize(
    ("flags", "share", "coin", "expected"),
    [
        ("01", 0.0, 0.0, True),
        ("00", 0.0, 0.0, False),
        ("00", 1.0, 0.0, False),
        ("01", 1.0, 0.99, True),
        (None, 0.0, 0.0, False),
        (None, 0.5, 0.49, True),
        (None, 0.5, 0.5, False),
        (None, 1.0, 0.99, True),
        ("zz", 0.0, 0.0, False),
        ("zz", 0.5, 0.49, True),
        ("zz", 0.5, 0.5, False),
    ],
)
def test_what_the_parent_says_counts_and_without_one_the_share(
    flags: str | None, share: float, coin: float, expected: bool
) -> None:
    tracer = Recorder()
    metadata = [] if flags is None else [("traceparent", f"00-{TRACE}-{CALLER}-{flags}")]
    sampled = Spans(tracer, share, 10, lambda: coin).begun(METHOD, [("user-agent", "x"), *metadata])
    assert (sampled is not None) == expected
    assert len(tracer.spans) == expected
    if expected:
        assert tracer.spans[0].name == METHOD[1:]
        assert (tracer.spans[0].parent is not None) == (flags == "01")


def test_no_more_are_begun_than_the_rate_allows() -> None:
    tracer = Recorder()
    spans = Spans(tracer, 1.0, 5)
    begun = [spans.begun(METHOD, []) is not None for _ in range(50)]
    assert begun[:6] == [True] * 5 + [False]
    assert spans.lost == tracer.lost + begun.count(False)


def test_a_tracer_with_a_defect_fails_no_call(caplog: pytest.LogCaptureFixture) -> None:
    assert Spans(Broken(), 1.0, 10).begun(METHOD, []) is None
    assert "a span could not be begun" in caplog.text


def test_what_cannot_be_noted_or_ended_fails_no_call(caplog: pytest.LogCaptureFixture) -> None:
    class Defect(Recorded):
        @override
        def end(self, attributes: Attributes, *, is_error: bool) -> None:
            raise RuntimeError("planted")

    sampled = SampledCall(Defect(METHOD, None))
    sampled.note(pb.AuthorizeResponse(decision=cast("Any", 77)))
    sampled.note_bytes(b"\xff", pb.AuthorizeResponse.FromString)
    call = Ending()
    followed(sampled, call)
    call.callbacks[0]()
    followed(sampled, Ending(is_over=True))
    assert len(caplog.records) == 4


@pytest.mark.parametrize("is_over", [False, True])
def test_a_span_ends_with_its_call_even_if_that_is_over(is_over: bool) -> None:
    span = Recorded(METHOD, None)
    call = Ending(is_over=is_over)
    followed(SampledCall(span), call)
    assert bool(span.ends) == is_over
    for callback in call.callbacks:
        callback()
    assert [said["rpc.grpc.status_code"] for said, _ in span.ends] == [1]


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_only_what_is_the_servers_fault_is_an_error(code: grpc.StatusCode) -> None:
    span = Recorded(METHOD, None)
    sampled = SampledCall(span)
    sampled.is_answered = True
    followed(sampled, Ending(code, is_over=True))
    [(said, is_error)] = span.ends
    assert said["rpc.grpc.status_code"] == code.value[0]
    assert is_error == (
        code.name
        in {
            *("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"),
            "DATA_LOSS",
        }
    )


def test_what_does_not_exist_has_no_span() -> None:
    tracer = Recorder()
    interceptor = SpanInterceptor(Spans(tracer, 1.0, 10))
    details: Any = type("Details", (), {"method": "/licet.v1.None/None", "invocation_metadata": ()})
    assert interceptor.intercept_service(lambda _: None, details()) is None
    assert tracer.spans == []
