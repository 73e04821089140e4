"""What decisions need of the buckets of limits; see `ports.py` for the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from licet.app.ports import Deadline
from licet.domain.token_bucket import Bucket, Demand, Refusal


class Taken(Protocol):
    """Tokens that were taken for one request."""

    def give_back(self) -> None:
        """Put them back, as far as nobody was told that they are used.

        For a decision that has not left and is taken anew. Does not block.
        """
        ...


class Limits(Protocol):
    """Takes tokens: of one bucket, over all replicas, never more than its limit in any time."""

    def take(self, demands: Sequence[Demand], deadline: Deadline) -> Taken | Refusal:
        """Take all that one request demands; or nothing, and say which bucket was empty.

        Raises:
            UnavailableError: the database cannot be asked; nothing was taken.
            DeadlineError: the deadline passed first; nothing was taken.
            NotAtOnceError: it was `AT_ONCE`, and memory cannot tell; nothing was taken.
        """
        ...

    def take_all(
        self, wanted: Sequence[Sequence[Demand]], deadline: Deadline
    ) -> Sequence[Taken | Refusal]:
        """Do as `take` does for each of several requests, in order.

        Raises as it does; what was taken for some of them is given back first.
        """
        ...


class Exchange(NamedTuple):
    """What a replica tells the database of its slice of a bucket, and what it wants.

    Attributes:
        bucket: which.
        slice_id: drawn at random for this slice.
        is_new: the database has never answered for it.
        used: tokens of the slice that were used, in all.
        age: for how many microseconds none was, by the database's clock, or less.
        needed: tokens that requests wait for.
        wanted: tokens to keep; -1: the slice is given back, and never used again.
    """

    bucket: Bucket
    slice_id: int
    is_new: bool
    used: int
    age: int
    needed: int
    wanted: int


class Exchanged(NamedTuple):
    """What the database says.

    Attributes:
        granted: tokens of the slice, in all; -1: there is no such slice any more.
        wait: in how many microseconds there can be another token in the bucket; 0: other replicas
            have what is left; -1: there is more now.
    """

    granted: int
    wait: int


class BucketStore(Protocol):
    """The buckets in the database."""

    def exchange(
        self, items: Sequence[Exchange], hold: int, deadline: Deadline
    ) -> Sequence[Exchanged]:
        """Exchange with several buckets at once.

        A slice counts as used up `hold` microseconds after its latest exchange.

        Raises:
            UnavailableError, DeadlineError: all, some or none may have happened; to repeat it is
                harmless.
        """
        ...
