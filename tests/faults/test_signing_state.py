"""What was signed last is kept outside the database: lost and damaged files, and faults of both."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from licet.domain.errors import UnavailableError
from licet.steward.state_file import DamagedStateError, Signed, StateBusyError, StateFileError
from tests.fakes.api import count
from tests.fakes.postgres import Database
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.sealing import Host, assert_whole, custody, hosting, metadata_of, writing_to
from tests.fakes.signing import CHECKPOINTS, begin, grow, refusal


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
