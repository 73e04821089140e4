"""The open streams of decisions: so many at once, and told to go on elsewhere when the server goes.

A stream is told between two messages: what was asked has been answered, and nothing was asked
since. If it has a thread, that may wait for the client's next message then, for ever, and cannot be
woken; so another one ends the call, with a status like any other. (To cancel it would tell the
client nothing on a connection that is closing.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Lock
from typing import Any, Final, Protocol, TypeVar, cast

import grpc

from licet.domain.errors import ExhaustedError, LicetError, UnavailableError
from licet.server.identity import identity_of
from licet.server.lanes import Shares, Tally
from licet.server.replies import Call, Reply
from licet.server.status import status_of

GO_ON_ELSEWHERE: Final = "this replica is stopping: go on with a new stream"
"""What a client is told whose stream ends because the server does."""
_POLL_SECONDS: Final = 0.05

_Message = TypeVar("_Message")


class Idling(Protocol):
    """A stream of either kind, as far as the server's going concerns it."""

    def end_idle(self, status: grpc.Status) -> None:
        """End it with a status, from another thread, if it waits for a message."""
        ...


class Stream:
    """One stream with a thread. `send` sends an answer, and with None ends the call: once only."""

    __slots__ = ("_busy", "_call", "_ended", "_mutex", "_send")

    def __init__(self, call: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        """Belong to a call."""
        self._call = call
        self._send = send
        # Guards the two below: who has them set may send.
        self._mutex = Lock()
        self._busy = True  # between a message and its answer, and at first
        self._ended = False

    def messages(self, incoming: Iterable[_Message], ending: Event) -> Iterator[_Message]:
        """Return the messages; the next is asked for when the answer to the last was sent.

        Raises:
            UnavailableError: the server is going; every message has been answered.
        """
        self._busy = False
        for message in incoming:
            with self._mutex:
                if self._ended:
                    return
                self._busy = True
            yield message
            if ending.is_set():
                raise UnavailableError(GO_ON_ELSEWHERE)
            self._busy = False

    def finish(self) -> None:
        """End the call with OK, from its own thread, unless `end_idle` has ended it."""
        if self._claim(from_outside=False):
            self._send(None)

    def end_idle(self, status: grpc.Status) -> None:
        """See `Idling`."""
        if self._claim(from_outside=True):
            self._call.set_code(status.code)
            self._call.set_details(status.details)
            self._call.set_trailing_metadata(status.trailing_metadata)
            self._send(None)

    def _claim(self, *, from_outside: bool) -> bool:
        with self._mutex:
            if self._ended or (from_outside and self._busy):
                return False
            self._ended = True
            return True


class Streams:
    """See the module."""

    def __init__(self, limit: int) -> None:
        """Let `limit` be open."""
        self._limit = limit
        # Guards the set of streams.
        self._mutex = Lock()
        self._open: set[Idling] = set()
        self._ending = Event()
        self.refused = Tally()
        """How many found no room; read by metrics."""

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def answered(
        self,
        stream: Stream,
        incoming: Iterable[_Message],
        answer: Callable[[Iterator[_Message]], Iterator[Any]],
    ) -> Iterator[Any]:
        """Return the answers to a stream's messages; it is open as long as they are taken.

        Raises:
            ExhaustedError: too many are. UnavailableError: the server is going.
        """
        with self._opened(stream):
            yield from answer(stream.messages(incoming, self._ending))

    def end(self, stopped: Event) -> None:
        """End those that wait for a message now, and the others once they have answered theirs.

        Returns when none is left, or when the server has stopped.
        """
        self._ending.set()
        status = status_of(UnavailableError(GO_ON_ELSEWHERE))
        while self._open and not stopped.wait(_POLL_SECONDS):
            with self._mutex:
                streams = list(self._open)
            for stream in streams:
                stream.end_idle(status)

    def open(self, stream: Idling) -> None:
        """Count a stream. Raises as `answered` does."""
        if self._ending.is_set():
            raise UnavailableError(GO_ON_ELSEWHERE)
        with self._mutex:
            if len(self._open) >= self._limit:
                self.refused.add()
                raise ExhaustedError("too many streams are open")
            self._open.add(stream)

    def close(self, stream: Idling) -> None:
        """Count it no more, if it was."""
        with self._mutex:
            self._open.discard(stream)

    @contextmanager
    def _opened(self, stream: Stream) -> Iterator[None]:
        self.open(stream)
        try:
            yield
        finally:
            self.close(stream)


class OpenStreams:
    """Counts the streams that are open, and each caller's share of them."""

    def __init__(self, streams: Streams, shares: Shares) -> None:
        """Count with these."""
        self._streams = streams
        self._shares = shares
        self._callers: dict[Call, str] = {}

    def open(self, _request: object, _context: grpc.ServicerContext, reply: Reply) -> None:
        """Count a stream and receive its first message. Raises ExhaustedError, UnavailableError."""
        call = cast("Call", reply)
        caller = identity_of(call).caller
        self._shares.take(caller)
        self._callers[call] = caller
        try:
            self._streams.open(call)
        except LicetError:
            self.close(call)
            raise
        if not call.is_active():
            self.close(call)  # told already, perhaps, before it was open
        call.proceed()

    def close(self, call: Call) -> None:
        """Count it no more, if it was."""
        self._streams.close(call)
        caller = self._callers.pop(call, None)
        if caller is not None:
            self._shares.give(caller)
