"""The replica protocol over a model of the database, with time and every turn under control.

What runs is licet's own, threads and waiting included: `Replica`, `Lease`, `CachedCapabilitySets`,
`ReadingAhead`, `Acknowledgements`. Of the database there is what the protocol needs; a message
stops before it arrives and once more before its answer does, so each can be late, and lost on
either way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from threading import current_thread
from typing import Final
from uuid import UUID

from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.app.replication import Change, Registration, ReplicaEntry
from licet.domain.capability_set import CapabilitySet
from licet.domain.errors import UnavailableError, UnconfirmedError
from licet.domain.names import Action, CapabilityId, Principal, Resource
from licet.replica import coherence, reading_ahead
from licet.replica.capability_sets import CachedCapabilitySets
from licet.replica.coherence import Replica
from licet.replica.lease import LEASE_MARGIN, Lease
from licet.replica.reading_ahead import ReadingAhead
from licet.writer import acknowledgements
from licet.writer.acknowledgements import Acknowledgements
from tests.properties.replica_world import HOLDER, Entry, Known, PromiseBrokenError, World
from tests.properties.turns import Actor, TurnEvent, point, replaced, until

LEASE: Final = 1.0
_EPOCH: Final = UUID(int=0)
_READ: Final = Action("read")
_DOC: Final = Resource("doc:x")
_FOREVER: Final = Deadline(lambda: None)
_CONFIRM_SECONDS: Final = 4.0


class Session:
    """See `app.replication.ReplicaSession` and `ReplicaObserver`; `is_cut` ends it."""

    def __init__(self, host: Host) -> None:
        """Connect."""
        point("connect")
        self.host = host
        self.world = host.world
        self.is_cut = False
        self._told = self.world.revision

    def message(self, label: str) -> None:
        """Send or receive one."""
        point(label)
        if self.is_cut:
            self.world.seen.add("cut")
            raise UnavailableError("cut")

    def register(self, incarnation: UUID) -> Registration:
        """See `ReplicaSession.register`."""
        self.message("register: sent")
        self.world.entries[incarnation] = Entry(0, self.world.revision)
        self.message("register: entered")
        revision = self.world.revision
        self.message("register: answered")
        return Registration(revision, _EPOCH)

    def changes_after(self, revision: int) -> Sequence[Change]:
        """See `ReplicaSession.changes_after`."""
        self.message("changes: sent")
        found = self.world.changes[revision:]
        self._told = self.world.revision
        self.message("changes: answered")
        return found

    def renew(self, incarnation: UUID, applied: int) -> UUID | None:
        """See `ReplicaSession.renew`."""
        self.message("renew: sent")
        entry = self.world.entries.get(incarnation)
        if entry is not None:
            self.world.entries[incarnation] = Entry(entry.beat + 1, applied)
        self.message("renew: answered")
        return None if entry is None else _EPOCH

    def wait(self, seconds: float) -> bool:
        """See `ReplicaSession.wait`; a connection that is cut is noticed at the next message."""
        return until(
            "wait", lambda: self.world.tells and self.world.revision > self._told, max(seconds, 0.0)
        )

    def deregister(self, incarnation: UUID) -> None:
        """See `ReplicaSession.deregister`."""
        self.message("deregister: sent")
        self.world.entries.pop(incarnation, None)

    def entries(self) -> Sequence[ReplicaEntry]:
        """See `ReplicaObserver.entries`."""
        self.message("entries: sent")
        found = [ReplicaEntry(name, *entry, LEASE) for name, entry in self.world.entries.items()]
        self.message("entries: answered")
        return found

    def fence(self, incarnation: UUID, beat: int) -> bool:
        """See `ReplicaObserver.fence`."""
        self.message("fence: sent")
        entry = self.world.entries.get(incarnation)
        hit = entry is not None and entry.beat == beat
        if hit:
            del self.world.entries[incarnation]
        self.world.seen.add("fenced" if hit else "not fenced")
        self.message("fence: answered")
        return hit

    def close(self) -> None:
        """See `ReplicaSession.close`."""


class _Reads:
    """See `reading_ahead.Reads`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        return self._world.load(principals, deadline)

    def rest(self) -> None:
        pass


class _Pauses:
    """See `coherence.Follower`: it is told between a change in memory and its acknowledgement."""

    def reset(self, revision: int, epoch: UUID) -> None:
        del revision, epoch
        point("reset")

    def append(self, changes: Sequence[Change]) -> None:
        if changes:
            point("applied")


class Host:
    """One process: a replica, those who wait for others, and requests; subclasses lack a rule."""

    sets_class: type[CachedCapabilitySets] = CachedCapabilitySets
    lease_class: type[Lease] = Lease
    session_class: type[Session] = Session
    acknowledgements_class: type[Acknowledgements] = Acknowledgements
    margin: float = LEASE_MARGIN

    def __init__(self, world: World, name: str, rate: float) -> None:
        """Start it, its clock running at this rate."""
        self.world = world
        self._name = name
        self._rate = rate
        self._sessions: dict[str, Session] = {}
        self._actors: list[Actor] = []
        lease = self.lease_class(self.clock)
        self.sets = self.sets_class(world.load, lease, 1 << 30, 100)
        with (
            replaced(coherence, Thread=self._thread),
            replaced(acknowledgements, Thread=self._thread),
            replaced(reading_ahead, Thread=self._thread),
        ):
            self.replica = Replica(
                self._connect, self.sets, lease, self.fresh_incarnation, LEASE, [_Pauses()]
            )
            self.acknowledgements = self.acknowledgements_class(
                self._connect, self.clock, self.margin
            )
            ahead = ReadingAhead(self.sets, _Reads(world))
        self.replica.start(0.0)
        self.acknowledgements.start()
        ahead.start()
        self.following, self.watching, self.reading = self._actors

    def clock(self) -> float:
        """Read the clock; whatever is done with the time is done later."""
        now = self._now()
        point("clock")
        return now

    def fresh_incarnation(self) -> UUID:
        """Return an id that was never used."""
        self.world.incarnations += 1
        return UUID(int=self.world.incarnations)

    def cut(self, which: int) -> None:
        """Cut the connection of one of the threads."""
        sessions = list(self._sessions.values())
        if sessions:
            sessions[which % len(sessions)].is_cut = True

    def kill(self) -> None:
        """End everything where it stands."""
        for actor in self._actors:
            actor.kill()
            if actor in self.world.stage.actors:
                self.world.stage.actors.remove(actor)

    def stop(self) -> Actor:
        """End the replica as a process does that is asked to."""
        return self._run(self.replica.stop, "stop")

    def _now(self) -> float:
        return self.world.stage.time * self._rate

    def _connect(self) -> Session:
        session = self.session_class(self)
        self._sessions[current_thread().name] = session
        return session

    def _thread(self, target: Callable[[], object], name: str, daemon: bool) -> Actor:
        assert daemon
        actor = Actor(self.world.stage, self._now, target, f"{self._name} {name}")
        self._actors.append(actor)
        return actor

    def _run(self, target: Callable[[], object], name: str) -> Actor:
        actor = self._thread(target, name, daemon=True)
        actor.start()
        return actor

    def authorize(self) -> Actor:
        """Ask, and check the answer when it comes."""

        def ask() -> None:
            started = self.world.moment()
            self._check(self.sets.get(HOLDER, _FOREVER), started)

        return self._run(ask, "authorize")

    def authorize_at_once(self) -> Actor:
        """Ask memory, and once more when what it misses was read ahead; only then wait."""

        def ask() -> None:
            started = self.world.moment()
            found = self._at_once()
            if found is None:
                self.world.seen.add("read for oneself")
                found = self.sets.get(HOLDER, _FOREVER)
            self._check(found, started)

        return self._run(ask, "authorize at once")

    def _at_once(self) -> CapabilitySet | None:
        try:
            return self.sets.get(HOLDER, AT_ONCE)
        except NotAtOnceError as exc:
            later = exc.later
        told, answers = TurnEvent(), list[CapabilitySet]()

        def again() -> None:
            with suppress(NotAtOnceError):
                answers.append(self.sets.get(HOLDER, AT_ONCE))
            told.set()

        if later is not None and later(again):
            told.wait()
        if not answers:
            return None
        self.world.seen.add("read ahead")
        return answers[0]

    def ask_memory(self) -> None:
        """Ask for an answer before anybody has another turn; only memory can give it."""
        if HOLDER not in self.sets:
            return
        try:
            found = self.sets.get(HOLDER, _FOREVER)
        except UnavailableError:
            return
        self.world.seen.add("from memory")
        self._check(found, self.world.moment())

    def _check(self, found: CapabilitySet, started: int) -> None:
        ended = self.world.moment()
        allowed = {held.id for entry in found.living(_READ, _DOC) for held in entry}
        for name, known in self.world.capabilities.items():
            if name in allowed and known.revoked < started:
                raise PromiseBrokenError(f"{name} allowed after its revocation had returned")
            if name not in allowed and known.granted < started and known.revoking > ended:
                raise PromiseBrokenError(f"{name} denied after its grant had returned")
            if name in allowed and known.revoking < started:
                self.world.seen.add("old answer during a revocation")

    def grant(self, *, touches_all: bool) -> Actor:
        """Grant one more capability."""
        name = CapabilityId(f"c{len(self.world.capabilities)}")
        known = self.world.capabilities[name] = Known(ended_revision=-1)

        def change() -> None:
            self.before_commit()
            point("commit")
            known.ended_revision = None
            self.confirmed(self.world.commit(touches_all=touches_all))
            known.granted = self.world.moment()
            self.world.stage.returned += 1

        return self._run(change, "grant")

    def revoke(self, name: CapabilityId, *, touches_all: bool) -> Actor:
        """Revoke a capability, perhaps once more."""
        known = self.world.capabilities[name]

        def change() -> None:
            known.revoking = min(known.revoking, self.world.moment())
            self.before_commit()
            point("commit")
            if known.ended_revision is None:
                known.ended_revision = self.world.commit(touches_all=touches_all)
                self.confirmed(known.ended_revision)
            elif known.ended_revision > 0:
                self.confirmed_again(known.ended_revision)
            else:
                return  # it was not granted yet
            known.revoked = min(known.revoked, self.world.moment())
            self.world.stage.returned += 1

        return self._run(change, "revoke")

    def before_commit(self) -> None:
        """Do nothing; for what is done too early."""

    def confirmed(self, revision: int) -> None:
        """Return when every replica has applied a revision; told UNCONFIRMED, ask again."""
        while True:
            try:
                self.acknowledgements.wait(revision, _FOREVER, _CONFIRM_SECONDS)
            except UnconfirmedError:
                self.world.seen.add("unconfirmed")
            else:
                return

    def confirmed_again(self, revision: int) -> None:
        """Wait for what somebody else has ended."""
        self.confirmed(revision)
