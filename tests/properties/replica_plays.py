"""Two processes on one database, and what happens to them: by a script, or as random numbers say.

A script holds somebody at a point of his work while the others go on, and is played for every such
point: so it misses none, and a new message or a new look at a clock is a new point.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product, zip_longest
from random import Random
from typing import Any, Final, NamedTuple

from licet.domain.names import CapabilityId
from licet.replica import capability_sets, coherence, reading_ahead
from licet.writer import acknowledgements
from licet.writer.acknowledgements import Waiter
from tests.properties.replica_host import Host
from tests.properties.replica_world import PromiseBrokenError, World
from tests.properties.turns import (
    Actor,
    Stage,
    TurnCondition,
    TurnEvent,
    TurnQueue,
    replaced,
)

RATES: Final = (0.935, 1.07)
"""Of the two clocks: nearly as far apart as the margin allows."""
_MANY_TURNS: Final = 6000
"""More than any play takes, unless somebody waits for ever."""
_NEVER: Final = float("inf")
_USUAL: Final = (*("revoke",) * 4, *("authorize", "authorize at once") * 2, "grant")
_RARE: Final = ("revoke again", "cut", "stop", "kill")


def _waiter(revision: int, **fields: Any) -> Waiter:  # noqa: ANN401 - those of a waiter
    return Waiter(revision, done=TurnEvent(), **fields)  # type: ignore[arg-type] # takes the place of an Event


@contextmanager
def taking_turns() -> Iterator[None]:
    """Let licet's classes wait for turns; on one core, where a change of turn costs least."""
    cores = os.sched_getaffinity(0)
    with ExitStack() as stack:
        stack.enter_context(replaced(capability_sets, Event=TurnEvent))
        stack.enter_context(replaced(coherence, Event=TurnEvent))
        stack.enter_context(
            replaced(acknowledgements, Event=TurnEvent, Condition=TurnCondition, Waiter=_waiter)
        )
        # Nothing is late: how long a read takes is a matter of turns here.
        stack.enter_context(replaced(reading_ahead, SimpleQueue=TurnQueue, monotonic=lambda: 0.0))
        os.sched_setaffinity(0, {sorted(cores)[os.getpid() % len(cores)]})
        logging.disable(logging.CRITICAL)  # faults are what this is about
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            os.sched_setaffinity(0, cores)


class Play:
    """Two processes, registered, and `granted` capabilities that both honour."""

    def __init__(self, host_class: type[Host], stage: Stage, *, tells: bool, granted: int) -> None:
        """Begin; `tells` says whether notifications arrive."""
        self.stage = stage
        self.world = World(stage, tells)
        self._host_class = host_class
        self._calls: list[Actor] = []
        self.hosts = [self._new_host(number) for number in range(len(RATES))]
        for _ in range(granted):
            self.call(self.hosts[0].grant(touches_all=False))
            self.settle()

    def end(self) -> None:
        """End all threads."""
        for host in self.hosts:
            host.kill()

    def replace(self, number: int) -> Host:
        """Kill a process and start another."""
        self.hosts[number].kill()
        self.hosts[number] = self._new_host(number)
        return self.hosts[number]

    def call(self, actor: Actor) -> Actor:
        """Begin a call; `settle` waits for it."""
        self._calls.append(actor)
        return actor

    def settle(self) -> None:
        """Go on until all calls have returned, but for those that are held."""
        for _ in range(_MANY_TURNS):
            self._calls = [call for call in self._calls if call.is_alive()]
            if all(self.stage.is_held(call) for call in self._calls):
                return
            self.turns(1)
        raise AssertionError("somebody waits for ever")

    def elapse(self, seconds: float) -> None:
        """Go on for some time."""
        ends = self.stage.time + seconds
        while self.stage.time < ends:
            self.turns(1)

    def hold_after(self, actor: Actor, turns: int) -> None:
        """Go on until somebody has had so many turns, and hold him there."""
        ends = actor.turns + turns
        while actor.turns < ends and actor.is_alive():
            self.turns(1)
        self.stage.hold(actor)

    def turns(self, count: int) -> None:
        """Go on for some turns; after each, all are asked for what they have in memory."""
        for _ in range(count):
            self.stage.turn()
            for host in self.hosts:
                host.ask_memory()

    def _new_host(self, number: int) -> Host:
        return self._host_class(self.world, f"host {number}", RATES[number])


def _warm(play: Play) -> None:
    for host in play.hosts:
        play.call(host.authorize())
    play.settle()


def request_across_a_change(play: Play, point: int, again: int, touches_all: int) -> None:
    """Let a read that is older than a change land later."""
    reader, other = play.hosts
    request = play.call(reader.authorize())
    play.hold_after(request, point)
    play.call(other.revoke(CapabilityId("c0"), touches_all=bool(touches_all)))
    play.settle()
    if again:
        play.call(reader.authorize())
        play.turns(10)
    play.stage.free(request)
    play.settle()


def read_ahead_across_a_change(play: Play, point: int, again: int, touches_all: int) -> None:
    """Let what is read ahead for a request be older than a change, and for another be as old."""
    reader, other = play.hosts
    requests = [reader.authorize_at_once()]
    ends = reader.reading.turns + point
    while reader.reading.turns < ends and requests[0].is_alive():
        play.turns(1)
    play.stage.hold(reader.reading)
    play.call(other.revoke(CapabilityId("c0"), touches_all=bool(touches_all)))
    play.settle()
    if again:
        requests.append(reader.authorize_at_once() if again == 1 else reader.authorize())
        play.turns(10)
    play.stage.free(reader.reading)
    for request in requests:
        play.call(request)
    play.settle()


def replica_across_a_change(play: Play, point: int, by: int, is_begun: int) -> None:
    """Let a replica pause in the middle of its round."""
    _warm(play)
    paused = play.hosts[0].following
    if not is_begun:
        play.hold_after(paused, point)
    play.call(play.hosts[by].revoke(CapabilityId("c0"), touches_all=False))
    if is_begun:
        play.hold_after(paused, point)
    play.settle()
    play.stage.free(paused)
    play.elapse(0.5)


def request_across_a_registration(play: Play, point: int, is_warm: int, is_early: int) -> None:
    """Let a replica be fenced and register anew while a request is under way."""
    if is_warm:
        _warm(play)
    host, other = play.hosts
    play.stage.hold(host.following)
    change = None if is_early else other.revoke(CapabilityId("c0"), touches_all=False)
    if change is not None:
        play.call(change)
        play.settle()
    request = play.call(host.authorize())
    play.hold_after(request, point)
    if change is None:
        play.call(other.revoke(CapabilityId("c0"), touches_all=False))
        play.settle()
    play.stage.free(host.following)
    play.elapse(0.2)
    play.stage.free(request)
    play.settle()


def change_across_a_registration(play: Play, point: int) -> None:
    """Let a process start while a change is under way."""
    play.call(play.hosts[0].stop())
    play.settle()
    change = play.call(play.hosts[1].revoke(CapabilityId("c0"), touches_all=False))
    play.hold_after(change, point)
    started = play.replace(0)
    play.elapse(0.1)
    play.call(started.authorize())
    play.settle()
    play.stage.hold(started.following)
    play.stage.free(change)
    play.settle()


def registration_across_a_change(play: Play, point: int) -> None:
    """Let a process pause while it starts, and a change come."""
    started = play.replace(0)
    play.hold_after(started.following, point)
    play.call(started.authorize())
    play.settle()
    play.call(play.hosts[1].revoke(CapabilityId("c0"), touches_all=False))
    play.settle()
    play.stage.free(started.following)
    play.elapse(0.5)


def request_across_a_start(play: Play, point: int, turns: int) -> None:
    """Let a process register while a request is under way that it was asked before."""
    started = play.replace(0)
    play.hold_after(started.following, turns)
    request = play.call(started.authorize())
    play.hold_after(request, point)
    play.call(play.hosts[1].revoke(CapabilityId("c0"), touches_all=False))
    play.settle()
    play.stage.free(started.following)
    play.elapse(0.1)
    play.stage.free(request)
    play.settle()


def fencing_across_a_renewal(play: Play, turns: int) -> None:
    """Let a replica wake between the look at its beat and its fencing."""
    _warm(play)
    paused, watching = play.hosts[0].following, play.hosts[1].watching
    play.stage.hold(paused)
    change = play.call(play.hosts[1].revoke(CapabilityId("c0"), touches_all=False))
    while change.is_alive() and watching.label != "fence: sent":
        play.turns(1)
    play.stage.hold(watching)
    play.stage.free(paused)
    play.hold_after(paused, turns)
    play.call(play.hosts[0].authorize())
    play.turns(30)
    play.stage.free(watching)
    play.settle()
    play.call(play.hosts[1].revoke(CapabilityId("c1"), touches_all=False))
    play.settle()
    play.stage.free(paused)
    play.elapse(0.5)


def the_same_change_again(play: Play, turns: int, by: int) -> None:
    """Revoke once more what is being revoked."""
    _warm(play)
    play.stage.hold(play.hosts[0].following)
    play.call(play.hosts[1].revoke(CapabilityId("c0"), touches_all=False))
    play.turns(turns)
    play.call(play.hosts[by].revoke(CapabilityId("c0"), touches_all=False))
    play.settle()


class Scene(NamedTuple):
    """A script, and where in it somebody is held."""

    script: Callable[..., None]
    places: tuple[int, ...]
    tells: bool

    def play(self, host_class: type[Host]) -> set[str]:
        """Play it, and return what was seen."""
        play = Play(host_class, Stage(Random(0), holds=0), tells=self.tells, granted=2)
        return _ended(play, lambda: self.script(play, *self.places))


_SCRIPTS: Final[tuple[tuple[Callable[..., None], tuple[int, ...]], ...]] = (
    # How many points each of those has who are held; a few more than there are do no harm.
    (request_across_a_change, (6, 2, 2)),
    (read_ahead_across_a_change, (7, 3, 2)),
    (replica_across_a_change, (16, 2, 2)),
    (request_across_a_registration, (6, 2, 2)),
    (change_across_a_registration, (6,)),
    (registration_across_a_change, (20,)),
    (request_across_a_start, (6, 4)),
    (fencing_across_a_renewal, (24,)),
    (the_same_change_again, (8, 2)),
)
SCENES: Final = tuple(
    Scene(script, places, tells)
    # The first of each script first: most faults show themselves soon in one of them.
    for row in zip_longest(*(product(*map(range, sizes)) for _, sizes in _SCRIPTS))
    for (script, _), places in zip(_SCRIPTS, row, strict=True)
    if places is not None
    for tells in (True, False)
)


class RandomPlay(Play):
    """What happens, and who is held where, from a number."""

    def __init__(self, host_class: type[Host], number: int) -> None:
        """Begin; the same number is the same play."""
        self._random = random = Random(number)
        # Not all of them in each: what would show itself without a restart is not to be disturbed.
        rare = [act for act in _RARE if random.random() < 0.4]
        self._acts = (*_USUAL, *rare, *rare)
        self._touches_all = random.choice((0.0, 0.0, 0.5))
        stage = Stage(random, holds=random.randint(1, 3))
        super().__init__(host_class, stage, tells=random.random() < 0.5, granted=1)

    def play(self) -> set[str]:
        """Play it, and return what was seen."""
        return _ended(self, self._play)

    def _play(self) -> None:
        for host in self.hosts:
            if self._random.random() < 0.7:
                self.call(host.authorize())
        self.settle()
        self.elapse(self._random.random() * 0.5)
        self.stage.is_armed = True
        for _ in range(self._random.randint(3, 8)):
            self.stage.begin()
            self._act(self._random.choice(self._acts), self._random.randrange(len(RATES)))
            self._go_on()
        self.stage.release()
        self.settle()

    def _act(self, act: str, number: int) -> None:
        host = self.hosts[number]
        touches_all = self._random.random() < self._touches_all
        match act:
            case "revoke" | "revoke again":
                name = self._name(revoked=act == "revoke again")
                self.call(host.revoke(name, touches_all=touches_all))
            case "authorize":
                self.call(host.authorize())
            case "authorize at once":
                self.call(host.authorize_at_once())
            case "grant":
                self.call(host.grant(touches_all=touches_all))
            case "cut":
                host.cut(self._random.randrange(2))
            case "stop":
                self.call(host.stop())
            case _:
                self.replace(number)

    def _name(self, *, revoked: bool) -> CapabilityId:
        known = self.world.capabilities
        found = [name for name in known if (known[name].revoking < _NEVER) == revoked]
        return self._random.choice(found or list(known))

    def _go_on(self) -> None:
        """Let the next begin nearly at once, a little later, or when all calls have returned."""
        match self._random.randrange(4):
            case 0:
                self.turns(self._random.randrange(20))
            case 1:
                self.elapse(self._random.random() * 0.5)
            case _:
                self.settle()


def _ended(play: Play, work: Callable[[], None]) -> set[str]:
    try:
        work()
    except PromiseBrokenError as broken:
        broken.add_note("\n".join(play.stage.trace[-80:]))
        raise
    finally:
        play.end()
    return play.world.seen
