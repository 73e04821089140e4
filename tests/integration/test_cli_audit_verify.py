"""`licet audit verify` and the commands around it, as processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from licet.domain.archive import read_archive
from licet.steward.signing import Ed25519Signer
from tests.fakes.api import rows
from tests.fakes.audit_serving import serving_proofs
from tests.fakes.audit_verifier import run as run_verifier
from tests.fakes.postgres import Database, eventually
from tests.fakes.sealed_log import ORIGIN, SIGNER, SealedLog, sealed_log
from tests.fakes.served_log import is_signed
from tests.fakes.serving import serving
from tests.fakes.terminal import Finished, run
from tests.integration.test_audit_tampering import ATTACKS

KEY = SIGNER.key.text()
OTHER_KEY = Ed25519Signer(ORIGIN, bytes(32)).key.text()

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[SealedLog]:
    with sealed_log(database, tmp_path) as running:
        running.grow(60)
        yield running


def verify(log: SealedLog, *arguments: object, **variables: str) -> Finished:
    found = {"LICET_DATABASE_URL": log.database.url} | variables
    return run("audit", "verify", *map(str, arguments), variables=found)


def test_a_report_is_for_programs_or_for_people(log: SealedLog) -> None:
    clean = verify(log, "--key", KEY, "--json")
    assert (clean.status, clean.err) == (0, "")
    assert clean.object == {
        "verified": True,
        "leaves": 60,
        "archived_leaves": 0,
        "checkpoints": 1,
        "capabilities": 0,
        "explained_events": 0,
        "counts": {},
        "findings": [],
    }
    log.tamper(*ATTACKS["edits a row"].statements)
    found = verify(log, "--key", KEY, "--json")
    assert (found.status, found.object["verified"]) == (1, False)
    [finding] = found.object["findings"]
    assert (finding["code"], finding["epoch"], finding["leaf"]) == ("leaf.altered", 1, 4)
    shown = verify(log, "--key", KEY)
    assert shown.status == 1
    assert "leaf.altered" in shown.out
    assert "NOT VERIFIED: 1 findings" in shown.out


def test_without_a_key_it_trusts_the_server_and_says_so(log: SealedLog) -> None:
    with serving_proofs(log.database, KEY) as served:
        trusting = verify(log, "--address", served.address)
        assert trusting.status == 0
        assert "warning: the key is the server's word" in trusting.err
    with serving_proofs(log.database) as served:
        unknown = verify(log, "--address", served.address)
        assert (unknown.status, unknown.out) == (2, "")
        assert "give it with --key" in unknown.err


def test_what_cannot_be_verified_is_no_finding(log: SealedLog, tmp_path: Path) -> None:
    absent = "postgresql://nobody@127.0.0.1:1/none"
    for arguments in (
        ("--key", KEY, "--database", absent),
        ("--key", "nonsense"),
        ("--key-file", tmp_path / "absent"),
        ("--key", KEY, "--trusted", tmp_path / "absent"),
        ("--key", KEY, "--archive", tmp_path / "absent"),
    ):
        finished = verify(log, *arguments)
        assert (finished.status, finished.out) == (2, ""), arguments
        assert finished.err.startswith("licet: ")


def test_with_another_key_nothing_is_verified(log: SealedLog, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text(log.note(), encoding="utf-8")
    forged = verify(log, "--key", OTHER_KEY, "--json")
    assert (forged.status, list(forged.object["counts"])) == (1, ["checkpoint.forged"])
    assert verify(log, "--key", OTHER_KEY, "--since", tmp_path / "kept").status == 2


def test_what_is_archived_is_verified_in_its_file(log: SealedLog, tmp_path: Path) -> None:
    archive = tmp_path / "leaves.archive"
    with serving_proofs(log.database, KEY) as served:
        exported = run("audit", "export", str(archive), "--address", served.address)
    assert exported.status == 0, exported.err
    log.tamper("DROP TABLE audit.events_20270115")
    without = verify(log, "--key", KEY, "--json")
    [finding] = without.object["findings"]
    assert (without.status, finding["code"], finding["leaf"]) == (1, "leaf.missing", 0)
    found = verify(log, "--key", KEY, "--archive", archive, "--json")
    assert (found.status, found.object["archived_leaves"]) == (0, 60)
    # Proofs are still made; the leaf is in the archive.
    with archive.open("rb") as file:
        [leaf] = [
            leaf for _, leaves in read_archive(file) for n, leaf in enumerate(leaves) if n == 6
        ]
    (tmp_path / "leaf").write_bytes(leaf)
    with serving_proofs(log.database, KEY) as served:
        event = ("audit", "prove", "00000000-0001-8000-8000-000000000007")
        to = ("--key", KEY, "--address", served.address)
        alone = run(*event, *to)
        proved = run(*event, *to, "--leaf", str(tmp_path / "leaf"))
    assert (alone.status, alone.out) == (2, "")
    assert "give its leaf with --leaf" in alone.err
    assert (proved.status, proved.err) == (0, "")
    (tmp_path / "proof").write_text(proved.out, encoding="utf-8")
    verified = run_verifier(
        "inclusion", "--key", KEY, tmp_path / "proof", "--leaf", tmp_path / "leaf"
    )
    assert verified.status == 0


def test_a_service_with_the_default_settings_is_verified_with_the_key_that_it_names(
    database: Database, tmp_path: Path
) -> None:
    with serving(database, state_dir=tmp_path) as served:
        served.authorize("agent:a", "read", "doc:x")
        assert eventually(lambda: is_signed(database))
        shown = run("audit", "checkpoint", "--json", "--address", served.address)
    key = shown.object["public_key"]
    assert key.split("+")[0] == rows(database, "SELECT origin FROM audit.log")[0][0]
    found = run("audit", "verify", "--key", key, variables={"LICET_DATABASE_URL": database.url})
    assert (found.status, found.err) == (0, "")
