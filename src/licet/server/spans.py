"""Spans of sampled calls: which are sampled, and what is said of one.

A call is sampled if its `traceparent` says so; of those without a parent, a share is. Of one that
is not, the metadata was looked through and nothing else was done. Nothing that fails here reaches a
call.

The same is said of a call whoever answers it: `SpanInterceptor` sees those that gRPC gives to a
thread, `Spans.answers` those of `hybrid.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from random import random
from typing import Any, Final, cast

import grpc
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from typing_extensions import override

from licet.server.lanes import Tally
from licet.server.rates import Buckets
from licet.server.replies import Answering, Answers, Call, Reply
from licet.telemetry.tracing import Parent, Span, Tracer, parent_of
from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2

_log: Final = logging.getLogger(__name__)

_TRACEPARENT: Final = "traceparent"
_FLAGS: Final = slice(54, 55)
"""Where a `traceparent` has the digit that says whether it is sampled, in every version."""
_SAMPLED: Final = frozenset("13579bdf")
_OURS: Final = "/licet."
_ALLOW: Final = decision_pb2.DECISION_ALLOW
_ERRORS: Final = frozenset(
    {
        *(Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED),
        *(Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS),
    }
)
"""What is a server's error by OpenTelemetry's conventions; the others are their caller's."""
_RESPONSES: Final[Mapping[str, Callable[[bytes], Message]]] = {
    f"/licet.v1.AuthorizationService/{method}": response.FromString
    for method, response in (
        ("Authorize", pb.AuthorizeResponse),
        ("BatchAuthorize", pb.BatchAuthorizeResponse),
        ("StreamAuthorize", pb.StreamAuthorizeResponse),
    )
}
"""What reads the answers of those methods that are answered with bytes."""


class Spans:
    """See the module."""

    def __init__(
        self, tracer: Tracer, share: float, rate: float, coin: Callable[[], float] = random
    ) -> None:
        """Make spans with a tracer.

        Args:
            tracer: begins and sends them.
            share: of the calls without a parent, the part that is sampled.
            rate: how many are begun a second; of further calls they are lost.
            coin: returns something from 0 to less than 1 for each such call.
        """
        self._tracer = tracer
        self._share = share
        self._coin = coin
        # Who calls decides what is sampled, and each span costs as much as a decision.
        self._room = Buckets(rate, max(int(rate), 1))
        self._beyond = Tally()

    @property
    def sent(self) -> int:
        """How many spans were sent; read by metrics, as the following is."""
        return self._tracer.sent

    @property
    def lost(self) -> int:
        """How many spans of sampled calls were not, and never will be."""
        return self._tracer.lost + int(self._beyond)

    def begun(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> SampledCall | None:
        """Begin the span of a call that has come; None: it has none. It raises nothing."""
        try:
            for key, value in metadata:
                if key == _TRACEPARENT:  # once at most: gRPC keeps one
                    # Most say no, and are not read further.
                    if self._share or value[_FLAGS] in _SAMPLED:
                        return self._sampled(method, parent_of(cast("str", value)))
                    return None
            if self._share:
                return self._sampled(method, None)
        except Exception:  # noqa: BLE001 - the call goes on without
            _log.exception("a span could not be begun")
        return None

    def answers(
        self,
        method: str,
        answer: Answering,
        make: Callable[[Answering], Answers],
    ) -> Answers:
        """Return how a method's calls are answered, and sampled ones have a span.

        Args:
            method: its full name.
            answer: what answers a message.
            make: makes of that what answers the calls.
        """
        read = _RESPONSES.get(method)  # of the others there is nothing to be noted
        return _Sampling(self, method, make(answer if read is None else _noting(answer, read)))

    def _sampled(self, method: str, parent: Parent | None) -> SampledCall | None:
        is_sampled = parent.is_sampled if parent is not None else self._coin() < self._share
        if not is_sampled:
            return None
        if self._room.take(""):
            self._beyond.add()
            return None
        name = method[1:]
        service, _, procedure = name.partition("/")
        said = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": procedure}
        return SampledCall(self._tracer.start(name, parent, said))


class SampledCall:
    """A call that has a span. What its answers said is noted one after the other."""

    __slots__ = ("_allowed", "_decisions", "_said", "_span", "is_answered")

    def __init__(self, span: Span) -> None:
        """Have a span that was begun when the call came."""
        self._span = span
        self._said: dict[str, str | int] = {}
        self._decisions = 0
        self._allowed = 0
        self.is_answered = False
        """Whether the client had not gone when its last answer, or its refusal, was ready."""

    def follow(self, context: grpc.ServicerContext) -> None:
        """End the span with the call."""
        ended = partial(_harmless, self._end, context)
        if not context.add_callback(ended):
            ended()

    def note(self, answer: object) -> None:
        """Note what was decided, if anything was. It raises nothing."""
        _harmless(self._note, answer)

    def note_bytes(self, answer: bytes, read: Callable[[bytes], Message]) -> None:
        """Note what was decided, by an answer that is still to be read. It raises nothing."""
        _harmless(lambda: self._note(read(answer)))

    def _note(self, answer: object) -> None:
        if isinstance(answer, pb.AuthorizeResponse):
            self._said = {
                "licet.decision": _without_prefix(decision_pb2.Decision.Name(answer.decision)),
                "licet.reason": _without_prefix(decision_pb2.Reason.Name(answer.reason)),
                "licet.decision_id": answer.decision_id,
            }
        elif isinstance(answer, pb.BatchAuthorizeResponse | pb.StreamAuthorizeResponse):
            self._decisions += len(answer.responses)
            self._allowed += sum(one.decision == _ALLOW for one in answer.responses)
            self._said = {
                "licet.decisions": self._decisions,
                "licet.decisions.allowed": self._allowed,
            }

    def _end(self, context: grpc.ServicerContext) -> None:
        code = _code_of(context) if self.is_answered else Code.CANCELLED
        self._span.end({**self._said, "rpc.grpc.status_code": code}, is_error=code in _ERRORS)


class SpanInterceptor(grpc.ServerInterceptor):
    """Makes spans of the sampled calls that gRPC gives to threads. Before every other one.

    Of calls that are not ours, health's and reflection's, there are none.
    """

    def __init__(self, spans: Spans) -> None:
        """Make them by these."""
        self._spans = spans

    @override
    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler for a call; of a sampled one, it is made for that call alone."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        sampled = self._spans.begun(method, handler_call_details.invocation_metadata)
        return handler if sampled is None else _followed(handler, sampled)


class _Sampling:
    """Answers calls as others do, once those are sampled that have to be."""

    __slots__ = ("_begin", "_method", "_spans", "is_stream", "receive", "refuse")

    def __init__(self, spans: Spans, method: str, answers: Answers) -> None:
        self._spans = spans
        self._method = method
        self._begin = answers.begin
        self.is_stream = answers.is_stream
        self.receive = answers.receive
        # gRPC's own threads refuse without a word to anybody, too.
        self.refuse = answers.refuse

    def begin(self, call: Call) -> None:
        sampled = self._spans.begun(self._method, call.invocation_metadata())
        if sampled is not None:
            call.licet_sampled = sampled  # type: ignore[attr-defined] # as `attach` of identity.py
            sampled.is_answered = True  # otherwise the call's own `code` says so
            sampled.follow(call)
        self._begin(call)


@dataclass(frozen=True, slots=True)
class _Noting:
    """Answers a message of a sampled call."""

    reply: Reply
    sampled: SampledCall
    read: Callable[[bytes], Message]

    def send(self, message: bytes) -> None:
        self.sampled.note_bytes(message, self.read)
        self.reply.send(message)

    def end(self, status: grpc.Status) -> None:
        self.reply.end(status)


def _noting(answer: Answering, read: Callable[[bytes], Message]) -> Answering:
    def noting(request: Any, context: grpc.ServicerContext, reply: Reply) -> None:  # noqa: ANN401 - any message
        sampled = getattr(context, "licet_sampled", None)
        answer(request, context, reply if sampled is None else _Noting(reply, sampled, read))

    return noting


def _followed(handler: Any, sampled: SampledCall) -> Any:  # noqa: ANN401 - a handler of any messages
    """Return a handler for one call, on the threads of the one that it is for."""
    messages = (handler.request_deserializer, handler.response_serializer)
    if handler.unary_unary is not None:
        unary = _unary(handler.unary_unary, sampled)
        return grpc.unary_unary_rpc_method_handler(unary, *messages)
    if handler.unary_stream is not None:
        server_streaming = _server_streaming(handler.unary_stream, sampled)
        return grpc.unary_stream_rpc_method_handler(server_streaming, *messages)
    stream = _streaming(handler.stream_stream, sampled)
    return grpc.stream_stream_rpc_method_handler(stream, *messages)


def _unary(behavior: Callable[..., Any], sampled: SampledCall) -> Callable[..., Any]:
    @wraps(behavior)  # with the threads that it is to run on
    def call(request: object, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - any message
        sampled.follow(context)
        try:
            answer = behavior(request, context)
        finally:
            sampled.is_answered = context.is_active()
        sampled.note(answer)
        return answer

    return call


def _server_streaming(behavior: Callable[..., Any], sampled: SampledCall) -> Callable[..., Any]:
    @wraps(behavior)
    def call(request: object, context: grpc.ServicerContext) -> Iterator[Any]:
        sampled.follow(context)
        try:
            yield from behavior(request, context)
        finally:
            sampled.is_answered = context.is_active()

    return call


def _streaming(behavior: Callable[..., None], sampled: SampledCall) -> Callable[..., None]:
    @wraps(behavior)
    def call(
        requests: Iterator[Any], context: grpc.ServicerContext, send: Callable[[Any], None]
    ) -> None:
        def noted(answer: object) -> None:
            if answer is None:  # the end
                sampled.is_answered = context.is_active()
            else:
                sampled.note(answer)
            send(answer)

        sampled.follow(context)
        try:
            behavior(requests, context, noted)
        except BaseException:
            sampled.is_answered = context.is_active()
            raise

    return call


def _code_of(context: grpc.ServicerContext) -> int:
    """Return the status that a call has ended with."""
    code: grpc.StatusCode | int | None = context.code()  # type: ignore[attr-defined] # its stub lacks it
    if isinstance(code, grpc.StatusCode):
        return code.value[0]
    return code or Code.OK


def _harmless(step: Callable[..., object], *given: object) -> None:
    try:
        step(*given)
    except Exception:  # noqa: BLE001 - the call goes on
        _log.exception("a span could not be ended, or does not say what was decided")


def _without_prefix(name: str) -> str:
    return name.partition("_")[2]
