"""Reading ahead: what requests miss in memory is brought there by one thread, for all who wait.

A request that may not wait leaves what it misses here, with what is to be called then, and holds no
thread. While one read is under way the next ones gather: under load many share a statement, as
changes share a commit. What is called asks memory again, under the lease, as if it had just come;
so nothing here decides what may be used, and whoever finds nothing there reads for itself, on a
thread that may wait: when a read fails, when it was overtaken by a change, or when a principal
holds more than others should wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from licet.app.ports import Deadline
from licet.domain.errors import LicetError
from licet.replica.capability_sets import Cached, Entry

_log: Final = logging.getLogger(__name__)

TOGETHER: Final = 32
"""How many requests share a read at most; those behind them wait for it as well."""
WAITING: Final = 4 * TOGETHER
"""How many may wait for the next reads; who comes then reads for itself. With a database that
takes tens of milliseconds, more would wait for seconds, and fill what all calls have room in."""
READ_SECONDS: Final = 0.5
"""How long a connection, and then the read, is waited for, before each reads for itself."""
LATE_SECONDS: Final = 0.05
"""A read that takes longer is waited for by nobody who comes then, and nobody waits for another
one behind it."""
_REST_SECONDS: Final = 0.1
# Always the same, so that the database is told once how long a statement may run.
_PATIENCE: Final = Deadline(lambda: READ_SECONDS)

_Name = TypeVar("_Name", bound=str)
_ReadName = TypeVar("_ReadName", bound=str)
_Entry = TypeVar("_Entry", bound=Entry)
_Entry_co = TypeVar("_Entry_co", bound=Entry, covariant=True)


class Reads(Protocol[_ReadName, _Entry_co]):
    """Reads for one thread."""

    def __call__(
        self, principals: Collection[_ReadName], deadline: Deadline, /
    ) -> Mapping[_ReadName, _Entry_co]:
        """See `capability_sets.Loader`; what would take long may be left out."""
        ...

    def rest(self) -> None:
        """Let go of what is kept between reads: there is nothing to read now."""
        ...


_Wanted: TypeAlias = tuple[_Name, Callable[[], None]]


class ReadingAhead(Generic[_Name, _Entry]):
    """See the module."""

    def __init__(self, held: Cached[_Name, _Entry], read: Reads[_Name, _Entry]) -> None:
        """Bring into `held` what `read` returns."""
        self._held = held
        self._read = read
        self._queue: SimpleQueue[_Wanted[_Name] | None] = SimpleQueue()
        self._began: float | None = None
        """When the read that is under way was begun, if one is."""
        self._over = Event()
        self._thread = Thread(target=self._run, name="licet-ahead", daemon=True)
        self.turned_away = 0
        """How many requests had to read for themselves: a read was late, failed, or had no room.
        Not exact: threads count at once."""

    def start(self) -> None:
        """Start reading, and be asked."""
        self._thread.start()
        self._held.read_ahead_by(self.ask)

    def stop(self) -> None:
        """Call what waits to be called, and end."""
        self._over.set()
        self._queue.put(None)
        self._thread.join(5.0)

    def ask(self, name: _Name, then: Callable[[], None]) -> bool:
        """Have a name read, and call `then`; see `ports.Later`. It takes no lock."""
        began = self._began
        if (
            self._over.is_set()
            or self._queue.qsize() >= WAITING
            or (began is not None and monotonic() - began > LATE_SECONDS)
        ):
            self.turned_away += 1
            return False
        self._queue.put((name, then))
        if self._over.is_set():
            self._release()  # the thread may have ended before
            self._queue.put(None)  # or has not been told yet, and that was taken as well
        return True

    def _run(self) -> None:
        try:
            while self._serve(self._gathered()):
                pass
        finally:
            self._over.set()
            self._release()
            self._rest()

    def _gathered(self) -> list[_Wanted[_Name]]:
        """Wait for requests, and return those that have come; none at the end."""
        wanted: list[_Wanted[_Name]] = []
        one = self._first()
        while one is not None:
            wanted.append(one)
            if len(wanted) == TOGETHER:
                break
            try:
                one = self._queue.get_nowait()
            except Empty:
                break
        return wanted

    def _first(self) -> _Wanted[_Name] | None:
        if self._over.is_set():
            return None
        try:
            return self._queue.get(timeout=_REST_SECONDS)
        except Empty:
            self._rest()
            return self._queue.get()

    def _rest(self) -> None:
        try:
            self._read.rest()
        except Exception:  # noqa: BLE001 - otherwise each miss has a thread from then on
            _log.exception("letting go of what is kept between reads failed on a bug")

    def _serve(self, wanted: Collection[_Wanted[_Name]]) -> bool:
        """Read for those who wait, and call them. False: there are none."""
        requests: dict[_Name, int] = {}
        for name, _ in wanted:
            requests[name] = requests.get(name, 0) + 1
        began = self._began = monotonic()
        try:
            self._held.read_ahead(requests, self._read, _PATIENCE)
        except LicetError as exc:
            # Each reads for itself, and is told what comes of that.
            _log.info("what %d requests miss could not be read ahead: %s", len(wanted), exc)
            self.turned_away += len(wanted)
        except Exception:  # noqa: BLE001 - nobody must wait for ever
            _log.exception("reading ahead failed on a bug")
            self.turned_away += len(wanted)
        finally:
            self._began = None
        is_late = monotonic() - began > LATE_SECONDS
        for _, then in wanted:
            _call(then)
        if is_late:
            # The next reads may take as long, and each would wait for all of them.
            self._release()
        return bool(wanted)

    def _release(self) -> None:
        """Call whatever is left: nothing is read for it any more."""
        with suppress(Empty):
            while True:
                one = self._queue.get_nowait()
                if one is not None:
                    self.turned_away += 1
                    _call(one[1])


def _call(then: Callable[[], None]) -> None:
    try:
        then()
    except Exception:  # noqa: BLE001 - the others wait as well
        _log.exception("what waited for a read failed on a bug")
