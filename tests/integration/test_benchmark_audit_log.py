"""The large audit log of the benchmarks is one that the product takes for its own."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from benchmarks import audit_fill
from benchmarks.report import Progress
from benchmarks.stand import opened_database, patience
from licet.app.prove import ProveAudit
from licet.storage.proofs import PostgresSealedLogs
from tests.fakes.postgres import Database
from tests.fakes.sealed_log import KEYS, sealed_log


def test_what_is_filled_in_is_sealed_proven_and_verifies(
    database: Database, tmp_path: Path
) -> None:
    progress = Progress(Console(file=io.StringIO()))
    events = audit_fill.fill(database.url, 2500, KEYS, progress)
    assert events == 2490  # as many on each day
    with sealed_log(database, tmp_path) as log:
        assert log.seal() == events
        log.sign()
        report = log.verify()
        (ended,) = log.admin.execute(
            "SELECT count(*) FROM licet.capabilities WHERE ended_at IS NOT NULL"
        ).fetchone() or (0,)
    assert report.findings == []
    assert (report.leaves, report.capabilities, ended) == (events, 12, 2)
    assert audit_fill.capabilities(events) == 12
    with opened_database(database.url) as pool:
        prove = ProveAudit(PostgresSealedLogs(pool))
        proof = prove.inclusion(audit_fill.event(events), patience(30))
    assert proof.leaf_index == events - 1
