"""The files of the server's TLS: what is wrong with them is said when they are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import time

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from licet.server.certificates import Credentials, TlsFiles
from licet.server.followed import FileRefusedError
from tests.fakes.tls import Folder, Pair, from_now, server_pair

CA = trustme.CA()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Provide a folder for the files."""
    return Folder(tmp_path)


def load(files: TlsFiles) -> Credentials:
    return files.parse(files.read(), time())


def files_of(folder: Folder, pair: Pair, client_ca: bytes | None = None) -> TlsFiles:
    ca = None if client_ca is None else folder.write("ca.pem", client_ca)
    return TlsFiles(*folder.pair(pair), ca)


@pytest.mark.parametrize("key_type", trustme.KeyType)
def test_a_pair_is_taken_with_its_chain(folder: Folder, key_type: trustme.KeyType) -> None:
    end = from_now(days=3).replace(microsecond=0)
    between = CA.create_child_ca()
    pair = server_pair(between, expires=end, key_type=key_type)
    assert pair.certificate.count(b"BEGIN") == 2
    loaded = load(files_of(folder, pair))
    assert (loaded.chain, loaded.key, loaded.client_ca) == (pair.certificate, pair.key, None)
    assert loaded.expires_at == end.timestamp()
    assert "PRIVATE" not in repr(loaded)
    ca = CA.cert_pem.bytes()
    assert load(files_of(folder, pair, ca)).client_ca == ca


def test_the_first_certificate_of_the_chain_that_expires_counts(folder: Folder) -> None:
    soon = server_pair(CA, expires=from_now(hours=1).replace(microsecond=0))
    late = server_pair(CA)
    both = Pair(late.certificate + soon.certificate, late.key)
    assert load(files_of(folder, both)).expires_at == load(files_of(folder, soon)).expires_at


def test_a_file_that_cannot_be_read_is_named(folder: Folder) -> None:
    whole = files_of(folder, server_pair(CA), CA.cert_pem.bytes())
    missing = folder.path / "missing"
    for broken, name in (
        (replace(whole, certificate=missing), "LICET_TLS_CERT_FILE"),
        (replace(whole, key=missing), "LICET_TLS_KEY_FILE"),
        (replace(whole, client_ca=missing), "LICET_TLS_CLIENT_CA_FILE"),
        (replace(whole, key=folder.path), "LICET_TLS_KEY_FILE"),
    ):
        with pytest.raises(FileRefusedError, match=rf"^{name}: cannot read /.*: [A-Z]"):
            load(broken)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o640 | 0o020, 0o777, 0o601])
def test_a_key_that_is_open_to_others_is_refused(folder: Folder, mode: int) -> None:
    files = files_of(folder, server_pair(CA))
    files.key.chmod(mode)
    with pytest.raises(FileRefusedError, match=rf"^LICET_TLS_KEY_FILE: .* has mode {mode:04o}: "):
        load(files)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_key_may_be_read_by_its_group(folder: Folder, mode: int) -> None:
    files = files_of(folder, server_pair(CA))
    files.key.chmod(mode)
    files.certificate.chmod(0o644)
    load(files)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_not_pem_is_refused(folder: Folder, content: bytes) -> None:
    pair, ca = server_pair(CA), CA.cert_pem.bytes()
    for given, authority, message in (
        (Pair(content, pair.key), ca, "LICET_TLS_CERT_FILE: .* no certificate"),
        (Pair(pair.key, pair.key), ca, "LICET_TLS_CERT_FILE: .* no certificate"),
        (Pair(pair.certificate, content), ca, "LICET_TLS_KEY_FILE: .* no private key"),
        (pair, content, "LICET_TLS_CLIENT_CA_FILE: .* no certificate"),
    ):
        with pytest.raises(FileRefusedError, match=f"^{message}"):
            load(files_of(folder, given, authority))


def test_a_file_without_end_is_refused(folder: Folder) -> None:
    files = replace(files_of(folder, server_pair(CA)), certificate=Path("/dev/zero"))
    with pytest.raises(FileRefusedError, match="longer than 1 MiB"):
        load(files)


def test_the_key_of_another_certificate_is_refused(folder: Folder) -> None:
    pair, other = server_pair(CA), server_pair(CA)
    with pytest.raises(FileRefusedError, match=r"^LICET_TLS_KEY_FILE: .* does not match"):
        load(files_of(folder, Pair(pair.certificate, other.key)))
    # The server's own certificate comes first.
    with pytest.raises(FileRefusedError, match="does not match the first certificate"):
        load(files_of(folder, Pair(other.certificate + pair.certificate, pair.key)))


def pem(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def test_a_key_that_gRPC_cannot_use_is_refused(folder: Folder) -> None:  # noqa: N802 - its name
    certificate = server_pair(CA).certificate
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    for key in (
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256K1()),
        weak,
    ):
        with pytest.raises(FileRefusedError, match=r"^LICET_TLS_KEY_FILE: .* must be ECDSA"):
            load(files_of(folder, Pair(certificate, pem(key))))


def test_an_encrypted_key_is_refused(folder: Folder) -> None:
    key = pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"hunter2"))
    with pytest.raises(FileRefusedError, match=r"^LICET_TLS_KEY_FILE: .* is encrypted"):
        load(files_of(folder, Pair(server_pair(CA).certificate, key)))


def test_a_certificate_counts_in_its_time_only(folder: Folder) -> None:
    expired = server_pair(CA, begins=from_now(days=-2), expires=from_now(minutes=-1))
    with pytest.raises(FileRefusedError, match=r"^LICET_TLS_CERT_FILE: .* has expired at \d{4}-"):
        load(files_of(folder, expired))
    future = server_pair(CA, begins=from_now(minutes=1), expires=from_now(days=1))
    with pytest.raises(FileRefusedError, match=r"^LICET_TLS_CERT_FILE: .* is not valid before"):
        load(files_of(folder, future))
    whole = server_pair(CA)
    with pytest.raises(FileRefusedError, match="has expired"):
        load(files_of(folder, Pair(whole.certificate + expired.certificate, whole.key)))
    # Of the CAs, one that has not expired is enough.
    load(files_of(folder, whole, expired.certificate + CA.cert_pem.bytes()))
    with pytest.raises(FileRefusedError, match=r"^LICET_TLS_CLIENT_CA_FILE: every .* has expired"):
        load(files_of(folder, whole, expired.certificate))
