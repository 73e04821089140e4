"""A world of replicas that share token buckets, in simulated time, and what is wrong with it.

Each replica has a clock of its own, too quick or too slow. Exchanges are delayed, lost on the way
to the database or back, and executed when nobody waits for them any more. Replicas are stopped,
crash and forget. What counts is when tokens were taken, in true time, which is the database's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from licet.app.limit_ports import Exchange, Exchanged, Taken
from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.errors import UnavailableError
from licet.domain.token_bucket import Bucket, Demand, Refusal
from licet.replica.lease import LEASE_MARGIN
from licet.replica.limits import Round, SlicedLimits, Waiter
from licet.replica.slices import HOLD
from tests.fakes.token_buckets import TokenBuckets

SECOND: Final = 1_000_000
BUCKETS: Final = (
    Bucket("one", 1, SECOND, 1),
    Bucket("few", 2, SECOND, 4),
    Bucket("some", 3, SECOND, 12),
    Bucket("many", 40, SECOND, 60),
    Bucket("slow", 60, 60 * SECOND, 30),
)
_RATES: Final = (0.99 / LEASE_MARGIN, 0.999, 1.0, 1.001, 0.99 * LEASE_MARGIN)
_PACES: Final = (
    (0, 500, 3_000, 20_000, 60_000),
    (3_000, 40_000, 150_000),
    (40_000, 300_000, SECOND, 2 * SECOND),
    (500, 40_000, 600_000, 5_000_000, 5_600_000, 7 * SECOND),
)


def overrun(bucket: Bucket, taken: Sequence[int]) -> tuple[int, int, int] | None:
    """Return a window in which more was taken than may be: from, to, and how many; None: none.

    Looks at every pair of takes; instants in microseconds, exactly.
    """
    times = sorted(taken)
    for first, begin in enumerate(times):
        for number, end in enumerate(times[first:], 1):
            if (number - bucket.burst) * bucket.period > (end - begin) * bucket.tokens:
                return begin, end, number
    return None


@dataclass(slots=True)
class Message:
    """An exchange on its way; `is_awaited` as long as its replica waits for the answer."""

    round: Round
    exchanges: Sequence[Exchange]
    answers: Sequence[Exchanged] | None = None
    is_awaited: bool = True


class Store:
    """Is never called: the world carries the messages."""

    def exchange(
        self, items: Sequence[Exchange], hold: int, deadline: Deadline
    ) -> Sequence[Exchanged]:
        raise NotImplementedError


@dataclass(slots=True)
class Replica:
    """A process: its clock, what it remembers, and the one exchange that it waits for."""

    limits: SlicedLimits
    rate: float
    message: Message | None = None
    waiters: list[Waiter] = field(default_factory=list)


class World:
    """See the module. Methods that a planted mistake overrides come last."""

    def __init__(self, seed: int, replicas: int = 3, buckets: TokenBuckets | None = None) -> None:
        """Begin with replicas that know nothing, and buckets that are full."""
        self.random = Random(seed)
        self.now = 1_800_000_000 * SECOND
        self.read_at = self.now
        self.buckets = TokenBuckets() if buckets is None else buckets
        self.taken: dict[Bucket, list[int]] = {bucket: [] for bucket in BUCKETS}
        self.late: list[Message] = []
        self._rates = [self.random.choice(_RATES) for _ in range(replicas)]
        self.replicas = [self._replica(rate) for rate in self._rates]
        self._pace = self.random.choice(_PACES)
        self._wanted = self.random.sample(BUCKETS, self.random.choice((1, 1, 2, 5)))
        self._carries = self.random.choice((6, 40))
        self._stopped: Replica | None = None

    def run(self, steps: int) -> None:
        """Do so many things at random."""
        doing = (
            [self._take] * 24 + [self._carry] * self._carries + [self._ask] * 3 + [self._step] * 16
        )
        doing += [self._lose, self._crash, self._late, self._trim, self._stop, self._go_on]
        doing += [self._silence]
        for _ in range(steps):
            self.random.choice(doing)()

    def settle(self) -> None:
        """Let time pass until every bucket is full and every slice has ended."""
        for replica in self.replicas:
            if replica.message is not None:
                self._fail(replica, replica.message)
        for _ in range(3):
            self.now += 100 * SECOND
            for replica in self.replicas:
                self.exchange(replica)
        self.now += 100 * SECOND

    def wrong(self) -> str:
        """Return what is wrong with what was taken so far; empty: nothing."""
        for bucket, taken in self.taken.items():
            found = overrun(bucket, taken)
            if found is not None:
                begin, end, number = found
                return f"{bucket.key}: {number} in {(end - begin) / SECOND} s"
        return ""

    def exchange(self, replica: Replica) -> None:
        """Make one exchange without anything between."""
        if replica.message is None:
            self._begin(replica)
        if replica.message is not None:
            self._execute(replica.message)
            self._deliver(replica, replica.message)

    def wants(self, replica: Replica, *buckets: Bucket) -> Refusal | Taken | None:
        """Have a request demand tokens at once; None: it would have to wait."""
        demands = [Demand(bucket.key, bucket) for bucket in buckets]
        try:
            found = replica.limits.take(demands, AT_ONCE)
        except NotAtOnceError:
            return None
        if not isinstance(found, Refusal):
            for bucket in buckets:
                self.taken[bucket].append(self.read_at)
        return found

    def _replica(self, rate: float) -> Replica:
        offset = self.random.uniform(0.0, 1e5)

        def clock() -> float:
            # Time passes between any two looks at a clock.
            self.now += self.random.choice((0, 1, 1, 20, 400))
            self.read_at = self.now
            return offset + rate * (self.now - 1_799_999_000 * SECOND) / SECOND

        limits = SlicedLimits(Store(), clock, lambda: self.random.getrandbits(63), max_buckets=3)
        return Replica(limits, rate)

    def _any(self) -> Replica:
        return self.random.choice([one for one in self.replicas if one is not self._stopped])

    def _some(self) -> list[Bucket]:
        return self.random.sample(
            self._wanted, min(self.random.choice((1, 1, 1, 2)), len(self._wanted))
        )

    def _step(self) -> None:
        self.now += self.random.choice(self._pace)

    def _stop(self) -> None:
        self._stopped = self._any()

    def _go_on(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            self._take(stopped)

    def _take(self, replica: Replica | None = None) -> None:
        replica, buckets = replica or self._any(), self._some()
        for _ in range(self.random.choice((1, 1, 3, 100))):
            found = self.wants(replica, *buckets)
            if found is None:
                self._ask(replica, buckets)
                return
            if isinstance(found, Refusal):
                assert found.retry_after > 0
            elif self.random.random() < 0.1:
                # The decision has not left, and is taken anew.
                places = [(bucket, len(self.taken[bucket]) - 1) for bucket in buckets]
                if self.random.random() < 0.3:
                    self.now += self.random.choice((0, SECOND))
                    self._begin(replica)
                    if self.random.random() < 0.5:
                        # Meanwhile another thread takes what there is.
                        self.wants(replica, *buckets)
                found.give_back()
                for bucket, place in places:
                    del self.taken[bucket][place]

    def _ask(self, replica: Replica | None = None, buckets: Sequence[Bucket] = ()) -> None:
        replica = self._any() if replica is None else replica
        demands = [Demand(bucket.key, bucket) for bucket in buckets or self._some()]
        replica.waiters.append(replica.limits.ask([demands] * self.random.choice((1, 1, 4))))

    def _carry(self) -> None:
        replica = self._any()
        message = replica.message
        if message is None:
            self._begin(replica)
        elif message.answers is None:
            self._execute(message)
        else:
            self._deliver(replica, message)

    def _begin(self, replica: Replica) -> None:
        if replica.message is None and (asked := replica.limits.begin()) is not None:
            sent = [self.sent(step.exchange) for step in asked.steps]
            replica.message = Message(asked, sent)

    def _execute(self, message: Message) -> None:
        if message.answers is None:
            message.answers = self.buckets.exchange(message.exchanges, self.hold, self.now)

    def _deliver(self, replica: Replica, message: Message) -> None:
        assert message.answers is not None
        replica.message = None
        replica.limits.finish(self.received(message.round, replica), message.answers)
        self._note(replica)

    def _note(self, replica: Replica) -> None:
        for waiter in [waiter for waiter in replica.waiters if waiter.landed.is_set()]:
            replica.waiters.remove(waiter)
            if waiter.outcome is None or isinstance(waiter.outcome, Exception):
                continue
            for demands, found in zip(waiter.wanted, waiter.outcome, strict=True):
                if not isinstance(found, Refusal):
                    for demand in demands:
                        self.taken[demand.bucket].append(self.read_at)

    def _lose(self) -> None:
        """Have a replica give up waiting; its message may be executed, or was, or never will be."""
        replica = self._any()
        if replica.message is not None:
            if self.random.random() < 0.7:
                self.late.append(replica.message)
            self._fail(replica, replica.message)

    def _fail(self, replica: Replica, message: Message) -> None:
        replica.message = None
        replica.limits.finish(message.round, UnavailableError("nobody knows"))
        self._note(replica)

    def _late(self) -> None:
        if self.late:
            self._execute(self.late.pop(self.random.randrange(len(self.late))))

    def _crash(self) -> None:
        number = self.random.randrange(len(self.replicas))
        message = self.replicas[number].message
        if message is not None:
            self.late.append(message)
        self.replicas[number] = self._replica(self._rates[number])

    def _silence(self) -> None:
        """Have a replica keep some and fall silent, others take all there is, and it goes on."""
        silent, other = self.random.sample(self.replicas, 2)
        bucket = self.random.choice(self._wanted)
        for _ in range(4):
            self.now += SECOND // 4
            self._ask(silent, [bucket])
            self.exchange(silent)
        for _ in range(self.random.choice((1, 2))):
            self.now += self.random.choice((0, SECOND, 4_600_000, 5_100_000, 5_400_000, 5_700_000))
            self._use_up(self.random.choice((silent, other)), bucket)
            self._exhaust(other, bucket)
            self._use_up(silent, bucket)
        self.now += self.random.choice((0, SECOND, 6 * SECOND))
        self.exchange(silent)
        self._exhaust(other, bucket)

    def _use_up(self, replica: Replica, bucket: Bucket) -> None:
        while (found := self.wants(replica, bucket)) is not None:
            if isinstance(found, Refusal):
                return

    def _exhaust(self, replica: Replica, bucket: Bucket) -> None:
        demands = [Demand(bucket.key, bucket)]
        replica.waiters.append(replica.limits.ask([demands] * bucket.burst))
        for _ in range(3):
            self.exchange(replica)

    def _trim(self) -> None:
        self.buckets.trim(self.now)

    # What follows is right as it is, and wrong in the worlds with a planted mistake.

    hold = HOLD

    def sent(self, exchange: Exchange) -> Exchange:
        """Return what the database is told."""
        return exchange

    def received(self, asked: Round, replica: Replica) -> Round:  # noqa: ARG002 - for a mistake
        """Return the round that the answers are taken to belong to."""
        return asked
