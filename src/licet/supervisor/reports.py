"""What a worker tells its supervisor, on a pipe, a line at a time.

`ready [PORT]` once it serves, with the port of its metrics; then, with each health probe, `serving`
or `not serving`; at last `leaving`. Each line is short enough to be written whole or not at all.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from enum import StrEnum
from typing import Final, Self

REPORTS_FD_VARIABLE: Final = "LICET_REPORTS_FD"
"""Names the file descriptor on which a worker reports."""
LIFELINE_FD_VARIABLE: Final = "LICET_LIFELINE_FD"
"""Names the file descriptor that reads as ended when the supervisor has ended."""
READY: Final = "ready"


class State(StrEnum):
    """What a worker says of itself."""

    SERVING = "serving"
    NOT_SERVING = "not serving"
    LEAVING = "leaving"


class Reports:
    """The worker's end of the pipe. Any thread may report."""

    def __init__(self, descriptor: int) -> None:
        """Report on a pipe, and never wait: a supervisor that does not read misses something."""
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - positional only
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    @classmethod
    def of_environment(cls) -> Self | None:
        """Return what the supervisor gave this process, or None: it is no worker."""
        number = os.environ.pop(REPORTS_FD_VARIABLE, None)
        return None if number is None else cls(int(number))

    def ready(self, metrics_port: int | None = None) -> None:
        """Say that this worker serves, and where its metrics are."""
        self._write(READY if metrics_port is None else f"{READY} {metrics_port}")

    def serves(self, serving: bool) -> None:  # noqa: FBT001 - what a probe found
        """Say what a health probe found."""
        self._write(State.SERVING if serving else State.NOT_SERVING)

    def leaving(self) -> None:
        """Say that this worker has been told to go, by whomever."""
        self._write(State.LEAVING)

    def _write(self, line: str) -> None:
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._descriptor, f"{line}\n".encode("ascii"))


def follow_supervisor() -> None:
    """Drain when the supervisor dies."""
    lifeline = int(os.environ.pop(LIFELINE_FD_VARIABLE))

    def watch() -> None:
        os.read(lifeline, 1)
        # All workers end: there is nobody to hand over to.
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, name="licet-lifeline", daemon=True).start()
