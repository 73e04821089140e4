"""Lets callers in, turns every exception into a status, and what cannot be parsed into one as well.

The one place in licet that catches everything. A handler is wrapped once per method, not once per
call. Who calls is found out before the message is looked at; of a stream, again with each message.
Which threads a call runs on is decided before that, by what can be told without verifying anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import grpc
from typing_extensions import override

from licet.domain.errors import ExhaustedError, LicetError
from licet.server.attempts import checked, questions, tolerant
from licet.server.authority import Admit, Authority
from licet.server.identity import identity_of
from licet.server.lanes import TOO_MANY, Lane, Shares
from licet.server.status import internal, status_of
from licet.server.streams import Stream, Streams

_log: Final = logging.getLogger(__name__)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Behavior: TypeAlias = Callable[[Any, grpc.ServicerContext], Any]
_Callable = TypeVar("_Callable", bound=Callable[..., Any])
_Note: TypeAlias = Callable[[LicetError, grpc.ServicerContext], None]


_OURS: Final = "/licet."
_FOREIGN_STREAMS: Final = 16
_FOREIGN_CALLS: Final = 2
_REFUSERS: Final = 2


@dataclass(frozen=True, slots=True)
class _Route:
    """Where a method's calls go.

    Attributes:
        usual: those of callers who are known.
        lane: of those; None: they have places instead.
        strange: those of strangers; None: the same.
        shed: those that come when the lane is full.
    """

    usual: _Handler
    lane: Lane | None = None
    strange: _Handler | None = None
    shed: _Handler | None = None


class Interceptor(grpc.ServerInterceptor):
    """See the module. Health and reflection, which are not ours, pass nearly as they are."""

    def __init__(
        self,
        authority: Authority,
        streams: Streams,
        shares: Shares,
        lane: Lane,
        pools: Mapping[str, ThreadPoolExecutor],
    ) -> None:
        """Run streams and changes on pools of their own, one for each method, by its name.

        On the shared one, a few idle streams, or changes that wait for a replica that is stopped,
        would shut out every other call. Those without a pool run in `lane`, which is gRPC's own;
        `shares` are each caller's part of the streams. What `hybrid.py` takes over is not seen.
        """
        self._authority = authority
        self._streams = streams
        self._shares = shares
        self._lane = lane
        self._pools = pools
        self._foreign_pool = ThreadPoolExecutor(_FOREIGN_STREAMS, "licet-reflection")
        # Whoever asks for health is to be answered however many others wait.
        self._health_pool = ThreadPoolExecutor(_FOREIGN_CALLS, "licet-health-calls")
        self._refusing = ThreadPoolExecutor(_REFUSERS, "licet-refusing")
        # Methods that do not exist are never kept, so clients cannot fill memory.
        self._routes: dict[str, _Route] = {}

    @override
    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the wrapped handler for a call."""
        method = handler_call_details.method
        route = self._routes.get(method)
        if route is None:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            route = self._route(method, handler)
            self._routes[method] = route
        if route.strange is not None and not self._authority.may_know(
            handler_call_details.invocation_metadata
        ):
            return route.strange
        is_full = route.lane is not None and route.lane.is_full
        return route.shed if is_full and route.shed is not None else route.usual

    def _route(self, method: str, handler: _Handler) -> _Route:
        if not method.startswith(_OURS):
            return _Route(self._apart(handler))
        note, pool = self._authority.note, self._pools.get(method, self._lane)
        usual = self._wrap(method, handler, pool, note)
        if handler.unary_unary is None and not isinstance(pool, Lane):
            return _Route(usual)  # it can last, and would keep one of their threads for good
        strangers = self._authority.strangers

        def note_slowly(error: LicetError, context: grpc.ServicerContext) -> None:
            note(error, context)
            strangers.slow_down(error)

        strange = self._wrap(method, handler, strangers.lane, note_slowly)
        if not isinstance(pool, Lane):
            return _Route(usual, strange=strange)
        return _Route(usual, pool, strange, _shedding(pool, self._refusing))

    def _apart(self, handler: _Handler) -> _Handler:
        """Run another service's calls apart, too: reflection's may idle as long as they like."""
        stream, unary = handler.stream_stream, handler.unary_unary
        if unary is not None:

            def call(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - any message
                return unary(request, context)

            return grpc.unary_unary_rpc_method_handler(
                _on(self._health_pool, call),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if stream is None:
            return handler

        def behavior(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            return stream(requests, context)

        return grpc.stream_stream_rpc_method_handler(
            _on(self._foreign_pool, behavior),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _wrap(
        self, method: str, handler: _Handler, pool: ThreadPoolExecutor, note: _Note
    ) -> _Handler:
        deserialize, serialize = (
            tolerant(handler.request_deserializer),
            handler.response_serializer,
        )
        admit = self._authority.admission(method)
        if handler.unary_unary is not None:
            behavior = _on(pool, _unary(handler.unary_unary, admit, note))
            return grpc.unary_unary_rpc_method_handler(behavior, deserialize, serialize)
        if handler.stream_stream is not None:
            stream = _on(
                pool, _streaming(handler.stream_stream, self._streams, self._shares, admit, note)
            )
            stream.experimental_non_blocking = True  # type: ignore[attr-defined] # so that it is given what sends
            return grpc.stream_stream_rpc_method_handler(stream, deserialize, serialize)
        if handler.unary_stream is not None:
            behavior = _on(pool, _server_streaming(handler.unary_stream, self._shares, admit, note))
            return grpc.unary_stream_rpc_method_handler(behavior, deserialize, serialize)
        message = "no service of licet takes a stream and answers once"
        raise NotImplementedError(message)


def _on(pool: ThreadPoolExecutor, behavior: _Callable) -> _Callable:
    behavior.experimental_thread_pool = pool  # type: ignore[attr-defined] # read by grpc
    return behavior


def _shedding(lane: Lane, refusing: ThreadPoolExecutor) -> _Handler:
    """Return what refuses a call because a lane is full, without looking at it."""
    # Made once: it is told to many when there is no time for it.
    status = status_of(ExhaustedError(TOO_MANY))

    def refuse(_request: bytes, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - nothing
        lane.shed.add()
        return context.abort_with_status(status)

    return grpc.unary_unary_rpc_method_handler(_on(refusing, refuse))


def _unary(behavior: _Behavior, admit: Admit, note: _Note) -> _Behavior:
    def call(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - any message
        try:
            admit(context, questions(request))
            return behavior(checked(request), context)
        except LicetError as exc:
            note(exc, context)
            status = status_of(exc)
        except Exception:  # noqa: BLE001 - see the module
            _log.exception("a request failed on a bug")
            status = internal()
        # Raises; not in an `except` clause, so that the cause is not logged twice.
        return context.abort_with_status(status)

    return call


def _streaming(
    behavior: _Behavior, streams: Streams, shares: Shares, admit: Admit, note: _Note
) -> Callable[[Iterator[Any], grpc.ServicerContext, Callable[[Any], None]], None]:
    def call(
        requests: Iterator[Any], context: grpc.ServicerContext, send: Callable[[Any], None]
    ) -> None:
        stream = Stream(context, send)

        def admitted(message: Any) -> Any:  # noqa: ANN401 - any message
            admit(context, questions(message))
            return checked(message)

        def answered(incoming: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ANN401 - messages
            admit(context)
            with shares.of(identity_of(context).caller):
                yield from streams.answered(
                    stream, incoming, lambda messages: behavior(map(admitted, messages), context)
                )

        for answer in _guarded(answered, note)(requests, context):
            send(answer)
        stream.finish()

    return call


def _server_streaming(behavior: _Behavior, shares: Shares, admit: Admit, note: _Note) -> _Behavior:
    def answered(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ANN401 - any message
        admit(context)
        with shares.of(identity_of(context).caller):
            for answer in behavior(checked(request), context):
                # A credential that has ended meanwhile gets nothing more, not even a heartbeat.
                admit(context, 0)
                yield answer

    return _guarded(answered, note)


def _guarded(behavior: _Behavior, note: _Note) -> _Behavior:
    def call(asked: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ANN401 - any
        try:
            yield from behavior(asked, context)
        except LicetError as exc:
            note(exc, context)
            status = status_of(exc)
        except grpc.RpcError:
            return  # the client has gone
        except Exception:  # noqa: BLE001 - see the module
            _log.exception("a stream failed on a bug")
            status = internal()
        else:
            return
        context.abort_with_status(status)

    return call
