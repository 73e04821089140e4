"""A new epoch of the audit log: after a restore or damage, under a name of its own, and once."""

from __future__ import annotations

from pathlib import Path

import pytest

from licet.domain.checkpoint import open_checkpoint
from licet.domain.errors import UnavailableError
from licet.domain.merkle import leaf_hash
from licet.domain.merkle_proof import StoredTree, verify_inclusion
from licet.steward import epochs
from licet.steward.signing import verify_ed25519
from tests.fakes.api import count, rows
from tests.fakes.audit_log import AuditLog
from tests.fakes.audit_verifier import Folder, Verification
from tests.fakes.audit_verifier import run as verify
from tests.fakes.postgres import Cluster, Database
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.sealing import SIGNER, assert_whole, custody, hosting, metadata_of, writing_to
from tests.fakes.signing import begin, begin_on, grow, refusal


def test_a_restored_database_is_not_signed_and_goes_on_in_a_new_epoch(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    with writing_to(database) as writer:
        early = writer.store(4)
    grow(database, tmp_path, 6)
    with hosting(database, tmp_path) as host:
        tree = StoredTree(10, host.sealing.reader(1))
        proof = tree.inclusion_proof(2)
    [(old_note,)] = rows(database, "SELECT note FROM audit.checkpoints")
    [(old_origin,)] = rows(database, "SELECT origin FROM audit.log")
    with cluster.database(database, same_log=True) as restored:
        grow(database, tmp_path, 5)
        lost = custody(tmp_path).state.read()
        assert lost is not None
        assert lost.size == 15

        assert refusal(restored, tmp_path) == "ROLLBACK: the log has 10 leaves, and 15 were signed"
        with writing_to(restored) as writer, hosting(restored, tmp_path) as host:
            writer.store(5)
            assert host.seal() == 5
        assert refusal(restored, tmp_path) == "FORK: another log of 15 leaves was signed"
        with writing_to(restored) as writer:
            writer.store(3)
        assert refusal(restored, tmp_path) == (
            "FORK: the log of 18 leaves did not grow from the 15 signed"
        )

        with writing_to(restored, 7) as writer:
            writer.store(2)
            with hosting(restored, tmp_path) as host:
                host.seal()
            writer.store(2)  # not sealed yet
        begun = begin(restored, tmp_path)
        assert (begun.epoch, begun.origin) == (2, f"{old_origin}/epoch2")
        assert (begun.cause or "").startswith("FORK")
        with hosting(restored, tmp_path) as host:
            checkpoint = host.sign()
        assert checkpoint is not None
        assert (checkpoint.origin, checkpoint.size) == (begun.origin, 1 + 2)
        assert assert_whole(restored) == 3
        [facts] = metadata_of(restored, "audit.epoch")
        assert facts["reason"] == "a disk was lost"
        assert facts["signed"] == {"origin": old_origin, "size": 15, "root": lost.root.hex()}
        assert (facts["former"]["size"], facts["checkpoint"]["size"]) == (20, 10)
        assert sorted(facts["writers"].values()) == [2, 3, 4, 5, 6]
        [(note,)] = rows(restored, "SELECT note FROM audit.checkpoints WHERE epoch = 2")
        key = SIGNER.named(begun.origin).key
        assert open_checkpoint(note, key, verify_ed25519).size == 3

        # Who verifies the new log knows where each writer goes on.
        verified = verify_epoch(restored, tmp_path, begun, note)
        assert (verified.status, verified.codes) == (0, set())

        # What was proved before still is.
        old = open_checkpoint(old_note, SIGNER.named(old_origin).key, verify_ed25519)
        assert verify_inclusion(leaf_hash(early[2]), 2, 10, proof, old.root)


def verify_epoch(
    database: Database, tmp_path: Path, begun: epochs.Begun, note: str
) -> Verification:
    """Let the stand-alone verifier look at all leaves of an epoch."""
    leaves = rows(
        database,
        """SELECT e.leaf FROM audit.batches AS b
           JOIN audit.event_leaves AS e ON e.event_id BETWEEN b.first_id AND b.last_id
           WHERE b.epoch = %s ORDER BY b.first_leaf, e.event_id""",
        begun.epoch,
    )
    log = AuditLog([bytes(leaf) for (leaf,) in leaves], begun.origin)
    folder = Folder(tmp_path, log)
    checkpoint = folder.file("checkpoint", note)
    archive = folder.file("leaves.archive", log.archive())
    key = SIGNER.named(begun.origin).key.text()
    return verify("archive", "--json", "--key", key, "--checkpoint", checkpoint, archive)


def test_an_epoch_that_was_lost_again_is_not_begun_under_the_same_name(
    cluster: Cluster, database: Database, tmp_path: Path
) -> None:
    grow(database, tmp_path, 3)
    with cluster.database(database, same_log=True) as backup:
        assert begin(database, tmp_path, force=True).epoch == 2
        grow(database, tmp_path, 3)
        assert "was signed last" in refusal(backup, tmp_path)
        assert begin(backup, tmp_path).epoch == 3
        grow(backup, tmp_path, 1)
        assert [m["epoch"] for m in metadata_of(backup, "audit.epoch")] == [3]


def test_a_number_that_only_the_operator_knows_can_be_given(
    database: Database, tmp_path: Path
) -> None:
    grow(database, tmp_path, 1)
    for number in (1, 40_000):
        with pytest.raises(epochs.EpochError, match="from 2 to 32767"):
            begin(database, tmp_path, force=True, number=number)
    assert begin(database, tmp_path, force=True, number=7).origin.endswith("/epoch7")
    assert begin(database, tmp_path, force=True).origin.endswith("/epoch8")
    assert rows(database, "SELECT origin FROM audit.log")[0][0].count("/epoch") == 1


def test_a_log_that_nothing_is_wrong_with_goes_on(database: Database, tmp_path: Path) -> None:
    with pytest.raises(epochs.EpochError, match="nothing is wrong"):
        begin(database, tmp_path)
    grow(database, tmp_path, 2)
    with pytest.raises(epochs.EpochError, match="nothing is wrong"):
        begin(database, tmp_path)
    grow(database, tmp_path, 2)
    assert assert_whole(database) == 4


def test_a_tree_that_is_damaged_is_left_behind(database: Database, tmp_path: Path) -> None:
    grow(database, tmp_path, 5)
    with database.connect() as admin:
        admin.execute("UPDATE audit.log SET root = sha256('another')")
    assert "FORK" in (begin(database, tmp_path).cause or "")
    grow(database, tmp_path, 2)
    assert assert_whole_epoch(database, 2) == 3


def assert_whole_epoch(database: Database, epoch: int) -> int:
    return count(database, "SELECT tree_size FROM audit.log WHERE epoch = %s", epoch)


@pytest.mark.parametrize(
    ("statement", "happened"),
    [
        (b"INSERT INTO audit.writers", False),
        (b"SET origin", False),
        (b"SET origin", True),
        (b"COPY audit.events", False),
        (b"DELETE FROM audit.queue", True),
        (b"COMMIT", False),
        (b"COMMIT", True),
    ],
)
def test_an_epoch_whose_beginning_was_lost_is_finished_or_begun_when_it_is_asked_for_again(
    database: Database, proxy: PostgresProxy, tmp_path: Path, statement: bytes, happened: bool
) -> None:
    grow(database, tmp_path, 2)
    (tmp_path / "signed.json").write_text("{}")
    with hosting(proxy.database, tmp_path) as host:
        proxy.arm(Fault(statement, forward=happened))
        with pytest.raises(UnavailableError):
            begin_on(host)
    committed = statement == b"COMMIT" and happened
    assert count(database, "SELECT epoch FROM audit.log") == (2 if committed else 1)
    refusal(database, tmp_path)
    begun = begin(database, tmp_path)
    assert (begun.epoch, begun.is_resumed) == (2, committed)
    grow(database, tmp_path, 3)
    with pytest.raises(epochs.EpochError, match="nothing is wrong"):
        begin(database, tmp_path)
    assert len(metadata_of(database, "audit.epoch")) == 1
    assert assert_whole(database) == 4
