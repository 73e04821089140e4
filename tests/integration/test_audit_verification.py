"""What the verification of an audit log finds, and what it does not, on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from licet.app.findings import Code, Report
from licet.app.sealed_log import Trust
from licet.app.verify import verify_range
from licet.domain.checkpoint import Checkpoint
from licet.steward.signing import create_key_file, read_key_file, verify_ed25519
from licet.storage.verification import opened_log
from licet.v1 import authorization_pb2
from tests.fakes.postgres import Database
from tests.fakes.sealed_log import ORIGIN, SIGNER, SealedLog, sealed_log
from tests.fakes.serving import serving


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[SealedLog]:
    with sealed_log(database, tmp_path) as running:
        yield running


def test_an_untouched_log_is_clean(log: SealedLog) -> None:
    log.grow(300)
    log.grow(1000, writer=2, batch=100)
    report = log.verify()
    assert (report.findings, report.is_clean) == ([], True)
    assert (report.leaves, report.checkpoints) == (1300, 2)


def test_a_part_is_brought_to_the_signed_root(log: SealedLog) -> None:
    log.grow(2000, batch=37)
    for first, end in ((0, 1), (37, 38), (255, 700), (1999, 2000), (1000, 0)):
        report = part(log, first, end)
        assert (report.findings, report.is_clean) == ([], True)
        assert report.checkpoints >= 1
    log.tamper(
        "UPDATE audit.events SET result = 'deny'"
        " WHERE event_id = '00000000-0001-8000-8000-0000000001ff'"
    )
    assert [f.leaf for f in part(log, 500, 600).findings] == [510]
    assert part(log, 700, 800).is_clean
    # What is not looked at is taken from the tree by its hash, which then must be the signed one.
    log.tamper("UPDATE audit.nodes SET hash = sha256('x') WHERE idx = 3")
    assert Code.CHECKPOINT_ROOT in part(log, 100, 200).counts


@pytest.mark.parametrize(("first", "end"), [(0, 0), (0, 20), (60, 80), (80, 90), (90, 0)])
def test_a_part_is_verified_with_the_checkpoint_that_was_kept(
    log: SealedLog, first: int, end: int
) -> None:
    log.grow(70)
    signed = log.state.read()
    assert signed is not None
    log.grow(30)
    kept = Checkpoint(*signed)
    assert part(log, first, end, kept).is_clean
    other = kept._replace(root=bytes(32))
    assert set(part(log, first, end, other).counts) == {Code.TRUSTED_FORK}
    later = kept._replace(size=101)
    assert set(part(log, first, end, later).counts) == {Code.TRUSTED_ROLLBACK}
    elsewhere = kept._replace(origin="licet.example/other")
    assert set(part(log, first, end, elsewhere).counts) == {Code.TRUSTED_ROLLBACK}


def test_a_log_that_was_wiped_shows_with_the_checkpoint_that_was_kept(log: SealedLog) -> None:
    log.grow(20)
    signed = log.state.read()
    assert signed is not None
    tables = ("events", "batches", "nodes", "checkpoints", "writers", "log")
    log.tamper(*(f"TRUNCATE audit.{table}" for table in tables))
    assert set(log.verify(Checkpoint(*signed)).counts) == {Code.TRUSTED_ROLLBACK}


def part(log: SealedLog, first: int, end: int, kept: Checkpoint | None = None) -> Report:
    report = Report()
    with opened_log(log.database.url, snapshot=True) as reader:
        trust = Trust(SIGNER.key, verify_ed25519, kept)
        for _ in verify_range(reader, trust, report, 1, first, end):
            pass
    return report


def test_events_that_were_lost_and_are_on_record_as_such_are_no_finding(log: SealedLog) -> None:
    log.grow(20)
    log.admin.execute("SELECT audit.pass_over(1, 21, 30, 'the disk was lost', NULL)")
    for _ in range(10):
        next(log.sequences(1))
    assert log.verify().is_clean
    log.grow(10)
    report = log.verify()
    assert (report.findings, report.explained) == ([], 10)
    log.tamper("DELETE FROM audit.events WHERE event_type = 'audit.incident'")
    assert Code.WRITER_GAP in log.verify().counts


def test_a_log_that_nobody_signs_is_not_verified(log: SealedLog) -> None:
    log.grow(20)
    log.tamper("DELETE FROM audit.checkpoints", "UPDATE audit.batches SET sealed_at = '2026-11-01'")
    assert set(log.verify().counts) == {Code.CHECKPOINT_MISSING}


CAPABILITY_ATTACKS = {
    "a capability that nobody granted": (
        """INSERT INTO licet.capabilities (id, principal, actions, resource, granted_by, granted_at,
             delegation_depth, granted_revision, granted_event_id, session_id, metadata,
             not_before, expires_at)
           SELECT gen_random_uuid(), principal, '{write}', resource, granted_by, granted_at,
             delegation_depth, granted_revision, granted_event_id, session_id, metadata,
             not_before, expires_at FROM licet.capabilities LIMIT 1""",
        {Code.CAPABILITY_EVENT},
    ),
    "another action": (
        "UPDATE licet.capabilities SET actions = '{write}' WHERE ended_revision IS NULL",
        {Code.CAPABILITY_EVENT},
    ),
    "without its condition": (
        "UPDATE licet.capabilities SET condition = '', conditions = '{}' WHERE condition <> ''",
        {Code.CAPABILITY_EVENT},
    ),
    "without what it has of its parent": (
        "UPDATE licet.capabilities SET conditions = '{}' WHERE parent_id IS NOT NULL",
        {Code.CAPABILITY_EVENT},
    ),
    "without its parent": (
        """UPDATE licet.capabilities SET conditions = '{}', parent_id = NULL
           WHERE parent_id IS NOT NULL""",
        {Code.CAPABILITY_EVENT},
    ),
    "another principal": (
        "UPDATE licet.capabilities SET principal = 'agent:z' WHERE ended_revision IS NULL",
        {Code.CAPABILITY_EVENT},
    ),
    "back from the dead": (
        """UPDATE licet.capabilities SET ended_revision = NULL, ended_event_id = NULL,
             ended_at = NULL, ended_by = NULL, end_reason = NULL, end_cause = NULL""",
        {Code.EVENT_CAPABILITY},
    ),
    "deleted": (
        "DELETE FROM licet.capabilities WHERE ended_revision IS NULL",
        {Code.EVENT_CAPABILITY},
    ),
}


@pytest.fixture(scope="module")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "signing.key"
    create_key_file(path, ORIGIN)
    return path


@pytest.mark.parametrize("attack", CAPABILITY_ATTACKS)
def test_capabilities_are_what_the_log_says(
    database: Database, tmp_path: Path, signing_key: Path, attack: str
) -> None:
    with serving(database, audit_signing_key_file=signing_key, audit_origin=ORIGIN) as served:
        parent = served.grant(
            "agent:a", "read write", "doc:x", condition="action == 'read'", delegation_depth=1
        )
        served.grant("agent:a", "read", "doc:x", parent_capability_id=parent)
        ended = served.grant("agent:b", "read", "doc:**")
        served.stub.Revoke(authorization_pb2.RevokeRequest(capability_id=ended), timeout=10)
    statement, codes = CAPABILITY_ATTACKS[attack]
    key = read_key_file(signing_key).key
    with sealed_log(database, tmp_path) as log:
        before = log.verify(key=key)
        assert before.is_clean
        assert before.capabilities == 3
        log.tamper(statement)
        assert set(log.verify(key=key).counts) == codes
