"""The tamper matrix: what a superuser may do to the audit log, and by what it is found.

Each attack turns off the triggers that are in its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from licet.app.findings import Code
from licet.domain.checkpoint import Checkpoint
from licet.steward.signer import RefusalError
from tests.fakes.postgres import Database
from tests.fakes.sealed_log import SealedLog, sealed_log, some_events

EVENT: Final = "00000000-0001-8000-8000-000000000005"
"""Writer 1's fifth event, which is leaf 4."""
_INSERT: Final = """
INSERT INTO audit.events SELECT v, <id>, occurred_at <shift>, event_type, actor, principal, action,
  resource, capability_id, result, reason, policy_id, session_id, trace_id, revision, metadata
FROM audit.events WHERE event_id = '<event>'
"""
_CUT_HASH: Final = """
UPDATE audit.batches SET n = 9, leaf_hashes = substring(leaf_hashes FROM 1 FOR 128)
  || substring(leaf_hashes FROM 161) WHERE first_leaf = 0
"""
_HASH_AGAIN: Final = """
UPDATE audit.batches SET leaf_hashes = (
  SELECT string_agg(e.leaf_hash, '' ORDER BY e.event_id) FROM audit.event_leaves AS e
  WHERE e.event_id BETWEEN batches.first_id AND batches.last_id)
"""
_DELETE_SECOND_BATCH: Final = """
DELETE FROM audit.events WHERE event_id BETWEEN '00000000-0001-8000-8000-00000000000b'
  AND '00000000-0001-8000-8000-000000000014'
"""
CUT: Final = (
    "DELETE FROM audit.events WHERE event_id >= '00000000-0001-8000-8000-000000000015'",
    "DELETE FROM audit.batches WHERE first_leaf >= 20",
    "DELETE FROM audit.checkpoints WHERE tree_size > 20",
    "UPDATE audit.writers SET shipped_seq = 20 WHERE writer_id = 1",
    """UPDATE audit.log SET tree_size = 20,
       root = (SELECT root FROM audit.checkpoints WHERE tree_size = 20)""",
)
_OTHER: Final = "00000000-0001-8000-8000-0000000000ff"
_NEXT: Final = "00000000-0001-8000-8000-000000000006"
_EDIT: Final = "UPDATE audit.events SET result = 'deny' WHERE event_id = '<event>'"
_DELETE: Final = "DELETE FROM audit.events WHERE event_id = '<event>'"
_MOVE: Final = "UPDATE audit.events SET event_id = '<to>' WHERE event_id = '<event>'"
_SHIFT: Final = """
UPDATE audit.events SET occurred_at = occurred_at + interval '<by>' WHERE event_id = '<event>'
"""


def filled(statement: str, event: str = EVENT, **parts: str) -> str:
    """Return a statement about an event."""
    for name, value in (parts | {"event": event}).items():
        statement = statement.replace(f"<{name}>", value)
    return statement


class Attack(NamedTuple):
    """What is done to a log of sealed events in batches of ten.

    Attributes:
        statements: what the superuser runs.
        found: the codes that the verification finds.
        leaf: the leaf that the first finding names; None: it names none.
    """

    statements: tuple[str, ...]
    found: set[Code]
    leaf: int | None = None


ATTACKS: Final = {
    "edits a row": Attack((filled(_EDIT),), {Code.LEAF_ALTERED}, 4),
    "edits metadata": Attack(
        (filled("UPDATE audit.events SET metadata = '{}' WHERE event_id = '<event>'"),),
        {Code.LEAF_ALTERED},
        4,
    ),
    "shifts a row by 1 us": Attack((filled(_SHIFT, by="1 microsecond"),), {Code.LEAF_ALTERED}, 4),
    "shifts a row out of its batch": Attack(
        (filled(_SHIFT, by="1 minute"),), {Code.LEAF_ALTERED}, 4
    ),
    "swaps two rows": Attack(
        (
            filled(_MOVE, to=_OTHER),
            filled(_MOVE, _NEXT, to=EVENT),
            filled(_MOVE, _OTHER, to=_NEXT),
        ),
        {Code.LEAF_ALTERED},
        4,
    ),
    "deletes a row": Attack((filled(_DELETE),), {Code.LEAF_MISSING}, 4),
    "deletes a row and its hash": Attack(
        (filled(_DELETE), _CUT_HASH), {Code.WRITER_GAP, Code.BATCH_GAP}, 9
    ),
    "deletes a row and its hash, and closes up": Attack(
        (
            filled(_DELETE),
            _CUT_HASH,
            "UPDATE audit.batches SET first_leaf = first_leaf - 1 WHERE first_leaf > 0",
            "UPDATE audit.log SET tree_size = 39",
        ),
        {Code.WRITER_GAP, Code.CHECKPOINT_BEYOND, Code.ROOT_MISMATCH},
        0,
    ),
    "edits a row and its hash": Attack(
        (filled(_EDIT), _HASH_AGAIN), {Code.CHECKPOINT_ROOT, Code.ROOT_MISMATCH}, 39
    ),
    "deletes a batch and its rows": Attack(
        (_DELETE_SECOND_BATCH, "DELETE FROM audit.batches WHERE first_leaf = 10"),
        {Code.BATCH_GAP, Code.WRITER_GAP},
        10,
    ),
    "inserts a row behind the sealer": Attack(
        (filled(_INSERT, id="gen_random_uuid()", shift=""),), {Code.ROW_INSERTED}
    ),
    "inserts a row into a batch": Attack(
        (filled(_INSERT, id="event_id", shift="+ interval '1 microsecond'"),),
        {Code.ROW_INSERTED},
        0,
    ),
    "inserts a row with a sealed id": Attack(
        (filled(_INSERT, id="event_id", shift="- interval '1 hour'"),), {Code.ROW_INSERTED}
    ),
    "drops a partition": Attack(("DROP TABLE audit.events_20270115",), {Code.LEAF_MISSING}, 0),
    "edits a node of the tree": Attack(
        ("UPDATE audit.nodes SET hash = sha256('x')",), {Code.NODE_ALTERED}, 0
    ),
    "edits the times of a batch": Attack(
        ("UPDATE audit.batches SET min_at = min_at + interval '2 ms' WHERE first_leaf = 10",),
        {Code.BATCH_IDS, Code.ROW_INSERTED},
        0,
    ),
    "forges a checkpoint": Attack(
        ("UPDATE audit.checkpoints SET note = replace(note, 'licet.example', 'licet.invalid')",),
        {Code.CHECKPOINT_FORGED},
        39,
    ),
    "cuts off the tail, without the checkpoints": Attack(
        (*CUT[:2], CUT[3]), {Code.CHECKPOINT_BEYOND, Code.ROOT_MISMATCH}, 39
    ),
}


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[SealedLog]:
    with sealed_log(database, tmp_path) as running:
        yield running


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_found_and_named(log: SealedLog, name: str) -> None:
    attack = ATTACKS[name]
    log.grow(300 if "node" in name else 40)
    assert log.verify().is_clean
    log.tamper(*attack.statements)
    report = log.verify()
    assert set(report.counts) == attack.found, report.findings
    assert report.findings[0].leaf == attack.leaf


@pytest.mark.parametrize(
    "edit", ["UPDATE audit.events SET reason = 'x'", "DELETE FROM audit.events"]
)
def test_what_is_altered_before_it_is_sealed_is_an_incident(log: SealedLog, edit: str) -> None:
    log.grow(20)
    log.ship(some_events(10, 20))
    log.tamper(f"{edit} WHERE event_id = '00000000-0001-8000-8000-00000000001a'")
    assert set(log.verify().counts) == {Code.QUEUE_MISMATCH}
    log.seal()
    log.sign()
    found = set(log.verify().counts)
    assert Code.INCIDENT in found
    assert found - {Code.INCIDENT} <= {Code.WRITER_GAP}


def test_a_batch_that_is_deleted_before_it_is_sealed_is_missed(log: SealedLog) -> None:
    log.grow(20)
    log.ship(some_events(10, 20))
    log.tamper(
        "DELETE FROM audit.queue",
        "DELETE FROM audit.events WHERE event_id >= '00000000-0001-8000-8000-000000000015'",
    )
    assert set(log.verify().counts) == {Code.WRITER_TAIL}
    log.grow(10)
    assert set(log.verify().counts) == {Code.WRITER_GAP}


def test_a_tail_that_was_cut_off_shows_with_a_checkpoint_that_was_kept(log: SealedLog) -> None:
    log.grow(20)
    log.grow(20)
    kept = log.state.read()
    assert kept is not None
    log.tamper(*CUT)
    # Nothing in the database tells: it is the log as it once was.
    assert log.verify().is_clean
    report = log.verify(Checkpoint(*kept))
    assert set(report.counts) == {Code.TRUSTED_ROLLBACK}
    with pytest.raises(RefusalError, match="ROLLBACK"):
        log.sign()


def test_a_history_that_was_rewritten_shows_with_a_checkpoint_that_was_kept(
    log: SealedLog,
) -> None:
    log.grow(20)
    log.grow(20)
    kept = log.state.read()
    assert kept is not None
    log.tamper(*CUT)
    log.state.path.unlink()
    log.tamper("DELETE FROM audit.checkpoints")
    log.ship(some_events(30, 500), writer=2)
    log.seal()
    log.sign()  # as whoever has stolen the key does
    assert log.verify().is_clean
    assert set(log.verify(Checkpoint(*kept)).counts) == {Code.TRUSTED_FORK}
    log.state.path.unlink()
    log.state.write(kept)
    with pytest.raises(RefusalError, match="FORK"):
        log.sign()
