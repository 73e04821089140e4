"""Adopts the spools of writers that are gone, ships what is left of them, and removes them in time.

What is shipped, sealed and signed stays for as long as in the spool of a living writer, and for the
same reason: a database that has lost commits is sent again what it lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from threading import Event, Thread
from typing import Final

from licet.domain.errors import LicetError
from licet.spool.folder import SpoolFolder
from licet.spool.shipper import Retention, Shipper

_log: Final = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Adopted:
    """The spool of a writer that is gone.

    Attributes:
        shipper: of its folder.
        told: whether it is on record how far its events go, and that they are all stored.
    """

    shipper: Shipper
    told: bool


class _State(Enum):
    WAITING = auto()
    """Not all of it is stored, sealed and signed."""
    SETTLED = auto()
    """It is, and is kept for a time."""
    GONE = auto()
    """It was removed."""


class Adoption:
    """One thread for all that is adopted. Several processes of a host may look at once."""

    def __init__(
        self,
        root: Path,
        shipper: Callable[[SpoolFolder], Shipper],
        is_settled: Callable[[int], bool],
        recovered: Callable[[Shipper], None],
        retention: Retention,
    ) -> None:
        """Prepare.

        Args:
            root: where the folders are.
            shipper: makes the shipper of a dead writer's folder.
            is_settled: says of a writer whether all that it stored is under a checkpoint.
            recovered: told when all of a folder is shipped, and nobody has said so yet.
            retention: of what is shipped.
        """
        self._root = root
        self._shipper = shipper
        self._is_settled = is_settled
        self._recovered = recovered
        self._retention = retention
        self._adopted: list[_Adopted] = []
        self.lost = 0
        """How many events of adopted spools were lost to damage, or could not be stored."""
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-adoption", daemon=True)

    @property
    def held(self) -> int:
        """How many folders are adopted and not removed yet."""
        return len(self._adopted)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def end(self) -> bool:
        """End the thread, and say whether it did: then `look` may be called by another one."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Let go of all folders; another process may adopt them. The thread has ended."""
        while self._adopted:
            shipper = self._adopted.pop().shipper
            shipper.close()
            shipper.folder.close()

    def look(self, is_over: Callable[[], bool] = lambda: False) -> int:
        """Adopt what there is, ship what is left, and remove what has been kept long enough.

        Args:
            is_over: asked again and again: what is not shipped then is left.

        Returns:
            How many of the adopted are not stored, sealed and signed yet.
        """
        try:
            while (folder := SpoolFolder.adopt(self._root)) is not None:
                _log.info("the spool %s of a writer that is gone is adopted", folder.path)
                self._adopted.append(_Adopted(self._shipper(folder), folder.is_settled()))
        except LicetError as exc:
            _log.warning("spools of writers that are gone wait: %s", exc)
        unsettled = 0
        for adopted in self._adopted[:]:
            state = _State.WAITING if is_over() else self._state(adopted, is_over)
            if state is _State.GONE:
                self._adopted.remove(adopted)
            unsettled += state is _State.WAITING
        return unsettled

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.look(self._stopping.is_set)
            self._stopping.wait(LOOK_SECONDS)

    def _state(self, adopted: _Adopted, is_over: Callable[[], bool]) -> _State:
        """Ship what is left of a folder, remove it if its time has come, and say how it is."""
        shipper = adopted.shipper
        folder, lost = shipper.folder, shipper.lost
        try:
            if not self._ship(adopted, is_over):
                return _State.WAITING
            if not self._is_settled(folder.writer_id):
                folder.unsettle()  # it was, if the database has lost that
                return _State.WAITING
            if folder.settled_seconds() < self._retention.seconds and not self._is_crowded():
                return _State.SETTLED
            shipper.close()
            folder.remove()
        except LicetError as exc:
            _log.warning("the spool %s waits: %s", folder.path, exc)
            return _State.WAITING
        except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, and not end it
            _log.exception("shipping the spool %s failed", folder.path)
            return _State.WAITING
        finally:
            self.lost += shipper.lost - lost
        return _State.GONE

    def _ship(self, adopted: _Adopted, is_over: Callable[[], bool]) -> bool:
        """Ship what is left; say whether that was all."""
        shipper = adopted.shipper
        if shipper.is_ahead():
            # The database has lost what it had.
            shipper.close()
        while shipper.step():
            adopted.told = False
            shipper.folder.unsettle()
            if is_over():
                return False
        if not adopted.told:
            self._recovered(shipper)
            adopted.told = True
        return True

    def _is_crowded(self) -> bool:
        held = sum(adopted.shipper.folder.bytes() for adopted in self._adopted)
        return held > self._retention.crowded_bytes
