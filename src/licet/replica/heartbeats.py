"""Heartbeats of agents: noted in memory, and written in one statement for all of them.

Invariants:

- A heartbeat costs no I/O, takes no lock, and is no change: ten thousand agents cost what one does.
- What could not be written is kept until it can, unless a later one of the same agent came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import Final, Protocol

from licet.app.ports import Clock, Deadline
from licet.domain.errors import LicetError
from licet.domain.instant import Instant

_log: Final = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 5.0
"""How long one waits at most to be written; less than a third of what is between two."""
_WRITE_SECONDS: Final = 5.0


class Heard(Protocol):
    """Where heartbeats are kept."""

    def heard(self, heard: Mapping[str, Instant], deadline: Deadline) -> None:
        """Keep when agents were heard of; one that was offline is active again, on record.

        Raises:
            UnavailableError, DeadlineError: perhaps nothing was kept; repeating is harmless.
        """
        ...


class HeartbeatBuffer:
    """See the module."""

    def __init__(
        self,
        kept: Heard,
        clock: Clock,
        deadline: Callable[[float], Deadline],
        seconds: float = FLUSH_SECONDS,
    ) -> None:
        """Write to `kept` each so many seconds; `deadline` makes one of so many."""
        self._kept = kept
        self._clock = clock
        self._deadline = deadline
        self._seconds = seconds
        # Single operations on a dict, which are atomic; written by every thread. As many entries as
        # there are agents: only those who have been authenticated get here.
        self._heard: dict[str, Instant] = {}
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-heartbeats", daemon=True)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._stopping.set()
        self._thread.join(2 * _WRITE_SECONDS)

    def heard(self, name: str) -> None:
        """See `app.agent_ports.Heartbeats.heard`."""
        self._heard[name] = self._clock.now()

    def write(self) -> None:
        """Write now."""
        heard = {name: self._heard.pop(name) for name in list(self._heard)}
        if not heard:
            return
        try:
            self._kept.heard(heard, self._deadline(_WRITE_SECONDS))
        except LicetError as exc:
            _log.warning("%d heartbeats of agents could not be kept yet: %s", len(heard), exc)
            for name, at in heard.items():
                self._heard.setdefault(name, at)

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            self._write_safely()
        self._write_safely()

    def _write_safely(self) -> None:
        try:
            self.write()
        except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, not end it
            _log.exception("heartbeats of agents could not be kept")
