"""Deletes the rows of token buckets that are full again, on a thread, where the log is led.

That one leads only spares work: who deletes is all the same, for no row means full.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Final, Protocol

from licet.app.ports import Deadline
from licet.domain.errors import LicetError

_log: Final = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 60.0
_TRIM_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0


class FullBuckets(Protocol):
    """Buckets, as far as they are full."""

    def trim(self, deadline: Deadline) -> int:
        """Delete the rows of those that have been full for a minute; return how many.

        Raises:
            UnavailableError, DeadlineError, ConflictError: some may be gone; to repeat it is
                harmless.
        """
        ...


class BucketThread:
    """See the module."""

    def __init__(
        self,
        buckets: FullBuckets,
        leads: Callable[[], bool],
        deadline: Callable[[float], Deadline],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        """Look once in an interval, while `leads` says that this process is the one to work."""
        self._buckets = buckets
        self._leads = leads
        self._deadline = deadline
        self._interval = interval_seconds
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-buckets", daemon=True)
        self.trimmed = 0
        """How many rows were deleted here."""

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            if not self._leads():
                continue
            try:
                self.trimmed += self._buckets.trim(self._deadline(_TRIM_SECONDS))
            except LicetError as exc:
                _log.warning("the rows of full buckets stay: %s", exc)
            except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, not end it
                _log.exception("the rows of full buckets stay")
