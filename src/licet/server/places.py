"""Limits on how many calls of a kind there are at once."""

from __future__ import annotations

from threading import BoundedSemaphore

from licet.domain.errors import ExhaustedError


class Places:
    """So many calls of a kind at once; one more raises ExhaustedError."""

    def __init__(self, limit: int, message: str) -> None:
        self._free = BoundedSemaphore(limit)
        self._message = message

    def __enter__(self) -> None:
        if not self._free.acquire(blocking=False):
            raise ExhaustedError(self._message)

    def __exit__(self, *_: object) -> None:
        self._free.release()
