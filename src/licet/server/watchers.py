"""The places of those who watch: so many at once, and nobody keeps one without taking what is sent.

A message that the client does not take blocks the thread that sends it, and grpc has no time limit
for that: a thread looks after the places and cancels such a call.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final, Protocol, TypeVar

from licet.domain.errors import ExhaustedError, SlowConsumerError
from licet.server.lanes import Tally

_log: Final = logging.getLogger(__name__)

_Message = TypeVar("_Message")

STUCK_SECONDS: Final = 60.0
"""How long a message may wait to be taken."""
_DRAINING_SECONDS: Final = 0.5
"""The same while the server drains."""
_POLL_SECONDS: Final = 0.25


class Call(Protocol):
    """What is needed of grpc.ServicerContext."""

    def cancel(self) -> object:
        """Cancel the call; the client sees CANCELLED."""
        ...


class Place:
    """One stream's place."""

    def __init__(self, call: Call) -> None:
        """Belong to a call."""
        self.call = call
        self.sending_since: float | None = None
        """Written by the stream's thread, read by the one that looks after it."""

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Take note that a message is being sent, from `yield` until the next is asked for."""
        self.sending_since = monotonic()
        try:
            yield
        finally:
            self.sending_since = None


class Watchers:
    """See the module."""

    def __init__(
        self, limit: int, stuck_seconds: float = STUCK_SECONDS, doing: str = "watch"
    ) -> None:
        """Have `limit` places for clients who do this."""
        self._limit = limit
        self._doing = doing
        self._stuck_seconds = stuck_seconds
        # Guards the set of places.
        self._mutex = Lock()
        self._places: set[Place] = set()
        self.dropped = 0
        """How many were cut off, or told that they were too slow."""
        self.refused = Tally()
        """How many found no place; read by metrics."""
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-watchers", daemon=True)

    def __len__(self) -> int:
        """Return how many places are taken."""
        return len(self._places)

    def start(self) -> None:
        """Start to look after the places."""
        self._thread.start()

    def drain(self) -> None:
        """Be impatient from now on: the server is stopping."""
        self._stuck_seconds = min(self._stuck_seconds, _DRAINING_SECONDS)

    def stop(self) -> None:
        """End; every stream has ended."""
        self._stopping.set()
        self._thread.join(2 * _POLL_SECONDS)

    @contextmanager
    def place(self, call: Call) -> Iterator[Place]:
        """Take a place for as long as the stream lasts.

        Raises:
            ExhaustedError: all are taken.
        """
        place = Place(call)
        with self._mutex:
            if len(self._places) >= self._limit:
                self.refused.add()
                raise ExhaustedError(f"too many clients {self._doing} this replica")
            self._places.add(place)
        try:
            yield place
        except SlowConsumerError:
            with self._mutex:
                self.dropped += 1
            raise
        finally:
            with self._mutex:
                self._places.discard(place)

    def sent(self, call: Call, messages: Iterable[_Message]) -> Iterator[_Message]:
        """Yield messages, from a place that is taken for as long as that lasts. Raises as `place`.

        A generator in Python: one that is compiled leaves no `with` when it is dropped halfway, as
        grpc drops those of clients who have gone.
        """
        with self.place(call) as place:
            for message in messages:
                with place.sending():
                    yield message

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            with self._mutex:
                places = list(self._places)
            for place in places:
                since = place.sending_since
                if since is not None and monotonic() - since > self._stuck_seconds:
                    _log.warning("a client takes nothing of its stream, which is cut off")
                    # Once is enough, and its thread may take a moment to notice.
                    place.sending_since = None
                    with self._mutex:
                        self.dropped += 1
                    place.call.cancel()
