"""Threads that take turns, and the waiting of licet's own classes brought under the same rule.

Only one thread runs at a time, until it stops at a point: a message, a look at a clock, or a wait
for something. Then the schedule says who goes on. Nothing here waits for real time, so a schedule
is a list of turns, and the same list is the same run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from random import Random
from threading import Lock, Thread, current_thread
from types import ModuleType, TracebackType
from typing import Any, Final

from typing_extensions import override

TICK: Final = 0.02
"""How long nothing happens before those who wait are asked again, in seconds."""
_REAL_SECONDS: Final = 30.0
_HELD_AT_MOST: Final = 3.0
_HOLD_CHANCE: Final = 0.12
_FOREVER: Final = float("inf")


class _KilledError(BaseException):
    """Ends an actor where it stands."""


def _at_once() -> bool:
    return True


class Actor(Thread):
    """A thread that runs only in its turns. Takes the place of `threading.Thread`."""

    def __init__(
        self, stage: Stage, clock: Callable[[], float], target: Callable[[], object], name: str
    ) -> None:
        """Prepare to run `target` by this clock."""
        super().__init__(name=name, daemon=True)
        self._stage = stage
        self._work = target
        self._go, self._stopped = Lock(), Lock()
        self._go.acquire()
        self._stopped.acquire()
        self._killed = False
        self._error: BaseException | None = None
        self.clock = clock
        self.label = "start"
        self.ready: Callable[[], bool] = _at_once
        self.finished = False
        self.turns = 0

    @override
    def start(self) -> None:
        super().start()
        self._stage.actors.append(self)

    @override
    def join(self, timeout: float | None = None) -> None:
        until("join", lambda: self.finished, timeout)

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
        self.turns += 1
        self._go.release()
        assert self._stopped.acquire(timeout=_REAL_SECONDS), "an actor waits for something real"
        if self._error is not None:
            raise self._error

    def kill(self) -> None:
        """End it where it stands."""
        if not self.finished:
            self._killed = True
            self.turn()
            super().join(_REAL_SECONDS)

    def stop_here(self, label: str, ready: Callable[[], bool]) -> None:
        """Wait for the next turn, which comes when it is ready."""
        if self._killed:
            raise _KilledError
        self.label, self.ready = label, ready
        self._stopped.release()
        self._go.acquire()
        if self._killed:
            raise _KilledError


def point(label: str) -> None:
    """Let others run first, if the schedule says so."""
    actor = current_thread()
    if isinstance(actor, Actor):
        actor.stop_here(label, _at_once)


def until(label: str, condition: Callable[[], bool], seconds: float | None = None) -> bool:
    """Wait for a condition at most so long by the actor's clock; whoever is none does not wait."""
    actor = current_thread()
    if isinstance(actor, Actor):
        ends = _FOREVER if seconds is None else actor.clock() + seconds
        actor.stop_here(label, lambda: condition() or actor.clock() >= ends)
    return condition()


class TurnEvent:
    """Takes the place of `threading.Event`."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """See `threading.Event.set`."""
        self._is_set = True

    def is_set(self) -> bool:
        """See `threading.Event.is_set`."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event.wait`."""
        return until("event", self.is_set, timeout)


class TurnCondition:
    """Takes the place of `threading.Condition`: only who has the turn can hold its lock."""

    def __init__(self) -> None:
        self._notified = 0

    def __enter__(self) -> bool:
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def notify(self) -> None:
        """See `threading.Condition.notify`."""
        self._notified += 1

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Condition.wait`."""
        before = self._notified
        return until("condition", lambda: self._notified != before, timeout)


class TurnQueue:
    """Takes the place of `queue.SimpleQueue`."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def put(self, item: object) -> None:
        """See `SimpleQueue.put`."""
        self._items.append(item)

    def qsize(self) -> int:
        """See `SimpleQueue.qsize`."""
        return len(self._items)

    def get(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - as `SimpleQueue`
        """See `SimpleQueue.get`."""
        if not until("queue", lambda: bool(self._items), timeout):
            raise Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:  # noqa: ANN401 - as `SimpleQueue`
        """See `SimpleQueue.get_nowait`."""
        if not self._items:
            raise Empty
        return self._items.popleft()


@contextmanager
def replaced(module: ModuleType, **names: object) -> Iterator[None]:
    """Give names of a module another meaning for a while."""
    before = {name: getattr(module, name) for name in names}
    for name, value in names.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


@dataclass(slots=True)
class _Hold:
    """Somebody who gets no turn until others have returned, or for a time, and then some turns."""

    actor: Actor
    returned: float
    time: float
    turns: int


class Stage:
    """Gives the turns and lets time pass, as the random numbers say.

    Whoever may go on is as likely to be next as any other. But now and then somebody is held where
    he is, until others have completed something or some time has passed. That is what faults of a
    protocol need: not many changes of turn, but a long one at the right point. So each point, and
    not each turn, is as likely to be that one: where an actor comes often he is held seldom.
    """

    def __init__(self, random: Random, holds: int) -> None:
        """Hold at most so many actors at points of their own."""
        self._random = random
        self._holds_left = holds
        self._holds: list[_Hold] = []
        self._visits: dict[tuple[Actor, str], int] = {}
        self.is_armed = False
        """Whether anybody is held at all."""
        self.actors: list[Actor] = []
        self.time = 0.0
        self.returned = 0
        """How many calls have returned that others are held for."""
        self.trace: list[str] = []

    def turn(self) -> None:
        """Give one turn, or let some time pass when nobody can use one."""
        self._holds = [hold for hold in self._holds if self._lasts(hold)]
        held = [hold.actor for hold in self._holds]
        able = [actor for actor in self.actors if actor not in held and actor.ready()]
        if not able:
            self.time += TICK
            return
        actor = self._random.choice(able)
        self.trace.append(f"{self.time:.2f} {actor.name}: {actor.label}")
        actor.turn()
        if actor.finished:
            self.actors.remove(actor)
        elif self.is_armed:
            self._perhaps_hold(actor)

    def hold(self, actor: Actor) -> None:
        """Give somebody no turn until `free`."""
        self._holds.append(_Hold(actor, _FOREVER, _FOREVER, 0))

    def free(self, actor: Actor) -> None:
        """Give him turns again."""
        self._holds = [hold for hold in self._holds if hold.actor is not actor]

    def is_held(self, actor: Actor) -> bool:
        """Say whether somebody gets no turn."""
        return any(hold.actor is actor for hold in self._holds)

    def release(self) -> None:
        """Hold nobody any more."""
        self._holds.clear()
        self.is_armed = False

    def begin(self) -> None:
        """Begin something new, in which every point is a new one."""
        self._visits.clear()

    def _lasts(self, hold: _Hold) -> bool:
        if self.returned >= hold.returned or self.time >= hold.time:
            hold.turns -= 1
        return hold.turns >= 0 and not hold.actor.finished

    def _perhaps_hold(self, actor: Actor) -> None:
        place = actor, actor.label
        visits = self._visits[place] = self._visits.get(place, 0) + 1
        if not self._holds_left or self._random.random() >= _HOLD_CHANCE / visits:
            return
        self._holds_left -= 1
        returned, time = _FOREVER, self.time + _HELD_AT_MOST
        if self._random.random() < 0.7:
            returned = self.returned + self._random.choice((1, 1, 1, 2))
        else:
            time = self.time + self._random.choice((0.1, 0.5, 1.25, 2.6))
        self.trace.append(f"{self.time:.2f} {actor.name}: held at {actor.label}")
        turns = self._random.choice((0, 0, 10, 40))
        self._holds.append(_Hold(actor, returned, time, turns))
