"""Answers that hold no thread while they wait for the disk, and those that never wait at all.

What a method looks like that `hybrid.py` serves; nothing of gRPC's own is here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import grpc

from licet.app.recording import Acknowledge
from licet.domain.errors import UnavailableError
from licet.server.status import status_of

MAX_BYTES: Final = 16 * 1024
"""The largest message that the serving thread looks at: all others wait for it meanwhile."""


class Reply(Protocol):
    """Answers one call, from any thread, without waiting; it raises nothing."""

    def proceed(self) -> None:
        """Receive the next message of a stream."""
        ...

    def send(self, message: bytes) -> None:
        """Answer the message; of a stream, then `proceed`, otherwise end the call with OK."""
        ...

    def end(self, status: grpc.Status) -> None:
        """End the call without an answer, if it is not over."""
        ...

    def end_idle(self, status: grpc.Status) -> None:
        """End a stream, if it waits for a message."""
        ...


Attempt: TypeAlias = Callable[[Any, grpc.ServicerContext, Reply], bool]
"""Answers a message, now or later from another thread. False: its deadline is `AT_ONCE`, and it
would have to wait; nothing has happened, and it is called again where it may."""


class HandOver(Protocol):
    """Gives a call to threads that may wait."""

    def __call__(
        self, fn: Callable[..., object], refuse: Callable[[grpc.Status], None], /, *args: object
    ) -> None:
        """Run `fn` with these arguments, or refuse the call."""
        ...


class Hybrid(NamedTuple):
    """How calls of a method are answered.

    Attributes:
        deserialize: returns the message of some bytes; it raises nothing.
        elsewhere: returns what gives a call to others, when it cannot be answered at once.
        message: answers one.
        opened: of a stream: has it proceed, in the manner of an attempt, before any message.
        closed: of a stream: told when it is over.
    """

    deserialize: Callable[[bytes], Any]
    elsewhere: Callable[[grpc.ServicerContext], HandOver]
    message: Attempt
    opened: Attempt | None = None
    closed: Callable[[Reply], None] = lambda _: None


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
