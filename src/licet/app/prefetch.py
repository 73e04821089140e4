"""Prefetch: what the principals that asked most recently hold, before the first request comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from licet.app.ports import CapabilitySets, Deadline
from licet.domain.errors import DeadlineError, UnavailableError
from licet.domain.names import Principal

PRINCIPALS: Final = 1000
"""How many principals are prefetched at most."""
_TOGETHER: Final = 50


class RecentPrincipals(Protocol):
    """Who asked for decisions lately; see `storage.audit`."""

    def recent_principals(self, limit: int, deadline: Deadline) -> Sequence[Principal]:
        """Return the principals of the latest decisions, the latest first."""
        ...


def prefetch(recent: RecentPrincipals, sets: CapabilitySets, deadline: Deadline) -> int:
    """Fill memory until the deadline, and return for how many principals it was done.

    It is a convenience: what fails is left to the requests that come.
    """
    done = 0
    try:
        principals = recent.recent_principals(PRINCIPALS, deadline)
        for start in range(0, len(principals), _TOGETHER):
            together = principals[start : start + _TOGETHER]
            sets.get_many(together, deadline)
            done += len(together)
    except (DeadlineError, UnavailableError):
        pass
    return done
