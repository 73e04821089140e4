"""Drives the rolling verifier on a thread of its own, where the log is sealed and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from licet.domain.errors import LicetError
from licet.steward.verifier import RollingVerifier

_log: Final = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
"""How soon one that comes to lead begins, and one that does not any more ends."""
_BACKOFF_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0


class VerifierThread:
    """See the module."""

    def __init__(self, verifier: RollingVerifier, leads: Callable[[], bool]) -> None:
        """Drive `verifier` while `leads` says that this process is the one to work."""
        self.verifier = verifier
        self._leads = leads
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-verifier", daemon=True)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """End between two slices; what was not verified is the next one's."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        due = 0.0  # seconds until there is something to verify
        while not self._stopping.is_set():
            if not self._leads():
                self.verifier.close()
                due = 0.0
                self._stopping.wait(_LOOK_SECONDS)
                continue
            if due <= 0:
                due = self._step()
            pause = min(due, _LOOK_SECONDS)
            due -= pause
            self._stopping.wait(pause)
        self.verifier.close()

    def _step(self) -> float:
        try:
            return self.verifier.step()
        except LicetError as exc:
            _log.warning("the audit log is not verified: %s", exc)
        except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, not end it
            _log.exception("the audit log is not verified")
        self.verifier.close()
        return _BACKOFF_SECONDS
