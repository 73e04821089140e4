"""Decisions that are recorded early: what is recorded first, and what does not wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from licet.app.ports import AT_ONCE, NotAtOnceError
from licet.domain.audit_event import event_id, event_id_text
from licet.domain.decision import decide
from licet.domain.names import EventId
from licet.spool import group_sync
from licet.spool.log import SpoolAuditLog
from licet.spool.writer import Durability
from tests.fakes.spool import writing
from tests.unit.builders import CALLER, NOW, PATIENT, asking, held, holding

REQUEST = asking()
DECISION = decide(holding(held(1)), REQUEST, NOW)


def record(log: SpoolAuditLog, count: int, *, at_once: bool) -> int:
    """Record decisions early, and return the sequence of the last one."""
    deadline = AT_ONCE if at_once else PATIENT
    recorded = log.record_early(CALLER, NOW, [REQUEST] * count, [DECISION] * count, deadline)
    assert len(set(recorded.event_ids)) == count
    assert int(recorded.event_ids[-1][-12:], 16) == recorded.sequence
    return recorded.sequence


def test_what_is_recorded_at_once_is_what_is_recorded_anyway(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        log = SpoolAuditLog(writer, lambda: NOW)
        assert record(log, 1, at_once=True) == 1
        assert record(log, 3, at_once=True) == 4
        assert record(log, 1, at_once=False) == 5
        assert log.decisions == writer.appended == 5


def test_a_step_of_the_clock_is_recorded_first_by_one_who_may_wait(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        log = SpoolAuditLog(writer, lambda: NOW)
        log.stepped(1)
        with pytest.raises(NotAtOnceError):
            record(log, 1, at_once=True)
        assert writer.appended == 0
        assert record(log, 1, at_once=False) == 2
        assert record(log, 1, at_once=True) == 3
        assert log.decisions == 2


def test_nothing_is_recorded_at_once_while_very_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(tmp_path, durability=Durability.GROUP) as writer:
        log = SpoolAuditLog(writer, lambda: NOW)
        with monkeypatch.context() as crowded:
            crowded.setattr(group_sync, "MAX_PENDING", 0)
            with pytest.raises(NotAtOnceError):
                record(log, 1, at_once=True)
        assert writer.appended == log.refused == 0
        assert record(log, 1, at_once=True) == 1


def test_ids_are_those_of_their_sequences_wherever_these_stand(tmp_path: Path) -> None:
    # The first digits of many ids are the same, and are kept.
    with writing(tmp_path, segment_bytes=1 << 21) as writer:
        log = SpoolAuditLog(writer, lambda: NOW)
        ids: list[EventId] = []
        for count in (1, *[63] * 64, 59, 3, 1, 5, *[63] * 66):
            asked = [REQUEST] * count
            ids += log.record_early(CALLER, NOW, asked, [DECISION] * count, PATIENT).event_ids
        ids.append(log.record(CALLER, NOW, REQUEST, DECISION))
        ids += log.record_all(CALLER, NOW, [REQUEST] * 2, [DECISION] * 2)
        assert writer.appended > 2 * 0x1000
        writer_id = writer.folder.writer_id
        assert ids == [
            event_id_text(event_id(writer_id, number + 1)) for number in range(writer.appended)
        ]
