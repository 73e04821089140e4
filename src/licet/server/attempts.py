"""How decisions are answered without a thread that waits: admitted, answered or refused, once.

What `hybrid.py` calls on gRPC's serving thread, and again on another where that would have to wait.
Streams are answered as `interceptor.py` answers those with a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import DecodeError

from licet.app.ports import AT_ONCE, NotAtOnceError
from licet.domain.errors import InvalidRequestError, LicetError
from licet.server.authority import Admit, Authority
from licet.server.identity import (
    deadline_of,
    identity_of,
    is_stranger,
    note_counted,
    note_stranger,
    was_counted,
)
from licet.server.lanes import Lane, Shares
from licet.server.replies import Answering, Attempt, HandOver, Hybrid, Reply
from licet.server.status import internal, status_of
from licet.server.streams import Streams
from licet.v1 import authorization_pb2 as pb

_log: Final = logging.getLogger(__name__)

_Message = TypeVar("_Message")


class Malformed:
    """Stands for a message that is not what the method takes.

    Not protobuf at all, or text that is not UTF-8.
    """


_MALFORMED: Final = Malformed()


def tolerant(
    deserialize: Callable[[bytes], _Message] | None,
) -> Callable[[bytes], _Message | Malformed]:
    """Return what reads a message, and never raises."""
    if deserialize is None:
        message = "every method of licet has a request type"
        raise TypeError(message)

    def tolerant(data: bytes) -> _Message | Malformed:
        # An exception here would make grpc answer INTERNAL.
        try:
            return deserialize(data)
        except DecodeError:
            return _MALFORMED

    return tolerant


def checked(request: Any) -> Any:  # noqa: ANN401 - any message
    """Return a message that could be read. Raises InvalidRequestError: it could not."""
    if request is _MALFORMED:
        raise InvalidRequestError.of(
            "request", "must be a message of the method's type, with valid UTF-8 in its texts"
        )
    return request


def questions(request: Any) -> int:  # noqa: ANN401 - any message
    """Return how many questions a message asks: what has none counts like one."""
    if isinstance(request, pb.BatchAuthorizeRequest | pb.StreamAuthorizeRequest):
        return max(len(request.requests), 1)
    return 1


class Attempts:
    """Makes of what answers a method's messages what `hybrid.py` serves."""

    def __init__(self, authority: Authority, streams: Streams, shares: Shares, lane: Lane) -> None:
        """Have what must wait run in `lane`; the others are as for `Interceptor`."""
        self._authority = authority
        self._streams = streams
        self._shares = shares
        self._lane = lane

    def of(
        self, method: str, answer: Answering, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> Hybrid:
        """Return how a method is answered."""
        deserialize = tolerant(handler.request_deserializer)
        admit = self._authority.admission(method)
        if handler.stream_stream is None:
            holding = self._lane if self._lane.holds else None
            return Hybrid(deserialize, self._elsewhere, self._attempt(answer, admit, holding))
        opened, closed = conversation(self._streams, self._shares)
        return Hybrid(
            deserialize,
            self._elsewhere,
            self._attempt(answer, admit),
            self._attempt(opened, admit),
            closed,
        )

    def _elsewhere(self, context: grpc.ServicerContext) -> HandOver:
        if self._authority.knows(context.invocation_metadata()):
            return self._lane.offer
        # They wait for threads of their own, not on the one that all others wait for.
        note_stranger(context)
        return self._authority.strangers.take

    def _refused(self, error: LicetError, context: grpc.ServicerContext) -> None:
        self._authority.note(error, context)
        if is_stranger(context):
            self._authority.strangers.slow_down(error)

    def _attempt(self, answer: Answering, admit: Admit, holding: Lane | None = None) -> Attempt:
        """Return what answers a message; `holding` is the lane of those that wait for the disk."""

        def call(request: Any, context: grpc.ServicerContext, reply: Reply) -> bool:  # noqa: ANN401 - any message
            counted = was_counted(context)
            try:
                admit(context, 0 if counted else questions(request))
                counted = True
                if holding is not None and deadline_of(context) is AT_ONCE:
                    holding.check()
                answer(checked(request), context, reply)
                if holding is not None and context.is_active():
                    holding.hold(context)
            except NotAtOnceError:
                if counted:
                    note_counted(context)
                return False
            except LicetError as exc:
                self._refused(exc, context)
                status = status_of(exc)
            except Exception:  # noqa: BLE001 - nothing may reach the serving thread
                _log.exception("a request failed on a bug")
                status = internal()
            else:
                return True
            reply.end(status)
            return True

        return call


def conversation(streams: Streams, shares: Shares) -> tuple[Answering, Callable[[Reply], None]]:
    """Return what is done when a stream is opened, and when it is over."""
    callers: dict[Reply, str] = {}

    def opened(_request: Any, context: grpc.ServicerContext, reply: Reply) -> None:  # noqa: ANN401 - none
        caller = identity_of(context).caller
        shares.take(caller)
        callers[reply] = caller
        try:
            streams.open(reply)
        except LicetError:
            closed(reply)
            raise
        if not context.is_active():
            closed(reply)  # told already, perhaps, before it was open
        reply.proceed()

    def closed(reply: Reply) -> None:
        streams.close(reply)
        caller = callers.pop(reply, None)
        if caller is not None:
            shares.give(caller)

    return opened, closed
