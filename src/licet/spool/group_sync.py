"""Group commit of a spool: one sync for all the events that were appended while the last one ran.

A caller who is alone waits for one sync and no longer. Among several, each sync waits until as many
have come as for the one before, or `_PLENTY`: a sync takes the processor for nearly as long as a
whole call does, so it is to carry some. It waits until `_GATHER_SECONDS` after that one began; if
the process is busy, `_BUSY_GATHER_SECONDS`: those who come then wait for the processor anyway, and
get it sooner the fewer syncs take it.

While a sync does not return, whoever waits is refused in the end, and whoever comes meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from time import monotonic, process_time
from typing import Final, NamedTuple

from licet.app.recording import Acknowledge
from licet.domain.errors import UnavailableError
from licet.spool.segment import Segment

_log: Final = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 0.2
"""How long an event stays unsynced that nobody waits for."""
_GATHER_SECONDS: Final = 0.001
_BUSY_GATHER_SECONDS: Final = 0.004
_PLENTY: Final = 16
"""With so many to carry, a sync costs each of them less than a twentieth of a call."""
_BUSY: Final = 0.85
"""The part of a core above which a process counts as busy."""
_LOAD_SECONDS: Final = 0.05
"""Over how long, at least, it is measured whether a process is busy."""
DISK_SECONDS: Final = 5.0
"""How long whoever waits waits for a sync that does not return."""
_LOOK_SECONDS: Final = 0.25
MAX_PENDING: Final = 1024
"""How many wait to be told without a thread each."""


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


class Load:
    """Whether this process has lately used nearly a core, all of its threads together.

    For one thread. Where a process may use less than `_BUSY` of a core, it never has; where it may
    use several, some of them may be idle. It is the wait of callers that depends on it, no more.
    """

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        used: Callable[[], float] = process_time,
    ) -> None:
        """Compare two clocks, in seconds: one that goes on, and one of the processor's time."""
        self._clock = clock
        self._used = used
        self._since = clock(), used()
        self._high = False

    def is_high(self) -> bool:
        """Whether the last interval was busy; to be asked often, for an interval ends here."""
        now = self._clock()
        since, used_before = self._since
        if now - since >= _LOAD_SECONDS:
            used = self._used()
            self._high = used - used_before > _BUSY * (now - since)
            self._since = now, used
        return self._high


class GroupSync:
    """Syncs, and tells those who wait."""

    def __init__(
        self,
        appended: Callable[[], Appended],
        refuse: Callable[[str], None],
        disk_seconds: float = DISK_SECONDS,
        load: Load | None = None,
    ) -> None:
        """Sync what is appended; after a failure, have further appends refused."""
        self._appended = appended
        self._refuse = refuse
        # Written by the syncing thread only.
        self._durable = 0
        self._failure: str | None = None
        self._disk_seconds = disk_seconds
        self._load = load or Load()
        # Guards the next six together: after the end nobody is added who would not be told, and
        # who is taken off a list is told by whoever took them, once.
        self._lock = Lock()
        self._waiting: list[Acknowledge] = []
        self._syncing: list[Acknowledge] = []
        self._began = 0.0  # when the last sync did
        self._overdue = inf  # from when on the one that runs is
        self._enough = 1  # so many have to wait for the next one to begin at once
        self._closing = False
        self._ended = Event()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="licet-spool-sync", daemon=True)
        self._watchman = Thread(target=self._watch, name="licet-spool-watch", daemon=True)

    def start(self) -> None:
        """Start syncing."""
        self._thread.start()
        self._watchman.start()

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

    @property
    def is_crowded(self) -> bool:
        """Whether very many wait to be told."""
        return len(self._waiting) + len(self._syncing) >= MAX_PENDING

    def when(self, sequence: int, acknowledge: Acknowledge, *, waits: bool = True) -> None:
        """Have an event's fate told, which was appended before: at once, or by another thread.

        When very many wait to be told, this one's caller waits as well: what waits takes memory,
        and of threads there are so many. But not if `waits` says no; then it has seen to that.
        """
        if sequence <= self._durable:
            acknowledge(None)
            return
        waiter: _Waiter | None = None
        with self._lock:
            is_open = not self._closing
            if is_open:
                if waits and self.is_crowded:
                    waiter = _Waiter()
                self._waiting.append(waiter or acknowledge)
                count = len(self._waiting)
                if count == 1 or count == self._enough:  # noqa: PLR1714 - hot
                    self._wake.put(None)
        if waiter is not None:
            acknowledge(waiter.error(self._disk_seconds))
        elif not is_open:
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
            self._gather()
            # Before what is appended is asked for: whoever waits here has appended already.
            with self._lock:
                self._syncing, self._waiting = self._waiting, []
                self._enough = min(len(self._syncing), _PLENTY) or 1
                self._began = monotonic()
                self._overdue = self._began + self._disk_seconds
                closing = self._closing
                # Those who come during a sync wake it twice, and what nobody takes would pile up.
                while not self._wake.empty():
                    self._wake.get_nowait()
            if self._failure is None:
                self._sync()
            error = None if self._failure is None else _undurable(self._failure)
            with self._lock:
                waiting, self._syncing = self._syncing, []
                self._overdue = inf
            for acknowledge in waiting:
                _tell(acknowledge, error)
        self._ended.set()

    def _gather(self) -> None:
        """Let others come, if the last sync carried several and began just now."""
        busy = self._load.is_high()
        end = self._began + (_BUSY_GATHER_SECONDS if busy else _GATHER_SECONDS)
        while len(self._waiting) < self._enough and not self._closing:
            left = end - monotonic()
            if left <= 0:
                return
            with suppress(Empty):
                self._wake.get(timeout=left)

    def _watch(self) -> None:
        """Refuse those who wait for a sync that does not return.

        Here, because those who hold no thread cannot see for themselves how long they have waited.
        """
        while not self._ended.wait(_LOOK_SECONDS):
            with self._lock:
                if monotonic() < self._overdue:
                    continue
                waiting = self._syncing + self._waiting
                self._syncing, self._waiting = [], []
            for acknowledge in waiting:
                _tell(acknowledge, _too_slow())

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

    def error(self, seconds: float) -> UnavailableError | None:
        if not self._done.acquire(timeout=seconds):
            return _too_slow()
        return self._error

    def wait(self, seconds: float) -> None:
        error = self.error(seconds)
        if error is not None:
            # Of its own: several threads may raise at once, and each adds its traceback.
            raise UnavailableError(error.message)


def _undurable(reason: str) -> UnavailableError:
    return UnavailableError(f"the decision may not be on record: {reason}")


def _too_slow() -> UnavailableError:
    return _undurable("the disk has not answered in time")


def _tell(acknowledge: Acknowledge, error: UnavailableError | None) -> None:
    try:
        acknowledge(error)
    except Exception:  # noqa: BLE001 - somebody else's bug must not end the syncing thread
        _log.exception("a caller could not be told that an event is durable")
