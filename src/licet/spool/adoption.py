"""Adopts the spools of writers that are gone, ships what is left of them, and removes them in time.

What is shipped, sealed and signed stays for as long as in the spool of a living writer, and for the
same reason: a database that has lost commits is sent again what it lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
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
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-adoption", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is not removed yet is left for others."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)
        self.close()

    def close(self) -> None:
        """Let go of all folders; another process may adopt them."""
        while self._adopted:
            shipper = self._adopted.pop().shipper
            shipper.close()
            shipper.folder.close()

    def look(self) -> None:
        """Adopt what there is, ship what is left, and remove what has been kept long enough."""
        try:
            while (folder := SpoolFolder.adopt(self._root)) is not None:
                _log.info("the spool %s of a writer that is gone is adopted", folder.path)
                self._adopted.append(_Adopted(self._shipper(folder), folder.is_settled()))
        except LicetError as exc:
            _log.warning("spools of writers that are gone wait: %s", exc)
        for adopted in self._adopted[:]:
            if self._is_gone(adopted):
                self._adopted.remove(adopted)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(LOOK_SECONDS)

    def _is_gone(self, adopted: _Adopted) -> bool:
        """Ship what is left of a folder; say whether it is removed."""
        shipper = adopted.shipper
        folder = shipper.folder
        try:
            self._ship(adopted)
            if not self._is_settled(folder.writer_id):
                folder.unsettle()  # it was, if the database has lost that
                return False
            if folder.settled_seconds() < self._retention.seconds and not self._is_crowded():
                return False
            shipper.close()
            folder.remove()
        except LicetError as exc:
            _log.warning("the spool %s waits: %s", folder.path, exc)
            return False
        except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, and not end it
            _log.exception("shipping the spool %s failed", folder.path)
            return False
        return True

    def _ship(self, adopted: _Adopted) -> None:
        shipper = adopted.shipper
        if shipper.is_ahead():
            # The database has lost what it had.
            shipper.close()
        while shipper.step() and not self._stopping.is_set():
            adopted.told = False
            shipper.folder.unsettle()
        if not adopted.told:
            self._recovered(shipper)
            adopted.told = True

    def _is_crowded(self) -> bool:
        held = sum(adopted.shipper.folder.bytes() for adopted in self._adopted)
        return held > self._retention.crowded_bytes
