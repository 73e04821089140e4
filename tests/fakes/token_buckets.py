"""Token buckets in memory: what the database does in an exchange, to the letter.

A conformance test holds `exchange_slice` of the migration to it. Where tests plant mistakes, they
override a method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from licet.app.limit_ports import Exchange, Exchanged
from licet.domain.token_bucket import Bucket


@dataclass(frozen=True, slots=True)
class StoredSlice:
    """See the type of the migration."""

    id: int
    granted: int
    used: int
    ends_at: int

    @property
    def outstanding(self) -> int:
        """Tokens that are not charged."""
        return self.granted - self.used


@dataclass(frozen=True, slots=True)
class State:
    """A row of `licet.buckets`."""

    tat: int = 0
    slices: tuple[StoredSlice, ...] = ()
    full_at: int = 0


@dataclass(slots=True)
class TokenBuckets:
    """The buckets of one database, by the clock of whoever asks. Instants in microseconds."""

    rows: dict[Bucket, State] = field(default_factory=dict)

    def exchange(self, items: Sequence[Exchange], hold: int, at: int) -> list[Exchanged]:
        """Exchange with several, at an instant."""
        answers = []
        for item in items:
            row = self.rows.get(item.bucket, State())
            self.rows[item.bucket], answer = self.exchanged(row, item, hold, at)
            answers.append(answer)
        return answers

    def exchanged(self, row: State, item: Exchange, hold: int, at: int) -> tuple[State, Exchanged]:
        """Return what a row becomes, and the answer."""
        tokens, period, burst = item.bucket[1:]
        tat = min(row.tat, at + cost(item.bucket, burst))
        full_at, others = at, 0
        own: StoredSlice | None = None
        kept: list[StoredSlice] = []
        for held in row.slices:
            ends_at = min(held.ends_at, at + hold)
            if ends_at <= at:
                tat = self.ended(item.bucket, tat, held, ends_at)
            elif held.id == item.slice_id:
                own = StoredSlice(held.id, held.granted, held.used, ends_at)
            else:
                others += held.outstanding
                full_at = max(full_at, ends_at)
                kept.append(StoredSlice(held.id, held.granted, held.used, ends_at))
        if own is not None:
            spent = min(max(item.used - own.used, 0), own.outstanding)
            if spent:
                tat = max(tat, at - item.age) + cost(item.bucket, spent)
            own = StoredSlice(own.id, own.granted, own.used + spent, own.ends_at)
        elif item.is_new:
            own = StoredSlice(item.slice_id, 0, 0, 0)
        granted, wait, held_now = -1, -1, 0
        if own is not None and item.wanted >= 0:
            room = self.room(item.bucket, tat, at, others + own.outstanding)
            more = min(room, max(item.needed, min(item.wanted, room // 2)))
            granted = own.granted + more
            held_now = own.outstanding + more
            if more == room and more < max(item.needed, item.wanted):
                wait = max(max(tat - at, 0) - truncated((burst - 1 - held_now) * period, tokens), 0)
            own = StoredSlice(own.id, granted, own.used, max(own.ends_at, at + hold))
            full_at = max(full_at, own.ends_at)
            kept.append(own)
        full_at = max(full_at, tat) + cost(item.bucket, others + held_now)
        return State(tat, tuple(kept), full_at), Exchanged(granted, wait)

    def ended(self, bucket: Bucket, tat: int, held: StoredSlice, ends_at: int) -> int:
        """Charge what may have been used of a slice that nobody can use any more."""
        return max(tat, ends_at) + cost(bucket, held.outstanding)

    def trim(self, at: int) -> None:
        """Forget the buckets that are full; the database waits for a minute more."""
        self.rows = {bucket: row for bucket, row in self.rows.items() if row.full_at > at}

    def room(self, bucket: Bucket, tat: int, at: int, outstanding: int) -> int:
        """Return how many tokens are left."""
        left = bucket.burst * bucket.period - max(tat - at, 0) * bucket.tokens
        return max(truncated(left, bucket.period) - outstanding, 0)


def cost(bucket: Bucket, number: int) -> int:
    """Return in how many microseconds so many tokens come."""
    return truncated(number * bucket.period + bucket.tokens - 1, bucket.tokens)


def truncated(number: int, by: int) -> int:
    """Divide as SQL does: towards 0."""
    return number // by if number >= 0 else -(-number // by)
