"""`licet audit verify` and the commands around it, as processes."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from licet.client import Client
from licet.domain.archive import read_archive
from licet.steward.signing import Ed25519Signer
from tests.fakes.audit_serving import serving_proofs
from tests.fakes.audit_verifier import run as run_verifier
from tests.fakes.postgres import Database, eventually, reachable_folder
from tests.fakes.sealed_log import ORIGIN, SIGNER, SealedLog, sealed_log
from tests.fakes.terminal import Finished, run, running
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
    with serving_proofs(log.database, SIGNER.key.public_key) as served:
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
    with serving_proofs(log.database, SIGNER.key.public_key) as served:
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
    with serving_proofs(log.database, SIGNER.key.public_key) as served:
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


def test_the_key_that_the_first_start_names_verifies_all_that_is_signed(tmp_path: Path) -> None:
    """The way of an operator who has set nothing, and of the auditor who got the key."""
    with reachable_folder() as place:
        variables = {
            "LICET_DATA_DIR": str(place / "data"),
            "LICET_STATE_DIR": str(place / "state"),
            "LICET_LISTEN": "127.0.0.1:0",
            "LICET_WORKERS": "1",
        }
        with running("serve", variables=variables) as server:
            address = server.lines_until("Ctrl-C")[0].split()[-1]
            with Client(address, timeout=20) as licet:
                licet.grant("agent:a", "read", "doc:x")
                licet.authorize("agent:a", "read", "doc:x")
                assert eventually(lambda: "checkpoint" in server.errors)
                assert eventually(lambda: licet.proofs.checkpoint().size > 1)
                told = licet.proofs.checkpoint().public_key
            named = re.search(r"its public side is (\S+)", server.errors)
            assert named is not None
            assert named[1] == told
            exported = tmp_path / "leaves"
            assert run("audit", "export", str(exported), "--address", address).status == 0
            # While it is served.
            verified = run("audit", "verify", "--key", named[1], "--json", variables=variables)
            assert (verified.status, verified.err, verified.object["findings"]) == (0, "", [])
            assert server.finish(signal.SIGTERM).status == 0
        verified = run("audit", "verify", "--key", named[1], "--json", variables=variables)
        assert (verified.status, verified.err, verified.object["findings"]) == (0, "", [])
        checkpoint = f"{exported}.checkpoint"
        alone = run_verifier("archive", "--key", named[1], "--checkpoint", checkpoint, exported)
        assert (alone.status, alone.stderr) == (0, "")
