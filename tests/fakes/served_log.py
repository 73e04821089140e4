"""The log of a running service: what was acknowledged is stored, sealed, signed and verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from licet.app.findings import Report
from licet.app.sealed_log import Trust
from licet.app.verify import verify_whole
from licet.domain.signed_note import VerifierKey
from licet.steward.signing import read_key_file, verify_ed25519
from licet.storage.verification import opened_log
from tests.fakes.api import count, rows, stored_decisions
from tests.fakes.postgres import Database, eventually
from tests.fakes.sealing import assert_whole

PATIENCE = 60.0


def key_of(database: Database, state_dir: Path) -> VerifierKey:
    """Return the public key of the only log that a host signs, in its first epoch."""
    [path] = state_dir.glob("*/signing.key")
    [(origin,)] = rows(database, "SELECT origin FROM audit.log WHERE epoch = 1")
    return read_key_file(path).named(origin).key


def is_signed(database: Database) -> bool:
    """Say whether all that is stored is sealed and under a checkpoint."""
    return bool(
        count(
            database,
            """SELECT count(*) FROM audit.log AS l WHERE l.tree_size = (
               SELECT max(c.tree_size) FROM audit.checkpoints AS c WHERE c.epoch = l.epoch)
               AND NOT EXISTS (SELECT FROM audit.queue)""",
        )
    )


def assert_on_record(
    database: Database, state_dir: Path, acknowledged: Iterable[str], *, exactly: bool = False
) -> Report:
    """Check that decisions are stored, sealed and signed, once each, and that the log is clean.

    Args:
        database: of a service that has ended, or has nothing to do.
        state_dir: of the host that signed.
        acknowledged: the ids of all decisions that were answered.
        exactly: whether there are no others: one whose answer was lost is on record too.
    """
    expected = set(acknowledged)
    assert eventually(lambda: is_signed(database), PATIENCE)
    stored = Counter(stored_decisions(database))
    assert not expected - stored.keys()
    assert [event_id for event_id, times in stored.items() if times > 1] == []
    assert not exactly or stored.keys() == expected
    assert_whole(database)
    report = verified(database, state_dir)
    assert report.is_clean, report.findings
    return report


def verified(database: Database, state_dir: Path) -> Report:
    """Verify everything against the host's key."""
    report = Report()
    with opened_log(database.url, snapshot=True) as log:
        for _ in verify_whole(log, Trust(key_of(database, state_dir), verify_ed25519), report):
            pass
    return report
