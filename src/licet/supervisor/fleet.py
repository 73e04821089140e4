"""The workers of one host: as many as wanted, always.

On SIGHUP they are replaced one by one, a new one serving before its predecessor drains; on SIGTERM
and SIGINT all are drained, and that is the end. One thread, no handlers: signals are blocked and
waited for, so that nothing happens between two lines that did not have to.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from licet.supervisor.worker import Worker

_log: Final = logging.getLogger(__name__)

_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
_TICK_SECONDS: Final = 0.1
_READY_SECONDS: Final = 60.0
_KILL_MARGIN_SECONDS: Final = 15.0
_STABLE_SECONDS: Final = 10.0
_MAX_BACKOFF_SECONDS: Final = 5.0


class WorkerError(Exception):
    """A worker could not be started; the message says what it did instead."""


class Fleet:
    """See the module."""

    def __init__(self, start: Callable[[int], Worker], count: int, drain_seconds: float) -> None:
        """Keep `count` workers.

        Args:
            start: starts the worker of a slot.
            count: how many, in slots from 0.
            drain_seconds: how long a worker may take to drain.
        """
        self._start = start
        self._count = count
        self._drain_seconds = drain_seconds
        self._workers: dict[int, Worker] = {}
        # For each slot without a worker: when to start one, and the pause before the next.
        self._due: dict[int, float] = {}
        self._backoff: dict[int, float] = {}
        self._stopping = False
        self._reload = False

    def run(self, on_ready: Callable[[], None]) -> None:
        """Run until told to end.

        Args:
            on_ready: called once, when every worker serves.

        Raises:
            WorkerError: a worker of the first generation did not come to serve; none is left.
        """
        with _blocked_signals():
            try:
                self._first_generation()
                if not self._stopping:
                    on_ready()
                while not self._stopping:
                    self._take_signal(_TICK_SECONDS)
                    self._revive()
                    if self._reload:
                        self._reload = False
                        self._replace_all()
                self._drain(list(self._workers.values()))
            finally:
                for worker in self._workers.values():
                    worker.close()

    def _first_generation(self) -> None:
        for slot in range(self._count):
            self._workers[slot] = self._start(slot)
        for worker in self._workers.values():
            if not self._await_ready(worker) and not self._stopping:
                code = worker.exit_code()
                how = "did not serve in time" if code is None else f"ended with code {code}"
                raise WorkerError(f"worker {worker.slot} {how}")

    def _await_ready(self, worker: Worker) -> bool:
        end = monotonic() + _READY_SECONDS
        while not self._stopping and monotonic() < end:
            if worker.is_ready():
                _log.info("worker %d (process %d) serves", worker.slot, worker.pid)
                return True
            if worker.exit_code() is not None:
                return False
            self._take_signal(_TICK_SECONDS)
        return False

    def _take_signal(self, seconds: float) -> None:
        received = signal.sigtimedwait(_SIGNALS, seconds)
        if received is None:
            return
        if received.si_signo in {signal.SIGTERM, signal.SIGINT}:
            self._stopping = True
        elif received.si_signo == signal.SIGHUP:
            self._reload = True

    def _revive(self) -> None:
        """Bury the workers that ended, and start others in their slots, more slowly each time."""
        for slot, worker in list(self._workers.items()):
            code = worker.exit_code()
            if code is None:
                continue
            lived = monotonic() - worker.started
            pause = 0.0 if lived >= _STABLE_SECONDS else self._backoff.get(slot, 0.0)
            self._backoff[slot] = min(max(pause * 2, _TICK_SECONDS), _MAX_BACKOFF_SECONDS)
            self._due[slot] = monotonic() + pause
            _log.error(
                "worker %d (process %d) ended with code %d after %.1f s; another starts in %.1f s",
                *(slot, worker.pid, code, lived, pause),
            )
            worker.close()
            del self._workers[slot]
        for slot, due in list(self._due.items()):
            if monotonic() >= due and not self._stopping:
                del self._due[slot]
                self._workers[slot] = self._start(slot)

    def _replace_all(self) -> None:
        _log.info("replacing every worker, one by one")
        for slot in range(self._count):
            if self._stopping:
                return
            successor = self._start(slot)
            if not self._await_ready(successor):
                _log.error("worker %d could not be replaced; its predecessor goes on", slot)
                successor.close()
                continue
            predecessor = self._workers.get(slot)
            self._workers[slot] = successor
            self._due.pop(slot, None)
            if predecessor is not None:
                self._drain([predecessor])

    def _drain(self, workers: list[Worker]) -> None:
        for worker in workers:
            worker.signal(signal.SIGTERM)
        end = monotonic() + self._drain_seconds + _KILL_MARGIN_SECONDS
        while monotonic() < end and any(worker.exit_code() is None for worker in workers):
            self._take_signal(_TICK_SECONDS)
        for worker in workers:
            if worker.exit_code() is None:
                _log.error("worker %d (process %d) did not drain; killed", worker.slot, worker.pid)
            worker.close()


@contextmanager
def _blocked_signals() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
