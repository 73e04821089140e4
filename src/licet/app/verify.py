"""Verifies an audit log: all of it, or a range of its leaves. The walk is in `verification.py`.

What is yielded is how many leaves were walked so far, after each slice: for progress, and so that
whoever drives it can let others have their turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from licet.app.findings import Code, Finding, Report
from licet.app.sealed_log import AuditLogReader, Ranges, Sequences, Trust
from licet.app.verification import Walk
from licet.domain.archive import Segment
from licet.domain.audit_batch import digest
from licet.domain.merkle import HASH_BYTES, LEVEL_WIDTH, leaf_hash

_LIMIT: Final = 1000
_SEQUENCE: Final = (1 << 62) - 1
_MISMATCH: Final = "BATCH_MISMATCH"


def verify_whole(
    log: AuditLogReader,
    trust: Trust,
    report: Report,
    archived: Mapping[int, Ranges] | None = None,
) -> Iterator[int]:
    """Verify everything: every epoch, what waits to be sealed, and what stands around the tree.

    The log may grow meanwhile: what was sealed is as it was, and the end of it, with all that is
    not sealed yet, is looked at in one snapshot.
    """
    done = 0
    sequences: Sequences = {}
    walks: dict[int, Walk] = {}

    def walk_on(epoch: int) -> Iterator[int]:
        ranges = (archived or {}).get(epoch, ())
        walk = walks.get(epoch) or Walk(log, trust, report, epoch, 0, sequences, ranges)
        walks[epoch] = walk
        end = log.last_leaf(epoch)
        while walk.step(end):
            yield done + walk.at

    for epoch in log.epochs():
        yield from walk_on(epoch)
        done += walks[epoch].at
    with log.snapshot():
        for epoch in log.epochs():
            for _ in walk_on(epoch):
                pass
            walks[epoch].finish()
        _find_kept(log, trust, report, log.epochs())
        queued = _verify_queue(log, report, sequences)
        _verify_tails(log, report, sequences)
        if log.row_count() != report.leaves + queued:
            _find_strays(log, report)
        verify_capabilities(log, report)
        _tell_incidents(log, report)


def verify_range(  # noqa: PLR0913, PLR0917 - what, against what, and from where to where
    log: AuditLogReader,
    trust: Trust,
    report: Report,
    epoch: int,
    first: int,
    end: int,
    archived: Mapping[int, Ranges] | None = None,
) -> Iterator[int]:
    """Verify the batches that hold leaves from `first` up to `end`; 0: all that there are.

    All other leaves are taken from the stored tree by their hashes, which with these have the
    newest root, or do not.
    """
    ranges = (archived or {}).get(epoch, ())
    _find_kept(log, trust, report, [epoch])
    walk = Walk(log, trust, report, epoch, first, None, ranges)
    begin, stop = walk.at, min(end or log.last_leaf(epoch), log.last_leaf(epoch))
    while walk.step(stop):
        yield walk.at - begin
    walk.finish()


def verify_segment(
    log: AuditLogReader, report: Report, epoch: int, segment: Segment, leaves: Iterator[bytes]
) -> tuple[int, int]:
    """Compare leaves of an archive with the tree, and return their range.

    Raises:
        ArchiveError: the archive is damaged.
    """
    at, end = segment.first, segment.first + segment.count
    while at < end:
        count = min(LEVEL_WIDTH - at % LEVEL_WIDTH, end - at)
        stored = log.hashes(epoch, 0, at, count)
        for offset in range(count):
            value = stored[offset * HASH_BYTES : (offset + 1) * HASH_BYTES]
            if leaf_hash(next(leaves)) != value:
                text = "a leaf of the archive is not the one that was sealed"
                report.add(Finding(Code.ARCHIVE_MISMATCH, text, epoch, at + offset))
        at += count
    next(leaves, None)  # whose end checks the archive's own digest
    return segment.first, end


def verify_capabilities(log: AuditLogReader, report: Report) -> None:
    """Compare capabilities with the events of their grant and their end, and the reverse."""
    report.capabilities += log.capability_count()
    for capability, what in log.capability_faults(_LIMIT):
        text = f"the event of its {what} is not in the log, or says something else"
        report.add(Finding(Code.CAPABILITY_EVENT, text, subject=capability))
    for event, what in log.event_faults(_LIMIT):
        text = f"the log has this {what}, and no capability shows it"
        report.add(Finding(Code.EVENT_CAPABILITY, text, subject=event))


def _find_kept(log: AuditLogReader, trust: Trust, report: Report, epochs: Sequence[int]) -> None:
    """Check that the log that a checkpoint was kept of is there at all."""
    kept = trust.kept
    if kept is not None and kept.origin not in {log.origin(epoch) for epoch in epochs}:
        text = f"the log that you kept a checkpoint of, {kept.origin}, is not there"
        report.add(Finding(Code.TRUSTED_ROLLBACK, text))


def _verify_queue(log: AuditLogReader, report: Report, sequences: Sequences) -> int:
    """Check what waits to be sealed as far as that can be done without the key of batches."""
    rows = 0
    for batch, leaves in log.queued():
        rows += len(leaves)
        if len(leaves) != batch.events or digest(leaves) != batch.digest:
            text = "the events of a batch that waits to be sealed are not those that were stored"
            report.add(Finding(Code.QUEUE_MISMATCH, text, subject=str(batch.first_id)))
        writer, last = batch.first_id.int >> 80, batch.last_id.int & _SEQUENCE
        if writer and sequences.get(writer, 0) == (batch.first_id.int & _SEQUENCE) - 1:
            sequences[writer] = last
    return rows


def _verify_tails(log: AuditLogReader, report: Report, sequences: Sequences) -> None:
    """Check that all that writers have stored is there."""
    for writer, shipped in log.shipped():
        last = sequences.get(writer, 0)
        if shipped <= last or _is_explained(log.passed_over(writer), last + 1, shipped):
            continue
        text = f"writer {writer:012x}: events {last + 1} to {shipped} were stored and are missing"
        report.add(Finding(Code.WRITER_TAIL, text, subject=f"{writer:012x}:{last + 1}"))


def _is_explained(passed_over: Sequence[tuple[int, int]], first: int, last: int) -> bool:
    for low, high in passed_over:
        if low <= first <= high:
            first = high + 1
    return first > last


def _find_strays(log: AuditLogReader, report: Report) -> None:
    for event in log.strays(_LIMIT):
        if not report.knows(event):
            text = "an event that no writer stored: it is in no batch, and waits for none"
            report.add(Finding(Code.ROW_INSERTED, text, subject=event))


def _tell_incidents(log: AuditLogReader, report: Report) -> None:
    for incident in log.incidents(_LIMIT):
        if incident.reason == _MISMATCH:
            text = f"events were altered before they were sealed: {incident.facts}"
            report.add(Finding(Code.INCIDENT, text, subject=incident.event_id))
