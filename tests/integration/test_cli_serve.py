"""`licet serve` and `licet migrate`, as processes."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event

import grpc
import pytest
from google.protobuf import json_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

from licet.client import Client, LicetCallError
from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.fakes.postgres import Database, eventually, reachable_folder
from tests.fakes.terminal import Running, run, running

REQUESTS = {
    "Grant": pb.GrantRequest,
    "Authorize": pb.AuthorizeRequest,
    "QueryAudit": pb.QueryAuditRequest,
}


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Provide a folder that PostgreSQL's account can enter, even where the tests are root's."""
    with reachable_folder() as folder:
        yield folder / "data"


def processes_on(folder: Path) -> list[int]:
    """Return the processes of the embedded PostgreSQL in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in command and b"postgres" in command.split(b"\0")[0]:
            found.append(int(entry.name))
    return found


def greeting(server: Running) -> tuple[str, list[str]]:
    """Return the address that the server says it serves on, and all lines of its greeting."""
    lines = server.lines_until("Ctrl-C")
    found = re.search(r"serves on (\S+)$", lines[0])
    assert found is not None, lines
    return found[1], lines


def test_a_new_user_gets_a_running_service_and_lines_to_paste(data_dir: Path) -> None:
    arguments = ("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir))
    states = Path(os.environ["LICET_STATE_DIR"])
    before = set(states.iterdir())
    with running(*arguments) as server:
        address, lines = greeting(server)
        # Not where a licet of this host has its own.
        assert set(states.iterdir()) > before
        assert f"database: embedded PostgreSQL in {data_dir}" in lines
        commands = [shlex.split(line) for line in lines if "grpcurl" in line]
        assert [command[-1].rpartition("/")[2] for command in commands] == list(REQUESTS)
        granted, allowed, events = [paste(command) for command in commands]
        assert isinstance(granted, pb.GrantResponse)
        assert isinstance(allowed, pb.AuthorizeResponse)
        assert isinstance(events, pb.QueryAuditResponse)
        assert allowed.capability_id == granted.capability.id
        assert "grant" in [event.event_type for event in events.events]
        assert processes_on(data_dir)

        taken = run("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir))
        assert taken.status == 2
        assert "in use by another licet" in taken.err

        ended = server.finish(signal.SIGINT)
        assert (ended.status, ended.out) == (0, "")
        assert processes_on(data_dir) == []
        with Client(address) as client, pytest.raises(LicetCallError, match="UNAVAILABLE"):
            client.health()


def paste(command: Sequence[str]) -> object:
    """Do what grpcurl does with a line of the greeting."""
    program, plaintext, _, body, address, method = command
    assert (program, plaintext) == ("grpcurl", "-plaintext")
    service, _, name = method.partition("/")
    assert service == "licet.v1.AuthorizationService"
    with grpc.insecure_channel(address) as channel:
        call: Callable[..., object] = getattr(AuthorizationServiceStub(channel), name)
        return call(json_format.Parse(body, REQUESTS[name]()), timeout=10)


def serve_on(
    database: Database, *arguments: str, **variables: str
) -> tuple[list[str], dict[str, str]]:
    return ["serve", *arguments], {"LICET_DATABASE_URL": database.url} | variables


def test_a_database_of_ones_own_is_served_and_sigterm_drains(database: Database) -> None:
    arguments, variables = serve_on(database, "--log-format", "json", LICET_LISTEN="[::1]:0")
    with running(*arguments, variables=variables) as server:
        address, lines = greeting(server)
        assert address.startswith("[::1]:")
        assert any(database.name in line for line in lines if line.startswith("database: "))
        with Client(address) as client:
            assert client.health() == "SERVING"
            decision = client.authorize("agent:a", "read", "doc:x")
        ended = server.finish(signal.SIGTERM)
        assert ended.status == 0
        assert all(json.loads(line) for line in ended.err.splitlines())
    with database.connect() as admin:
        found = admin.execute(
            "SELECT event_id::text FROM audit.events WHERE event_type = 'decision'"
        ).fetchall()
    assert found == [(decision.decision_id,)]


def test_a_signal_that_another_thread_takes_stops_it_as_well(database: Database) -> None:
    arguments, variables = serve_on(database, LICET_LISTEN="127.0.0.1:0", LICET_WORKERS="1")
    with running(*arguments, variables=variables) as server:
        address, _ = greeting(server)
        with Client(address) as client:  # and the main thread waits meanwhile
            client.authorize("agent:a", "read", "doc:x")
        main = server.process.pid
        threads = {int(task.name) for task in Path(f"/proc/{main}/task").iterdir()}
        # As the kernel may do when the main thread has just been stopped or goes on.
        assert ctypes.CDLL(None).tgkill(main, min(threads - {main}), signal.SIGTERM) == 0
        assert server.process.wait(30) == 0


def test_a_signal_that_comes_before_the_service_is_up_stops_it(data_dir: Path) -> None:
    arguments = ("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir))
    with running(*arguments) as server:
        assert eventually((data_dir / "licet.lock").exists, 30)
        ended = server.finish(signal.SIGTERM)
        assert (ended.status, ended.out) == (0, "")
    assert processes_on(data_dir) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_ends_it_at_once_and_the_database_with_it(
    data_dir: Path, workers: str
) -> None:
    arguments = ("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir))
    variables = {"LICET_DRAIN_SECONDS": "60", "LICET_WORKERS": workers}
    with running(*arguments, variables=variables) as server:
        address, _ = greeting(server)
        with grpc.insecure_channel(address) as channel:
            # A stream that is not licet's is not told to end, and keeps the drain from ending.
            is_over = Event()
            reflect: grpc.StreamStreamMultiCallable[
                reflection_pb2.ServerReflectionRequest, bytes
            ] = channel.stream_stream(
                f"/{reflection.SERVICE_NAME}/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            )
            stream = reflect(one_request(is_over))
            next(iter(stream))
            server.process.send_signal(signal.SIGINT)
            with Client(address) as client:
                assert eventually(lambda: refuses(client))
            assert server.process.poll() is None
            assert server.finish(signal.SIGINT).status == 128 + signal.SIGINT
            is_over.set()
            stream.cancel()
    assert eventually(lambda: processes_on(data_dir) == [])


def one_request(is_over: Event) -> Iterator[reflection_pb2.ServerReflectionRequest]:
    yield reflection_pb2.ServerReflectionRequest(list_services="")
    is_over.wait(60)


def refuses(client: Client) -> bool:
    try:
        client.authorize("agent:a", "read", "doc:x", timeout=1)
    except LicetCallError:
        return True
    return False


def test_a_taken_port_is_an_error_of_one_line(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments, variables = serve_on(database, "--listen", f"127.0.0.1:{port}")
        failed = run(*arguments, variables=variables)
    assert (failed.status, failed.out) == (2, "")
    assert failed.err.splitlines()[-1].startswith(f"licet: cannot listen on 127.0.0.1:{port}")


def test_a_public_address_is_refused_without_the_flag(database: Database) -> None:
    arguments, variables = serve_on(database, "--listen", "0.0.0.0:0")
    refused = run(*arguments, variables=variables)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.count("\n") == 1
    assert "LICET_INSECURE_BIND" in refused.err

    with running(*arguments, "--insecure-bind", variables=variables) as server:
        address, lines = greeting(server)
        assert address.startswith("0.0.0.0:")
        port = address.rpartition(":")[2]
        assert sum(f" 127.0.0.1:{port} " in line for line in lines) == len(REQUESTS)
        assert server.finish(signal.SIGINT).status == 0


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"LICET_THREADS": "many"}, "threads"),
        ({"LICET_CONFIG_FILE": "/nowhere.toml"}, "/nowhere.toml"),
        ({"LICET_DATABASE_URL": "postgresql://licet:s3cret@127.0.0.1:1/x"}, "database"),
        ({"LICET_DATABASE_URL": "postgresql://licet:s3cret/@127.0.0.1/x"}, "malformed"),
    ],
)
def test_what_is_not_right_is_one_line_without_secrets(
    variables: dict[str, str], part: str
) -> None:
    failed = run("serve", "--listen", "127.0.0.1:0", variables=variables)
    assert (failed.status, failed.out) == (2, "")
    assert part in failed.err.splitlines()[-1]
    assert failed.err.splitlines()[-1].startswith("licet: ")
    assert "s3cret" not in failed.err
    assert "Traceback" not in failed.err


def test_the_schema_goes_up_and_down_and_its_status_is_shown(empty_database: Database) -> None:
    # A server's address that `serve` would refuse does not matter here.
    variables = {
        "LICET_MIGRATION_DATABASE_URL": empty_database.url,
        "LICET_DATABASE_URL": "host=127.0.0.1 port=1",
        "LICET_LISTEN": "0.0.0.0:50051",
    }
    before = run("migrate", "status", "--json", variables=variables)
    assert before.status == 0
    ids = [state["id"] for state in before.objects]
    assert ids == sorted(ids)
    assert not any(state["applied"] for state in before.objects)

    up = run("migrate", "up", variables=variables)
    assert (up.status, up.out.splitlines()) == (0, [f"applied {key}" for key in ids])
    again = run("migrate", "up", "--json", variables=variables)
    assert again.object == {"applied": []}

    unsure = run("migrate", "down", variables=variables, text="y\n")
    assert (unsure.status, unsure.out) == (2, "")
    assert "--yes" in unsure.err
    down = run("migrate", "down", "--yes", "--json", variables=variables)
    assert down.object == {"taken_back": ids[-1:]}
    table = run("migrate", "status", variables=variables).out.splitlines()
    assert [line.split(maxsplit=1)[1].strip() for line in table[2:]] == [
        *["applied"] * (len(ids) - 1),
        "not applied",
    ]


def test_without_an_address_the_embedded_database_is_migrated(data_dir: Path) -> None:
    up = run("migrate", "up", "--data-dir", str(data_dir))
    assert (up.status, up.err) == (0, "")
    states = run("migrate", "status", "--json", variables={"LICET_DATA_DIR": str(data_dir)})
    assert all(state["applied"] and state["checksum_ok"] for state in states.objects)
    assert processes_on(data_dir) == []


def test_a_database_that_is_not_there_is_an_error_of_one_line() -> None:
    failed = run("migrate", "status", variables={"LICET_DATABASE_URL": "host=127.0.0.1 port=1"})
    assert (failed.status, failed.out) == (2, "")
    assert failed.err.splitlines()[-1].startswith("licet: ")
    assert "Traceback" not in failed.err
