"""Limits on how many calls of a kind there are at once."""

from __future__ import annotations

from threading import Lock

from licet.domain.errors import ExhaustedError
from licet.server.lanes import Tally


class Places:
    """So many calls of a kind at once; one more raises ExhaustedError."""

    def __init__(self, limit: int, message: str) -> None:
        self._limit = limit
        self._message = message
        # Guards the count.
        self._mutex = Lock()
        self._taken = 0
        self.refused = Tally()
        """How many found no place; read by metrics."""

    def __len__(self) -> int:
        """Return how many places are taken."""
        return self._taken

    def take(self) -> None:
        """Take a place, until it is given back by any thread. Raises ExhaustedError."""
        with self._mutex:
            is_free = self._taken < self._limit
            self._taken += is_free
        if not is_free:
            self.refused.add()
            raise ExhaustedError(self._message)

    def give(self) -> None:
        """Give one back."""
        with self._mutex:
            self._taken -= 1

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.give()
