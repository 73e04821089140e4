"""What a capability set takes of memory, loaded as a replica loads it, and the cache's estimate."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.figures import Figure, spread
from benchmarks.report import Progress
from licet.app.ports import Deadline
from licet.domain.names import Principal
from licet.replica.capability_sets import CAPABILITY_BYTES, SET_BYTES
from licet.replica.clock import SystemClock
from licet.storage.held import PostgresHeld
from licet.storage.pool import Database, PoolLimits

SECTION: Final = "Memory of a capability set"
_SECONDS: Final = 30.0


def measure(
    url: str, groups: Mapping[int, Sequence[Principal]], progress: Progress
) -> list[Figure]:
    """Weigh the sets of principals, which are grouped by how many capabilities each holds."""
    progress.step("weighing capability sets")
    database = Database(url, PoolLimits(statement_seconds=_SECONDS))
    database.open(_SECONDS)
    try:
        held = PostgresHeld(database, SystemClock())
        held(groups[min(groups)], Deadline(lambda: None))  # what is made only once
        weights = {
            size: _weigh(held, principals) / len(principals) for size, principals in groups.items()
        }
    finally:
        database.close()
    figures = []
    for size, weight in weights.items():
        estimate = SET_BYTES + CAPABILITY_BYTES * size
        each = f"{size:,} capabilities" if size > 1 else "1 capability"
        figures += [
            Figure(SECTION, f"set of {each}", spread([weight]), "bytes"),
            Figure(SECTION, f"the cache's estimate / that, {each}", spread([estimate / weight])),
        ]
    largest = max(weights)
    figures.append(
        Figure(
            SECTION, f"one capability of {largest:,}", spread([weights[largest] / largest]), "bytes"
        )
    )
    return figures


def _weigh(held: PostgresHeld, principals: Sequence[Principal]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        sets = held(principals, Deadline(lambda: None))
        gc.collect()
        weight, _ = tracemalloc.get_traced_memory()
        # Still needed here: nothing of it may be freed before it is weighed.
        return weight if sets else 0
    finally:
        tracemalloc.stop()
