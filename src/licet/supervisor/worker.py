"""One worker as its supervisor sees it: a process, and a pipe on which it says how it is.

The steward is one to it, too.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

from licet.supervisor.reports import (
    LIFELINE_FD_VARIABLE,
    READY,
    REPORTS_FD_VARIABLE,
    State,
)

_log: Final = logging.getLogger(__name__)

SILENT_SECONDS: Final = 10.0
"""A worker that says nothing for so long is silent: three times what a probe may take."""
_READ_BYTES: Final = 4096


class Worker:
    """A started worker. Changed by the supervisor's main thread only; metrics read it as well."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it is, and what is to be made of it
        self,
        slot: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        silent_after: float = SILENT_SECONDS,
        core: int | None = None,
        name: str | None = None,
    ) -> None:
        """Start it.

        Args:
            slot: its place among the workers, from 0.
            command: the program and its arguments.
            environment: all of its environment.
            silent_after: seconds after which one that says nothing is called silent.
            core: the one that it is kept to; None: all that this process may use.
            name: what it is called in the log, if not by its slot.
        """
        self.slot = slot
        self.name = name or f"worker {slot}"
        self.started = monotonic()
        self.is_ready = False
        self.metrics_port: int | None = None
        self.state: State | None = None
        """What it said last; None: nothing yet."""
        self.heard = self.started
        """When it said something last."""
        self._silent_after = silent_after
        self._silent = False
        self._rest = b""
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        # Nothing is ever written: it ends with this process, however that ends.
        their_lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                env={
                    **environment,
                    REPORTS_FD_VARIABLE: str(theirs),
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
        if core is not None:
            # It is a single thread yet; those that it starts inherit it. A core that went away in
            # this moment is no reason not to serve.
            with suppress(OSError):
                os.sched_setaffinity(self.pid, {core})

    @property
    def silent_seconds(self) -> float:
        """How long it has said nothing."""
        return monotonic() - self.heard

    @property
    def is_serving(self) -> bool:
        """Whether it serves, by what it said last, and said that lately."""
        return self.state is State.SERVING and self.silent_seconds < self._silent_after

    def listen(self) -> None:
        """Take what it has said since the last time, and log what has changed."""
        with suppress(BlockingIOError):
            while self._pipe >= 0 and (said := os.read(self._pipe, _READ_BYTES)):
                *lines, self._rest = (self._rest + said).split(b"\n")
                for line in lines:
                    self._heard(line.decode("ascii", errors="replace"))
        if self.is_ready and self.state is not State.LEAVING:
            self._listen_to_silence()

    def _heard(self, line: str) -> None:
        self.heard = monotonic()
        word, _, port = line.partition(" ")
        if word == READY:
            self.is_ready = True
            self.metrics_port = int(port) if port else None
            if self.state is None:
                self._change(State.SERVING)
        elif line in set(State):
            self._change(State(line))

    def _change(self, state: State) -> None:
        # A worker that leaves may serve its last calls for long, and leaves all the same.
        if state is not self.state and self.state is not State.LEAVING:
            self.state = state
            level = logging.ERROR if state is State.NOT_SERVING else logging.INFO
            _log.log(level, "%s (process %d): %s", self.name, self.pid, state)

    def _listen_to_silence(self) -> None:
        silent = self.silent_seconds >= self._silent_after
        if silent != self._silent:
            self._silent = silent
            (_log.error if silent else _log.info)(
                "%s (process %d) %s",
                *(self.name, self.pid, "is silent" if silent else "is heard again"),
            )

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
        for descriptor in (self._lifeline, self._pipe):
            if descriptor >= 0:
                os.close(descriptor)
        self._lifeline = self._pipe = -1
