"""Waits until every live replica has applied a revision, and shuts out those whose lease is over.

Step (11) of revocation.md. One thread watches for all who wait. A replica that lags and whose beat
has not changed for Lw, by this host's clock and in observations of one database session, is fenced:
its entry is deleted on the condition that the beat is still the same, otherwise it lives. The
register is read after the commit, so a replica that is not in it has registered later and has read
a revision that contains the change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition, Event, Thread
from typing import Final
from uuid import UUID

from licet.app.ports import Confirmation, Deadline
from licet.app.replication import ReplicaEntry, ReplicaObserver
from licet.domain.errors import LicetError, OutcomeUnknownError, UnconfirmedError
from licet.telemetry.metrics import WAIT_BUCKETS, Histogram

_log: Final = logging.getLogger(__name__)

# The first look is too early for anyone; an idle replica takes about a millisecond.
_FIRST_POLL_SECONDS: Final = 0.0005
_POLL_SECONDS: Final = 0.002
_RECONNECT_SECONDS: Final = 0.05


@dataclass(slots=True, eq=False)
class Waiter:
    """Waits for a revision, of a history if there are several.

    The rest is the answer, complete when `done` is set; with `is_lost`, the history is another one.
    """

    revision: int
    done: Event = field(default_factory=Event)
    fenced: int = 0
    confirmed: int = 0
    history: UUID | None = None
    is_lost: bool = False
    since: float = 0.0
    callers: int = 0
    then: Callable[[Waiter], None] | None = None
    """Tells so many callers, when it is done."""

    def confirmation(self) -> Confirmation | LicetError:
        """Return what its callers are told, when it is done."""
        if self.is_lost:
            return OutcomeUnknownError(
                f"committed at revision {self.revision} of a history that is no more; see whether"
                " it is in the present one"
            )
        return Confirmation(self.confirmed, self.fenced)


class Acknowledgements:
    """See the module."""

    def __init__(
        self, connect: Callable[[], ReplicaObserver], clock: Callable[[], float], margin: float
    ) -> None:
        """Compose it.

        Args:
            connect: opens a session.
            clock: seconds that never step and count while the machine sleeps.
            margin: how many times its lease a silent replica is waited for: by more than two
                clocks can differ in rate.
        """
        self._connect = connect
        self._clock = clock
        self._margin = margin
        # Guards the list of those who wait; notified when it grows, and at the end.
        self._changed = Condition()
        self._waiters: list[Waiter] = []
        self._stopping = Event()
        self.waits = Histogram(WAIT_BUCKETS)
        """Seconds from asking to the confirmation, timeouts included."""
        self.fenced = 0
        """How many replicas this one has fenced."""
        self._thread = Thread(target=self._run, name="licet-acknowledgements", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """End; those who still wait run into their deadlines."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(5.0)

    def wait(
        self, revision: int, deadline: Deadline, at_most: float, history: UUID | None = None
    ) -> Confirmation:
        """Wait for a revision that was committed in a history.

        Raises:
            UnconfirmedError: the deadline passed first; the change is committed.
            OutcomeUnknownError: the history is another one by now, and the change may be lost.
        """
        waiter = Waiter(revision, history=history, since=self._clock())
        self._add(waiter)
        finished = waiter.done.wait(deadline.remaining(at_most))
        self.waits.observe(self._clock() - waiter.since)
        if not finished:
            with self._changed:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
            if not waiter.done.is_set():
                raise UnconfirmedError(
                    f"committed at revision {revision}; not every replica confirmed it in time"
                )
        confirmation = waiter.confirmation()
        if isinstance(confirmation, LicetError):
            raise confirmation
        return confirmation

    def when_confirmed(
        self, revision: int, history: UUID | None, callers: int, then: Callable[[Waiter], None]
    ) -> None:
        """See `group_commit.Confirms`."""
        self._add(
            Waiter(revision, history=history, since=self._clock(), callers=callers, then=then)
        )

    def _add(self, waiter: Waiter) -> None:
        with self._changed:
            self._waiters.append(waiter)
            self._changed.notify()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                observer = self._connect()
            except LicetError as exc:
                self._lost(exc)
                continue
            try:
                # Observations of an earlier session do not count in this one: what it saw may
                # have been committed asynchronously and lost with the server.
                self._watch(Observations(observer, self._clock, self._margin))
            except LicetError as exc:
                self._lost(exc)
            except Exception:  # noqa: BLE001 - a thread's own top
                _log.exception("watching the replicas failed on a bug; it starts anew")
                self._stopping.wait(_RECONNECT_SECONDS)
            finally:
                observer.close()

    def _lost(self, cause: LicetError) -> None:
        _log.warning("the connection that watches the replicas: %s", cause)
        self._stopping.wait(_RECONNECT_SECONDS)

    def _watch(self, observations: Observations) -> None:
        pause = _FIRST_POLL_SECONDS
        while not self._stopping.is_set():
            with self._changed:
                if not self._waiters and not self._stopping.is_set():
                    self._changed.wait()
                    pause = _FIRST_POLL_SECONDS
                waiters = list(self._waiters)
            if not waiters:
                continue
            self.fenced += observations.settle(waiters)
            with self._changed:
                self._waiters = [waiter for waiter in self._waiters if not waiter.done.is_set()]
            self._tell(waiters)
            if self._waiters:
                self._stopping.wait(pause)
                pause = min(pause * 2, _POLL_SECONDS)

    def _tell(self, waiters: Sequence[Waiter]) -> None:
        now = self._clock()
        for waiter in waiters:
            if waiter.then is not None and waiter.done.is_set():
                for _ in range(waiter.callers):
                    self.waits.observe(now - waiter.since)
                waiter.then(waiter)


class Observations:
    """What one database session has seen of the replicas' beats, and since when."""

    def __init__(
        self, observer: ReplicaObserver, clock: Callable[[], float], margin: float
    ) -> None:
        """Observe anew: what another session saw counts for nothing."""
        self._observer = observer
        self._clock = clock
        self._margin = margin
        self._since: dict[UUID, tuple[int, float]] = {}

    def settle(self, waiters: Sequence[Waiter]) -> int:
        """Look once, fence who is silent, and release whoever has nobody left to wait for.

        Returns:
            How many replicas were fenced.
        """
        entries = self._observer.entries()
        waiters = _of_this_history(waiters, entries)
        if not waiters:
            return 0
        now = self._clock()
        self._remember(entries, now)
        needed = max(waiter.revision for waiter in waiters)
        alive = []
        for entry in entries:
            silent = now - self._since[entry.incarnation][1]
            lags = entry.applied < needed
            # By the replica's own lease, which may differ from ours while the setting is changed.
            is_silent = silent >= entry.lease_seconds * self._margin
            if lags and is_silent and self._fence(entry):
                for waiter in waiters:
                    waiter.fenced += entry.applied < waiter.revision
            else:
                alive.append(entry)
        for waiter in waiters:
            if all(entry.applied >= waiter.revision for entry in alive):
                waiter.confirmed = len(alive)
                waiter.done.set()
        return len(entries) - len(alive)

    def _fence(self, entry: ReplicaEntry) -> bool:
        fenced = self._observer.fence(entry.incarnation, entry.beat)
        if fenced:
            _log.warning("replica %s was silent and is fenced", entry.incarnation)
        return fenced

    def _remember(self, entries: Sequence[ReplicaEntry], now: float) -> None:
        known = self._since
        self._since = {}
        for entry in entries:
            before = known.get(entry.incarnation)
            same = before is not None and before[0] == entry.beat
            self._since[entry.incarnation] = before if before and same else (entry.beat, now)


def _of_this_history(
    waiters: Sequence[Waiter], entries: Sequence[ReplicaEntry]
) -> Sequence[Waiter]:
    """Return who can be told by these entries; tell those whose history is no more.

    Who waits in a named history is told by an entry read in it, and not by there being none: this
    process has one of its own, or is about to.
    """
    found = []
    for waiter in waiters:
        if waiter.history is None or (entries and entries[0].history == waiter.history):
            found.append(waiter)
        elif entries:
            waiter.is_lost = True
            waiter.done.set()
    return found
