"""What became of how many records."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Final

from licet.cli.importing.records import Kind


class Fate(StrEnum):
    """What became of a record; each has exactly one fate, once the import is over."""

    IMPORTED = "imported"
    """It is in licet now; in a dry run: it would be."""
    PRESENT = "present"
    """An earlier import has brought it, as it is here."""
    ENDED = "ended"
    """It had ended in the old system, and is not imported."""
    REJECTED = "rejected"
    """It broke a rule, and is in the reject file."""


UNKNOWN: Final = "unknown"
"""The type of a line that does not say one."""


class Tally:
    """Counts records by type and fate."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self._counts: Counter[tuple[str, Fate]] = Counter()

    def add(self, kind: str, fate: Fate, count: int = 1) -> None:
        """Count so many."""
        self._counts[kind, fate] += count

    def of(self, kind: str, fate: Fate) -> int:
        """Return how many records of a type had a fate."""
        return self._counts[kind, fate]

    def total(self, fate: Fate) -> int:
        """Return how many records had a fate."""
        return sum(count for (_, its), count in self._counts.items() if its is fate)

    def table(self) -> dict[str, dict[str, int]]:
        """Return the counts of every type that there was, in the order of loading."""
        kinds = [*Kind, UNKNOWN]
        return {
            kind: {fate: self._counts[kind, fate] for fate in Fate}
            for kind in map(str, kinds)
            if any(self._counts[kind, fate] for fate in Fate)
        }
