"""The workers of one host: as many as wanted, always; and the steward, if it has one.

On SIGHUP they are replaced one by one, a new one serving before its predecessor is told to leave;
on SIGTERM and SIGINT all are drained, and that is the end. One thread; handlers only put signals
into a queue, so that nothing happens between two lines that did not have to. (To block signals and
wait for them is not enough: the threads of the embedded database and of the metrics take them.)

A worker is told with SIGTERM that others go on in its place, and with SIGINT that all end. The
steward is looked after like a worker, but for its end: it is told with SIGINT only, and the last of
all, because it stores and seals what the workers leave.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

from licet.supervisor.reports import State
from licet.supervisor.worker import Worker

_log: Final = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TICK_SECONDS: Final = 0.1
_READY_SECONDS: Final = 60.0
_KILL_MARGIN_SECONDS: Final = 15.0
_STABLE_SECONDS: Final = 10.0
_MAX_BACKOFF_SECONDS: Final = 5.0
_MISSED_SECONDS: Final = 1.0
_STEWARD_SECONDS: Final = 10.0
"""How long the end waits for a steward that has just been started."""
HUNG_SECONDS: Final = 60.0
"""A worker that is silent for so long is killed: the kernel goes on giving it connections."""


class WorkerError(Exception):
    """A worker could not be started; the message says what it did instead."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a worker is waited for, in seconds.

    Attributes:
        leave: from being told to leave to having no connections any more.
        drain: for its running calls then.
        hung: saying nothing.
    """

    leave: float
    drain: float
    hung: float = HUNG_SECONDS


class Fleet:
    """See the module."""

    def __init__(
        self,
        start: Callable[[int], Worker],
        count: int,
        patience: Patience,
        *,
        has_steward: bool = False,
        look: Callable[[Sequence[Worker]], None] | None = None,
    ) -> None:
        """Keep workers.

        Args:
            start: starts the worker of a slot.
            count: how many there are, in slots from 0.
            patience: with them.
            has_steward: there is one, in the slot behind them.
            look: shown the workers all the time, without those that were told to leave and without
                the steward; it must not raise.
        """
        self._start = start
        self._slots = range(count + has_steward)
        self._steward = count
        self._look = look
        self._patience = patience
        self._workers: dict[int, Worker] = {}
        # Those that were told to go, or said that they go, and when they have to be gone.
        self._leaving: list[tuple[Worker, float]] = []
        # Slots whose worker is to be replaced, and the successor that does not serve yet.
        self._outdated: list[int] = []
        self._successor: Worker | None = None
        # For each slot without a worker: when to start one, and the pause before the next.
        self._due: dict[int, float] = {}
        self._backoff: dict[int, float] = {}
        self._stop_signals = 0
        self._has_served = False
        self.failures = 0
        """How many workers ended, or were killed, without being told to."""
        self._looked = monotonic()
        # Its `put` may interrupt its `get`, which is not true of Event or Queue.
        self._received: SimpleQueue[int] = SimpleQueue()

    @property
    def leaving(self) -> int:
        """How many workers are being drained; read by metrics."""
        return len(self._leaving)

    @property
    def workers(self) -> list[Worker]:
        """The worker of each slot that has one, in order, the steward last; read by metrics."""
        return [worker for _, worker in sorted(self._workers.copy().items())]

    def run(self, on_ready: Callable[[], None], is_stopped: Callable[[], bool]) -> bool:
        """Run until told to end, and say whether it was told twice: then nothing was drained.

        Args:
            on_ready: called once, when every worker serves.
            is_stopped: says whether this process was told to end before this was called.

        Raises:
            WorkerError: a worker of the first generation did not come to serve; none is left.
        """
        with self._handled_signals():
            self._stop_signals = int(is_stopped())
            try:
                self._first_generation()
                if not self._stop_signals:
                    self._has_served = True
                    on_ready()
                while not self._stop_signals:
                    self._revive()
                    self._replace()
                    self._bury()
                    # Last: who leaves because everybody was told to stop is not replaced.
                    self._tick()
                self._drain_all()
            finally:
                for worker in self._everyone():
                    worker.close()
        return self._stop_signals > 1

    @contextmanager
    def _handled_signals(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, lambda number, _: self._received.put(number))
            for number in _SIGNALS
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _first_generation(self) -> None:
        for slot in self._slots:
            if not self._stop_signals:
                self._workers[slot] = self._start(slot)
        waiting = list(self._workers.values())
        while waiting and not self._stop_signals:
            self._tick()
            for worker in waiting:
                if not worker.is_ready and (how := _cannot_serve(worker)):
                    raise WorkerError(f"{worker.name} {how}")
            waiting = [worker for worker in waiting if not worker.is_ready]

    def _everyone(self) -> list[Worker]:
        successor = [] if self._successor is None else [self._successor]
        return [*self._workers.values(), *successor, *(worker for worker, _ in self._leaving)]

    def _tick(self) -> None:
        """Wait a little for a signal, and listen to everyone."""
        try:
            number = self._received.get(timeout=_TICK_SECONDS)
        except Empty:
            pass
        else:
            if number == signal.SIGHUP:
                _log.info("replacing every worker, one by one")
                self._outdated = list(self._slots)
            else:
                self._stop_signals += 1
        now = monotonic()
        missed = now - self._looked - _TICK_SECONDS
        self._looked = now
        for worker in self._everyone():
            if missed >= _MISSED_SECONDS:
                # This process was stopped, and perhaps the whole machine: nobody has been silent.
                worker.heard += missed
            worker.listen()
        if self._look is not None:
            self._look([worker for worker in self.workers if worker.slot != self._steward])

    def _revive(self) -> None:
        """Start others in the slots of those that ended, hang or leave, more slowly each time."""
        for slot, worker in list(self._workers.items()):
            if worker.state is State.LEAVING:
                # Somebody else has told it.
                self._let_go(worker)
                self._due[slot] = monotonic()
                continue
            if self._hangs(worker):
                _log.error("%s (process %d) hangs; killed", worker.name, worker.pid)
                worker.close()
            code = worker.exit_code()
            if code is not None:
                self._ended(worker, code)
        for slot, due in list(self._due.items()):
            if monotonic() >= due:
                del self._due[slot]
                self._workers[slot] = self._start(slot)

    def _hangs(self, worker: Worker) -> bool:
        # As of the last tick: if this process was stopped since, the next one finds out.
        if worker.is_ready:
            return self._looked - worker.heard >= self._patience.hung
        return self._looked > worker.started + _READY_SECONDS

    def _ended(self, worker: Worker, code: int) -> None:
        slot = worker.slot
        lived = monotonic() - worker.started
        pause = 0.0 if lived >= _STABLE_SECONDS else self._backoff.get(slot, 0.0)
        self._backoff[slot] = min(max(pause * 2, _TICK_SECONDS), _MAX_BACKOFF_SECONDS)
        self._due[slot] = monotonic() + pause
        self.failures += 1
        _log.error(
            "%s (process %d) ended with code %d after %.1f s; another starts in %.1f s",
            *(worker.name, worker.pid, code, lived, pause),
        )
        worker.close()
        del self._workers[slot]

    def _replace(self) -> None:
        """Take one step further in replacing what is outdated; nobody is waited for here."""
        successor = self._successor
        if successor is None:
            # One at a time, so that a host needs room for one more and not for twice as many.
            if self._outdated and not self._leaving:
                self._successor = self._start(self._outdated.pop(0))
            return
        if successor.is_ready:
            self._successor = None
            predecessor = self._workers.get(successor.slot)
            self._workers[successor.slot] = successor
            self._due.pop(successor.slot, None)
            if predecessor is not None:
                predecessor.signal(signal.SIGTERM)
                self._let_go(predecessor)
        elif how := _cannot_serve(successor):
            self._successor = None
            successor.close()
            _log.error(
                "%s could not be replaced, its successor %s; its predecessor goes on",
                *(successor.name, how),
            )

    def _let_go(self, worker: Worker) -> None:
        if self._workers.get(worker.slot) is worker:
            del self._workers[worker.slot]
        if worker.slot == self._steward:
            worker.signal(signal.SIGINT)
        seconds = self._patience.leave + self._patience.drain + _KILL_MARGIN_SECONDS
        self._leaving.append((worker, monotonic() + seconds))

    def _bury(self) -> None:
        """Forget those that left; kill who does not."""
        staying = []
        for worker, end in self._leaving:
            if worker.exit_code() is None and monotonic() < end:
                staying.append((worker, end))
                continue
            _say_gone(worker)
            worker.close()
        self._leaving = staying

    def _drain_all(self) -> None:
        self._drain([worker for worker in self._everyone() if worker.slot != self._steward])
        if self._steward in self._slots:
            self._await_steward()
            self._drain([worker for worker in self._everyone() if worker.slot == self._steward])

    def _await_steward(self) -> None:
        """See to it that there is a steward that can take what the workers have left."""
        found = self._workers.get(self._steward)
        if found is not None and (code := found.exit_code()) is not None:
            self._ended(found, code)
            found = None
        if found is None and self._has_served and self._stop_signals <= 1:
            self._workers[self._steward] = self._start(self._steward)
        end = monotonic() + _STEWARD_SECONDS
        # Told while it starts, it would just end.
        while self._has_served and self._stop_signals <= 1 and monotonic() < end:
            stewards = [worker for worker in self._everyone() if worker.slot == self._steward]
            if all(worker.is_ready or worker.exit_code() is not None for worker in stewards):
                return
            self._tick()

    def _drain(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            worker.signal(signal.SIGINT)
        end = monotonic() + self._patience.drain + _KILL_MARGIN_SECONDS
        while (
            monotonic() < end
            and self._stop_signals <= 1
            and any(worker.exit_code() is None for worker in workers)
        ):
            self._tick()
        for worker in workers:
            _say_gone(worker)


def _cannot_serve(worker: Worker) -> str:
    """Say why a worker that does not serve yet never will; empty: it may."""
    code = worker.exit_code()
    if code is not None:
        return f"ended with code {code}"
    return "did not serve in time" if monotonic() > worker.started + _READY_SECONDS else ""


def _say_gone(worker: Worker) -> None:
    code = worker.exit_code()
    if code is None:
        _log.error("%s (process %d) did not drain; killed", worker.name, worker.pid)
    elif code:
        _log.error("%s (process %d) left with code %d", worker.name, worker.pid, code)
    else:
        _log.info("%s (process %d) has left", worker.name, worker.pid)
