"""Calls back when something has not ended in time, without a thread for each that waits."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from threading import TIMEOUT_MAX, Condition, Thread
from time import monotonic
from typing import Final, Generic, TypeVar

_Item = TypeVar("_Item")

_STOP_SECONDS: Final = 5.0


class Expiries(Generic[_Item]):
    """What must end in time; one thread, asleep until the earliest of them may be late.

    It looks at all of them then: they are as many as there are places for, not thousands.
    """

    def __init__(
        self, expired: Callable[[_Item], None], clock: Callable[[], float] = monotonic
    ) -> None:
        """Call `expired`, which must neither block nor raise, once for each that is late."""
        self._expired = expired
        self._clock = clock
        # Guards the following. Held for microseconds: by whoever adds, too, who must not wait.
        self._changed = Condition()
        self._ends: dict[_Item, float] = {}
        # No later than the earliest end. What is discarded leaves it: to be woken in vain once in
        # a while costs less than to look for the next one each time.
        self._wakes = inf
        self._is_closed = False
        self._thread = Thread(target=self._run, name="licet-expiries", daemon=True)

    def start(self) -> None:
        """Start watching; what was added before is watched, too."""
        self._thread.start()

    def stop(self) -> None:
        """End; nothing expires any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(_STOP_SECONDS)

    def __len__(self) -> int:
        """Return how many are watched."""
        return len(self._ends)

    def add(self, item: _Item, seconds: float) -> None:
        """Call back for an item in so many seconds, unless it is discarded before."""
        end = self._clock() + seconds
        with self._changed:
            self._ends[item] = end
            if end < self._wakes:
                self._wakes = end
                self._changed.notify()

    def discard(self, item: _Item) -> None:
        """Forget an item, if it is there."""
        with self._changed:
            self._ends.pop(item, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_closed and (left := self._wakes - self._clock()) > 0:
                    self._changed.wait(min(left, TIMEOUT_MAX))
                if self._is_closed:
                    return
                late = self._taken()
            for item in late:
                self._expired(item)

    def _taken(self) -> list[_Item]:
        """Take out what is late, and see when to look again."""
        now = self._clock()
        late = [item for item, end in self._ends.items() if end <= now]
        for item in late:
            del self._ends[item]
        self._wakes = min(self._ends.values(), default=inf)
        return late
