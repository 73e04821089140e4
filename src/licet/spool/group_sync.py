"""Group commit of a spool: one sync for all the events that were appended while the last one ran.

Syncs follow each other without a pause while anybody waits: alone, a caller waits for one; with
many, each sync carries what came during the one before. A timer would only make all of them wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Final, NamedTuple

from licet.domain.errors import UnavailableError
from licet.spool.segment import Segment

_log: Final = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 0.2
"""How long an event stays unsynced that nobody waits for."""

Acknowledge = Callable[[UnavailableError | None], None]
"""Told that an event is durable, or why it may not be. Called by the syncing thread: it must return
at once."""


class Appended(NamedTuple):
    """What there is to sync.

    Attributes:
        through: the last sequence appended.
        full: segments that were filled since the last time; to be synced, and then closed.
        current: the segment in use.
    """

    through: int
    full: Sequence[Segment]
    current: Segment


class GroupSync:
    """Syncs, and tells those who wait."""

    def __init__(self, appended: Callable[[], Appended], refuse: Callable[[str], None]) -> None:
        """Sync what is appended; after a failure, have further appends refused."""
        self._appended = appended
        self._refuse = refuse
        # Written by the syncing thread only.
        self._durable = 0
        self._failure: str | None = None
        # Guards the next two together: after the end nobody is added who would not be told.
        self._lock = Lock()
        self._waiting: list[Acknowledge] = []
        self._closing = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="licet-spool-sync", daemon=True)

    def start(self) -> None:
        """Start syncing."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Sync once more, tell those who wait, and say whether the thread has ended."""
        with self._lock:
            self._closing = True
        self._wake.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def durable(self) -> int:
        """Up to which sequence everything is on disk."""
        return self._durable

    def when(self, sequence: int, acknowledge: Acknowledge) -> None:
        """Have an event's fate told, which was appended before: at once, or by another thread."""
        if sequence <= self._durable:
            acknowledge(None)
            return
        with self._lock:
            is_open = not self._closing
            if is_open:
                self._waiting.append(acknowledge)
                if len(self._waiting) == 1:
                    self._wake.put(None)
        if not is_open:
            acknowledge(_undurable("the server is stopping"))

    def wait(self, sequence: int, seconds: float) -> None:
        """Return when an event is durable that was appended before.

        Raises:
            UnavailableError: it may be on record or not.
        """
        if sequence <= self._durable:
            return
        waiter = _Waiter()
        self.when(sequence, waiter)
        waiter.wait(seconds)

    def _run(self) -> None:
        closing = False
        while not closing:
            with suppress(Empty):
                self._wake.get(timeout=_IDLE_SECONDS)
            # Before what is appended is asked for: whoever waits here has appended already.
            with self._lock:
                waiting, self._waiting = self._waiting, []
                closing = self._closing
            if self._failure is None:
                self._sync()
            error = None if self._failure is None else _undurable(self._failure)
            for acknowledge in waiting:
                _tell(acknowledge, error)

    def _sync(self) -> None:
        through, full, current = self._appended()
        if through == self._durable and not full:
            return
        try:
            for segment in full:
                segment.sync()
            current.sync()
            current.note_durable(through)
        except Exception as exc:  # noqa: BLE001 - whatever it was, a bug as well: nothing is durable
            _log.exception("syncing the spool failed; it takes no more events")
            reason = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
            self._failure = f"writing to the disk failed: {reason}"
            # Before anybody is told, so that nobody who was told can append again.
            self._refuse(self._failure)
            return
        self._durable = through
        for segment in full:
            segment.close()


class _Waiter:
    """One thread that waits; a lock is the cheapest thing to wait for."""

    __slots__ = ("_done", "_error")

    def __init__(self) -> None:
        self._done = Lock()
        self._done.acquire()
        self._error: UnavailableError | None = None

    def __call__(self, error: UnavailableError | None) -> None:
        self._error = error
        self._done.release()

    def wait(self, seconds: float) -> None:
        if not self._done.acquire(timeout=seconds):
            raise _undurable("the disk has not answered in time")
        if self._error is not None:
            raise _undurable(self._error.message)


def _undurable(reason: str) -> UnavailableError:
    return UnavailableError(f"the decision may not be on record: {reason}")


def _tell(acknowledge: Acknowledge, error: UnavailableError | None) -> None:
    try:
        acknowledge(error)
    except Exception:  # noqa: BLE001 - somebody else's bug must not end the syncing thread
        _log.exception("a caller could not be told that an event is durable")
