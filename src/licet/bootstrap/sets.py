"""The composition of what is in memory of principals."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Final

from licet.app.prefetch import prefetch
from licet.bootstrap.custody import soon
from licet.config import Settings
from licet.domain.capability_set import CapabilitySet
from licet.domain.names import Principal
from licet.replica.capability_sets import CachedCapabilitySets
from licet.replica.clock import DatabaseClock
from licet.replica.lease import Lease
from licet.replica.reading_ahead import ReadingAhead
from licet.storage.audit import PostgresAuditEvents
from licet.storage.held import LittleHeld, PostgresHeld
from licet.storage.pool import Database

_log: Final = logging.getLogger(__name__)
_PREFETCH_SECONDS: Final = 2.0


def in_memory(
    settings: Settings, database: Database, clock: DatabaseClock, lease: Lease, stack: ExitStack
) -> tuple[CachedCapabilitySets, ReadingAhead[Principal, CapabilitySet]]:
    """Return the sets, and the thread that reads those that are missed; ended with the stack."""
    sets = CachedCapabilitySets(
        PostgresHeld(database, clock), lease, settings.cache_bytes, settings.cache_negative
    )
    ahead = ReadingAhead(sets, LittleHeld(database, clock))
    stack.callback(ahead.stop)
    ahead.start()
    return sets, ahead


def warm(database: Database, sets: CachedCapabilitySets) -> None:
    """Read what the most recent principals hold, before anybody asks; for a bounded time."""
    read = prefetch(PostgresAuditEvents(database), sets, soon(_PREFETCH_SECONDS))
    _log.info("the capability sets of %d recent principals are in memory", read)
    sets.misses = 0  # of the requests, from here on
