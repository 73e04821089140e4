"""What a replica has of the token buckets: slices, used from memory and settled with the database.

docs/decisions/0039-limits.md has the proof that no more is taken than a limit lets. What it needs:

- A token is used only while the slice lasts: `LIFE_SECONDS` from the moment *before* the exchange
  was sent that granted or renewed it. The database counts the slice as used up `LEASE_MARGIN` times
  as long after that exchange.
- The clock is read, and the token counted as used, under one lock; so a report has all that was
  used before it.
- A report says how long ago the latest use was, or less; never more.
- A slice that is given back is never used again.
"""

from __future__ import annotations

from math import ceil
from threading import Lock
from typing import Final, NamedTuple

from licet.app.limit_ports import Exchange, Exchanged
from licet.domain.token_bucket import Bucket
from licet.replica.lease import LEASE_MARGIN

LIFE_SECONDS: Final = 5.0
"""How long a slice can be used without another exchange."""
HOLD: Final = ceil(LIFE_SECONDS * LEASE_MARGIN * 1e6)
"""After how many microseconds the database counts it as used up."""
IDLE_SECONDS: Final = 2.0
"""After so long without use a slice is given back, and what memory has of the bucket forgotten."""
LARGEST_SHARE: Final = 4
"""A replica keeps at most this part of a burst; of a smaller one nothing beyond what requests wait
for."""
_SHORTEST_REPORT: Final = 0.05
_LONGEST_REPORT: Final = 1.0
_REPORTS: Final = 8
"""So often is use reported in the time in which an empty bucket fills."""
_PAUSE_SECONDS: Final = 0.1
"""For how long a bucket counts as empty when others hold what is left."""
_REMEMBERED_SECONDS: Final = 60.0
_NEVER: Final = float("-inf")


class Unreported:
    """The uses of a slice between two reports; to whoever used a token, a `limit_ports.Taken`."""

    __slots__ = ("_slice",)

    def __init__(self, held: Slice) -> None:
        """Begin when the slice does, or when its use is reported."""
        self._slice = held

    def give_back(self) -> None:
        """See `Taken.give_back`: put a token back, if the database was not told that it is used.

        Otherwise it is charged already, and using it later would be a use before its charge. That
        others have used some since, which it does not know of, makes no difference.
        """
        held = self._slice
        with held.mutex:
            if held.unreported is self:
                held.used -= 1


class Slice:
    """Tokens that this replica was granted of a bucket: in all, and how many of them it used."""

    __slots__ = ("alarm", "ends", "granted", "id", "mutex", "reported", "unreported", "used")

    def __init__(self, slice_id: int, mutex: Lock) -> None:
        """Have none. `mutex` is the lock of `SlicedLimits`, which guards it."""
        self.mutex = mutex
        self.id = slice_id
        self.granted = 0
        self.used = 0
        self.reported = 0
        """What the database may have been told of `used`: it never falls below."""
        self.alarm = 1
        """The thread is told when so many are used."""
        self.ends = _NEVER
        self.unreported = Unreported(self)
        """Whose uses are not in `reported`."""


class HeldBucket:
    """What memory has of one bucket. Guarded by the lock of `SlicedLimits`, but for `due`."""

    __slots__ = (
        "asked",
        "bucket",
        "due",
        "empty_until",
        "exchanged",
        "low",
        "reported_takes",
        "slice",
        "speed",
        "takes",
        "target",
        "used_at",
        "wanted_at",
    )

    def __init__(self, bucket: Bucket, now: float) -> None:
        """Know nothing of it."""
        self.bucket = bucket
        self.slice: Slice | None = None
        self.empty_until = _NEVER
        """Until then the database would refuse what the slice does not have."""
        self.used_at = _NEVER
        self.wanted_at = now
        """When somebody wanted a token that was not here."""
        self.takes = 0
        self.reported_takes = 0
        self.exchanged = now
        self.speed = 0.0
        """Tokens a second, of late."""
        self.target = 0
        self.low = -1
        """With so many left, more are asked for."""
        self.asked = False
        self.due = _NEVER
        """When it is looked at next; of the thread alone."""

    @property
    def report_seconds(self) -> float:
        """Within which use is reported."""
        fills = self.bucket.burst * self.bucket.period / self.bucket.tokens / 1e6
        return min(max(fills / _REPORTS, _SHORTEST_REPORT), _LONGEST_REPORT)

    @property
    def report_at(self) -> float:
        """When what was used just now is reported: soon, if nothing is left to be used with it."""
        held = self.slice
        is_used_up = held is not None and held.used == held.granted
        return self.used_at + (_SHORTEST_REPORT if is_used_up else self.report_seconds)

    def left(self, now: float) -> int:
        """Return how many tokens can be used."""
        held = self.slice
        return 0 if held is None or now >= held.ends else held.granted - held.used

    def was_empty(self, now: float) -> bool:
        """Say whether the database had nothing left when it answered last, and that was of late."""
        return self.empty_until != _NEVER and self.slice is not None and now < self.slice.ends

    def use(self, now: float) -> Slice | None:
        """Use a token, if there is one here; return the slice that had it."""
        held = self.slice
        if held is None:
            return None
        used = held.used + 1
        if used > held.granted or now >= held.ends:
            return None
        held.used = used
        self.used_at = now
        self.takes += 1
        return held

    def notice(self, held: Slice) -> None:
        """Take note of a slice's alarm, and set the next one: the first use, and when it runs low.

        For after the first use it is to be reported, and when it runs low more are wanted.
        """
        low = held.granted - self.low
        self.asked = held.used >= low
        held.alarm = held.granted + 1 if self.asked else low

    def drop_ended(self, now: float) -> int:
        """Forget a slice whose time is over, and return how many tokens that loses."""
        held = self.slice
        if held is None or now < held.ends or held.ends == _NEVER:
            return 0
        self.slice = None
        return held.granted - held.used

    def plan(self, now: float, *, gives_back: bool) -> None:
        """Work out how many tokens to keep, from how quickly they were used of late."""
        elapsed, uses = now - self.exchanged, self.takes - self.reported_takes
        self.speed += (uses - self.speed * elapsed) / max(elapsed, 1.0)
        self.exchanged, self.reported_takes = now, self.takes
        self.target = 0
        # Whoever was seen once may not come again.
        if not gives_back and self.takes > 1 and now < self._idle:
            expected = ceil(self.speed * 2 * self.report_seconds)
            self.target = min(self.bucket.burst // LARGEST_SHARE, expected)

    def asking(self, held: Slice, now: float, needed: int) -> Exchange:
        """Return the exchange that has so many for requests that wait, and `target` beside them."""
        left = held.granted - held.used
        more = max(needed + self.target - left, 0)
        return self._exchange(held, now, max(needed - left, 0), more)

    def giving_back(self, held: Slice, now: float) -> Exchange:
        """Return the exchange that settles the slice, which is forgotten here."""
        self.slice = None
        return self._exchange(held, now, 0, -1)

    def answered(self, held: Slice, answer: Exchanged, sent: float, now: float) -> None:
        """Take what the database says to an exchange that was sent at `sent` or later."""
        self.asked = False
        held.alarm = held.used + 1
        if answer.granted < 0:
            # It was counted as used up: this process was stopped for a long time, or a clock was.
            self.slice = None
            return
        held.granted = answer.granted
        held.ends = sent + LIFE_SECONDS
        if answer.wait < 0:
            self.empty_until = _NEVER
            self.low = self.target // 2 if self.target else -1
        else:
            self.empty_until = sent + answer.wait / 1e6 if answer.wait else now + _PAUSE_SECONDS
            self.low = -1

    @property
    def has_business(self) -> bool:
        """Whether the database counts tokens as held here, or has not been told of some."""
        held = self.slice
        return held is not None and held.granted > held.reported

    def next_look(self, now: float) -> float:
        """Return when it is to be looked at next if nobody comes."""
        if self.slice is not None and self.slice.used > self.slice.reported:
            return self.report_at
        return max(self._idle if self.has_business else self._forgotten, now + _SHORTEST_REPORT)

    def is_forgettable(self, now: float) -> bool:
        """Whether nobody is interested any more."""
        return not self.has_business and now >= self._forgotten

    @property
    def _forgotten(self) -> float:
        return max(self._idle, min(self.empty_until, self.wanted_at + _REMEMBERED_SECONDS))

    @property
    def _idle(self) -> float:
        return max(self.used_at, self.wanted_at) + IDLE_SECONDS

    def _exchange(self, held: Slice, now: float, needed: int, wanted: int) -> Exchange:
        held.reported = held.used
        held.unreported = Unreported(held)
        held.alarm = held.used + 1
        unused = max(now - self.used_at, 0.0) if held.used else 0.0
        age = int(unused / LEASE_MARGIN * 1e6)
        is_new = held.ends == _NEVER
        return Exchange(self.bucket, held.id, is_new, held.used, age, needed, wanted)


class Step(NamedTuple):
    """One bucket's part in an exchange."""

    held: HeldBucket
    slice: Slice
    exchange: Exchange
