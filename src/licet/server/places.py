"""Limits on how many calls of a kind there are at once."""

from __future__ import annotations

from collections import deque
from threading import BoundedSemaphore

from licet.domain.errors import ExhaustedError
from licet.server.lanes import Tally


class Places:
    """So many calls of a kind at once; one more raises ExhaustedError."""

    def __init__(self, limit: int, message: str) -> None:
        self._free = BoundedSemaphore(limit)
        self._message = message
        # Single operations on a deque, which are atomic: one for each call.
        self._taken: deque[None] = deque()
        self.refused = Tally()
        """How many found no place; read by metrics."""

    def __len__(self) -> int:
        """Return how many places are taken."""
        return len(self._taken)

    def take(self) -> None:
        """Take a place, until it is given back by any thread. Raises ExhaustedError."""
        if not self._free.acquire(blocking=False):
            self.refused.add()
            raise ExhaustedError(self._message)
        self._taken.append(None)

    def give(self) -> None:
        """Give one back."""
        self._taken.pop()
        self._free.release()

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.give()
