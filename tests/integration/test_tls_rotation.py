"""Certificates, CAs and the table of callers are replaced while clients call."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Self

import grpc
import pytest
import trustme
from cryptography import x509

from licet.client import Client, LicetCallError, Tls
from licet.server.certificates import TlsFiles
from licet.server.peer import PeerRefusedError
from licet.server.tls import ServerTls
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import serving
from tests.fakes.tls import (
    Folder,
    Pair,
    channel_credentials,
    client_pair,
    from_now,
    server_pair,
    uri,
    variables,
)
from tests.integration.test_cli_workers import supervised, workers_of

CA = trustme.CA()
_SECONDS = 30.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


def shown(address: str) -> bytes:
    """Return the certificate that a server shows to a new connection."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=10).strip().encode()


def shows(address: str, pair: Pair, times: int = 1) -> bool:
    """Say whether a server shows a pair's certificate, on so many connections."""
    return all(shown(address) == pair.certificate.strip() for _ in range(times))


class Load:
    """Clients that call all the time: two on one connection each, one on many."""

    def __init__(self, address: str, tls: Tls) -> None:
        self._address = address
        self._tls = tls
        self.answers = 0
        self.failures: list[str] = []
        self._over = Event()
        self._threads = [
            Thread(target=target) for target in (self._on_one, self._on_one, self._on_many)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_SECONDS)

    def _on_one(self) -> None:
        with Client(self._address, tls=self._tls) as client:
            while not self._over.is_set():
                self._call(client)

    def _on_many(self) -> None:
        while not self._over.is_set():
            with Client(self._address, tls=self._tls) as client:
                self._call(client)

    def _call(self, client: Client) -> None:
        try:
            # Health: this call the client does not repeat.
            client.health(timeout=_SECONDS)
        except LicetCallError as exc:
            self.failures.append(str(exc))
        else:
            self.answers += 1


def test_no_call_fails_while_certificates_are_replaced(database: Database, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    files = folder.settings(server_pair(CA))
    with serving(database, **files) as served, Load(served.address, folder.client(CA)) as load:
        for _ in range(3):
            answers, pair = load.answers, server_pair(CA)
            folder.pair(pair)
            assert eventually(partial(shows, served.address, pair), _SECONDS)
            assert eventually(lambda: load.answers > answers + 20, _SECONDS)  # noqa: B023 - at once
        assert served.licet.server.tls is not None
        assert served.licet.server.tls.reload_failures == 0
    assert load.failures == []


def test_a_volume_of_kubernetes_is_followed(database: Database, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    pairs = [server_pair(CA), server_pair(CA)]
    generations = [{"tls.crt": pair.certificate, "tls.key": pair.key} for pair in pairs]
    folder.link("..data", generations[0])
    for name in generations[0]:
        (tmp_path / name).symlink_to(f"..data/{name}")
    files = {"tls_cert_file": tmp_path / "tls.crt", "tls_key_file": tmp_path / "tls.key"}
    with serving(database, **files) as served:
        assert shows(served.address, pairs[0])
        folder.link("..data", generations[1])
        assert eventually(lambda: shows(served.address, pairs[1]), _SECONDS)


def test_a_broken_pair_leaves_the_former_in_use(database: Database, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    first, third = server_pair(CA), server_pair(CA)
    expired = server_pair(CA, begins=from_now(days=-2), expires=from_now(minutes=-1))
    with serving(database, **folder.settings(first)) as served:
        tls = served.licet.server.tls
        assert tls is not None
        for count, broken in enumerate([Pair(first.certificate, third.key), expired], start=1):
            folder.pair(broken)
            assert eventually(lambda: tls.reload_failures == count, _SECONDS)  # noqa: B023 - at once
            assert shows(served.address, first)
        folder.pair(third)
        assert eventually(lambda: shows(served.address, third), _SECONDS)


def test_an_open_connection_of_a_ca_that_was_taken_out_ends(
    database: Database, tmp_path: Path
) -> None:
    folder, others = Folder(tmp_path), trustme.CA()
    files = folder.settings(server_pair(CA), others)
    tls = folder.client(CA, client_pair(others, subject="CN=alice"))

    def is_refused() -> bool:
        try:
            return client.health() != "SERVING"
        except LicetCallError:
            return True

    with (
        serving(database, connection_seconds=1.0, **files) as served,
        Client(served.address, tls=tls) as client,
    ):
        assert not is_refused()
        folder.write("clients.pem", CA.cert_pem.bytes())
        assert eventually(is_refused, _SECONDS)


@pytest.mark.timeout(120)
def test_every_worker_takes_the_new_pair_and_workers_are_replaced(
    database: Database, tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    files = folder.settings(server_pair(CA), CA)
    tls = folder.client(CA, client_pair(CA, subject="CN=alice"))
    settings = variables(files) | {"LICET_CONNECTION_SECONDS": "1"}
    with supervised(database, **settings) as (server, address), Load(address, tls) as load:
        pair = server_pair(CA)
        folder.pair(pair)
        # The kernel spreads connections: 16 of them are never all of one worker.
        assert eventually(lambda: shows(address, pair, times=16), _SECONDS)
        before = workers_of(server)
        server.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: not workers_of(server) & before, 2 * _SECONDS)
        assert eventually(lambda: len(workers_of(server)) == 2, _SECONDS)
    assert load.answers > 20
    assert load.failures == []


@contextmanager
def asking(tls: ServerTls) -> Iterator[str]:
    """Serve one method, which says who calls; provide the address."""

    def who(_: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            caller = tls.callers.caller_of(context.auth_context())  # type: ignore[arg-type] # lists, whatever its stub says
        except PeerRefusedError as exc:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, str(exc))
        return b"nobody" if caller is None else caller.caller.encode()

    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(who)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test", {"Who": handler}),)
        )
        port = server.add_secure_port("127.0.0.1:0", tls.credentials())
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


def ask(address: str, pair: Pair) -> str:
    """Ask on a connection of its own who this client is."""
    credentials = channel_credentials(CA, pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options=options) as channel:
        who: Callable[..., bytes] = channel.unary_unary("/test/Who")
        try:
            return who(b"", timeout=10).decode()
        except grpc.RpcError as exc:
            return f"{exc.code().name}: {exc.details()}"


def gateway(name: str) -> bytes:
    known = 'spiffe_id = "spiffe://example.org/gateway"'
    return f'[[caller]]\nname = "{name}"\n{known}\nscopes = ["read"]\n'.encode()


def test_who_calls_is_known_by_the_table_in_use(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.settings(server_pair(CA), CA)
    table = folder.write("callers.toml", gateway("service:gateway"))
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "clients.pem")
    tls = ServerTls(files, table)
    named = client_pair(CA, uri("spiffe://example.org/gateway"))
    # A name of another kind, with the same letters.
    disguised = client_pair(CA, x509.DNSName("spiffe://example.org/gateway"))
    twice = client_pair(CA, uri("spiffe://example.org/gateway"), uri("spiffe://example.org/b"))
    with asking(tls) as address:
        assert ask(address, named) == "service:gateway"
        assert ask(address, disguised) == "nobody"
        assert ask(address, twice) == "UNAUTHENTICATED: the certificate has several URIs"
        folder.write("callers.toml", gateway("service:door"))
        for _ in range(2):
            tls.look()
        assert ask(address, named) == "service:door"
        folder.write("callers.toml", b"[[caller]]\n")
        for _ in range(2):
            tls.look()
        assert (ask(address, named), tls.reload_failures) == ("service:door", 1)


def test_clients_of_a_ca_that_was_taken_out_are_refused_with_their_sessions(
    tmp_path: Path,
) -> None:
    folder, others = Folder(tmp_path), trustme.CA()
    folder.settings(server_pair(CA), others)
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "clients.pem")
    tls = ServerTls(files)
    pair = client_pair(others, subject="CN=alice")
    context = ssl.create_default_context(cadata=CA.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(*folder.pair(pair, "client"))
    with asking(tls) as address:
        host, _, port = address.rpartition(":")

        def handshake(session: ssl.SSLSession | None = None) -> tuple[ssl.SSLSession | None, bool]:
            plain = socket.create_connection((host, int(port)), timeout=10)
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as made:
                made.send(_PREFACE)
                assert made.recv(100)  # TLS 1.3 refuses a client only now
                return made.session, bool(made.session_reused)

        session, _ = handshake()
        assert handshake(session)[1], "this client can resume sessions"
        folder.write("clients.pem", CA.cert_pem.bytes())
        for _ in range(2):
            tls.look()
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            handshake(session)
        assert "UNAVAILABLE" in ask(address, pair)
        assert ask(address, client_pair(CA)) == "nobody"
