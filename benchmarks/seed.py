"""What the principals of a benchmark hold, and how it gets into the database.

Written by COPY, not by 100,000 grants: what is measured is reading it. The same patterns serve in
memory, where no database is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, LiteralString

import psycopg

from licet.domain.capability_set import ALWAYS, NEVER, HeldCapability
from licet.domain.names import Action, Principal
from licet.domain.pattern import ResourcePattern
from licet.replica.clock import SystemClock
from licet.writer.ids import TimeOrderedIds

ACTIONS: Final = (Action("read"), Action("write"))
FEW: Final = 10
MANY: Final = 100_000
REVISION: Final = 1_000_000
"""A great one, so that it has as many bytes in every answer of a run."""

CHANGE: Final[LiteralString] = (
    "INSERT INTO licet.changes (revision, kind, principals) VALUES (%s, 1, '{}')"
)
_COPY: Final[LiteralString] = """
COPY licet.capabilities (id, principal, actions, resource, granted_by, granted_at,
                         delegation_depth, granted_revision, granted_event_id) FROM STDIN
"""


class Match(StrEnum):
    """How a resource can be covered, or not."""

    EXACT = "exact hit"
    PREFIX = "prefix hit"
    WILDCARD = "wildcard hit"
    MISS = "miss"


def pattern(position: int) -> ResourcePattern:
    """Return the pattern at a position: of ten, seven are exact, two end in `**`, one has a `*`."""
    match position % 10:
        case 7 | 8:
            return ResourcePattern(f"doc:teams/{position:06d}/**")
        case 9:
            return ResourcePattern(f"doc:projects/*/{position:06d}")
        case _:
            return ResourcePattern(f"doc:reports/2026/{position:06d}")


def covered(match: Match, position: int) -> str:
    """Return a resource that the patterns around a position cover in this way, and no other."""
    tens = position - position % 10
    match match:
        case Match.EXACT:
            return f"doc:reports/2026/{tens + position % 7:06d}"
        case Match.PREFIX:
            return f"doc:teams/{tens + 7 + position % 2:06d}/notes"
        case Match.WILDCARD:
            return f"doc:projects/apollo/{tens + 9:06d}"
        case Match.MISS:
            return f"doc:reports/2026/{tens + 7:06d}"


def held(count: int) -> list[HeldCapability]:
    """Return capabilities for a set in memory."""
    ids = TimeOrderedIds(SystemClock())
    return [
        HeldCapability(ids.capability_id(), pattern(i), ACTIONS, ALWAYS, NEVER)
        for i in range(count)
    ]


def principals(name: str, count: int) -> list[Principal]:
    """Return the names of some principals."""
    return [Principal(f"agent:{name}-{i:04d}") for i in range(count)]


def write(url: str, holdings: dict[Principal, int]) -> None:
    """Give principals so many capabilities each, in an empty database with licet's schema."""
    with psycopg.connect(url) as connection:
        connection.execute(CHANGE, [REVISION])
        with connection.cursor().copy(_COPY) as copy:
            for row in _rows(holdings):
                copy.write_row(row)
    with psycopg.connect(url, autocommit=True) as connection:
        # What hours of ordinary use would have done.
        connection.execute("VACUUM ANALYZE licet.capabilities")
        connection.execute("CHECKPOINT")


def _rows(holdings: dict[Principal, int]) -> Iterator[tuple[object, ...]]:
    ids = TimeOrderedIds(SystemClock())
    for principal, count in holdings.items():
        for position in range(count):
            identifier = ids.capability_id()
            yield (
                identifier,
                principal,
                list(ACTIONS),
                pattern(position),
                "caller:benchmark",
                "now",
                0,
                REVISION,
                identifier,
            )
