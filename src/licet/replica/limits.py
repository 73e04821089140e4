"""Takes tokens for decisions: from slices in memory, and from the database when they are used up.

A thread asks the database, for all buckets and requests together: ahead of need where tokens are
used regularly, and for requests that wait. Those wait without a connection. Invariants:

- A bucket that cannot be asked about gives nothing: the request fails, UNAVAILABLE.
- All tokens that a request demands are taken under one lock, or none. Nothing else is done under
  it: it is held for microseconds.
- One exchange is under way at a time, so a bucket is never asked about twice at once.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import chain, count
from math import ceil
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final, NamedTuple

from licet.app.limit_ports import BucketStore, Exchanged, Taken
from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.errors import DeadlineError, LicetError, UnavailableError
from licet.domain.token_bucket import Bucket, Demand, Refusal
from licet.replica.slices import HOLD, HeldBucket, Slice, Step, Unreported

_log: Final = logging.getLogger(__name__)

MAX_BUCKETS: Final = 32_768
"""Of how many buckets memory knows something; of more, those last asked about the longest ago are
forgotten."""
MAX_EXCHANGE: Final = 256
"""How many buckets one statement is about, unless one batch needs more."""
_EXCHANGE_SECONDS: Final = 2.0
_WAIT_SECONDS: Final = 5.0
_TICK_SECONDS: Final = 0.05
_AGAIN_SECONDS: Final = 0.5
_STOP_SECONDS: Final = 5.0
_SOON_MICROSECONDS: Final = 1000


class _Several(NamedTuple):
    """Tokens of several slices. A `limit_ports.Taken`."""

    uses: Sequence[Unreported]

    def give_back(self) -> None:
        for use in self.uses:
            use.give_back()


class Waiter:
    """Requests that are answered together. `outcome` is guarded by the lock."""

    __slots__ = ("is_gone", "landed", "outcome", "wanted")

    def __init__(self, wanted: Sequence[Sequence[Demand]]) -> None:
        self.wanted = wanted
        self.landed = Event()
        self.outcome: Sequence[Taken | Refusal] | LicetError | None = None
        self.is_gone = False


class Round(NamedTuple):
    """An exchange that is to be made: sent at `sent` or later, for these requests too."""

    sent: float
    steps: Sequence[Step]
    waiters: Sequence[Waiter]


class SlicedLimits:
    """See the module, and `limit_ports.Limits`."""

    def __init__(
        self,
        store: BucketStore,
        clock: Callable[[], float],
        fresh_id: Callable[[], int],
        max_buckets: int = MAX_BUCKETS,
    ) -> None:
        """Know nothing of any bucket.

        Args:
            store: the database's buckets.
            clock: seconds that never step and count while the machine sleeps.
            fresh_id: draws a number that nobody has for a slice, of 63 bits.
            max_buckets: how many memory has something of.
        """
        self._store = store
        self._clock = clock
        self._fresh_id = fresh_id
        self._max_buckets = max_buckets
        # Guards everything below but the heap, which is the thread's, and what it holds.
        self._mutex = Lock()
        self._buckets: OrderedDict[str, HeldBucket] = OrderedDict()
        self._touched: list[HeldBucket] = []
        self._queue: deque[Waiter] = deque()
        self._is_over = False
        # How many tokens were taken, how many requests found a bucket empty, and how many calls
        # waited for the database.
        self.taken = self.refused = self.waits = 0
        # Of the thread.
        self._heap: list[tuple[float, int, HeldBucket]] = []
        self._numbers = count()
        self._gives_back = False
        self.exchanges = 0
        """How many statements there were."""
        self.failures = 0  # of them
        # How many tokens the database granted; of them, how many were given back unused, and how
        # many could not be used any more, without an exchange for too long.
        self.granted = self.given_back = self.lost = 0
        self._wake = Event()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-limits", daemon=True)

    def __len__(self) -> int:
        """Return of how many buckets memory has something."""
        return len(self._buckets)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """Refuse whoever comes, and give back what is left."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(_STOP_SECONDS)

    def take(self, demands: Sequence[Demand], deadline: Deadline) -> Taken | Refusal:
        """See `Limits.take`."""
        with self._mutex:
            now = self._clock()
            if len(demands) == 1:
                # As `_take`, which takes twice as long.
                bucket = self._buckets.get(demands[0].bucket.key)
                held = None if bucket is None else bucket.use(now)
                if bucket is not None and held is not None:
                    if held.used >= held.alarm:
                        self._notice(bucket, held)
                    self.taken += 1
                    return held.unreported
        return self.take_all((demands,), deadline)[0]

    def take_all(
        self, wanted: Sequence[Sequence[Demand]], deadline: Deadline
    ) -> Sequence[Taken | Refusal]:
        """See `Limits.take_all`."""
        found = self._take_all(wanted)
        return self._waited(wanted, deadline) if found is None else found

    def _take(
        self, demands: Sequence[Demand], now: float, *, was_asked: bool = False
    ) -> _Several | Refusal | None:
        """Take all or nothing, under the lock; None: memory cannot tell.

        `was_asked` says that the database has just been asked for enough.
        """
        ready: list[HeldBucket] = []
        is_known = True
        for demand in demands:
            bucket = self._buckets.get(demand.bucket.key)
            if bucket is None:
                is_known = False
            elif bucket.left(now) > 0:
                ready.append(bucket)
            elif now < bucket.empty_until or (was_asked and bucket.was_empty(now)):
                until = ceil((bucket.empty_until - now) * 1e6)
                return Refusal(demand, max(until, _SOON_MICROSECONDS))
            else:
                is_known = False
        if not is_known:
            return None
        uses = []
        for bucket in ready:
            if (held := bucket.use(now)) is None:
                raise RuntimeError("there was a token, under the same lock")
            if held.used >= held.alarm:
                self._notice(bucket, held)
            uses.append(held.unreported)
        return _Several(uses)

    def _notice(self, bucket: HeldBucket, held: Slice) -> None:
        bucket.notice(held)
        self._touched.append(bucket)
        if bucket.asked:
            self._wake.set()

    def _take_all(
        self, wanted: Sequence[Sequence[Demand]], *, was_asked: bool = False
    ) -> Sequence[_Several | Refusal] | None:
        """Do so for each; None: for one of them memory cannot tell, and the others are undone."""
        found: list[_Several | Refusal] = []
        for demands in wanted:
            # One at a time: whoever has the lock makes others wait.
            with self._mutex:
                one = self._take(demands, self._clock(), was_asked=was_asked)
            if one is None:
                _give_back(found)
                return None
            found.append(one)
        with self._mutex:
            self.refused += sum(isinstance(one, Refusal) for one in found)
            self.taken += sum(len(one.uses) for one in found if not isinstance(one, Refusal))
        return found

    def _waited(
        self, wanted: Sequence[Sequence[Demand]], deadline: Deadline
    ) -> Sequence[Taken | Refusal]:
        if deadline is AT_ONCE:
            raise NotAtOnceError
        waiter = self.ask(wanted)
        waiter.landed.wait(deadline.remaining(_WAIT_SECONDS))
        with self._mutex:
            waiter.is_gone = True
            outcome = waiter.outcome
        if outcome is None:
            if deadline.remaining(_WAIT_SECONDS) <= 0:
                raise DeadlineError("the deadline passed while a limit was looked up")
            raise UnavailableError("what a limit leaves cannot be known: the database is too slow")
        if isinstance(outcome, LicetError):
            raise UnavailableError(f"what a limit leaves cannot be known: {outcome}") from outcome
        return outcome

    def ask(self, wanted: Sequence[Sequence[Demand]]) -> Waiter:
        """Have the database asked for so many tokens; what comes of it is the waiter's.

        Raises:
            UnavailableError: this replica is stopping.
        """
        waiter = Waiter(wanted)
        with self._mutex:
            if self._is_over:
                raise UnavailableError("this replica is stopping")
            self.waits += 1
            self._queue.append(waiter)
        self._wake.set()
        return waiter

    # The rest is the thread's.

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(_TICK_SECONDS if self._buckets else None)
            self._wake.clear()
            self._advance_all()
        with self._mutex:
            self._is_over = True
        self._gives_back = True
        for held in list(self._buckets.values()):
            self._look_at(held, self._clock())
        self._advance_all()

    def _advance_all(self) -> None:
        try:
            while self.advance():
                pass
        except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, not end it
            _log.exception("what limits leave cannot be asked on a bug; who waits fails")
            self.failures += 1

    def advance(self) -> bool:
        """Make one exchange; False: there is nothing to be exchanged now."""
        asked = self.begin()
        if asked is None:
            return False
        answers: Sequence[Exchanged] | LicetError
        try:
            exchanges = [step.exchange for step in asked.steps]
            deadline = Deadline.after(_EXCHANGE_SECONDS, monotonic)
            answers = self._store.exchange(exchanges, HOLD, deadline)
        except LicetError as exc:
            _log.warning("what limits leave cannot be asked: %s", exc)
            answers = exc
        except Exception:
            self.finish(asked, UnavailableError("asking failed on a bug"))
            raise
        self.finish(asked, answers)
        return True

    def begin(self) -> Round | None:
        """Return what is to be exchanged now; `finish` takes the answers, or why there are none."""
        sent = self._clock()
        waiters, needed = self._waiting(sent)
        with self._mutex:
            touched, self._touched = self._touched, []
        for held in touched:
            self._look_at(held, sent if held.asked else min(held.due, held.report_at))
        while self._heap and self._heap[0][0] <= sent and len(needed) < MAX_EXCHANGE:
            due, _, held = heappop(self._heap)
            if due == held.due:
                needed.setdefault(held, 0)
        steps = []
        for held, number in needed.items():
            held.due = float("inf")
            with self._mutex:
                step = self._step(held, number, sent)
            if step is not None:
                steps.append(step)
        return Round(sent, steps, waiters) if steps or waiters else None

    def finish(self, asked: Round, answers: Sequence[Exchanged] | LicetError) -> None:
        """Take the answers, and tell whoever waited."""
        now = self._clock()
        self.exchanges += 1
        if isinstance(answers, LicetError):
            self.failures += 1
            for step in asked.steps:
                self._look_at(step.held, now + _AGAIN_SECONDS)
        else:
            for step, answer in zip(asked.steps, answers, strict=True):
                self._answered(step, answer, asked.sent, now)
        for waiter in asked.waiters:
            found = answers if isinstance(answers, LicetError) else self._served(waiter)
            with self._mutex:
                is_gone, waiter.outcome = waiter.is_gone, found
                if found is None and not is_gone:
                    # A slice ended meanwhile, or others were quicker to use it.
                    self._queue.append(waiter)
                    continue
            waiter.landed.set()
            if is_gone and found is not None and not isinstance(found, LicetError):
                _give_back(found)

    def _served(self, waiter: Waiter) -> Sequence[_Several | Refusal] | None:
        return None if waiter.is_gone else self._take_all(waiter.wanted, was_asked=True)

    def _waiting(self, now: float) -> tuple[list[Waiter], dict[HeldBucket, int]]:
        """Return who is served next, and how many tokens of each bucket they need."""
        waiters: list[Waiter] = []
        needed: dict[HeldBucket, int] = {}
        while len(needed) < MAX_EXCHANGE:
            with self._mutex:
                if not self._queue:
                    break
                waiter = self._queue.popleft()
            if waiter.is_gone:
                continue
            waiters.append(waiter)
            for demand in chain.from_iterable(waiter.wanted):
                with self._mutex:
                    held = self._held(demand.bucket, now)
                needed[held] = needed.get(held, 0) + 1
        return waiters, needed

    def _held(self, bucket: Bucket, now: float) -> HeldBucket:
        held = self._buckets.get(bucket.key)
        if held is None:
            held = self._buckets[bucket.key] = HeldBucket(bucket, now)
            if len(self._buckets) > self._max_buckets:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(bucket.key)
        held.wanted_at = now
        return held

    def _step(self, held: HeldBucket, needed: int, now: float) -> Step | None:
        """Return, under the lock, what is to be exchanged about a bucket, if anything is."""
        self.lost += held.drop_ended(now)
        held.plan(now, gives_back=self._gives_back)
        if not needed:
            key = held.bucket.key
            if self._buckets.get(key) is not held:
                return None  # others made it go
            self._buckets.move_to_end(key)
            if held.is_forgettable(now):
                del self._buckets[key]
                return None
            if not held.has_business:
                self._look_at(held, held.next_look(now))
                return None
            if not held.target and held.slice is not None:
                self.given_back += held.slice.granted - held.slice.used
                own = held.slice
                return Step(held, own, held.giving_back(own, now))
        if held.slice is None:
            held.slice = Slice(self._fresh_id(), self._mutex)
        return Step(held, held.slice, held.asking(held.slice, now, needed))

    def _answered(self, step: Step, answer: Exchanged, sent: float, now: float) -> None:
        held = step.held
        with self._mutex:
            if step.exchange.wanted >= 0:
                self.granted += max(answer.granted - step.slice.granted, 0)
                held.answered(step.slice, answer, sent, now)
        self._look_at(held, held.next_look(now))

    def _look_at(self, held: HeldBucket, when: float) -> None:
        held.due = when
        heappush(self._heap, (when, next(self._numbers), held))


def _give_back(found: Sequence[_Several | Refusal]) -> None:
    for one in found:
        if not isinstance(one, Refusal):
            one.give_back()
