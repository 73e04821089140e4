"""Keeps the capability sets of this replica current.

And says for how long they are (revocation.md).

One thread, one connection. The numbers are the steps of the protocol:

(4) register a fresh incarnation, then read the revision, then forget everything older;
(5) on a notification, or when a renewal is due: read the changes, evict what they touched;
(6) renew, which acknowledges what was applied; read the changes once more; only then is the lease
    extended, counted from before the renewal was sent. Evict before acknowledging, always. Between
    two renewals that are due, a notification is answered with the same without reading once more,
    and extends nothing: to the others that is a renewal after which the replica was stopped;
(7) after any error: another connection; the lease runs out by itself.

Invariant: while the lease is valid, every change that was answered with OK before this moment has
been applied to the capability sets, because its author waited for this replica, or for its lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from threading import Event, Thread
from typing import Final, Protocol
from uuid import UUID

from licet.app.replication import Change, ReplicaSession
from licet.domain.errors import LicetError
from licet.domain.names import Principal
from licet.replica.lease import Lease

_log: Final = logging.getLogger(__name__)

_RECONNECT_SECONDS: Final = 0.05
_WAIT_SECONDS: Final = 0.5


class Memory(Protocol):
    """What the protocol does to the capability sets; see `capability_sets.py`."""

    def reset(self, revision: int) -> None:
        """Forget everything, and store nothing that was read before the revision."""
        ...

    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        """Forget what these principals, or all for None, held before the revision."""
        ...


class Memories:
    """Several memories as one: each is told of everything and keeps what is its own."""

    def __init__(self, *memories: Memory) -> None:
        """Tell these, in this order."""
        self._memories = memories

    def reset(self, revision: int) -> None:
        """See `Memory.reset`."""
        for memory in self._memories:
            memory.reset(revision)

    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        """See `Memory.evict`."""
        for memory in self._memories:
            memory.evict(principals, revision)


class Follower(Protocol):
    """Is told of every change as well; see `feed.py`. Does not block and raises nothing."""

    def reset(self, revision: int, epoch: UUID) -> None:
        """Go on at a revision of a history; what came before it may not have been told."""
        ...

    def append(self, changes: Sequence[Change]) -> None:
        """Take the next changes, in order."""
        ...


class Replica:
    """See the module."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of the protocol
        self,
        connect: Callable[[], ReplicaSession],
        memory: Memory,
        lease: Lease,
        fresh_incarnation: Callable[[], UUID],
        lease_seconds: float,
        followers: Sequence[Follower] = (),
    ) -> None:
        """Compose a replica that is not registered, and so not current.

        Args:
            connect: opens a session.
            memory: the capability sets.
            lease: under which they are used.
            fresh_incarnation: returns an id that was never used.
            lease_seconds: how long a renewal lasts, Lh.
            followers: told of each change after memory and before it is acknowledged.
        """
        self._connect = connect
        self._memory = memory
        self._lease = lease
        self._fresh_incarnation = fresh_incarnation
        self._lease_seconds = lease_seconds
        self._followers = followers
        # Everything below belongs to the replica's thread; `applied` is read by others.
        self._incarnation: UUID | None = None
        self._epoch: UUID | None = None
        self._applied = 0
        self._renewed = float("-inf")
        self._stopping = Event()
        self._registered = Event()
        self._thread = Thread(target=self._run, name="licet-replica", daemon=True)

    @property
    def applied(self) -> int:
        """The revision up to which memory is current."""
        return self._applied

    def start(self, timeout: float) -> bool:
        """Start, and say whether the replica was registered within `timeout` seconds."""
        self._thread.start()
        return self._registered.wait(timeout)

    def stop(self) -> None:
        """Use memory no more, then take the entry back, so that nobody waits for this replica."""
        self._stopping.set()
        self._thread.join(self._lease_seconds + 5.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                session = self._connect()
            except LicetError as exc:
                self._lost(exc)
                continue
            try:
                self._follow(session)
            except LicetError as exc:
                self._lost(exc)  # (7)
            except Exception:  # noqa: BLE001 - a thread's own top; without it the lease would just end
                _log.exception("the replica failed on a bug; it starts anew")
                self._incarnation = None
                self._stopping.wait(_RECONNECT_SECONDS)
            finally:
                session.close()

    def _lost(self, cause: LicetError) -> None:
        _log.warning("the replica's connection: %s", cause)
        self._stopping.wait(_RECONNECT_SECONDS)

    def _follow(self, session: ReplicaSession) -> None:
        while not self._stopping.is_set():
            self.advance(session)
            while self._incarnation is not None and not self._stopping.is_set():
                left = self._renewed + self._lease_seconds / 3 - self._lease.now()
                # A short wait, because nothing but a change ends it: `stop` does not.
                if left <= 0 or not session.wait(min(left, _WAIT_SECONDS)):
                    break
                self.acknowledge(session)
        self._lease.end()
        if self._incarnation is not None:
            session.deregister(self._incarnation)

    def advance(self, session: ReplicaSession) -> None:
        """Register, or when that is done, take one step."""
        if self._incarnation is None:
            self._register(session)
        else:
            self.step(session)

    def _register(self, session: ReplicaSession) -> None:
        """Step (4)."""
        self._lease.end()
        before = self._lease.now()
        incarnation = self._fresh_incarnation()
        position = session.register(incarnation)
        self._memory.reset(position.revision)
        for follower in self._followers:
            follower.reset(position.revision, position.epoch)
        self._applied = position.revision
        self._epoch = position.epoch
        self._incarnation = incarnation
        self._renewed = before
        self._lease.extend(before + self._lease_seconds)
        self._registered.set()
        _log.info("replica %s registered at revision %d", incarnation, position.revision)

    def acknowledge(self, session: ReplicaSession) -> None:
        """Take steps (5) and (6) for those who wait for them now, without extending the lease."""
        changes = session.changes_after(self._applied)
        self._apply(changes)
        if changes:
            self._is_renewed(session)

    def step(self, session: ReplicaSession) -> None:
        """Take steps (5) and (6) once, and (6) again while there are changes."""
        self._apply(session.changes_after(self._applied))
        while True:
            before = self._lease.now()
            if not self._is_renewed(session):
                return
            changes = session.changes_after(self._applied)
            self._apply(changes)
            self._renewed = before
            self._lease.extend(before + self._lease_seconds)
            if not changes:
                return

    def _is_renewed(self, session: ReplicaSession) -> bool:
        """Renew, and say whether what is remembered counts; if not, the lease is over."""
        if self._incarnation is None:
            return False
        epoch = session.renew(self._incarnation, self._applied)
        if epoch is not None and epoch == self._epoch:
            return True
        if epoch is None:
            _log.warning("replica %s was fenced; it registers anew", self._incarnation)
        else:
            _log.warning("replica %s finds another epoch; it registers anew", self._incarnation)
        self._lease.end()
        self._incarnation = None
        return False

    def _apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._memory.evict(change.principals, change.revision)
            self._applied = change.revision
        for follower in self._followers:
            follower.append(changes)
