"""What the verification of an audit log finds, and what it does not, on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.postgres import Database
from tests.fakes.sealed_log import SealedLog, sealed_log


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
