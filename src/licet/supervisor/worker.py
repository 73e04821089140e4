"""One worker as its supervisor sees it: a process, and a pipe on which it says that it serves."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic

READY = b"ready\n"
READY_FD_VARIABLE = "LICET_READY_FD"
"""Names the file descriptor on which a worker writes `READY` once it serves."""
LIFELINE_FD_VARIABLE = "LICET_LIFELINE_FD"
"""Names the file descriptor that reads as ended when the supervisor has ended."""


def is_worker() -> bool:
    """Say whether a supervisor has started this process."""
    return READY_FD_VARIABLE in os.environ


def follow_supervisor() -> None:
    """Take signals again, which the supervisor blocks, and drain when the supervisor dies."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    lifeline = int(os.environ.pop(LIFELINE_FD_VARIABLE))

    def watch() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="licet-lifeline", daemon=True).start()


def announce_ready() -> None:
    """Tell the supervisor, if there is one, that this worker serves."""
    number = os.environ.pop(READY_FD_VARIABLE, None)
    if number is not None:
        descriptor = int(number)
        os.write(descriptor, READY)
        os.close(descriptor)


class Worker:
    """A started worker. Owned by the supervisor's only thread."""

    def __init__(self, slot: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            slot: its place among the workers, from 0.
            command: the program and its arguments.
            environment: all of its environment.
        """
        self.slot = slot
        self.started = monotonic()
        self._ready = False
        self._pipe, theirs = os.pipe()
        # Nothing is ever written: it ends with this process, however that ends.
        their_lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                env={
                    **environment,
                    READY_FD_VARIABLE: str(theirs),
                    LIFELINE_FD_VARIABLE: str(their_lifeline),
                },
                pass_fds=(theirs, their_lifeline),
                stdin=subprocess.DEVNULL,
                # Ctrl-C on a terminal is for the supervisor, which drains the workers.
                start_new_session=True,
            )
        finally:
            os.close(theirs)
            os.close(their_lifeline)
        self.pid = self._process.pid

    def is_ready(self) -> bool:
        """Say whether it has said that it serves."""
        if not self._ready and self._pipe >= 0:
            readable, _, _ = select.select([self._pipe], [], [], 0)
            if readable:
                self._ready = os.read(self._pipe, len(READY)) == READY
                os.close(self._pipe)
                self._pipe = -1
        return self._ready

    def exit_code(self) -> int | None:
        """Return the code it ended with, negative for a signal; None while it runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def close(self) -> None:
        """Kill it if it still runs, and forget it."""
        if self.exit_code() is None:
            self._process.kill()
        self._process.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
