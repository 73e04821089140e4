"""What was signed last is kept outside the database: restores, lost files, and faults of both."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from licet.domain.checkpoint import open_checkpoint
from licet.domain.errors import UnavailableError
from licet.domain.merkle import leaf_hash
from licet.domain.merkle_proof import StoredTree, verify_inclusion
from licet.replica.clock import SystemClock
from licet.steward import epochs
from licet.steward.signer import RefusalError
from licet.steward.signing import verify_ed25519
from licet.steward.state_file import DamagedStateError, Signed, StateBusyError, StateFileError
from licet.writer.ids import audit_writer_id
from tests.fakes.api import count, rows
from tests.fakes.audit_log import AuditLog
from tests.fakes.audit_verifier import Folder, Verification
from tests.fakes.audit_verifier import run as verify
from tests.fakes.postgres import Cluster, Database
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.sealing import (
    SIGNER,
    Host,
    assert_whole,
    custody,
    hosting,
    metadata_of,
    writing_to,
)

CHECKPOINTS = "SELECT count(*) FROM audit.checkpoints"


def grow(database: Database, folder: Path, events: int) -> None:
    """Store, seal and sign so many events; nobody is connected afterwards."""
    with writing_to(database) as writer, hosting(database, folder) as host:
        writer.store(events)
        assert host.sign() is not None


def refusal(database: Database, folder: Path) -> str:
    """Return why nothing is signed; that it is so is asserted, and that it is so again."""
    before = count(database, CHECKPOINTS)
    with hosting(database, folder) as host:
        messages = set()
        for _ in range(2):
            with pytest.raises((RefusalError, StateFileError)) as raised:
                host.sign()
            messages.add(str(raised.value))
    assert count(database, CHECKPOINTS) == before
    (message,) = messages
    return message


def begin(
    database: Database, folder: Path, *, force: bool = False, number: int | None = None
) -> epochs.Begun:
    with hosting(database, folder) as host:
        return begin_on(host, force=force, number=number)


def begin_on(host: Host, *, force: bool = False, number: int | None = None) -> epochs.Begun:
    wished = epochs.Wish("a disk was lost", force, number)
    return epochs.begin_epoch(host.sealing, host.custody, audit_writer_id(SystemClock()), wished)


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


@pytest.mark.parametrize("epoch", [1, 2])
def test_without_its_state_file_a_host_does_not_sign(
    database: Database, tmp_path: Path, epoch: int
) -> None:
    grow(database, tmp_path, 2)
    if epoch == 2:
        begin(database, tmp_path, force=True)  # and there is no checkpoint of it yet
    (tmp_path / "signed.json").unlink()
    assert "signed.json is missing" in refusal(database, tmp_path)
    assert "is missing" in (begin(database, tmp_path).cause or "")
    grow(database, tmp_path, 2)
    begun = {facts["epoch"]: facts["signed"] for facts in metadata_of(database, "audit.epoch")}
    assert begun[epoch + 1] is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\0",
        b"[]",
        b"null",
        b'{"origin": "x", "size": 1}',
        b'{"origin": "x", "size": "1", "root": ""}',
        b'{"origin": "x", "size": true, "root": "00"}',
        b'{"origin": 1, "size": 1, "root": "' + b"00" * 32 + b'"}',
    ],
)
def test_a_state_file_that_holds_something_else_is_refused(
    database: Database, tmp_path: Path, content: bytes
) -> None:
    grow(database, tmp_path, 2)
    (tmp_path / "signed.json").write_bytes(content)
    assert "does not hold what was signed last" in refusal(database, tmp_path)
    assert (tmp_path / "signed.json").read_bytes() == content
    begin(database, tmp_path)
    grow(database, tmp_path, 2)


def test_a_state_file_that_cannot_be_read_now_is_no_reason_for_an_epoch(
    database: Database, tmp_path: Path
) -> None:
    grow(database, tmp_path, 2)
    path = tmp_path / "signed.json"
    path.rename(tmp_path / "aside")
    path.mkdir()
    assert "cannot read" in refusal(database, tmp_path)
    with pytest.raises(StateFileError, match="cannot read"):
        begin(database, tmp_path, force=True)
    path.rmdir()
    (tmp_path / "aside").rename(path)
    grow(database, tmp_path, 2)
    assert assert_whole(database) == 4


@pytest.mark.parametrize("name", [".signed.json.new", ".signed.json.lock"])
def test_where_the_state_file_cannot_be_written_nothing_is_signed(
    database: Database, tmp_path: Path, name: str
) -> None:
    grow(database, tmp_path, 2)
    with writing_to(database) as writer:
        writer.store(2)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    assert "cannot write" in refusal(database, tmp_path)
    (tmp_path / name).rmdir()
    grow(database, tmp_path, 1)
    assert assert_whole(database) == 5


def failing_sync(of_folders: bool) -> Callable[[int], None]:
    real = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folders:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    return sync


@pytest.mark.parametrize("happened", [False, True], ids=["failed", "happened"])
def test_nothing_is_signed_until_the_state_is_on_disk(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happened: bool
) -> None:
    grow(database, tmp_path, 2)
    with writing_to(database) as writer:
        writer.store(2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing_sync(of_folders=happened))
        assert "cannot write" in refusal(database, tmp_path)
    state = custody(tmp_path).state.read()
    assert state is not None
    assert state.size == (4 if happened else 2)
    with hosting(database, tmp_path) as host:
        checkpoint = host.sign()
        assert checkpoint is not None
        assert checkpoint.size == 4
        assert host.sign() is None
    assert assert_whole(database) == 4


@pytest.mark.parametrize("happened", [False, True], ids=["failed", "happened"])
def test_a_checkpoint_whose_publication_was_lost_is_published_once(
    database: Database, proxy: PostgresProxy, tmp_path: Path, happened: bool
) -> None:
    with writing_to(database) as writer:
        writer.store(2)
    with hosting(proxy.database, tmp_path) as host:
        proxy.arm(Fault(b"INSERT INTO audit.checkpoints", forward=happened))
        with pytest.raises(UnavailableError):
            host.sign()
    assert count(database, CHECKPOINTS) == happened
    with hosting(database, tmp_path) as host:
        assert (host.sign() is None) == happened
    assert count(database, CHECKPOINTS) == 1
    assert assert_whole(database) == 2


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


@pytest.mark.parametrize("write", [1, 2], ids=["the note", "taking it over"])
@pytest.mark.parametrize("happened", [False, True], ids=["failed", "happened"])
def test_an_epoch_whose_state_could_not_be_written_is_finished_when_it_is_asked_for_again(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: int,
    happened: bool,
) -> None:
    grow(database, tmp_path, 2)
    before = (tmp_path / "signed.json").read_text()
    failing, real, calls = failing_sync(of_folders=happened), os.fsync, 0

    def sync(descriptor: int) -> None:
        nonlocal calls
        calls += not stat.S_ISDIR(os.fstat(descriptor).st_mode)
        (failing if calls == write else real)(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", sync)
        with pytest.raises(StateFileError, match="cannot write"):
            begin(database, tmp_path, force=True)
    committed = write == 2
    assert count(database, "SELECT epoch FROM audit.log") == (2 if committed else 1)
    if committed and not happened:
        assert "was signed last" in refusal(database, tmp_path)
        assert begin(database, tmp_path).is_resumed
    if not committed:
        # The old log is signed on: nothing had begun.
        assert (
            json.loads(before).items() <= json.loads((tmp_path / "signed.json").read_text()).items()
        )
    grow(database, tmp_path, 2)
    assert assert_whole(database) == (3 if committed else 4)


def test_processes_of_one_host_take_turns_and_the_state_never_goes_back(
    database: Database, tmp_path: Path
) -> None:
    state = custody(tmp_path).state
    grow(database, tmp_path, 2)
    with writing_to(database) as writer, hosting(database, tmp_path) as host:
        writer.store(1)
        with custody(tmp_path).state.held():
            assert host.sign() is None  # not now
            with pytest.raises(StateBusyError, match="another process holds"), state.held(0.05):
                pass
        signed = state.read()
        assert signed is not None
        assert signed.size == 2
        assert host.sign() is not None
    now = state.read()
    assert now is not None
    for back in (
        signed,
        now._replace(root=bytes(32)),
        Signed("another", now.size + 1, now.root),
    ):
        with pytest.raises(StateFileError, match="never goes back"):
            state.write(back)
    assert state.read() == now


def test_several_signers_of_one_host_never_refuse_what_they_signed_themselves(
    database: Database, tmp_path: Path
) -> None:
    failures: list[BaseException] = []

    def sign(host: Host) -> None:
        try:
            for _ in range(60):
                host.signer.step()
        except BaseException as exc:  # noqa: BLE001 - told to the test
            failures.append(exc)

    with (
        writing_to(database) as writer,
        hosting(database, tmp_path) as one,
        hosting(database, tmp_path) as two,
        hosting(database, tmp_path) as sealer,
    ):
        signers = [Thread(target=sign, args=(host,)) for host in (one, two)]
        for signer in signers:
            signer.start()
        while any(signer.is_alive() for signer in signers):
            writer.store(1)
            sealer.seal()
        for signer in signers:
            signer.join()
        sealer.sign()
    assert failures == []
    assert assert_whole(database) == writer.sequence


def test_a_damaged_state_is_told_from_a_lost_one(tmp_path: Path) -> None:
    state = custody(tmp_path).state
    assert (state.read(), state.begun()) == (None, None)
    first = Signed("log/epoch2", 1, bytes(32))
    state.begin(first)
    with pytest.raises(DamagedStateError):  # it was lost, and is not the beginning of anything
        state.read()
    assert state.begun() == first
    state.finish(first)
    assert (state.read(), state.begun()) == (first, None)
