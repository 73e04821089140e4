"""Faults inside one worker that no signal and no proxy can cause: of its clock, of one thread.

The clock is injected and not faked for the whole process. libfaketime would need to be installed
wherever the tests run, and cannot be used on Python anyway: its 0.9.10 scales CLOCK_BOOTTIME as
wanted, and every wait with a timeout (`Event.wait`, 3.11 on Debian) hangs for ever. Nor would it
show more: all that the protocol knows of time goes through the one clock that `bootstrap` hands to
the lease, to the replica and to whoever waits for replicas. Timeouts of sockets and conditions,
which run at the true rate here, decide when a thread looks again and never what it may conclude.
"""

from __future__ import annotations

import sys
import threading
from threading import Event, Lock
from types import FrameType
from typing import TYPE_CHECKING, Final

from licet.replica import coherence
from licet.replica.lease import boottime
from licet.storage import replicas

if TYPE_CHECKING:
    from _typeshed import TraceFunction

_REPLICA_THREAD: Final = "licet-replica"
_CODE: Final = frozenset({coherence.__file__, replicas.__file__})


class AdjustableClock:
    """The clock of a replica, at a rate that can be changed; its time never steps."""

    def __init__(self) -> None:
        """Run at the true rate."""
        # Guards what follows: a reading is of one line and not of two.
        self._mutex = Lock()
        self._rate = 1.0
        self._since = boottime()
        self._reading = self._since

    def __call__(self) -> float:
        """Read it."""
        with self._mutex:
            return self._read(boottime())

    def run_at(self, rate: float) -> None:
        """Pass `rate` seconds in each true one from now on."""
        with self._mutex:
            now = boottime()
            self._reading, self._since, self._rate = self._read(now), now, rate

    def _read(self, now: float) -> float:
        return self._reading + (now - self._since) * self._rate


class Starvation:
    """Keeps the replica's thread from running, whichever line it is at; the others go on.

    It is the scheduler's fault that a thread does not run; here it waits before its next line.
    """

    def __init__(self) -> None:
        """Starve nobody yet."""
        self._may_run = Event()
        self._may_run.set()

    def install(self) -> None:
        """Take hold of the thread; before it is started."""
        threading.settrace(self._called)

    def begin(self) -> None:
        """Let it run no further."""
        self._may_run.clear()

    def end(self) -> None:
        """Let it go on where it is."""
        self._may_run.set()

    def _called(self, frame: FrameType, _event: str, _argument: object) -> TraceFunction | None:
        if threading.current_thread().name != _REPLICA_THREAD:
            sys.settrace(None)  # of this thread, which is not slowed any further
            return None
        return self._before_line if frame.f_code.co_filename in _CODE else None

    def _before_line(self, _frame: FrameType, _event: str, _argument: object) -> TraceFunction:
        self._may_run.wait()
        return self._before_line
