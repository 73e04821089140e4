"""Trims history that nobody needs any more: old changes, and old idempotency keys.

One thread in each process; the database lets one of them at a time do the work. Many short
transactions, so that no mutation waits long for any of them.
"""

from __future__ import annotations

import logging
from threading import Event, Thread
from time import monotonic
from typing import Final, Protocol

from licet.app.ports import Deadline
from licet.domain.errors import LicetError

_log: Final = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 300.0
BATCH: Final = 1000
_FIRST_SECONDS: Final = 10.0
_STATEMENT_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.05


class History(Protocol):
    """What is trimmed; see `storage.changes`."""

    def trim(self, keep_hours: int, batch: int, deadline: Deadline) -> int:
        """Trim at most `batch` changes older than `keep_hours`, and as many old idempotency keys.

        Returns how much of the batch was used: less than `batch` means that nothing more is old, or
        that another process is at it.

        Raises:
            UnavailableError, DeadlineError, ConflictError: this batch is as it was.
        """
        ...


class Retention:
    """See the module."""

    def __init__(
        self,
        history: History,
        keep_hours: int,
        *,
        first_seconds: float = _FIRST_SECONDS,
        interval_seconds: float = INTERVAL_SECONDS,
        batch: int = BATCH,
    ) -> None:
        """Trim `history` to the last `keep_hours`, soon after the start and then at intervals."""
        self._history = history
        self._keep_hours = keep_hours
        self._first_seconds = first_seconds
        self._interval_seconds = interval_seconds
        self._batch = batch
        self.trimmed = 0
        """How many changes, or idempotency keys if those were more, were trimmed here."""
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-retention", daemon=True)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch under way."""
        self._stopping.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        pause = self._first_seconds
        while not self._stopping.wait(pause):
            pause = self._interval_seconds
            try:
                self._trim()
            except LicetError as exc:
                _log.warning("history was not trimmed; it will be tried again: %s", exc)
            except Exception:  # noqa: BLE001 - a thread's own top
                _log.exception("trimming history failed on a bug; it will be tried again")

    def _trim(self) -> None:
        trimmed = self._batch
        while trimmed >= self._batch:
            trimmed = self._history.trim(self._keep_hours, self._batch, _deadline())
            self.trimmed += trimmed
            if self._stopping.wait(_PAUSE_SECONDS):
                return


def _deadline() -> Deadline:
    return Deadline.after(_STATEMENT_SECONDS, monotonic)
