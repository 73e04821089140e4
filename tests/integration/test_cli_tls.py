"""`licet serve` with TLS, and the commands that call it; the health check of the image too."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import trustme

from tests.fakes.postgres import Database
from tests.fakes.terminal import Running, run, running
from tests.fakes.tls import (
    Folder,
    arguments,
    client_pair,
    from_now,
    listed,
    server_pair,
    variables,
)

CA = trustme.CA()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Provide a folder for the files."""
    return Folder(tmp_path)


def address_of(server: Running) -> str:
    return server.lines_until("Ctrl-C")[0].rpartition(" ")[2]


def serve(
    database: Database, listen: str = "127.0.0.1:0", workers: int = 1
) -> tuple[list[str], dict[str, str]]:
    options = ["serve", "--listen", listen, "--workers", str(workers)]
    return options, {"LICET_DATABASE_URL": database.url}


def test_commands_call_by_tls(database: Database, folder: Folder) -> None:
    options, settings = serve(database)
    files = folder.settings(server_pair(CA), CA)
    files["tls_callers_file"] = folder.write("c.toml", listed("user:alice", "alice", "authorize"))
    settings |= variables(files)
    tls = folder.client(CA, client_pair(CA, subject="CN=alice"))
    nobody = folder.client(CA, client_pair(CA, subject="CN=bob"), "bob")
    with running(*options, variables=settings) as server:
        greeting = server.lines_until("Ctrl-C")
        address = greeting[0].rpartition(" ")[2]
        assert f"callers: need a certificate that is in {files['tls_callers_file']}" in "\n".join(
            greeting
        )
        to = ["--address", address]
        assert "user:alice" in run("whoami", *to, *arguments(tls)).out
        refused = run("whoami", *to, *arguments(nobody))
        assert (refused.status, refused.err.count("an API key is required")) == (2, 1)
        assert run("health", *to, *arguments(tls)).status == 0
        # Before the command, and from the environment.
        assert run(*to, *arguments(tls), "authorize", "agent:a", "read", "doc:x").status == 1
        names = {"LICET_CALL_CA_FILE": str(tls.ca_file), "LICET_ADDRESS": address}
        names |= {
            "LICET_CALL_CERT_FILE": str(tls.cert_file),
            "LICET_CALL_KEY_FILE": str(tls.key_file),
        }
        assert run("health", variables=names).status == 0
        wrong = run("health", "--tls-name", "other.example", variables=names)
        assert (wrong.status, wrong.err.split(":")[0]) == (2, "licet")
        assert "no licet answers" in wrong.err
        for less in ("LICET_CALL_CERT_FILE", "LICET_CALL_CA_FILE"):
            assert run("health", variables={**names, less: ""}).status == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--tls-cert", "x"), "TLS needs --tls-ca"),
        (("--tls-name", "x"), "TLS needs --tls-ca"),
        (("--tls-ca", "x", "--tls-key", "x"), "--tls-cert and --tls-key go together"),
        (("--tls-ca", "/missing"), "cannot read /missing: No such file"),
    ],
)
def test_what_is_missing_is_said(options: tuple[str, ...], why: str) -> None:
    failed = run("health", *options)
    assert failed.status == 2
    assert why in failed.err


@pytest.mark.parametrize("names", [("licet.example",), ("*.example",), ("10.9.8.7",)])
def test_the_health_check_of_the_image_needs_no_option(
    database: Database, folder: Folder, names: tuple[str, ...]
) -> None:
    """In the container the settings of the server are those of the check."""
    options, settings = serve(database)
    settings |= variables(folder.settings(server_pair(CA, *names)))
    with running(*options, variables=settings) as server:
        checked = {**settings, "LICET_ADDRESS": address_of(server)}
        assert run("health", variables=checked).status == 0
        # Also from the file of the settings.
        file = folder.write("licet.toml", toml(settings))
        in_file = {"LICET_CONFIG_FILE": str(file), "LICET_ADDRESS": checked["LICET_ADDRESS"]}
        assert run("health", variables=in_file).status == 0
        # Only there: what is called elsewhere is not that server.
        elsewhere = {
            **checked,
            "LICET_ADDRESS": checked["LICET_ADDRESS"].replace("127.0.0.1", "127.0.0.2"),
        }
        assert run("health", variables=elsewhere).status == 2
    assert run("health", variables=checked).status == 2


def toml(settings: dict[str, str]) -> bytes:
    names = [name for name in settings if name.startswith("LICET_TLS")]
    return "".join(
        f'{name.removeprefix("LICET_").lower()} = "{settings[name]}"\n' for name in names
    ).encode()


def test_the_health_check_shows_the_servers_certificate_or_another(
    database: Database, folder: Folder
) -> None:
    options, settings = serve(database)
    clients = trustme.CA()
    settings |= variables(folder.settings(server_pair(CA), CA))
    with running(*options, variables=settings) as server:
        checked = {**settings, "LICET_ADDRESS": address_of(server)}
        assert run("health", variables=checked).status == 0
    settings |= variables(folder.settings(server_pair(CA), clients))
    with running(*options, variables=settings) as server:
        checked = {**settings, "LICET_ADDRESS": address_of(server)}
        assert run("health", variables=checked).status == 2
        certificate, key = folder.pair(client_pair(clients, subject="CN=health"), "health")
        pair = {"LICET_CALL_CERT_FILE": str(certificate), "LICET_CALL_KEY_FILE": str(key)}
        assert run("health", variables=checked | pair).status == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pair_that_cannot_be_used_stops_the_start(
    database: Database, folder: Folder, workers: int
) -> None:
    options, settings = serve(database, workers=workers)
    expired = server_pair(CA, begins=from_now(days=-2), expires=from_now(minutes=-1))
    failed = run(*options, variables=settings | variables(folder.settings(expired)))
    assert failed.status == 2
    [line] = failed.err.splitlines()
    assert line.startswith("licet: LICET_TLS_CERT_FILE: the certificate of ")
    assert "has expired at" in line


def test_the_world_is_served_with_tls_only(database: Database, folder: Folder) -> None:
    options, settings = serve(database, "0.0.0.0:0")
    refused = run(*options, variables=settings)
    assert refused.status == 2
    assert "is not loopback, and there is no TLS" in refused.err
    shown = {
        None: ["-cacert", "CA_FILE", "-expand-headers", "-H"],
        CA: ["-cacert", "CA_FILE", "-cert", "CERT_FILE", "-key", "KEY_FILE", "-expand-headers"],
    }
    for clients, expected in shown.items():
        files = variables(folder.settings(server_pair(CA), clients))
        with running(*options, variables=settings | files) as server:
            lines = server.lines_until("Ctrl-C")
            port = lines[0].rpartition(":")[2]
            [call, *_] = [shlex.split(line) for line in lines if "grpcurl" in line]
            assert call[1 : len(expected) + 1] == expected
            tls = folder.client(CA, client_pair(CA))
            to = ["--address", f"127.0.0.1:{port}", *arguments(tls)]
            assert run("health", *to).status == 0
            refused = run("whoami", *to)
            assert (refused.status, refused.err.count("an API key is required")) == (2, 1)
            assert "NOT AUTHENTICATED" not in server.errors
