"""The port with TLS: whom it lets in, as handshakes and calls show it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import pytest
import trustme
from cryptography.x509.oid import ExtendedKeyUsageOID
from prometheus_client.parser import text_string_to_metric_families

from licet.client import Client, LicetCallError, Tls
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.serving import Served, serving
from tests.fakes.tls import Folder, Pair, client_pair, from_now, server_pair, uri

SERVERS = trustme.CA()
CLIENTS = trustme.CA()
STRANGERS = trustme.CA()


@pytest.fixture(scope="module")
def module_database(cluster: Cluster, migrated_template: Database) -> Iterator[Database]:
    """Provide one database for the tests here: none of them changes what is granted."""
    with cluster.database(migrated_template) as copy:
        yield copy


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Provide a folder for the files of servers and clients."""
    return Folder(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def plain(module_database: Database, files: Folder) -> Iterator[Served]:
    """Provide a server with TLS."""
    settings = files.settings(server_pair(SERVERS, "localhost", "127.0.0.1", "licet.example"))
    with serving(module_database, **settings) as served:
        yield served


@pytest.fixture(scope="module")
def mutual(module_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Provide a server that wants certificates of its clients."""
    folder = Folder(tmp_path_factory.mktemp("mutual"))
    with serving(module_database, **folder.settings(server_pair(SERVERS), CLIENTS)) as served:
        yield served


def health(address: str, tls: Tls | None) -> str:
    with Client(address, tls=tls, timeout=5) as client:
        return client.health().value


def refused(address: str, tls: Tls | None) -> LicetCallError:
    with pytest.raises(LicetCallError) as caught:
        health(address, tls)
    assert caught.value.code == "UNAVAILABLE"
    return caught.value


def test_a_client_that_trusts_the_ca_is_served(plain: Served, files: Folder) -> None:
    tls = files.client(SERVERS)
    with Client(plain.address, tls=tls) as client:
        assert client.health() == "SERVING"
        assert not client.authorize("agent:a", "read", "doc:x").allowed
    # By the name in the certificate, too, whatever the address is.
    assert health(plain.address, Tls(tls.ca_file, server_name="licet.example")) == "SERVING"


def test_nobody_is_served_in_plain_text(plain: Served) -> None:
    refused(plain.address, None)


def test_a_client_that_trusts_another_ca_does_not_call(plain: Served, files: Folder) -> None:
    error = refused(plain.address, files.client(STRANGERS))
    assert "CERTIFICATE_VERIFY_FAILED" in error.message


def test_a_client_that_expects_another_name_does_not_call(plain: Served, files: Folder) -> None:
    tls = files.client(SERVERS)
    refused(plain.address, Tls(tls.ca_file, server_name="other.example"))


def handshake(address: str, version: ssl.TLSVersion, protocols: list[str]) -> ssl.SSLSocket:
    """Shake hands with this version of TLS only, and with whatever ciphers there are."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(protocols)
    SERVERS.configure_trust(context)
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=10)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


@contextmanager
def ssl_server(version: ssl.TLSVersion) -> Iterator[str]:
    """Shake hands once with this version of TLS only, and provide the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    SERVERS.issue_cert("localhost").configure_cert(context)

    def serve() -> None:
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True) as connection:
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_speak_http_2(plain: Served, version: ssl.TLSVersion) -> None:
    with handshake(plain.address, version, ["http/1.1", "h2"]) as connection:
        assert connection.version() == version.name.replace("_", ".")
        assert connection.selected_alpn_protocol() == "h2"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_versions_are_refused_by_the_server(plain: Served, version: ssl.TLSVersion) -> None:
    with ssl_server(version) as address, handshake(address, version, ["h2"]) as connection:
        # This client could: it is the server that does not.
        assert connection.version() == version.name.replace("_", ".")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(plain.address, version, ["h2"])


def test_a_client_without_a_certificate_is_refused(mutual: Served, files: Folder) -> None:
    refused(mutual.address, files.client(SERVERS))


@pytest.mark.parametrize(
    "pair",
    [
        client_pair(STRANGERS, subject="CN=alice"),
        client_pair(CLIENTS, subject="CN=alice", expires=from_now(minutes=-1)),
        # It is for servers only.
        client_pair(CLIENTS, subject="CN=alice", usage=ExtendedKeyUsageOID.SERVER_AUTH),
    ],
    ids=["of another CA", "expired", "of a server"],
)
def test_a_client_with_a_wrong_certificate_is_refused(
    mutual: Served, files: Folder, pair: Pair
) -> None:
    refused(mutual.address, files.client(SERVERS, pair, "wrong"))


def test_a_client_with_a_certificate_is_served(mutual: Served, files: Folder) -> None:
    pair = client_pair(CLIENTS, uri("spiffe://example.org/a"))
    assert health(mutual.address, files.client(SERVERS, pair)) == "SERVING"


def test_the_metrics_tell_when_the_certificate_expires(
    module_database: Database, tmp_path: Path
) -> None:
    end = from_now(days=3).replace(microsecond=0)
    folder = Folder(tmp_path)
    files = folder.settings(server_pair(SERVERS, expires=end))
    with serving(module_database, metrics_listen="127.0.0.1:0", **files) as served:
        name = "licet_tls_certificate_expiry_timestamp_seconds"
        assert metrics(served)[name] == end.timestamp()
        assert metrics(served)["licet_tls_reload_failures_total"] == 0
        folder.write("server.key", b"broken")
        assert eventually(lambda: metrics(served)["licet_tls_reload_failures_total"] == 1, 10)
        assert metrics(served)[name] == end.timestamp()


def metrics(served: Served) -> dict[str, float]:
    address = f"http://127.0.0.1:{served.licet.metrics_port}/metrics"
    with urlopen(address, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {sample.name: sample.value for family in families for sample in family.samples}
