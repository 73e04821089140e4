"""Answers that hold no thread while they wait for the disk, and those that never wait at all.

What a method looks like that `hybrid.py` serves; nothing of gRPC's own is here.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, Final, Protocol, TypeAlias

import grpc

from licet.app.recording import Acknowledge
from licet.domain.errors import UnavailableError
from licet.server.status import internal, status_of

_log: Final = logging.getLogger(__name__)

MAX_BYTES: Final = 16 * 1024
"""The largest message that the serving thread looks at: all others wait for it meanwhile."""


class Reply(Protocol):
    """Answers one message of a call, from any thread, without waiting; it raises nothing."""

    def send(self, message: bytes, /) -> None:
        """Send the answer, at once or with others that are about to (`bunches.py`).

        Of a stream, receive the next message then, otherwise end with OK.
        """
        ...

    def end(self, status: grpc.Status, /) -> None:
        """End the call without an answer, if it is not over."""
        ...


class Call(grpc.ServicerContext):
    """One call, and a `Reply` to its message. From any thread, without waiting."""

    @abstractmethod
    def proceed(self, answer: bytes | None = None) -> None:
        """Receive the next message, after an answer to the last if there is one."""

    @abstractmethod
    def finish(self, answer: bytes | None = None) -> None:
        """End with OK, after an answer if there is one."""

    @abstractmethod
    def send(self, message: bytes) -> None:
        """See `Reply`."""

    @abstractmethod
    def end(self, status: grpc.Status) -> None:
        """See `Reply`."""

    @abstractmethod
    def end_idle(self, status: grpc.Status) -> None:
        """End a stream, if it waits for a message."""

    @abstractmethod
    def watch(self) -> None:
        """Be told if the client goes: worth its price where an answer takes a while."""


class CallState:
    """What is known of a call, and the part of a context that needs no more than that."""

    _is_cancelled = False
    _status: Any = None
    _ending: tuple[Callable[[], object], ...] | None = ()
    _ok: Any = None, grpc.StatusCode.OK.value[0], b""
    _mutex: Lock
    """Guards the above."""

    def is_active(self) -> bool:
        """See `grpc.RpcContext`."""
        return not (self._is_cancelled or self._status)

    def code(self) -> Any:  # noqa: ANN401 - gRPC's numbers and its enumeration
        """Return the status with which the call ended; to be asked then."""
        return grpc.StatusCode.CANCELLED if self._is_cancelled else self._status[1]

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """See `grpc.RpcContext`."""
        with self._mutex:
            if self._ending is not None:
                self._ending = (*self._ending, callback)
            return self._ending is not None

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:  # noqa: ANN401 - gRPC's
        """See `grpc.ServicerContext`."""
        self._ok = (trailing_metadata, *self._ok[1:])


def as_sent(status: grpc.Status) -> tuple[Any, int, bytes]:
    """Return a status as gRPC's core is given it: trailing metadata, number, details."""
    return status.trailing_metadata, status.code.value[0], status.details.encode()


def failed(call: Reply) -> None:
    """End a call on a bug, whose exception is being handled: its client must not wait for ever."""
    _log.exception("answering a call failed on a bug")
    call.end(internal())


class Answers(Protocol):
    """Answers the calls of a method; see `hybrid.py`. What it raises is a bug."""

    @property
    def is_stream(self) -> bool:
        """Whether a call has many messages."""
        ...

    def begin(self, call: Call, /) -> None:
        """Begin a call that has come."""
        ...

    def refuse(self, call: Call, /) -> None:
        """End a call that has come when there were too many."""
        ...

    def receive(self, call: Call, message: bytes | None, /) -> None:
        """Take a message, or that there is none any more."""
        ...


Makes: TypeAlias = "Callable[[grpc.RpcMethodHandler[Any, Any]], Answers]"
"""Makes what answers the calls of a method, from the handler that gRPC was given for it."""

Answering: TypeAlias = Callable[[Any, grpc.ServicerContext, Reply], None]
"""Answers a message, now or later from another thread; or raises, and nobody else answers."""


def when_told(reply: Reply, message: bytes) -> Acknowledge:
    """Return what sends an answer when its record is durable, and a refusal when it may not be."""
    return partial(_told, reply, message)


def _told(reply: Reply, message: bytes, error: UnavailableError | None) -> None:
    if error is None:
        reply.send(message)
    else:
        reply.end(status_of(error))
