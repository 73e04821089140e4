"""What goes wrong while the clients are at work, chosen from a seed.

A lane is one thing that can break in one way at a time: the process of a worker, what is inside it,
its connections, the database. First each fault happens alone; then all lanes go their ways, each
with random choices of its own, so that faults of different lanes happen at the same time. The
choices are the same for the same seed; the moments at which they fall are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final, NamedTuple

_JOIN_SECONDS: Final = 240.0
_LONGEST_PAUSE: Final = 20.0
"""Between two faults of one lane, in leases: a change waits for every worker, and must get a chance
to be made between the faults of a dozen lanes."""


class Time:
    """How long faults last, in leases; whoever waits for a fault to last is woken at the end."""

    def __init__(self, lease_seconds: float) -> None:
        """Start."""
        self._lease = lease_seconds
        self._over = Event()

    def end(self) -> None:
        """Wake everyone, now and from now on."""
        self._over.set()

    def is_over(self) -> bool:
        """Say whether it has ended."""
        return self._over.is_set()

    def last(self, rng: Random) -> None:
        """Wait as long as a fault lasts: shorter than a lease, about as long, or longer."""
        self._over.wait(rng.choice((0.3, 1.0, 1.3, 2.5)) * self._lease)

    def pause(self, rng: Random, longest: float) -> None:
        """Wait up to so many leases."""
        self._over.wait(rng.uniform(0.1, longest) * self._lease)


Fault = Callable[[Random, Time], object]
"""Breaks something, lets it last, and mends it."""


class Lane(NamedTuple):
    """One thing, and the ways in which it breaks, by name."""

    name: str
    faults: Mapping[str, Fault]


class Happened(NamedTuple):
    """A fault of a lane, from its start to when it was mended."""

    fault: str
    lane: str
    start: float
    end: float


class Faults:
    """Breaks things in threads; `happened` grows as they are mended."""

    def __init__(
        self, lanes: Sequence[Lane], lease_seconds: float, seed: int, names: Sequence[str] | None
    ) -> None:
        """Prepare.

        Args:
            lanes: what can break.
            lease_seconds: of the workers: some faults last longer.
            seed: of every choice.
            names: of the faults that happen; all for None.
        """
        self._lanes = [
            Lane(lane.name, faults)
            for lane in lanes
            if (faults := {k: v for k, v in lane.faults.items() if names is None or k in names})
        ]
        self.names = sorted({name for lane in self._lanes for name in lane.faults})
        self._seed = seed
        self._time = Time(lease_seconds)
        self.happened: list[Happened] = []
        self.happened_alone = Event()
        """Set when each fault has happened alone, or one could not be mended."""
        # Guards the first failure of any thread.
        self._mutex = Lock()
        self._failure: BaseException | None = None

    @contextmanager
    def happening(self) -> Iterator[None]:
        """Let them happen: each alone, then all mixed."""
        thread = Thread(target=self._attempt, args=(self._run,), name="faults")
        thread.start()
        try:
            yield
        finally:
            self._time.end()
            thread.join(_JOIN_SECONDS)
        if self._failure is not None:
            raise self._failure
        assert not thread.is_alive(), "a fault is not mended"

    def has_failed(self) -> bool:
        """Say whether something could not be mended: the run is over."""
        return self._failure is not None

    def _attempt(self, run: Callable[..., None], *arguments: Lane) -> None:
        try:
            run(*arguments)
        except BaseException as exc:  # noqa: BLE001 - raised where the faults were started
            with self._mutex:
                self._failure = self._failure or exc
            self._time.end()
        finally:
            self.happened_alone.set()

    def _run(self) -> None:
        rng = Random(self._seed)
        for name in rng.sample(self.names, len(self.names)):
            lane = rng.choice([lane for lane in self._lanes if name in lane.faults])
            self._time.pause(rng, 0.7)
            if self._time.is_over():
                return
            self._happen(lane, name, rng)
        self.happened_alone.set()
        threads = [
            Thread(target=self._attempt, args=(self._mix, lane), name=f"faults of {lane.name}")
            for lane in self._lanes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _mix(self, lane: Lane) -> None:
        rng = Random(f"{self._seed} {lane.name}")
        names = sorted(lane.faults)
        while True:
            for name in rng.sample(names, len(names)):
                self._time.pause(rng, _LONGEST_PAUSE)
                if self._time.is_over():
                    return
                self._happen(lane, name, rng)

    def _happen(self, lane: Lane, name: str, rng: Random) -> None:
        start = monotonic()
        lane.faults[name](rng, self._time)
        self.happened.append(Happened(name, lane.name, start, monotonic()))


def summary(happened: Sequence[Happened]) -> str:
    """Return how many faults there were, how many during another, and how many of each."""
    among = sum(
        any(
            other is not one and other.start < one.end and one.start < other.end
            for other in happened
        )
        for one in happened
    )
    counts = Counter(one.fault for one in happened)
    parts = ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))
    return f"{len(happened)} faults, {among} of them during others ({parts})"
