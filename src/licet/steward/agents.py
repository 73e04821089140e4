"""Marks agents offline that are silent, on a thread of its own, where the log is led.

That one leads only spares work: the database compares under the mutation lock, so whoever asks at
the wrong time finds nobody, and two who ask find nobody twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Final, Protocol

from licet.app.ports import Deadline
from licet.domain.agent import SILENT_BEATS
from licet.domain.errors import LicetError

_log: Final = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
"""How soon one that comes to lead knows it."""
_MARK_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0


class Silence(Protocol):
    """Agents, as far as they are silent."""

    def mark_silent(self, seconds: float, deadline: Deadline) -> int:
        """Mark those offline, on record, that were not heard of for so long; return how many.

        Raises:
            UnavailableError, DeadlineError: some may have been marked; repeating is harmless.
        """
        ...


class SilenceThread:
    """See the module."""

    def __init__(
        self,
        agents: Silence,
        leads: Callable[[], bool],
        deadline: Callable[[float], Deadline],
        interval_seconds: float,
    ) -> None:
        """Look once in an interval, while `leads` says that this process is the one to work.

        Args:
            agents: who is marked.
            leads: whether to.
            deadline: makes one of so many seconds.
            interval_seconds: between two heartbeats of an agent.
        """
        self._agents = agents
        self._leads = leads
        self._deadline = deadline
        self._interval = interval_seconds
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-agents", daemon=True)
        self.marked = 0
        """How many agents were marked offline here."""

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.wait(min(_LOOK_SECONDS, self._interval)):
            # Whoever has just begun to lead waits for an interval, as after a failure: when the
            # database was away, servers have heartbeats to write, and nobody was silent.
            while self._leads() and not self._stopping.wait(self._interval):
                if not self._leads() or not self._look():
                    break

    def _look(self) -> bool:
        try:
            marked = self._agents.mark_silent(
                SILENT_BEATS * self._interval, self._deadline(_MARK_SECONDS)
            )
        except LicetError as exc:
            _log.warning("silent agents are not marked: %s", exc)
            return False
        except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, not end it
            _log.exception("silent agents are not marked")
            return False
        self.marked += marked
        if marked:
            _log.info("%d agents are offline", marked)
        return True
