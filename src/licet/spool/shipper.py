"""Ships a spool: its events into the database, each exactly once and in their order.

How far it has come stands in the database and is moved with the events. So a lost answer to COMMIT
stores nothing twice, and a database that has lost commits is sent again what it lost, as long as
the spool still has it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Thread
from time import monotonic
from typing import Final, NamedTuple, Protocol

from licet.app.ports import Deadline
from licet.domain.audit_batch import Batch, MacKeys, batch_of
from licet.domain.errors import ConflictError, DeadlineError, UnavailableError, UnstorableError
from licet.spool.folder import SpoolFolder
from licet.spool.reader import Damage, DamageKind, Run, SpoolReader

_log: Final = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.05
BATCH: Final = 4000
_BACKOFF_SECONDS: Final = 0.5
_STATEMENT_SECONDS: Final = 10.0
_TIDY_SECONDS: Final = 10.0
_CROWDED_SECONDS: Final = 0.5
"""How often a spool is tidied that is crowded: decisions may be refused until there is room."""


class EventStore(Protocol):
    """Stores events; see `storage.audit_shipping`."""

    def shipped(self, writer_id: int, deadline: Deadline) -> int:
        """Return the sequence of the writer's last stored event."""
        ...

    def sealed(self, writer_id: int, deadline: Deadline) -> int:
        """Return the sequence up to which the writer's events are under a signed checkpoint."""
        ...

    def store(self, first: int, batch: Batch, leaves: Sequence[bytes], deadline: Deadline) -> bool:
        """Store consecutive events, all or none; False when the writer's offset is elsewhere.

        Raises:
            UnstorableError: the log cannot hold one of them; none is stored.
        """
        ...

    def pass_over(  # noqa: PLR0913, PLR0917 - all that is known of them
        self,
        writer_id: int,
        first: int,
        last: int,
        why: str,
        leaf: bytes | None,
        deadline: Deadline,
    ) -> bool:
        """Move the offset over events that cannot be stored, on record; False as for `store`."""
        ...


class Retention(NamedTuple):
    """How long what is shipped stays in the spool.

    Attributes:
        seconds: at least so long, and until it is sealed and signed.
        crowded_bytes: when the folder takes more than this, only until it is shipped.
    """

    seconds: float
    crowded_bytes: int


class Shipper:
    """Ships one folder. Not for several threads, but for what only reads."""

    def __init__(
        self,
        folder: SpoolFolder,
        store: EventStore,
        keys: MacKeys,
        retention: Retention,
        through: Callable[[], int] | None = None,
    ) -> None:
        """Ship from where the database says.

        Args:
            folder: held by this process.
            store: where to.
            keys: by which batches are authenticated.
            retention: of what is shipped.
            through: see `SpoolReader`.
        """
        self.folder = folder
        self._store = store
        self._keys = keys
        self._retention = retention
        self._through = through
        self._reader: SpoolReader | None = None
        self._damages: deque[Damage] = deque()
        # When what was shipped: a sequence may be deleted once its mark is old enough.
        self._marks: deque[tuple[float, int]] = deque()
        self._tidy_due = monotonic() + _TIDY_SECONDS
        self.shipped = 0
        """The sequence up to which all is stored."""
        self.lost = 0
        """How many events were lost to damage of the spool, or could not be stored."""

    def step(self) -> int:
        """Ship what comes next, and return how many events that were.

        Raises:
            UnavailableError, DeadlineError, ConflictError: to be asked again; the database knows
                what happened.
        """
        try:
            reader = self._reader or self._open()
            run = reader.read(BATCH)
            self._damages += [d for d in reader.damages() if d.kind is DamageKind.CORRUPT]
            while self._damages and (run is None or self._damages[0].last < run.first):
                self._lose(self._damages.popleft())
            if run is not None:
                self._ship(run)
        except BaseException:
            # What was read is read again, from where the database then says.
            self.close()
            raise
        return 0 if run is None else len(run.leaves)

    def is_ahead(self) -> bool:
        """Say whether the database has lost some of what was shipped. Raises as `step` does."""
        return self._store.shipped(self.folder.writer_id, _soon()) < self.shipped

    def tidy(self, *, now: float | None = None) -> None:
        """Delete what has been shipped long enough. Raises as `step` does."""
        now = monotonic() if now is None else now
        if now < self._tidy_due:
            return
        self._tidy_due = now + _TIDY_SECONDS
        self._marks.append((now, self.shipped))
        if self.folder.bytes() > self._retention.crowded_bytes:
            self._tidy_due = now + _CROWDED_SECONDS
            self.folder.discard(self.shipped)
            return
        old = 0
        while self._marks and self._marks[0][0] <= now - self._retention.seconds:
            old = self._marks.popleft()[1]
        if old:
            # Looked at again while it is not sealed.
            self._marks.appendleft((now - self._retention.seconds, old))
            self.folder.discard(min(old, self._store.sealed(self.folder.writer_id, _soon())))

    def close(self) -> None:
        """Let go of what is read; `step` begins anew."""
        reader, self._reader = self._reader, None
        self._damages.clear()
        if reader is not None:
            reader.close()

    def _open(self) -> SpoolReader:
        self.shipped = self._store.shipped(self.folder.writer_id, _soon())
        self._reader = SpoolReader(self.folder, self.shipped, self._through)
        return self._reader

    def _ship(self, run: Run) -> None:
        try:
            batch = self._keys.authenticated(batch_of(self.folder.writer_id, *run))
            if not self._store.store(run.first, batch, run.leaves, _soon()):
                # An earlier COMMIT whose answer was lost did happen, or history went backwards.
                raise ConflictError("the audit writer's offset is elsewhere")
        except UnstorableError as exc:
            self._halve(run, str(exc))
            return
        self.shipped = run.first + len(run.leaves) - 1

    def _halve(self, run: Run, why: str) -> None:
        """Ship all but what cannot be stored, which is kept apart."""
        half = len(run.leaves) // 2
        if half:
            self._ship(Run(run.first, run.leaves[:half]))
            self._ship(Run(run.first + half, run.leaves[half:]))
            return
        _log.error("an audit event cannot be stored and is kept in quarantine: %s", why)
        self._pass_over(run.first, run.first, why, run.leaves[0])

    def _lose(self, damage: Damage) -> None:
        first = max(damage.first, self.shipped + 1)
        if first <= damage.last:
            where = f"{damage.segment} at {damage.begin} to {damage.end}"
            _log.error("the spool %s is damaged: %s", self.folder.path, where)
            self._pass_over(first, damage.last, f"the spool was damaged: {where}", None)

    def _pass_over(self, first: int, last: int, why: str, leaf: bytes | None) -> None:
        if not self._store.pass_over(self.folder.writer_id, first, last, why, leaf, _soon()):
            raise ConflictError("the audit writer's offset is elsewhere")
        self.shipped = last
        self.lost += last - first + 1


class ShippingThread:
    """Runs the shipper of the living writer."""

    def __init__(self, shipper: Shipper, before: Callable[[], None]) -> None:
        """Prepare; `before` is called ahead of each look at the spool."""
        self._shipper = shipper
        self._before = before
        self._stopping = Event()
        self._end = float("inf")
        self._pausing = Event()  # never set: a bounded wait
        self._thread = Thread(target=self._run, name="licet-audit", daemon=True)

    def start(self) -> None:
        """Start shipping."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ship what is there, and end; whoever appends must have stopped before."""
        self._end = monotonic() + seconds
        self._stopping.set()
        self._thread.join(seconds + _STATEMENT_SECONDS)

    def _run(self) -> None:
        while True:
            stopping = self._stopping.is_set()
            try:
                self._before()
                # A batch that is not full is not followed by another at once: a transaction costs
                # the same for one event as for hundreds, and more arrive by the next tick.
                while self._shipper.step() >= (1 if stopping else BATCH):
                    pass
                self._shipper.tidy()
                if stopping:
                    return
            except (UnavailableError, DeadlineError) as exc:
                _log.warning("audit events wait in the spool: %s", exc)
                self._pausing.wait(_BACKOFF_SECONDS)
            except ConflictError as exc:
                _log.info("the shipping of audit events begins anew: %s", exc)
                self._pausing.wait(TICK_SECONDS)
            except Exception:  # noqa: BLE001 - a thread's own top: a bug must not end it silently
                _log.exception("shipping audit events failed")
                self._pausing.wait(_BACKOFF_SECONDS)
            if monotonic() > self._end:
                return
            self._stopping.wait(TICK_SECONDS)


def _soon() -> Deadline:
    return Deadline.after(_STATEMENT_SECONDS, monotonic)
