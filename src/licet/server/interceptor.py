"""Lets callers in, turns every exception into a status, and what cannot be parsed into one as well.

The one place in licet that catches everything. A handler is wrapped once per method, not once per
call. Who calls is found out before the message is looked at; of a stream, again with each message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from typing_extensions import override

from licet.app.ports import NotAtOnceError
from licet.domain.errors import InvalidRequestError, LicetError
from licet.server.authority import Authority
from licet.server.replies import Answering, Attempt, Hybrid, Reply, attach
from licet.server.status import internal, status_of
from licet.server.streams import Stream, Streams

_log: Final = logging.getLogger(__name__)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Behavior: TypeAlias = Callable[[Any, grpc.ServicerContext], Any]
_Admit: TypeAlias = Callable[[grpc.ServicerContext], None]
_Note: TypeAlias = Callable[[LicetError, grpc.ServicerContext], None]


class _Malformed:
    """Stands for a message that is not what the method takes.

    Not protobuf at all, or text that is not UTF-8.
    """


_MALFORMED: Final = _Malformed()
_OURS: Final = "/licet."
_FOREIGN_STREAMS: Final = 16


class Interceptor(grpc.ServerInterceptor):
    """See the module. Health and reflection, which are not ours, pass nearly as they are."""

    def __init__(
        self,
        authority: Authority,
        streams: Streams,
        pools: Mapping[str, ThreadPoolExecutor],
        hybrid: Mapping[str, Answering],
    ) -> None:
        """Run streams and changes on pools of their own, one for each method, by its name.

        On the shared one, a few idle streams, or changes that wait for a replica that is stopped,
        would shut out every other call. Methods in `hybrid`, which the server's pool knows how to
        serve, are answered by that instead.
        """
        self._authority = authority
        self._streams = streams
        self._hybrid = hybrid
        self._pools = pools
        self._foreign_pool = ThreadPoolExecutor(_FOREIGN_STREAMS, "licet-reflection")
        # Methods that do not exist are never kept, so clients cannot fill memory.
        self._wrapped: dict[str, _Handler] = {}

    @override
    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the wrapped handler of a method."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = (
                self._wrap(method, handler) if method.startswith(_OURS) else self._apart(handler)
            )
            self._wrapped[method] = wrapped
        return wrapped

    def _apart(self, handler: _Handler) -> _Handler:
        """Run another service's streams apart, too: reflection's may idle as long as they like."""
        original = handler.stream_stream
        if original is None:
            return handler

        def behavior(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            return original(requests, context)

        behavior.experimental_thread_pool = self._foreign_pool  # type: ignore[attr-defined] # read by grpc
        return grpc.stream_stream_rpc_method_handler(
            behavior, handler.request_deserializer, handler.response_serializer
        )

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        deserialize = _tolerant(handler.request_deserializer)
        admit, note = self._authority.admission(method), self._authority.note
        if handler.unary_unary is not None:
            behavior = _unary(handler.unary_unary, admit, note)
            if method in self._hybrid:
                attach(behavior, Hybrid(_attempt(self._hybrid[method], admit, note)))
            elif method in self._pools:
                behavior.experimental_thread_pool = self._pools[method]  # type: ignore[attr-defined] # read by grpc
            return grpc.unary_unary_rpc_method_handler(
                behavior, deserialize, handler.response_serializer
            )
        if handler.stream_stream is not None:
            stream = _streaming(handler.stream_stream, self._streams, admit, note)
            if method in self._hybrid:
                attach(stream, _conversation(self._hybrid[method], self._streams, admit, note))
            else:
                stream.experimental_thread_pool = self._pools[method]  # type: ignore[attr-defined] # read by grpc
            stream.experimental_non_blocking = True  # type: ignore[attr-defined] # so that it is given what sends
            return grpc.stream_stream_rpc_method_handler(
                stream, deserialize, handler.response_serializer
            )
        if handler.unary_stream is not None:
            behavior = _server_streaming(handler.unary_stream, admit, note)
            behavior.experimental_thread_pool = self._pools[method]  # type: ignore[attr-defined] # read by grpc
            return grpc.unary_stream_rpc_method_handler(
                behavior, deserialize, handler.response_serializer
            )
        message = "no service of licet takes a stream and answers once"
        raise NotImplementedError(message)


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    if deserialize is None:
        message = "every method of licet has a request type"
        raise TypeError(message)

    def tolerant(data: bytes) -> Any:  # noqa: ANN401 - a message, or the stand-in
        # An exception here would make grpc answer INTERNAL.
        try:
            return deserialize(data)
        except DecodeError:
            return _MALFORMED

    return tolerant


def _unary(behavior: _Behavior, admit: _Admit, note: _Note) -> _Behavior:
    def call(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - any message
        try:
            admit(context)
            return behavior(_check(request), context)
        except LicetError as exc:
            note(exc, context)
            status = status_of(exc)
        except Exception:  # noqa: BLE001 - see the module
            _log.exception("a request failed on a bug")
            status = internal()
        # Raises; not in an `except` clause, so that the cause is not logged twice.
        return context.abort_with_status(status)

    return call


def _attempt(answer: Answering, admit: _Admit, note: _Note) -> Attempt:
    def call(request: Any, context: grpc.ServicerContext, reply: Reply) -> bool:  # noqa: ANN401 - any message
        try:
            admit(context)
            answer(_check(request), context, reply)
        except NotAtOnceError:
            return False
        except LicetError as exc:
            note(exc, context)
            status = status_of(exc)
        except Exception:  # noqa: BLE001 - see the module
            _log.exception("a request failed on a bug")
            status = internal()
        else:
            return True
        reply.end(status)
        return True

    return call


def _conversation(answer: Answering, streams: Streams, admit: _Admit, note: _Note) -> Hybrid:
    """Do as `_streaming` does, one message after the other."""

    def opened(_request: Any, context: grpc.ServicerContext, reply: Reply) -> None:  # noqa: ANN401 - none
        streams.open(reply)
        if not context.is_active():
            streams.close(reply)  # told already, perhaps, before it was open
        reply.proceed()

    return Hybrid(_attempt(answer, admit, note), _attempt(opened, admit, note), streams.close)


def _streaming(
    behavior: _Behavior, streams: Streams, admit: _Admit, note: _Note
) -> Callable[[Iterator[Any], grpc.ServicerContext, Callable[[Any], None]], None]:
    def call(
        requests: Iterator[Any], context: grpc.ServicerContext, send: Callable[[Any], None]
    ) -> None:
        stream = Stream(context, send)

        def admitted(message: Any) -> Any:  # noqa: ANN401 - any message
            admit(context)
            return _check(message)

        def answered(incoming: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ANN401 - messages
            admit(context)
            return streams.answered(
                stream, incoming, lambda messages: behavior(map(admitted, messages), context)
            )

        for answer in _guarded(answered, note)(requests, context):
            send(answer)
        stream.finish()

    return call


def _server_streaming(behavior: _Behavior, admit: _Admit, note: _Note) -> _Behavior:
    def answered(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ANN401 - any message
        admit(context)
        for answer in behavior(_check(request), context):
            # A credential that has ended meanwhile gets nothing more, not even a heartbeat.
            admit(context)
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


def _check(request: Any) -> Any:  # noqa: ANN401 - any message
    if request is _MALFORMED:
        raise InvalidRequestError.of(
            "request", "must be a message of the method's type, with valid UTF-8 in its texts"
        )
    return request
