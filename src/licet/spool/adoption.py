"""Adopts the spools of writers that are dead, ships what is left of them, and removes them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Final

from licet.domain.errors import LicetError
from licet.spool.folder import SpoolFolder
from licet.spool.shipper import Shipper

_log: Final = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 10.0


class Adoption:
    """One thread for all that is adopted. Several processes of a host may look at once."""

    def __init__(
        self,
        root: Path,
        shipper: Callable[[SpoolFolder], Shipper],
        is_settled: Callable[[int], bool],
        recovered: Callable[[Shipper], None],
    ) -> None:
        """Prepare.

        Args:
            root: where the folders are.
            shipper: makes the shipper of a dead writer's folder.
            is_settled: says of a writer whether all that it stored is under a checkpoint.
            recovered: told once when all of a folder is shipped.
        """
        self._root = root
        self._shipper = shipper
        self._is_settled = is_settled
        self._recovered = recovered
        self._adopted: list[Shipper] = []
        self._told: set[int] = set()
        self.lost = 0
        """How many events of adopted spools were lost to damage, or could not be stored."""
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-adoption", daemon=True)

    @property
    def waiting(self) -> int:
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
        """Leave what is not removed yet to others. The thread has ended."""
        for shipper in self._adopted:
            shipper.close()
            shipper.folder.close()

    def look(self, is_over: Callable[[], bool]) -> int:
        """Adopt what can be, ship it and remove what is settled; return how many are not settled.

        Args:
            is_over: asked again and again: what is not shipped then is left.
        """
        try:
            while (folder := SpoolFolder.adopt(self._root)) is not None:
                _log.info("the spool %s of a dead writer is adopted", folder.path)
                self._adopted.append(self._shipper(folder))
        except LicetError as exc:
            _log.warning("spools of dead writers wait: %s", exc)
        for shipper in self._adopted[:]:
            if is_over():
                break
            lost = shipper.lost
            is_gone = self._is_gone(shipper, is_over)
            self.lost += shipper.lost - lost
            if is_gone:
                self._adopted.remove(shipper)
        return len(self._adopted)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.look(self._stopping.is_set)
            self._stopping.wait(_LOOK_SECONDS)

    def _is_gone(self, shipper: Shipper, is_over: Callable[[], bool]) -> bool:
        """Ship what is left of a folder; say whether it is removed."""
        try:
            while shipper.step():
                if is_over():
                    return False
            writer_id = shipper.folder.writer_id
            if writer_id not in self._told:
                self._recovered(shipper)
                self._told.add(writer_id)
            if not self._is_settled(writer_id):
                return False
            shipper.close()
            shipper.folder.remove()
        except LicetError as exc:
            _log.warning("the spool %s waits: %s", shipper.folder.path, exc)
            return False
        except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, and not end it
            _log.exception("shipping the spool %s failed", shipper.folder.path)
            return False
        self._told.discard(writer_id)
        return True
