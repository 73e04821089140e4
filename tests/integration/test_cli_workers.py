"""`licet serve --workers`: several processes on one port and one database."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from licet.client import Client
from tests.fakes.postgres import Database, eventually, reachable_folder
from tests.fakes.terminal import Running, run, running


@contextmanager
def supervised(database: Database, **variables: str) -> Iterator[tuple[Running, str]]:
    """Run two workers, and provide the supervisor and their address."""
    arguments = ("serve", "--workers", "2", "--listen", "127.0.0.1:0")
    variables |= {"LICET_DATABASE_URL": database.url}
    with running(*arguments, variables=variables) as server:
        found = re.search(r"serves on (\S+)$", server.lines_until("Ctrl-C")[0])
        assert found is not None
        yield server, found[1]


def replicas(database: Database) -> set[str]:
    with database.connect() as connection:
        return {
            row[0] for row in connection.execute("SELECT incarnation::text FROM licet.replicas")
        }


def workers_of(server: Running) -> set[int]:
    return children_of(server, b"serve")


def stewards_of(server: Running) -> set[int]:
    return children_of(server, b"steward")


def children_of(server: Running, command: bytes) -> set[int]:
    """Return the processes of a supervisor that run a command of licet."""
    parent = server.process.pid
    children = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return {child for child in children if command_of(child) == command}


def command_of(pid: int) -> bytes:
    """Return which command of licet a process runs; nothing if it has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return b""
    return words[3] if words[1:3] == [b"-m", b"licet"] else b""


def asks(address: str, principal: str) -> set[bool]:
    """Ask on many connections: the kernel spreads them over the workers."""
    answers = set()
    for _ in range(16):
        with Client(address) as client:
            answers.add(client.authorize(principal, "read", "doc:x").allowed)
    return answers


def test_what_one_worker_changed_holds_on_all(database: Database) -> None:
    with supervised(database) as (server, address):
        assert len(replicas(database)) == 2
        with Client(address) as client:
            granted = client.grant("agent:a", ["read"], "doc:x")
            assert asks(address, "agent:a") == {True}
            client.revoke(capability_id=granted.id)
            assert asks(address, "agent:a") == {False}
        ended = server.finish(signal.SIGTERM)
        assert ended.status == 0
        assert not replicas(database)


def cores_of(pid: int) -> list[frozenset[int]]:
    """Return the cores that each thread of a process may use."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [frozenset(os.sched_getaffinity(int(task.name))) for task in tasks]


@pytest.mark.parametrize(("pins", "usable"), [("true", 2), ("false", 2), ("true", 1)])
def test_as_many_workers_as_cores_are_kept_to_one_each(
    database: Database, pins: str, usable: int
) -> None:
    before = os.sched_getaffinity(0)
    if len(before) < usable:
        pytest.skip("there is one core")
    chosen = frozenset(sorted(before)[:usable])
    os.sched_setaffinity(0, chosen)
    try:
        with supervised(database, LICET_PIN_WORKERS=pins) as (server, _):
            # Of every thread, those of gRPC included.
            found = [set(cores_of(pid)) for pid in workers_of(server)]
            assert set(cores_of(server.process.pid)) == {chosen}
    finally:
        os.sched_setaffinity(0, before)
    if pins == "true" and usable == 2:
        assert sorted(found, key=str) == [{frozenset({core})} for core in sorted(chosen)]
    else:
        assert found == [{chosen}, {chosen}]


def core_of(pid: int) -> int:
    """Return the only core that any thread of a process may use."""
    ((core,),) = set(cores_of(pid))
    return core


def in_order(pids: set[int]) -> list[int]:
    """Return processes in the order in which they were started: that of their slots, at first.

    The kernel counts starts in hundredths of a second, and two workers start in one: of these, the
    number of a process says which was first.
    """

    def started(pid: int) -> tuple[int, int]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]), pid

    return sorted(pids, key=started)


@pytest.fixture
def two_cores() -> list[int]:
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("there is one core")
    return usable[:2]


@pytest.mark.timeout(240)
def test_a_worker_and_all_that_follow_it_keep_to_the_core_that_was_named_for_it(
    database: Database, two_cores: list[int]
) -> None:
    usable = os.sched_getaffinity(0)
    first, second = reversed(two_cores)
    named = f"{first},{second}"
    with supervised(database, LICET_WORKER_CORES=named, LICET_CONNECTION_SECONDS="1") as running:
        server = running[0]
        before = in_order(workers_of(server))
        assert list(map(core_of, before)) == [first, second]
        # Neither who looks after them nor who keeps the audit log is in their way.
        for pid in (server.process.pid, *stewards_of(server)):
            assert set(cores_of(pid)) == {frozenset(usable)}
        os.kill(before[0], signal.SIGKILL)
        assert eventually(lambda: len(workers_of(server) - {before[0]}) == 2, 90)
        (revived,) = workers_of(server) - set(before)
        assert eventually(lambda: set(cores_of(revived)) == {frozenset({first})}, 10)
        assert eventually(lambda: len(replicas(database)) == 2, 90)
        os.kill(server.process.pid, signal.SIGHUP)
        assert eventually(
            lambda: len(workers_of(server)) == 2 and not workers_of(server) & {revived, before[1]},
            90,
        )
        assert list(map(core_of, in_order(workers_of(server)))) == [first, second]


def test_one_worker_keeps_to_its_core_and_its_database_does_not(two_cores: list[int]) -> None:
    usable, core = frozenset(os.sched_getaffinity(0)), two_cores[1]
    variables = {"LICET_WORKER_CORES": str(core)}
    with (
        reachable_folder() as folder,
        running(
            *("serve", "--listen", "127.0.0.1:0", "--data-dir", str(folder)), variables=variables
        ) as server,
    ):
        server.lines_until("Ctrl-C")
        assert not workers_of(server)  # one core: one worker, without a supervisor
        assert core_of(server.process.pid) == core
        (file,) = folder.rglob("postmaster.pid")
        assert set(cores_of(int(file.read_text().split()[0]))) == {usable}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_core_that_may_not_be_used_is_told(database: Database, workers: str) -> None:
    usable = sorted(os.sched_getaffinity(0))
    refused = usable[-1] + 1
    ended = run(
        *("serve", "--listen", "127.0.0.1:0", "--workers", workers),
        variables={
            "LICET_DATABASE_URL": database.url,
            "LICET_WORKER_CORES": f"{usable[0]},{refused}",
        },
    )
    assert ended.status == 2
    listed = ", ".join(map(str, usable))
    assert (
        f"LICET_WORKER_CORES names {refused}, and this process may use {listed} only" in ended.err
    )


def test_a_killed_worker_is_replaced_and_sighup_replaces_all(database: Database) -> None:
    with supervised(database) as (server, address):
        before = workers_of(server)
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        assert eventually(lambda: len(workers_of(server) - {min(before)}) == 2, 90)
        with Client(address) as client:
            # The killed worker's lease is waited for, once.
            client.grant("agent:a", ["read"], "doc:x")
        assert eventually(lambda: len(replicas(database)) == 2, 90)
        second = workers_of(server)
        os.kill(server.process.pid, signal.SIGHUP)
        assert eventually(
            lambda: len(workers_of(server)) == 2 and not workers_of(server) & second, 90
        )
        assert asks(address, "agent:a") == {True}
        assert server.finish(signal.SIGINT).status == 0


def test_workers_end_with_their_supervisor(database: Database) -> None:
    with supervised(database) as (server, _):
        workers, stewards = workers_of(server), stewards_of(server)
        assert (len(workers), len(stewards)) == (2, 1)
        os.kill(server.process.pid, signal.SIGKILL)
        assert eventually(lambda: not any(map(command_of, workers | stewards)), 90)
        assert eventually(lambda: not replicas(database), 90)


def test_a_port_that_is_taken_is_told(database: Database) -> None:
    with supervised(database) as (_, address):
        taken = run(
            *("serve", "--workers", "2", "--listen", address),
            variables={"LICET_DATABASE_URL": database.url},
        )
        assert taken.status == 2
        assert f"cannot listen on {address}" in taken.err
