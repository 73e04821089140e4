"""One Unix socket for several workers: they take turns, and no call fails when one goes."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from licet.client import Client
from tests.fakes.callers import calling, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import serving
from tests.fakes.terminal import Running, run, running
from tests.integration.test_cli_workers import command_of, stewards_of, workers_of
from tests.integration.test_rolling_restart import Load, replaced
from tests.integration.test_unix_socket import connects

_SECONDS = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def key(database: Database) -> str:
    """Provide a key of an admin."""
    with serving(database) as served, calling(served.address) as admin:
        return make_key(admin, "admin").token


def settings(database: Database) -> dict[str, str]:
    # Connections live for a second here, so that it does not take a minute to leave one's clients.
    return {"LICET_DATABASE_URL": database.url, "LICET_CONNECTION_SECONDS": "1"}


@contextmanager
def on_socket(database: Database, path: Path, workers: int = 2) -> Iterator[Running]:
    """Run workers with nothing but a socket."""
    arguments = ("serve", "--workers", str(workers), "--listen", "none", "--socket", str(path))
    with running(*arguments, variables=settings(database)) as server:
        assert f"serves on unix:{path}" in server.lines_until("Ctrl-C")[0]
        yield server


def shown(path: Path) -> int | None:
    """Return the process whose socket clients find; None: that of one that is gone, or none."""
    with suppress(FileNotFoundError):
        for bound in path.with_name(f"{path.name}.d").iterdir():
            if bound.name.isdecimal() and bound.samefile(path):
                return int(bound.name)
    return None


def shows(path: Path, worker: int) -> bool:
    return shown(path) == worker


def test_each_worker_has_its_turn_and_all_is_gone_at_the_end(
    database: Database, path: Path
) -> None:
    with on_socket(database, path) as server:
        for worker in workers_of(server):
            assert eventually(partial(shows, path, worker), 20)
        assert path.stat().st_mode & 0o777 == 0o600
        # Somebody removes it: it comes back with the next turn.
        path.unlink()
        assert eventually(partial(connects, path), 20)
        taken = run(
            *("serve", "--workers", "2", "--listen", "none", "--socket", str(path)),
            variables=settings(database),
        )
        assert taken.status == 2
        assert f"cannot listen on {path}: is another server running there?" in taken.err
        assert connects(path)
        assert server.finish(signal.SIGTERM).status == 0
    assert list(path.parent.iterdir()) == []


@pytest.mark.timeout(120)
def test_no_call_fails_while_workers_are_replaced(database: Database, path: Path, key: str) -> None:
    with on_socket(database, path) as server, Load(f"unix:{path}", key) as load:
        before, answers = workers_of(server), load.answers.copy()
        server.process.send_signal(signal.SIGHUP)
        assert eventually(partial(replaced, server, before), _SECONDS)
        gone = shown(path)
        assert gone is not None
        os.kill(gone, signal.SIGTERM)
        assert eventually(lambda: gone not in workers_of(server), _SECONDS)
        assert eventually(lambda: len(workers_of(server)) == 2, _SECONDS)
        assert all(load.answers[kind] > answers[kind] for kind in ("one", "many"))
    assert load.failures == []


@pytest.mark.timeout(120)
def test_one_that_dies_is_found_no_more_and_what_a_killed_service_left_is_replaced(
    database: Database, path: Path, key: str
) -> None:
    with on_socket(database, path) as server:
        dead = shown(path)
        assert dead is not None
        os.kill(dead, signal.SIGKILL)
        assert eventually(lambda: shown(path) in workers_of(server) - {dead}, 2)
        with Client(f"unix:{path}", api_key=key) as client:
            assert not client.authorize("agent:a", "read", "doc:x").allowed
        # What it had is not kept for ever.
        assert eventually(lambda: not (path.with_name("s.d") / str(dead)).exists(), 20)
        everybody = workers_of(server) | stewards_of(server) | {server.process.pid}
        # The supervisor first, which would start others.
        for pid in sorted(everybody, key=lambda pid: pid != server.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not any(map(command_of, everybody - {server.process.pid})), 20)
    assert path.is_socket()
    assert not connects(path)
    with on_socket(database, path, workers=1), Client(f"unix:{path}", api_key=key) as client:
        assert not client.authorize("agent:a", "read", "doc:x").allowed


def test_workers_that_nobody_would_find_do_not_come_to_serve(
    database: Database, path: Path
) -> None:
    arguments = ("serve", "--workers", "2", "--listen", "none", "--socket", str(path))
    with (
        running(*arguments, variables=settings(database)) as server,
        socket.socket(socket.AF_UNIX) as other,
    ):
        assert eventually(path.with_name("s.d").exists, 30)
        # Another program takes the path before any worker serves.
        other.bind(str(path))
        other.listen()
        assert server.process.wait(_SECONDS) == 2
        assert f"cannot listen on {path}: is another server running there?" in server.errors
        assert connects(path)
