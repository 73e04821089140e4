"""Archives partitions by their age, on a thread and a connection of its own.

Sealing never waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from typing import Final

from licet.app.archiving import ArchiveRefusedError, Partition, Partitions
from licet.domain.audit_batch import MacKeys
from licet.domain.errors import LicetError
from licet.steward.archive import Archiver, Progress, StoppedError
from licet.steward.archive_folder import ArchiveFolder
from licet.steward.journal import Journal

_log: Final = logging.getLogger(__name__)

_STOP_SECONDS: Final = 10.0
_PROGRESS_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 60.0
"""How long an archive's event may take to come under a checkpoint."""


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What is archived and how often it is looked.

    Attributes:
        days: a partition goes when its last instant is so many days ago.
        look_seconds: how long to the next look.
    """

    days: int
    look_seconds: float = 600.0


class ArchiveJournal:
    """A journal on a connection, of a writer that is registered when there is something to say."""

    def __init__(self, partitions: Partitions, writer_id: Callable[[], int], keys: MacKeys) -> None:
        """Draw the number of the writer when it is needed."""
        self._partitions = partitions
        self._writer_id = writer_id
        self._keys = keys
        self._journal: Journal | None = None

    def __call__(self) -> Journal:
        """Return the journal."""
        if self._journal is None:
            writer_id = self._writer_id()
            self._partitions.register(writer_id)
            self._journal = Journal(writer_id, self._keys)
        return self._journal


class RetentionThread:
    """See the module."""

    def __init__(  # noqa: PLR0913, PLR0917 - the composition of an archiver, and when it works
        self,
        connect: Callable[[], Partitions],
        writer_id: Callable[[], int],
        keys: MacKeys,
        folder: ArchiveFolder,
        leads: Callable[[], bool],
        plan: RetentionPlan,
    ) -> None:
        """Compose it; `start` starts it.

        Args:
            connect: opens a database connection; raises UnavailableError.
            writer_id: draws the number of a new writer of the audit log.
            keys: authenticate its events until they are sealed.
            folder: takes the files.
            leads: says whether this process is the one to work.
            plan: what, and how often.
        """
        self._connect = connect
        self._writer_id = writer_id
        self._keys = keys
        self._folder = folder
        self._leads = leads
        self._plan = plan
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-retention", daemon=True)
        self.archived = 0
        """How many partitions were archived and dropped here."""

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """End, between two pages at the latest; what is not done is begun anew by the next one."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        # Whoever has just started does not lead yet.
        pause = min(1.0, self._plan.look_seconds)
        while not self._stopping.wait(pause):
            if not self._leads():
                continue
            pause = self._plan.look_seconds
            try:
                self._look()
            except StoppedError:
                return
            except LicetError as exc:
                _log.warning("the audit log is not archived: %s", exc)
            except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, not end it
                _log.exception("the audit log is not archived")

    def _look(self) -> None:
        partitions = self._connect()
        try:
            if not partitions.lock():
                return
            journal = ArchiveJournal(partitions, self._writer_id, self._keys)
            archiver = Archiver(partitions, self._folder, journal, self._stopping.wait)
            for partition in partitions.partitions(self._plan.days):
                try:
                    archiver.archive(partition, PATIENCE_SECONDS, _logged(partition))
                except ArchiveRefusedError as exc:
                    _log.warning("%s stays: %s", partition.name, exc)
                    continue
                self.archived += 1
                _log.info("%s is dropped; its events are archived", partition.name)
        finally:
            partitions.close()


def _logged(partition: Partition) -> Progress:
    due = monotonic() + _PROGRESS_SECONDS

    def progress(written: int, events: int) -> None:
        nonlocal due
        if monotonic() >= due:
            due = monotonic() + _PROGRESS_SECONDS
            _log.info("%s: %d of %d events are archived", partition.name, written, events)

    return progress
