"""The latest checkpoint of the audit log, in memory: read once a second, and never for a call."""

from __future__ import annotations

import logging
from threading import Event, Thread
from time import monotonic
from typing import Final, Protocol

from licet.app.ports import Deadline
from licet.app.prove import StoredCheckpoint
from licet.domain.errors import LicetError

_log: Final = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 1.0
_STATEMENT_SECONDS: Final = 5.0


class Checkpoints(Protocol):
    """Where checkpoints are stored."""

    def latest_checkpoint(self, deadline: Deadline) -> StoredCheckpoint | None:
        """Return the latest of the current epoch, or None. Raises LicetError."""
        ...


class LatestCheckpoint:
    """See the module. While the database is away it keeps the one that it had."""

    def __init__(
        self, checkpoints: Checkpoints, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        """Read from `checkpoints`, so often."""
        self._checkpoints = checkpoints
        self._interval_seconds = interval_seconds
        self._found: StoredCheckpoint | None = None
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-checkpoint", daemon=True)

    def __call__(self) -> StoredCheckpoint | None:
        """Return it; None as long as there is none."""
        return self._found

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(_STATEMENT_SECONDS)

    def _run(self) -> None:
        while True:
            try:
                self._found = self._checkpoints.latest_checkpoint(_deadline())
            except LicetError as exc:
                _log.debug("the latest checkpoint could not be read: %s", exc)
            except Exception:  # noqa: BLE001 - a thread's own top
                _log.exception("reading the latest checkpoint failed on a bug")
            if self._stopping.wait(self._interval_seconds):
                return


def _deadline() -> Deadline:
    return Deadline.after(_STATEMENT_SECONDS, monotonic)
