"""The clock that decides whether a capability has expired: this host's."""

from __future__ import annotations

from time import time_ns

from licet.domain.instant import Instant


class SystemClock:
    """See `ports.Clock`."""

    def now(self) -> Instant:
        """Return the host's time."""
        return Instant(time_ns() // 1000)
