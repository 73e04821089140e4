"""The replica protocol over a model database, with time and every interleaving under control.

What runs is licet's own: `Replica`, `Lease`, `CachedCapabilitySets`, `Observations`. Their threads
take turns: each stops at every message to and from the database and at every look at a clock, and
goes on when it is told. So a schedule is a list of turns, and the same schedule is the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event, Semaphore, Thread, current_thread
from typing import Final
from uuid import UUID

from typing_extensions import override

from licet.app.ports import Deadline
from licet.app.replication import Change, Registration, ReplicaEntry
from licet.domain.capability_set import ALWAYS, NEVER, CapabilitySet, HeldCapability
from licet.domain.errors import UnavailableError
from licet.domain.names import Action, CapabilityId, Principal, Resource
from licet.domain.pattern import ResourcePattern
from licet.replica.capability_sets import CachedCapabilitySets
from licet.replica.coherence import Replica
from licet.replica.lease import LEASE_MARGIN, Lease
from licet.writer.acknowledgements import Observations, Waiter

LEASE: Final = 1.0
_EPOCH: Final = UUID(int=0)
_READ: Final = Action("read")
_DOC: Final = Resource("doc:x")
_SECONDS: Final = 20.0


class PromiseBrokenError(AssertionError):
    """A request was answered as no request may be."""


class _KilledError(BaseException):
    """Ends an actor where it stands."""


class Actor(Thread):
    """A thread that runs only while the schedule lets it."""

    def __init__(self, target: Callable[[], None]) -> None:
        """Start before the first line of `target`."""
        super().__init__(daemon=True)
        self._work = target
        self._go, self._stopped = Semaphore(0), Semaphore(0)
        self._killed = False
        self._error: BaseException | None = None
        self.finished = False
        self.start()

    @override
    def run(self) -> None:
        self._go.acquire()
        try:
            if not self._killed:
                self._work()
        except _KilledError:
            pass
        except BaseException as exc:  # noqa: BLE001 - raised where the turn was given
            self._error = exc
        self.finished = True
        self._stopped.release()

    def turn(self) -> None:
        """Let it run to its next point."""
        if self.finished:
            return
        self._go.release()
        assert self._stopped.acquire(timeout=_SECONDS), "an actor waits for something real"
        if self._error is not None:
            raise self._error

    def kill(self) -> None:
        """End it where it stands."""
        self._killed = True
        self.turn()
        self.join(_SECONDS)

    def stop_here(self) -> None:
        """Wait for the next turn."""
        self._stopped.release()
        self._go.acquire()
        if self._killed:
            raise _KilledError


def point() -> None:
    """Let others run first, if the schedule says so."""
    actor = current_thread()
    if isinstance(actor, Actor):
        actor.stop_here()


@dataclass(slots=True)
class Known:
    """A capability and what its callers were told, by the steps of the world."""

    principal: Principal
    granted: float = float("inf")
    """When its grant had returned."""
    revoking: float = float("inf")
    """When its first revocation started."""
    revoked: float = float("inf")
    """When its first revocation had returned."""
    ended_revision: int | None = None


@dataclass(slots=True)
class World:
    """The database, time, and what was promised."""

    time: float = 0.0
    steps: int = 0
    revision: int = 0
    changes: list[Change] = field(default_factory=list)
    entries: dict[UUID, tuple[int, int]] = field(default_factory=dict)
    """Beat and applied revision of each incarnation."""
    capabilities: dict[CapabilityId, Known] = field(default_factory=dict)
    incarnations: int = 0

    def step(self) -> int:
        """Return the number of this moment."""
        self.steps += 1
        return self.steps

    def commit(self, *principals: Principal) -> int:
        """Change what these principals hold."""
        self.revision += 1
        self.changes.append(Change(self.revision, principals))
        return self.revision

    def held(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        """See `replica.capability_sets.Loader`."""
        del deadline
        point()
        found = {
            principal: CapabilitySet(
                principal,
                self.revision,
                [
                    HeldCapability(name, ResourcePattern("doc:x"), (_READ,), ALWAYS, NEVER)
                    for name, known in self.capabilities.items()
                    if known.principal == principal and known.ended_revision is None
                ],
            )
            for principal in principals
        }
        point()
        return found

    def fresh_incarnation(self) -> UUID:
        """Return an id that was never used."""
        self.incarnations += 1
        return UUID(int=self.incarnations)


class Session:
    """See `app.replication.ReplicaSession` and `ReplicaObserver`; `lost` cuts it."""

    def __init__(self, world: World) -> None:
        """Connect."""
        self._world = world
        self.lost = False

    def _message(self) -> None:
        point()
        if self.lost:
            raise UnavailableError("cut")

    def register(self, incarnation: UUID) -> Registration:
        """See `ReplicaSession.register`."""
        self._message()
        self._world.entries[incarnation] = (0, self._world.revision)
        self._message()
        revision = self._world.revision
        self._message()
        return Registration(revision, _EPOCH)

    def changes_after(self, revision: int) -> Sequence[Change]:
        """See `ReplicaSession.changes_after`."""
        self._message()
        found = self._world.changes[revision:]
        self._message()
        return found

    def renew(self, incarnation: UUID, applied: int) -> UUID | None:
        """See `ReplicaSession.renew`."""
        self._message()
        entry = self._world.entries.get(incarnation)
        if entry is not None:
            self._world.entries[incarnation] = (entry[0] + 1, applied)
        self._message()
        return None if entry is None else _EPOCH

    def wait(self, seconds: float) -> None:
        """Say nothing: any notification may be lost."""

    def deregister(self, incarnation: UUID) -> None:
        """See `ReplicaSession.deregister`."""
        self._world.entries.pop(incarnation, None)

    def entries(self) -> Sequence[ReplicaEntry]:
        """See `ReplicaObserver.entries`."""
        self._message()
        found = [ReplicaEntry(name, *entry, LEASE) for name, entry in self._world.entries.items()]
        self._message()
        return found

    def fence(self, incarnation: UUID, beat: int) -> bool:
        """See `ReplicaObserver.fence`."""
        self._message()
        entry = self._world.entries.get(incarnation)
        hit = entry is not None and entry[0] == beat
        if hit:
            del self._world.entries[incarnation]
        self._message()
        return hit

    def close(self) -> None:
        """See `ReplicaSession.close`."""


class Host:
    """One process: a replica, a watcher, and the requests under way; subclasses plant a fault."""

    sets_class: type[CachedCapabilitySets] = CachedCapabilitySets
    replica_class: type[Replica] = Replica
    lease_class: type[Lease] = Lease
    session_class: type[Session] = Session
    observations_class: type[Observations] = Observations
    margin: float = LEASE_MARGIN

    def __init__(self, world: World, rate: float) -> None:
        """Start it, its clock running at this rate."""
        self.world = world
        self._rate = rate
        self.lease = self.lease_class(self.clock)
        self.sets = self.sets_class(world.held, self.lease, 1 << 30, 100)
        self.replica = self.replica_class(
            lambda: self.session_class(world), self.sets, self.lease, world.fresh_incarnation, LEASE
        )
        self.following = self.session_class(world)
        self.watching = self.session_class(world)
        self.waiters: list[Waiter] = []
        self.actors = [Actor(self._follow), Actor(self._watch)]

    def clock(self) -> float:
        """Read the clock; whatever is done with the time is done later."""
        now = self.world.time * self._rate
        point()
        return now

    def kill(self) -> None:
        """End everything where it stands."""
        for actor in self.actors:
            actor.kill()

    def _follow(self) -> None:
        while True:
            self.following = self.session_class(self.world)
            try:
                while True:
                    self.replica.advance(self.following)
                    point()
            except UnavailableError:
                continue

    def _watch(self) -> None:
        while True:
            self.watching = self.session_class(self.world)
            observations = self.observations_class(self.watching, self.clock, self.margin)
            try:
                while True:
                    point()
                    if self.waiters:
                        observations.settle(self.waiters[:])
                        self.waiters = [w for w in self.waiters if not w.done.is_set()]
            except UnavailableError:
                continue

    def authorize(self, principal: Principal) -> None:
        """Ask, and check the answer when it comes."""
        started = self.world.step()

        def ask() -> None:
            found = self.sets.get(principal, Deadline(self._patience_ends))
            self._check(principal, found, started)

        self.actors.append(Actor(ask))

    @staticmethod
    def _patience_ends() -> float:
        point()  # it lasts until the schedule says otherwise
        return 0.0

    def _check(self, principal: Principal, found: CapabilitySet, started: int) -> None:
        ended = self.world.step()
        allowed = {held.id for entry in found.living(_READ, _DOC) for held in entry}
        for name, known in self.world.capabilities.items():
            if name in allowed and known.revoked < started:
                raise PromiseBrokenError(f"{name} allowed after its revocation had returned")
            if known.principal != principal or name in allowed:
                continue
            if known.granted < started and known.revoking > ended:
                raise PromiseBrokenError(f"{name} denied after its grant had returned")

    def grant(self, principal: Principal) -> None:
        """Grant the principal one more capability."""
        name = CapabilityId(f"c{len(self.world.capabilities)}")

        def change() -> None:
            point()
            self.before_commit()
            self.world.capabilities[name] = Known(principal)
            self.confirmed(self.world.commit(principal))
            known = self.world.capabilities[name]
            known.granted = min(known.granted, self.world.step())

        self.actors.append(Actor(change))

    def revoke(self, name: CapabilityId) -> None:
        """Revoke a capability, perhaps once more."""
        known = self.world.capabilities[name]
        known.revoking = min(known.revoking, self.world.step())

        def change() -> None:
            point()
            self.before_commit()
            if known.ended_revision is None:
                known.ended_revision = self.world.commit(known.principal)
                self.confirmed(known.ended_revision)
            else:
                self.confirmed_again(known.ended_revision)
            known.revoked = min(known.revoked, self.world.step())

        self.actors.append(Actor(change))

    def before_commit(self) -> None:
        """Do nothing; for planted faults."""

    def confirmed(self, revision: int) -> None:
        """Return when every replica has applied a revision."""
        waiter = Waiter(revision, Event())
        self.waiters.append(waiter)
        while not waiter.done.is_set():
            point()

    def confirmed_again(self, revision: int) -> None:
        """Wait for what somebody else has ended."""
        self.confirmed(revision)
