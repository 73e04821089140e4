"""The changes of late, in memory: filled by the replica's thread, read by every watch.

A run of changes without a gap. However many watch, each change is read from the database once.

Invariant: what is in the feed was committed, in this order, in the history that `epoch` names. When
the replica registers anew, the run ends where it was and a new one begins: what lies between the
two is in the database only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Condition
from typing import Final
from uuid import UUID

from licet.app.replication import Change
from licet.app.watch import Recent
from licet.domain.errors import UnavailableError

MAX_CHANGES: Final = 10_000
MAX_NAMES: Final = 100_000
"""Bounds of the feed, in changes and in the principals that they name: some 25 MB at most."""
_AT_ONCE: Final = 100
"""How many changes a reader takes, so that none holds the lock for long."""


class MemoryFeed:
    """See `app.watch.ChangeFeed`, and `coherence.Follower` for who fills it."""

    def __init__(self, max_changes: int = MAX_CHANGES, max_names: int = MAX_NAMES) -> None:
        """Hold at most so much; the latest change is held whatever it names."""
        self._max_changes = max_changes
        self._max_names = max_names
        # Guards everything below; notified when any of it changes, and by `wake`.
        self._changed = Condition()
        # By revision, from `_first` to `_last` without a gap; empty when `_first` is the greater.
        self._changes: dict[int, Change] = {}
        self._first = 1
        self._last = 0
        self._names = 0
        self._epoch: UUID | None = None
        self._resets = 0
        self._closed = False

    def reset(self, revision: int, epoch: UUID) -> None:
        """See `Follower.reset`."""
        with self._changed:
            self._restart(revision)
            self._epoch = epoch
            self._changed.notify_all()

    def append(self, changes: Sequence[Change]) -> None:
        """See `Follower.append`."""
        if not changes:
            return
        with self._changed:
            for change in changes:
                if change.revision == self._last + 1:
                    self._add(change)
                else:
                    # Several changes told as one: some are gone from the database already.
                    self._restart(change.revision)
            self._changed.notify_all()

    def after(self, revision: int) -> Recent:
        """See `ChangeFeed.after`."""
        with self._changed:
            if self._closed or self._epoch is None:
                raise UnavailableError("this replica is stopping")
            changes = None
            if revision >= self._first - 1:
                end = min(self._last, revision + _AT_ONCE)
                changes = [self._changes[number] for number in range(revision + 1, end + 1)]
            return Recent(changes, self._last, self._epoch, self._resets)

    def wait(self, seen: Recent, over: Callable[[], bool], seconds: float) -> None:
        """See `ChangeFeed.wait`."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_moved(seen) or over(), seconds)

    def wake(self) -> None:
        """See `ChangeFeed.wake`."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """See `ChangeFeed.close`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """Return how many changes it holds."""
        return len(self._changes)

    def _has_moved(self, seen: Recent) -> bool:
        return self._closed or (self._last, self._resets) != (seen.revision, seen.resets)

    def _restart(self, revision: int) -> None:
        self._changes.clear()
        self._names = 0
        self._first = revision + 1
        self._last = revision
        self._resets += 1

    def _add(self, change: Change) -> None:
        self._changes[change.revision] = change
        self._last = change.revision
        self._names += len(change.principals or ())
        while len(self._changes) > 1 and (
            len(self._changes) > self._max_changes or self._names > self._max_names
        ):
            dropped = self._changes.pop(self._first)
            self._first += 1
            self._names -= len(dropped.principals or ())
