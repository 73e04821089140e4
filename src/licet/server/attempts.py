"""How calls are answered without a thread that waits: admitted, answered or refused, once.

What `hybrid.py` calls on gRPC's serving thread, and again on another where that would have to wait.
Streams are answered as `interceptor.py` answers those with a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError

from licet.app.ports import AT_ONCE, Later, NotAtOnceError
from licet.domain.errors import ExhaustedError, InvalidRequestError, LicetError
from licet.server.authority import Admit, Authority
from licet.server.identity import (
    deadline_of,
    is_stranger,
    note_counted,
    note_stranger,
    want_at_once,
    was_counted,
)
from licet.server.lanes import TOO_MANY, Lane, Shares
from licet.server.replies import MAX_BYTES, Answering, Answers, Call, Makes, Reply, failed
from licet.server.spans import Spans
from licet.server.status import internal, no_message, status_of
from licet.server.streams import OpenStreams, Streams
from licet.v1 import authorization_pb2 as pb

_log: Final = logging.getLogger(__name__)

_Message = TypeVar("_Message")


class Malformed:
    """Stands for a message that is not what the method takes.

    Not protobuf at all, or text that is not UTF-8.
    """


_MALFORMED: Final = Malformed()
_NO_MESSAGE: Final = no_message()
# A union of types is made anew each time that it is written, and protobuf's are slow to be asked.
_SEVERAL: Final = frozenset({pb.BatchAuthorizeRequest, pb.StreamAuthorizeRequest})


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


def _never(_then: Callable[[], None]) -> bool:
    """Tell nobody; see `Later`."""
    return False


def _proceed(_request: object, _context: grpc.ServicerContext, reply: Reply) -> None:
    """Receive the message of a call whose caller is not a stranger any more."""
    cast("Call", reply).proceed()


def _uncounted(admit: Admit) -> Admit:
    """Return what lets a call in whose message is still to come, and counts."""

    def uncounted(context: grpc.ServicerContext, questions: int = 0) -> None:  # noqa: ARG001 - an Admit
        admit(context, 0)

    return uncounted


def questions(request: Any) -> int:  # noqa: ANN401 - any message
    """Return how many questions a message asks: what has none counts like one."""
    if type(request) in _SEVERAL:
        return max(len(request.requests), 1)
    return 1


_Step: TypeAlias = Callable[[Call, bytes], Later | None]
"""Answers a message, now or later from another thread. If it returns something, its deadline is
`AT_ONCE`, and it would have to wait; nothing has happened, and it is taken again: when that says,
or where it may wait. Not the error itself, whose traceback would keep the call alive."""
_Taking: TypeAlias = Callable[[_Step, Call, bytes], None]
"""Has a step taken."""


class Attempts:
    """Makes of what answers a method's messages what `hybrid.py` serves."""

    def __init__(  # noqa: PLR0913 - what calls are let in by, and where they wait
        self,
        authority: Authority,
        streams: Streams,
        shares: Shares,
        lane: Lane,
        changing: ThreadPoolExecutor,
        *,
        spans: Spans | None = None,
    ) -> None:
        """Have decisions that must wait run in `lane`, and such changes on `changing`.

        `spans` makes those of sampled calls, if there are any; the others are as for `Interceptor`.
        """
        self._changing = changing
        self._authority = authority
        self._streams = streams
        self._shares = shares
        self._lane = lane
        self._spans = spans

    def of_service(
        self,
        service: str,
        decisions: Mapping[str, Answering],
        changes: Mapping[str, Answering],
    ) -> Mapping[str, Makes]:
        """Return how the calls of a service's methods are answered, by their full names."""
        return {
            f"/{service}/{name}": partial(self._of, of, f"/{service}/{name}", answer)
            for of, methods in ((self._decision, decisions), (self._change, changes))
            for name, answer in methods.items()
        }

    def _of(
        self,
        of: Callable[[str, Answering, grpc.RpcMethodHandler[Any, Any]], Answers],
        method: str,
        answer: Answering,
        handler: grpc.RpcMethodHandler[Any, Any],
    ) -> Answers:
        if self._spans is None:
            return of(method, answer, handler)
        return self._spans.answers(method, answer, lambda noted: of(method, noted, handler))

    def _decision(
        self, method: str, answer: Answering, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> Answers:
        deserialize = tolerant(handler.request_deserializer)
        admit = self._authority.admission(method)
        if handler.stream_stream is None:
            holding = self._lane if self._lane.holds else None
            return _Unary(
                self._is_known,
                self._take,
                self._hand_over,
                self._step(deserialize, _proceed, _uncounted(admit)),
                self._step(deserialize, answer, admit, holding),
            )
        streams = OpenStreams(self._streams, self._shares)
        return _Conversation(
            self._is_known,
            self._take,
            self._hand_over,
            self._step(deserialize, streams.open, admit),
            self._step(deserialize, answer, admit),
            streams.close,
        )

    def _change(
        self, method: str, answer: Answering, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> Answers:
        deserialize = tolerant(handler.request_deserializer)
        admit = self._authority.admission(method)
        return _Unary(
            self._is_known,
            self._take_change,
            self._verify,
            self._step(deserialize, _proceed, _uncounted(admit)),
            self._step(deserialize, answer, admit),
        )

    def _is_known(self, call: Call) -> bool:
        return self._authority.knows(call)

    def _take(self, step: _Step, call: Call, message: bytes) -> None:
        """Have a step taken: at once, when what it misses was read, or by a thread that waits."""
        if len(message) <= MAX_BYTES:
            want_at_once(call, at_once=True)
            later = step(call, message)
            if later is None or self._put_off(later, step, call, message):
                return
        self._hand_over(step, call, message)

    def _put_off(self, later: Later, step: _Step, call: Call, message: bytes) -> bool:
        """Have a step taken once more when what it misses has been read. False: it cannot be."""
        lane = self._lane
        if lane.is_full:
            return False

        def again() -> None:
            lane.leave()
            self._take_again(step, call, message)

        lane.enter()
        if later(again):
            return True
        lane.leave()
        return False

    def _take_again(self, step: _Step, call: Call, message: bytes) -> None:
        """Have a step taken at once, on a thread that others wait for; or else where it may."""
        try:
            if step(call, message) is not None:
                self._hand_over(step, call, message)
        except BaseException:  # noqa: BLE001 - the client must not wait for ever
            failed(call)

    def _hand_over(self, step: _Step, call: Call, message: bytes) -> None:
        """Have a step taken by a thread that may wait."""
        call.watch()
        if self._is_known(call):
            note_stranger(call, is_stranger=False)
            self._lane.offer(_run, call.end, step, call, message)
        else:
            self._verify(step, call, message)

    def _verify(self, step: _Step, call: Call, message: bytes) -> None:
        """Have a step taken by a thread of strangers, not by one that others wait for."""
        call.watch()
        note_stranger(call, is_stranger=True)
        self._authority.strangers.lane.submit(_run, step, call, message)

    def _take_change(self, step: _Step, call: Call, message: bytes) -> None:
        # It may wait for long without a thread: a server that stops must not wait for it.
        call.watch()
        if len(message) <= MAX_BYTES:
            want_at_once(call, at_once=True)
            if step(call, message) is None:
                return
        self._change_elsewhere(step, call, message)

    def _change_elsewhere(self, step: _Step, call: Call, message: bytes) -> None:
        """Have a step of a change taken by a thread that may wait, of a caller who was verified."""
        call.watch()
        note_stranger(call, is_stranger=False)
        self._changing.submit(_run, step, call, message)

    def _refused(self, error: LicetError, context: grpc.ServicerContext) -> None:
        self._authority.note(error, context)
        # A stream that a stranger opened goes on elsewhere, where others would wait as well.
        if is_stranger(context) and deadline_of(context) is not AT_ONCE:
            self._authority.strangers.slow_down(error)

    def _step(
        self,
        deserialize: Callable[[bytes], Any],
        answer: Answering,
        admit: Admit,
        holding: Lane | None = None,
    ) -> _Step:
        """Return what answers a message; `holding` is the lane of those that wait for the disk."""

        def step(call: Call, message: bytes) -> Later | None:
            counted = was_counted(call)
            try:
                request = deserialize(message)
                admit(call, 0 if counted else questions(request))
                counted = True
                if holding is not None and deadline_of(call) is AT_ONCE:
                    holding.check()
                answer(checked(request), call, call)
                if holding is not None and call.is_active():
                    holding.hold(call)
            except NotAtOnceError as waiting:
                if counted:
                    note_counted(call)
                return waiting.later or _never
            except LicetError as exc:
                self._refused(exc, call)
                status = status_of(exc)
            except Exception:  # noqa: BLE001 - nothing may reach the serving thread
                _log.exception("a request failed on a bug")
                status = internal()
            else:
                return None
            call.end(status)
            return None

        return step


def _run(step: _Step, call: Call, message: bytes) -> None:
    """Take a step on a thread that may wait."""
    try:
        want_at_once(call, at_once=False)
        if call.is_active() and step(call, message) is not None:
            call.end(internal())  # a bug: it may wait
    except BaseException:  # noqa: BLE001 - the client must not wait for ever
        failed(call)


class _Refusing:
    """Refuses what is too much."""

    __slots__ = ()

    def refuse(self, call: Call) -> None:
        call.end(status_of(ExhaustedError(TOO_MANY)))


@dataclass(frozen=True, slots=True)
class _Unary(_Refusing):
    """Answers calls of one message; a stranger's is received when it is known whose it is."""

    is_known: Callable[[Call], bool]
    take: _Taking
    hand_over: _Taking
    opened: _Step
    answer: _Step

    @property
    def is_stream(self) -> bool:
        return False

    def begin(self, call: Call) -> None:
        if self.is_known(call):
            call.proceed()
        else:
            self.hand_over(self.opened, call, b"")

    def receive(self, call: Call, message: bytes | None) -> None:
        if message is None:
            call.end(_NO_MESSAGE)
        else:
            self.take(self.answer, call, message)


@dataclass(frozen=True, slots=True)
class _Conversation(_Refusing):
    """Answers streams, one message after the other."""

    is_known: Callable[[Call], bool]
    take: _Taking
    hand_over: _Taking
    opened: _Step
    answer: _Step
    closed: Callable[[Call], None]

    @property
    def is_stream(self) -> bool:
        return True

    def begin(self, call: Call) -> None:
        call.watch()
        call.add_callback(partial(self.closed, call))
        (self.take if self.is_known(call) else self.hand_over)(self.opened, call, b"")

    def receive(self, call: Call, message: bytes | None) -> None:
        if message is None:
            call.finish()
        else:
            self.take(self.answer, call, message)
