"""The page on verification: its commands and queries run, its tables are those of the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from licet.app.findings import Code
from tests.docs.blocks import blocks_of, code_in, table_of
from tests.fakes.audit_serving import serving_proofs
from tests.fakes.postgres import Database
from tests.fakes.sealed_log import SIGNER, SealedLog, sealed_log
from tests.fakes.terminal import run
from tests.integration.test_audit_tampering import ATTACKS, EVENT, filled

PAGE = "docs/audit-verification.md"
KEY = SIGNER.key.text()
EDIT = filled("UPDATE audit.events SET result = 'deny' WHERE event_id = '<event>'")
DELETE = filled("DELETE FROM audit.events WHERE event_id = '<event>'")
INSERT = filled(ATTACKS["inserts a row behind the sealer"].statements[0])


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[SealedLog]:
    with sealed_log(database, tmp_path) as running:
        running.grow(60)
        yield running


def answers(log: SealedLog) -> list[int]:
    """Return how many rows each query of the page answers with, to an auditor."""
    log.admin.execute("SET ROLE licet_auditor")
    found = [len(log.admin.execute(b.text.encode()).fetchall()) for b in blocks_of(PAGE, "sql")]
    log.admin.execute("RESET ROLE")
    return found


def test_the_queries_find_nothing_in_a_log_that_nobody_touched(log: SealedLog) -> None:
    assert answers(log) == [0, 0, 0]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (EDIT, [1, 0, 0]),
        (DELETE, [1, 0, 0]),
        (INSERT, [0, 1, 0]),
        ("DELETE FROM audit.batches WHERE first_leaf = 10", [0, 10, 1]),
    ],
    ids=["edit", "delete", "insert", "batch"],
)
def test_the_queries_find_what_was_changed(
    log: SealedLog, statement: str, expected: list[int]
) -> None:
    log.tamper(statement)
    assert answers(log) == expected


def commands() -> list[str]:
    return [line for block in blocks_of(PAGE, "text") for line in block.text.splitlines()]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("status", [0, 1], ids=["untouched", "tampered"])
def test_the_commands_run(log: SealedLog, tmp_path: Path, status: int) -> None:
    files = {"public.key": f"{KEY}\n", "kept.checkpoint": log.note()}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    log.grow(60)
    assert EVENT in " ".join(commands())
    with serving_proofs(log.database, SIGNER.key.public_key) as served:
        variables = {
            "LICET_DATABASE_URL": log.database.url,
            "LICET_ADDRESS": served.address,
        }

        def done(line: str) -> tuple[int, str]:
            words = [
                str(tmp_path / word) if word.endswith((".key", ".checkpoint", ".archive")) else word
                for word in line.split()[1:]
            ]
            finished = run(*words, variables=variables)
            return finished.status, finished.out + finished.err

        export = done("licet audit export leaves.archive")
        assert export[0] == 0, export
        if status:
            log.tamper(EDIT)
        for line in commands():
            found = done(line)
            if "verify" in line:
                # What came after the checkpoint was not touched.
                expected = 0 if "--since" in line else status
            else:
                expected = 2 if status and ("0005" in line or "export" in line) else 0
            assert found[0] == expected, (line, found)


def test_every_finding_is_in_the_table() -> None:
    rows = table_of(PAGE, "finding")
    assert [code for row in rows for code in code_in(row[0])] != []
    assert {code for row in rows for code in code_in(row[0])} == set(Code)


def test_the_matrix_is_that_of_the_tests() -> None:
    rows = {row[0]: set(code_in(row[1])) for row in table_of(PAGE, "a superuser ...")}
    for name, attack in ATTACKS.items():
        assert rows[name] == attack.found, name
