"""Which leaves the sealed log says are archived: those need not be in the database.

A row of `audit.archives` alone says nothing: whoever can delete events can write one. It counts
when a sealed and signed event says the same. Such an event is itself archived one day; then it
counts when its own leaf is in an archive that counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from licet.app.archiving import ToldArchive
from licet.app.sealed_log import Ranges
from licet.steward.archive import facts_of


def archived_leaves(archives: Iterable[ToldArchive]) -> dict[int, Ranges]:
    """Return of each epoch the ranges of leaves that are archived, joined and in order."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    waiting = list(archives)
    while True:
        believed = [each for each in waiting if _is_believed(each, ranges)]
        if not believed:
            return {epoch: found for epoch, found in ranges.items() if found}
        for each in believed:
            waiting.remove(each)
            epoch = each.archive.epoch
            ranges[epoch] = joined([*ranges.get(epoch, ()), *each.archive.ranges])


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that touch or follow each other."""
    result: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if result and first <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((first, end))
    return result


def _is_believed(each: ToldArchive, ranges: dict[int, list[tuple[int, int]]]) -> bool:
    if each.told is None:
        return any(first <= each.leaf < end for first, end in ranges.get(each.epoch, ()))
    return all(each.told.get(name) == fact for name, fact in facts_of(each.archive).items())
