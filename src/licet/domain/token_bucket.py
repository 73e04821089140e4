"""The buckets that limits take tokens from, and what comes of taking one.

The arithmetic is the database's: see `licet.exchange_slice` in the migration.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

_DIGEST_BYTES: Final = 16
# No name has it.
_SEPARATOR: Final = "\n"


class Bucket(NamedTuple):
    """A token bucket.

    Attributes:
        key: what it is the bucket of, and its parameters: with others it is another bucket.
        tokens, period: so many come in so many microseconds.
        burst: how many it holds.
    """

    key: str
    tokens: int
    period: int
    burst: int

    def digest(self) -> bytes:
        """Return by what the database knows it; who shares one by accident shares a bucket."""
        return hashlib.blake2b(self.key.encode(), digest_size=_DIGEST_BYTES).digest()


class Demand(NamedTuple):
    """A token that a policy wants taken before it lets a request pass."""

    policy_id: str
    bucket: Bucket


class Refusal(NamedTuple):
    """A bucket was empty: in so many microseconds there can be a token."""

    demand: Demand
    retry_after: int


def bucket(policy_id: str, limit: tuple[int, int, int, str], *names: str) -> Bucket:
    """Return the bucket of these names under a limit: tokens, period, burst, per."""
    tokens, period, burst, per = limit
    parameters = f"{tokens}/{period}/{burst}/{per}"
    return Bucket(_SEPARATOR.join((policy_id, parameters, *names)), tokens, period, burst)
