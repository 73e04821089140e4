"""Capability sets that are read ahead, and a database whose reads a test lets go one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from queue import Queue
from threading import Event

import pytest

from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.capability_set import CapabilitySet
from licet.domain.names import Principal
from licet.replica.capability_sets import CachedCapabilitySets
from licet.replica.lease import Lease
from licet.replica.reading_ahead import ReadingAhead

_SECONDS = 10.0


class Reads:
    """A database whose reads, one after the other, are let go by the test."""

    def __init__(self) -> None:
        self.revision = 1
        self.asked: Queue[list[Principal]] = Queue()
        self.goes: Queue[Callable[[], None]] = Queue()
        self.large: set[Principal] = set()
        self.rests = Event()
        self.seconds = 0.0

    def __call__(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        self.seconds = deadline.remaining(60.0)
        found = {p: CapabilitySet(p, self.revision, []) for p in principals if p not in self.large}
        self.asked.put(sorted(principals))
        self.goes.get(timeout=_SECONDS)()
        return found

    def rest(self) -> None:
        self.rests.set()

    def await_read(self) -> list[Principal]:
        """Return who is read now; it lands when the test lets it."""
        return self.asked.get(timeout=_SECONDS)

    def land(self) -> None:
        """Let a read end well."""
        self.goes.put(lambda: None)

    def fail(self, error: Exception) -> None:
        """Let it fail, although the database had answered."""

        def fails() -> None:
            raise error

        self.goes.put(fails)


class Scene:
    """Capability sets in memory that are read ahead."""

    def __init__(self) -> None:
        self.reads, self.own = Reads(), Reads()
        self.lease = Lease(lambda: 0.0)
        self.lease.extend(1.0)
        self.sets = CachedCapabilitySets(self.own, self.lease, 1 << 20, 100)
        self.sets.reset(1)
        self.ahead = ReadingAhead(self.sets, self.reads)

    def get(self, principal: Principal) -> CapabilitySet | None:
        """Ask memory."""
        try:
            return self.sets.get(principal, AT_ONCE)
        except NotAtOnceError:
            return None

    def miss(self, principal: Principal) -> Answer:
        """Ask memory, and once more when it is worth it."""
        with pytest.raises(NotAtOnceError) as missed:
            self.sets.get(principal, AT_ONCE)
        answer = Answer()
        answer.is_promised = missed.value.later is not None and missed.value.later(
            lambda: answer.put(self.get(principal))
        )
        return answer


class Answer:
    """What memory had when it was asked once more."""

    def __init__(self) -> None:
        self.is_promised = False
        self._told: Queue[CapabilitySet | None] = Queue()

    def put(self, found: CapabilitySet | None) -> None:
        self._told.put(found)

    def get(self) -> CapabilitySet | None:
        return self._told.get(timeout=_SECONDS)


@contextmanager
def stopped(scene: Scene) -> Iterator[Scene]:
    try:
        yield scene
    finally:
        for _ in range(9):
            scene.reads.land()
        scene.ahead.stop()
