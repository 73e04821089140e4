"""How the audit log is cut into slices of about so many events, by what is known of its partitions.

Pure. Nothing that is estimated here can lose an event or find one twice: a slice ends where the
next one begins, and the last one has no lower end but the filter's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from licet.domain.instant import LATEST, Instant

AFTER_ALL: Final = Instant(LATEST + 1)
"""An end that is after every instant; it has no text."""
FIRST_ROWS: Final = 20_000
"""Events of a slice of pace 0, by estimate: what PostgreSQL reads in some 10 ms."""
GROWTH: Final = 8
"""How many times larger a slice of the next pace is. A pace may be negative."""
FIRST_PACE: Final = 0
_LARGEST_PACE: Final = 12
_SMALLEST_PACE: Final = -3


class Partition(NamedTuple):
    """A partition of the log: from `lower` to before `upper`, with so many events in between."""

    lower: Instant
    upper: Instant
    rows: int

    @classmethod
    def estimated(cls, lower: int, upper: int, rows: int, now: int) -> Partition:
        """Return a partition. What it has lies before `now`: nothing else has happened yet."""
        return cls(Instant(lower), Instant(min(upper, max(now, lower + 1))), rows)


class Slice(NamedTuple):
    """A slice of the log.

    Attributes:
        lower: its first instant; None: no lower end.
        upper: the instant after its last; AFTER_ALL: no upper end.
        is_last: what is looked through has nothing before it.
        is_smallest: none smaller is worth trying.
    """

    lower: Instant | None
    upper: Instant
    is_last: bool
    is_smallest: bool


class Outline:
    """The partitions of the log."""

    def __init__(self, partitions: tuple[Partition, ...]) -> None:
        """Use these, newest first."""
        self._partitions = partitions

    def slice(self, lower: Instant | None, upper: Instant, pace: int) -> Slice:
        """Return the newest slice of a pace between two ends."""
        is_smallest = pace <= _SMALLEST_PACE
        missing = FIRST_ROWS * float(GROWTH) ** min(pace, _LARGEST_PACE)
        for partition in self._partitions:
            top = min(upper, partition.upper)
            if top <= partition.lower or not partition.rows:
                continue
            if lower is not None and top <= lower:
                break
            rows = partition.rows * (top - partition.lower) / (partition.upper - partition.lower)
            if rows <= missing:
                missing -= rows
                continue
            width = max(1, int((top - partition.lower) * missing / rows))
            begin = Instant(top - width)
            if lower is not None and begin <= lower:
                break
            return Slice(begin, upper, is_last=False, is_smallest=is_smallest)
        return Slice(lower, upper, is_last=True, is_smallest=is_smallest)
