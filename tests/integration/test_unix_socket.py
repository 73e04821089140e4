"""A server's Unix socket: who calls over it, what it is called by limits and records, its end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import grpc
import pytest
import trustme

from licet import config
from licet.bootstrap.process import Licet
from licet.client import Client
from licet.domain.errors import UnavailableError
from licet.server import strangers
from licet.server.socket_file import SocketFile
from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2
from tests.fakes.api import refused, rows
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.fakes.tls import Folder, client_pair, server_pair

QUESTION = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def key(database: Database) -> str:
    """Provide a key of an admin."""
    with serving(database) as served, calling(served.address) as admin:
        return make_key(admin, "admin").token


@contextmanager
def on_socket(database: Database, path: Path, **settings: object) -> Iterator[tuple[Served, str]]:
    with serving(database, socket=path, **settings) as served:
        yield served, f"unix:{path}"


def ask(services: As) -> pb.AuthorizeResponse:
    return services.authorization.Authorize(QUESTION, timeout=10)


def test_who_shows_nothing_is_a_stranger_where_clients_of_the_port_have_certificates(
    database: Database, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS lets nobody in without one; over the socket a flood would be in the lane of the known."""
    monkeypatch.setattr(strangers, "PACE", 0.001)
    monkeypatch.setattr(strangers, "BURST", 1)
    ca = trustme.CA()
    files = Folder(tmp_path).settings(server_pair(ca), ca)
    with (
        on_socket(database, path, serving="auto", **files) as (_, address),
        calling(address) as nobody,
    ):
        assert refused(lambda: ask(nobody)).code is UNAUTHENTICATED
        # The next one waits for its turn to be refused, as strangers do.
        waiting = nobody.authorization.Authorize.future(QUESTION, timeout=1)
        assert waiting.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("how", ["auto", "stock"])
def test_whoever_has_a_key_is_answered(database: Database, path: Path, key: str, how: str) -> None:
    with on_socket(database, path, serving=how) as (_, address), holding(address, key) as caller:
        request = pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:x")
        caller.authorization.Grant(request, timeout=10)
        assert ask(caller).decision == decision_pb2.DECISION_ALLOW
        messages = [pb.StreamAuthorizeRequest(requests=[QUESTION] * 2)] * 3
        answers = caller.authorization.StreamAuthorize(iter(messages), timeout=20)
        assert [len(answer.responses) for answer in answers] == [2, 2, 2]
        with Client(address) as client:
            assert client.health().value == "SERVING"


def test_nobody_is_admitted_without_a_credential_neither_there_nor_on_loopback(
    database: Database, path: Path, key: str
) -> None:
    with on_socket(database, path) as (served, address):
        for place in (address, served.address):
            with calling(place) as anonymous:
                assert refused(lambda: ask(anonymous)).code is UNAUTHENTICATED
            with holding(place, key[:-1] + "A") as stranger:
                assert refused(lambda: ask(stranger)).code is UNAUTHENTICATED
    # Who it was cannot be told: the kernel knows, and gRPC does not ask it.
    found = rows(database, "SELECT DISTINCT actor FROM audit.events WHERE event_type='auth.failed'")
    assert ("address:unix",) in found


def test_all_who_call_over_it_are_one_address(database: Database, path: Path, key: str) -> None:
    limits = {"address_rate": 0.001, "rate_burst": 1000}
    with on_socket(database, path, **limits) as (served, address):
        batch = pb.BatchAuthorizeRequest(requests=[QUESTION] * 1000)
        with holding(address, key) as first, holding(address, key) as second:
            first.authorization.BatchAuthorize(batch, timeout=20)
            assert refused(lambda: ask(second)).reason == "RATE_LIMITED"
        with holding(served.address, key) as over_port:
            ask(over_port)


def test_a_name_that_the_client_gives_its_end_is_no_other_address(
    database: Database, path: Path
) -> None:
    # One more credential may fail from there, and then none for long.
    with on_socket(database, path, failure_rate=0.001) as (_, address):
        with calling(address, "Bearer licet_no") as stranger:
            assert refused(lambda: ask(stranger)).code is UNAUTHENTICATED
        for name in (str(path.with_name("mine")), "\0mine"):
            call_as_one_who_is_called(name, path)
    found = rows(
        database,
        "SELECT actor, reason, sum((metadata ->> 'count')::int) FROM audit.events"
        " WHERE event_type = 'auth.failed' GROUP BY actor, reason ORDER BY reason",
    )
    assert found == [("address:unix", "RATE_LIMITED", 2), ("address:unix", "UNAUTHENTICATED", 1)]


def call_as_one_who_is_called(name: str, path: Path) -> None:
    """Make a call with a credential from a socket with a name, which gRPC's client never gives."""
    literal = b"".join(
        b"\x00" + bytes([len(header)]) + header + bytes([len(value)]) + value
        for header, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/licet.v1.AuthorizationService/Authorize"),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"authorization", b"Bearer licet_no"),
        )
    )
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.bind(name)
        client.connect(str(path))
        client.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(4, 0, 0, b"")
            + frame(1, 4, 1, literal)
            + frame(0, 1, 1, b"\0\0\0\0\0")
        )
        received = b""
        while b"grpc-status" not in received:
            received += client.recv(65_536)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def test_it_is_in_plain_text_and_without_certificates_where_the_port_wants_them(
    database: Database, path: Path, key: str, tmp_path: Path
) -> None:
    servers, clients = trustme.CA(), trustme.CA()
    folder = Folder(tmp_path)
    settings = folder.settings(server_pair(servers), clients)
    with on_socket(database, path, **settings) as (served, address):
        with calling(address) as anonymous:
            assert refused(lambda: ask(anonymous)).code is UNAUTHENTICATED
        with holding(address, key) as caller:
            ask(caller)
        with holding(served.address, key) as over_port:
            assert refused(lambda: ask(over_port)).code is grpc.StatusCode.UNAVAILABLE
        tls = folder.client(servers, client_pair(clients))
        with Client(served.address, tls=tls, api_key=key) as client:
            assert client.health() == "SERVING"


def test_there_need_not_be_a_port(database: Database, path: Path, key: str) -> None:
    with on_socket(database, path, listen="none") as (served, address):
        assert served.licet.server.port == 0
        with holding(address, key) as caller:
            ask(caller)


def test_it_is_gone_with_its_server_and_kept_by_a_live_one(
    database: Database, path: Path, key: str
) -> None:
    with on_socket(database, path) as (_, address):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(UnavailableError, match="is another server running there"):
            on_socket(database, path).__enter__()
        with holding(address, key) as caller:
            ask(caller)
    assert not path.exists()
    with on_socket(database, path, socket_mode="0660") as (_, address):
        assert path.stat().st_mode & 0o777 == 0o660
        with holding(address, key) as caller:
            ask(caller)
    assert eventually(lambda: list(path.parent.iterdir()) == [])


def test_a_worker_that_leaves_serves_until_others_are_found_and_its_clients_have_gone(
    database: Database, path: Path, key: str
) -> None:
    file, pause = SocketFile(path, 0o600), Event()
    file.claim()  # as a supervisor does
    chosen = config.load(
        listen="none", socket=path, database_url=database.url, connection_seconds=2
    )
    licet = Licet(chosen, shares_port=True, has_steward=False).start()
    try:
        assert not path.exists()  # nobody is to find it before its supervisor says so
        file.show(os.getpid())
        with holding(f"unix:{path}", key) as caller:
            ask(caller)
            leaving = Thread(target=licet.server.hand_over, args=(pause.wait,))
            leaving.start()
            end = monotonic() + 1.0
            while monotonic() < end:
                assert connects(path)
                pause.wait(0.05)
            path.unlink()
            assert eventually(lambda: not connects(file.bound(os.getpid())), 5)
            # Who had connected is served all the while.
            assert leaving.is_alive()
            ask(caller)
            leaving.join(20)
            assert not leaving.is_alive()
    finally:
        licet.stop()
        file.remove()


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0
