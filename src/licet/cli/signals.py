"""The signals that tell a process to stop."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from types import FrameType
from typing import Final

_LOOK_SECONDS: Final = 0.5


class StopSignals:
    """SIGINT and SIGTERM, from when this is made: none is lost while the server starts.

    The second one ends the process, but for a worker: its supervisor decides that, and whoever
    stops a service may have sent the first one to both of them.
    """

    def __init__(self, *, is_worker: bool) -> None:
        """Take them from now on."""
        # Its `put` may interrupt its `get`, which is not true of Event or Queue.
        self._signals: SimpleQueue[int] = SimpleQueue()
        self._is_worker = is_worker
        self.requested: int | None = None
        """The first one."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the next one, or None after the time."""
        # Python handles a signal in its main thread, which the kernel wakes only if it hands the
        # signal to that one. After a pause (SIGSTOP, a debugger) it may take any other.
        end = float("inf") if seconds is None else monotonic() + seconds
        while (left := end - monotonic()) > 0:
            with suppress(Empty):
                return self._signals.get(timeout=min(left, _LOOK_SECONDS))
        return None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested is not None and not self._is_worker:
            # The embedded PostgreSQL ends with this process, however that ends.
            os._exit(128 + number)
        self.requested = number
        self._signals.put(number)
