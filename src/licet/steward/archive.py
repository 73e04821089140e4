"""The archiver: a partition of the log becomes files, the log says so, and the table is dropped.

1. Its leaves are written, in the order of the tree, to a file that is read again and compared with
   the tree.
2. The file is recorded: an event of the log and a row of `audit.archives`, in one transaction.
3. That event comes under a checkpoint: from here on nobody can say that there was another file.
4. The partition is dropped. The database refuses it before 2 and 3, and when a row is not archived.

Whatever ends it between two steps or within one, beginning anew is right: what is there is found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Final

from licet.app.archiving import (
    Archive,
    ArchiveRefusedError,
    LeafPage,
    Partition,
    Partitions,
    RecordedArchive,
)
from licet.domain.archive import Segment, segment
from licet.domain.audit_event import EventType
from licet.domain.canonical_json import JsonValue
from licet.domain.merkle import HASH_BYTES, leaf_hash
from licet.steward.archive_folder import ArchiveFolder
from licet.steward.journal import Journal

_log: Final = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.25
"""How often it is looked whether the event is under a checkpoint."""
_MAX_RANGES_TEXT: Final = 4096
"""An event has room for so many characters of leaf ranges; of more it has the digest."""

Progress = Callable[[int, int], None]
"""Takes how many events are written, of how many."""
Wait = Callable[[float], bool]
"""Waits so many seconds; true when what goes on is to stop."""


class StoppedError(Exception):
    """It was told to stop. What was done stays done."""


class Archiver:
    """Archives partitions on one connection, one after the other."""

    def __init__(
        self,
        partitions: Partitions,
        folder: ArchiveFolder,
        journal: Callable[[], Journal],
        wait: Wait,
    ) -> None:
        """Compose it.

        Args:
            partitions: the connection.
            folder: takes the files.
            journal: returns what takes the events, of a writer that is registered.
            wait: waits.
        """
        self._partitions = partitions
        self._folder = folder
        self._journal = journal
        self._wait = wait

    def archive(
        self, partition: Partition, patience_seconds: float, progress: Progress
    ) -> Sequence[Archive]:
        """Archive a partition whose time is over, drop it, and return its files.

        Args:
            partition: which one.
            patience_seconds: how long the event may take to come under a checkpoint.
            progress: is told how far it is.

        Raises:
            ArchiveRefusedError: the partition is as it was; the message says why.
            StoppedError: the partition is as it was.
            UnavailableError, ConflictError: the partition is as it was, or is dropped.
        """
        archives = self._kept(partition) or self._write(partition, progress)
        self._record(partition, archives)
        self._await_checkpoint(partition, archives, patience_seconds)
        self._partitions.drop(partition.name)
        return archives

    def _kept(self, partition: Partition) -> Sequence[Archive]:
        """Return the recorded archives of a partition if they are here and have all of it."""
        recorded = [found.archive for found in self._partitions.archives(partition)]
        kept = [archive for archive in recorded if self._folder.holds(archive)]
        events = self._partitions.count(partition)
        # The latest one alone, if it is enough: others may have been written before late events.
        for archives in (kept[-1:], kept):
            if archives and _leaves(archives) == events:
                return archives
        return ()

    def _write(self, partition: Partition, progress: Progress) -> Sequence[Archive]:
        """Write what a partition has, a file for each epoch."""
        events = self._partitions.count(partition)
        written = 0

        def told(
            segments: Iterator[tuple[Segment, Sequence[bytes]]],
        ) -> Iterator[tuple[Segment, Sequence[bytes]]]:
            nonlocal written
            for header, leaves in segments:
                yield header, leaves
                written += header.count
                progress(written, events)

        progress(0, events)
        archives: list[Archive] = []
        for epoch, pages in groupby(self._pages(partition), key=lambda page: page.epoch):
            segments = told(found for page in pages for found in segments_of(page))
            archives.append(self._file(partition, epoch, segments))
        if not archives:
            archives = [self._file(partition, self._partitions.current_epoch(), iter(()))]
        missing = self._partitions.count(partition) - written
        if missing:
            recorded = {found.archive.sha256 for found in self._partitions.archives(partition)}
            for archive in archives:
                if archive.sha256 not in recorded:
                    self._folder.discard(archive)
            raise ArchiveRefusedError(
                f"{missing} of the events of {partition.name} are not sealed under a checkpoint"
            )
        return archives

    def _file(
        self, partition: Partition, epoch: int, segments: Iterator[tuple[Segment, Sequence[bytes]]]
    ) -> Archive:
        stored = self._partitions.stored_hashes
        return self._folder.write(
            partition.name, epoch, segments, lambda first, count: stored(epoch, first, count)
        )

    def _pages(self, partition: Partition) -> Iterator[LeafPage]:
        for page in self._partitions.pages(partition):
            if self._wait(0):
                raise StoppedError
            yield page

    def _record(self, partition: Partition, archives: Sequence[Archive]) -> None:
        recorded = {found.archive.sha256 for found in self._partitions.archives(partition)}
        missing = [archive for archive in archives if archive.sha256 not in recorded]
        if not missing:
            return
        journal = self._journal()
        with self._partitions.transaction() as transaction:
            for archive in missing:
                facts = {"partition": partition.name, **facts_of(archive)}
                event_id = journal.record(transaction, EventType.PARTITION_ARCHIVED, "", facts)
                self._partitions.record(partition, archive, event_id)
        for archive in missing:
            _log.info("%s is archived in %s", partition.name, self._folder.path / archive.file)

    def _await_checkpoint(
        self, partition: Partition, archives: Sequence[Archive], patience_seconds: float
    ) -> None:
        wanted = {archive.sha256 for archive in archives}
        for _ in range(max(1, round(patience_seconds / LOOK_SECONDS))):
            found: Sequence[RecordedArchive] = self._partitions.archives(partition)
            if wanted <= {each.archive.sha256 for each in found if each.is_proved}:
                return
            if self._wait(LOOK_SECONDS):
                raise StoppedError
        raise ArchiveRefusedError(
            f"{partition.name} is archived and not dropped: no checkpoint says so yet"
        )


def segments_of(page: LeafPage) -> Iterator[tuple[Segment, Sequence[bytes]]]:
    """Yield the leaves of a page as segments of consecutive ones.

    Raises:
        ArchiveRefusedError: a row is not what was sealed, or is missing.
    """
    places = {
        batch.hashes[at : at + HASH_BYTES]: batch.first_leaf + at // HASH_BYTES
        for batch in page.batches
        for at in range(0, len(batch.hashes), HASH_BYTES)
    }
    found: list[int] = []
    for leaf in page.leaves:
        index = places.get(leaf_hash(leaf))
        if index is None or (found and index <= found[-1]):
            raise ArchiveRefusedError(
                "an event is not what was sealed: verify the log, and archive nothing"
            )
        found.append(index)
    present = set(found)
    for batch in page.batches:
        end = batch.first_leaf + len(batch.hashes) // HASH_BYTES
        if batch.is_whole and not present.issuperset(range(batch.first_leaf, end)):
            raise ArchiveRefusedError(
                f"events of the leaves {batch.first_leaf} to {end - 1} are missing: verify the log,"
                " and archive nothing"
            )
    start = 0
    for at in range(1, len(found) + 1):
        if at == len(found) or found[at] != found[at - 1] + 1:
            leaves = page.leaves[start:at]
            hashes = b"".join(map(leaf_hash, leaves))
            yield segment(page.origin, found[start], hashes), leaves
            start = at


def ranges_text(ranges: Sequence[tuple[int, int]]) -> str:
    """Return leaf ranges as PostgreSQL shows them."""
    return "{" + ",".join(f"[{first},{end})" for first, end in ranges) + "}"


def facts_of(archive: Archive) -> Mapping[str, JsonValue]:
    """Return what the log says of an archive."""
    ranges = ranges_text(archive.ranges)
    if len(ranges) > _MAX_RANGES_TEXT:
        ranges = f"sha256:{sha256(ranges.encode()).hexdigest()}"
    return {
        "file": archive.file,
        "sha256": archive.sha256.hex(),
        "events": archive.events,
        "epoch": archive.epoch,
        "leaves": ranges,
    }


def _leaves(archives: Sequence[Archive]) -> int:
    """Return how many different leaves archives have."""
    count, last, end = 0, 0, 0
    for epoch, first, behind in sorted(
        (archive.epoch, *each) for archive in archives for each in archive.ranges
    ):
        if epoch != last:
            last, end = epoch, 0
        count += max(0, behind - max(first, end))
        end = max(end, behind)
    return count
