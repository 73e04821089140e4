"""Watch changes: every change of authorization state after a revision, in order, each once.

A watch takes changes from the feed, which the replica fills from memory, and goes to the database
only for those that are older than what the feed holds. Invariants:

- Every change sent has the revision after that of the one before, in one history: changes come from
  runs without a gap only, and a watch never crosses from one epoch into another.
- Only committed changes are sent: both sources have read them from the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from licet.app.ports import Deadline
from licet.app.replication import Change
from licet.domain.errors import OutOfRangeError, SlowConsumerError, UnavailableError

STALE_SECONDS: Final = 5.0
"""How much later than it is due a heartbeat may come before the watch ends: long enough for a
replica to register anew, short enough for a client to find a better one."""
_POLL_SECONDS: Final = 0.1


class WatchStart(NamedTuple):
    """From where to watch: after a revision of a history, known or not; from now on for None."""

    after: int | None
    epoch: UUID | None


class Heartbeat(NamedTuple):
    """Every change up to this revision of this history was sent before."""

    revision: int
    epoch: UUID


class Recent(NamedTuple):
    """What the feed holds after a revision.

    Attributes:
        changes: those that follow it, without a gap, perhaps not all; None when the next is older
            than what the feed holds.
        revision: of the latest change in the feed.
        epoch: the history that the feed follows.
        resets: how often the feed went on at another revision than the next.
    """

    changes: Sequence[Change] | None
    revision: int
    epoch: UUID
    resets: int


class ChangeFeed(Protocol):
    """The changes of late, in memory."""

    def after(self, revision: int) -> Recent:
        """Return what follows a revision.

        Raises:
            UnavailableError: the feed was closed.
        """
        ...

    def wait(self, seen: Recent, over: Callable[[], bool], seconds: float) -> None:
        """Return when the feed has moved on from what was seen, or `over`, or after the time."""
        ...

    def wake(self) -> None:
        """Let all who wait look whether it is over for them."""
        ...

    def close(self) -> None:
        """End every watch: this process stops."""
        ...


class Retained(NamedTuple):
    """What the database holds after a revision, all of one snapshot.

    Attributes:
        changes: those that follow it, without a gap, perhaps not all; empty when some are gone.
        oldest: the least revision whose following changes are all held.
        revision: of the latest change.
        epoch: the history.
    """

    changes: Sequence[Change]
    oldest: int
    revision: int
    epoch: UUID


class RetainedChanges(Protocol):
    """Changes as stored."""

    def after(self, revision: int, deadline: Deadline) -> Retained:
        """Return what follows a revision. Raises UnavailableError or DeadlineError."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """What watches are made of.

    Attributes:
        feed: the changes of late.
        retained: the changes as stored.
        is_current: says whether every change that was confirmed before now is in the feed.
        clock: seconds that never step.
        heartbeat_seconds: how often to say that there was nothing.
    """

    feed: ChangeFeed
    retained: RetainedChanges
    is_current: Callable[[], bool]
    clock: Callable[[], float]
    heartbeat_seconds: float


class Watch:
    """One client's watch. Iterate over it once, in one thread; `cancel` ends it from any other."""

    def __init__(self, sources: Sources, start: WatchStart, deadline: Deadline) -> None:
        """Compose a watch; nothing happens before the first iteration."""
        self._from = sources
        self._start = start
        self._deadline = deadline
        self._over = False
        # The last change that was sent, or from where on; and its history.
        self._position = 0
        self._epoch: UUID | None = None
        # The run of the feed (see `Recent.resets`) in which it held what follows the position.
        self._run = -1
        # When the client had been sent all there was.
        self._caught_up = sources.clock()

    def cancel(self) -> None:
        """End the iteration soon."""
        self._over = True
        self._from.feed.wake()

    def __iter__(self) -> Iterator[Change | Heartbeat]:
        """Return a heartbeat, then changes and heartbeats until `cancel`.

        Raises:
            OutOfRangeError: what follows the position cannot be told.
            SlowConsumerError: the feed has dropped what follows while the client took its time.
            UnavailableError: this replica stops, or cannot be current, or has no database.
        """
        feed, clock, interval = self._from.feed, self._from.clock, self._from.heartbeat_seconds
        seen = feed.after(self._start.after or 0)
        self._epoch = epoch = self._start.epoch or seen.epoch
        if self._start.after is None:
            self._position = seen.revision
            seen = seen._replace(changes=())
        else:
            self._position = self._start.after
        due = clock() + (interval if self._position >= seen.revision else 0.0)
        # What was asked for is checked before the first message.
        changes = self._next(seen)
        yield Heartbeat(self._position, epoch)
        while not self._over:
            for change in changes:
                yield change
                self._position = change.revision
            # The lease first, the feed second: under it, what was confirmed is in the feed.
            current = self._from.is_current()
            seen = feed.after(self._position)
            changes = self._next(seen)
            now = clock()
            if changes:
                continue
            self._caught_up = now
            if now >= due and current:
                yield Heartbeat(self._position, epoch)
                due = now + interval
            elif now >= due + STALE_SECONDS:
                raise UnavailableError("this replica has lost the database")
            else:
                feed.wait(seen, lambda: self._over, max(due - now, _POLL_SECONDS))
                # Until now there was nothing to take.
                self._caught_up = clock()

    def _next(self, seen: Recent) -> Sequence[Change]:
        """Return what follows the position, perhaps not all of it; nothing: it is the latest."""
        if seen.epoch == self._epoch:
            is_known = self._run == seen.resets
            if seen.changes is None and is_known:
                self._fell_behind()
            # A position ahead of the feed is another replica's, or another history's.
            if seen.changes is not None and (is_known or self._position <= seen.revision):
                self._run = seen.resets
                return seen.changes
        held = self._from.retained.after(self._position, self._deadline)
        self._check(held)
        if seen.epoch != self._epoch:
            raise UnavailableError("this replica has to catch up with a restored database")
        if seen.changes is not None:
            self._run = seen.resets
        return held.changes

    def _fell_behind(self) -> None:
        """Go on from the database if a burst was the cause, and not the client."""
        if self._from.clock() - self._caught_up > self._from.heartbeat_seconds:
            raise SlowConsumerError(
                f"the changes after revision {self._position} were not taken in time"
            )
        self._run = -1

    def _check(self, held: Retained) -> None:
        facts = {
            "oldest_revision": str(held.oldest),
            "current_revision": str(held.revision),
            "epoch": str(held.epoch),
        }
        position = self._position
        if held.epoch != self._epoch:
            raise OutOfRangeError("EPOCH_CHANGED", "the database was restored", facts)
        if position < held.oldest:
            raise OutOfRangeError(
                "REVISION_TOO_OLD",
                f"not all changes after revision {position} are kept, only those after "
                f"{held.oldest}",
                facts,
            )
        if position > held.revision:
            raise OutOfRangeError(
                "REVISION_IN_FUTURE",
                f"there is no revision {position} yet, the latest is {held.revision}",
                facts,
            )


class WatchChanges:
    """Starts and ends watches."""

    def __init__(self, sources: Sources) -> None:
        """Watch these sources."""
        self._sources = sources

    def __call__(self, start: WatchStart, deadline: Deadline) -> Watch:
        """Return a watch to iterate over."""
        return Watch(self._sources, start, deadline)

    def close(self) -> None:
        """End every watch, and those that come, with UnavailableError: this process stops."""
        self._sources.feed.close()
