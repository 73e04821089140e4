"""Makes ids.

UUIDs of version 7 for capabilities, random keys for requests, numbers for audit writers.
"""

from __future__ import annotations

import os
import secrets
from threading import Lock
from typing import Final
from uuid import UUID

from licet.app.ports import Clock
from licet.domain.api_key import ID_ENTROPY_BYTES, SECRET_BYTES, KeyId, new_id
from licet.domain.names import CapabilityId

_WRITER_EPOCH_SECONDS: Final = 1_577_836_800  # 2020-01-01T00:00:00Z
_COUNTER_BITS: Final = 12


class TimeOrderedIds:
    """See `ports.Ids`.

    Ids of one process increase even within a millisecond and when the clock steps back.
    """

    def __init__(self, clock: Clock) -> None:
        """Take the time from this clock."""
        self._clock = clock
        # Guards `_last`: milliseconds and a counter of 12 bits in one number.
        self._mutex = Lock()
        self._last = 0

    def capability_id(self) -> CapabilityId:
        """Return a UUID of version 7 (RFC 9562, monotonic by method 1)."""
        now = (self._clock.now() // 1000) << _COUNTER_BITS
        with self._mutex:
            self._last = tick = max(now, self._last + 1)
        milliseconds, counter = tick >> _COUNTER_BITS, tick & ((1 << _COUNTER_BITS) - 1)
        tail = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
        bits = (milliseconds << 80) | (0x7 << 76) | (counter << 64) | (0b10 << 62) | tail
        return CapabilityId(str(UUID(int=bits)))

    def request_id(self) -> str:
        """Return 128 random bits as text."""
        return os.urandom(16).hex()


class RandomKeys:
    """See `app.keys.KeyMint`."""

    def __init__(self, tag_key: bytes) -> None:
        """Make ids with this key; see `domain.api_key`."""
        self._tag_key = tag_key

    def key_id(self) -> KeyId:
        """Return a fresh id."""
        return new_id(secrets.token_bytes(ID_ENTROPY_BYTES), self._tag_key)

    def secret(self) -> bytes:
        """Return a fresh secret."""
        return secrets.token_bytes(SECRET_BYTES)


# Those of the latest second that this process has made, and what guards them.
_writer_ids: Final[set[int]] = set()
_writer_ids_mutex: Final = Lock()


def audit_writer_id(clock: Clock) -> int:
    """Return a number of 48 bits for an audit writer: seconds since 2020, then 16 random bits.

    One per process start, and a few more of a steward: one process makes none twice.
    """
    seconds = clock.now() // 1_000_000 - _WRITER_EPOCH_SECONDS
    with _writer_ids_mutex:
        _writer_ids.intersection_update([made for made in _writer_ids if made >> 16 == seconds])
        while (made := (seconds << 16) | secrets.randbits(16)) in _writer_ids:
            pass
        _writer_ids.add(made)
    return made
