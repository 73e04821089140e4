"""Real certificates, of CAs that nobody else knows, in files as servers find them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time

import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from licet.client import Tls


def from_now(**offset: float) -> datetime:
    """Return an instant so far from now, as `timedelta` takes it."""
    return datetime.fromtimestamp(time(), UTC) + timedelta(**offset)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and its private key, both PEM."""

    certificate: bytes
    key: bytes


def pair_of(issued: trustme.LeafCert) -> Pair:
    """Return what trustme made, as bytes."""
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    return Pair(chain, issued.private_key_pem.bytes())


def server_pair(
    authority: trustme.CA,
    *names: str,
    begins: datetime | None = None,
    expires: datetime | None = None,
    key_type: trustme.KeyType = trustme.KeyType.ECDSA,
) -> Pair:
    """Return a pair for a server on loopback, or for these names."""
    issued = authority.issue_cert(
        *(names or ("localhost", "127.0.0.1")),
        not_before=begins,
        not_after=expires,
        key_type=key_type,
    )
    return pair_of(issued)


def client_pair(
    authority: trustme.CA,
    *names: x509.GeneralName,
    subject: str = "",
    expires: datetime | None = None,
    extensions: Iterable[x509.ExtensionType] = (),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
) -> Pair:
    """Return a pair for a client.

    Args:
        authority: who signs it.
        names: the alternative names of its subject; none: it has no such extension.
        subject: its distinguished name, by RFC 4514.
        expires: when it ends; None: in an hour.
        extensions: further ones.
        usage: what its key is for.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(subject))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(from_now(days=-2))
        .not_valid_after(expires or from_now(hours=1))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    signer = load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return Pair(
        builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def uri(text: str) -> x509.UniformResourceIdentifier:
    """Return a URI as an alternative name."""
    return x509.UniformResourceIdentifier(text)


def channel_credentials(authority: trustme.CA, pair: Pair | None) -> grpc.ChannelCredentials:
    """Return how a client trusts an authority, and shows a pair, for gRPC itself."""
    root = authority.cert_pem.bytes()
    if pair is None:
        return grpc.ssl_channel_credentials(root)
    return grpc.ssl_channel_credentials(root, pair.key, pair.certificate)


def listed(name: str, common_name: str, *scopes: str) -> bytes:
    """Return one caller of LICET_TLS_CALLERS_FILE."""
    return (
        f'[[caller]]\nname = "{name}"\ncommon_name = "{common_name}"\nscopes = {list(scopes)}\n'
    ).encode()


class Folder:
    """A folder with the files of one server, and of those who call it."""

    def __init__(self, path: Path) -> None:
        """Keep files in a folder that is there."""
        self.path = path

    def write(self, name: str, content: bytes) -> Path:
        """Write a file of mode 0600, in one step."""
        path = self.path / name
        temporary = path.with_suffix(".new")
        temporary.write_bytes(content)
        temporary.chmod(0o600)
        temporary.replace(path)
        return path

    def pair(self, pair: Pair, name: str = "server") -> tuple[Path, Path]:
        """Write a pair, one file after the other, and return where."""
        certificate = self.write(f"{name}.pem", pair.certificate)
        return certificate, self.write(f"{name}.key", pair.key)

    def settings(self, pair: Pair, clients: trustme.CA | None = None) -> dict[str, Path]:
        """Write the files of a server, and return the settings that name them."""
        certificate, key = self.pair(pair)
        settings = {"tls_cert_file": certificate, "tls_key_file": key}
        if clients is not None:
            ca = self.write("clients.pem", clients.cert_pem.bytes())
            settings["tls_client_ca_file"] = ca
        return settings

    def client(self, authority: trustme.CA, pair: Pair | None = None, name: str = "client") -> Tls:
        """Write the files of a client that trusts an authority."""
        ca = self.write(f"{name}-ca.pem", authority.cert_pem.bytes())
        if pair is None:
            return Tls(ca)
        return Tls(ca, *self.pair(pair, name))

    def link(self, name: str, files: dict[str, bytes]) -> None:
        """Put new files in place at once, as Kubernetes does: by turning a symbolic link."""
        generation = self.path / f"..{name}-{len(list(self.path.iterdir()))}"
        generation.mkdir()
        for file, content in files.items():
            (generation / file).write_bytes(content)
            (generation / file).chmod(0o600)
        temporary = self.path / "..link"
        temporary.symlink_to(generation.name)
        os.replace(temporary, self.path / name)  # noqa: PTH105 - of a link, which Path follows


def variables(settings: dict[str, Path]) -> dict[str, str]:
    """Return settings as the environment of `licet serve` has them."""
    return {f"LICET_{name.upper()}": str(path) for name, path in settings.items()}


def arguments(tls: Tls) -> list[str]:
    """Return the options of a command that calls so."""
    given = {
        "--tls-ca": tls.ca_file,
        "--tls-cert": tls.cert_file,
        "--tls-key": tls.key_file,
        "--tls-name": tls.server_name,
    }
    return [
        str(word) for name, value in given.items() if value is not None for word in (name, value)
    ]
