"""The server's certificate, its key, and the CA of its clients, as files; no gRPC here.

What gRPC would find out with the first client, this finds out when the files are read: gRPC takes
anything, and then every handshake fails without a word in the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from licet.server.followed import Contents, FileRefusedError, read_file

CERTIFICATE: Final = "LICET_TLS_CERT_FILE"
KEY: Final = "LICET_TLS_KEY_FILE"
CLIENT_CA: Final = "LICET_TLS_CLIENT_CA_FILE"
_LEAST_RSA_BITS: Final = 2048
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where they are, all PEM.

    Attributes:
        certificate: the server's, then those of the CAs between it and the root.
        key: the private key of the first.
        client_ca: the CAs of the clients; None: clients need no certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def read(self) -> Contents:
        """Read them. Raises FileRefusedError."""
        contents = (
            read_file(CERTIFICATE, self.certificate),
            read_file(KEY, self.key, is_secret=True),
        )
        if self.client_ca is None:
            return contents
        return (*contents, read_file(CLIENT_CA, self.client_ca))

    def parse(self, contents: Contents, now: float) -> Credentials:
        """Check what was read at an instant, in seconds since the Unix epoch.

        Raises:
            FileRefusedError: no handshake could succeed with it.
        """
        chain, key, *client_ca = contents
        certificates = _certificates(CERTIFICATE, self.certificate, chain)
        for certificate in certificates:
            self._check_time(certificate, now)
        self._check_key(certificates[0], key)
        if self.client_ca is not None:
            authorities = _certificates(CLIENT_CA, self.client_ca, client_ca[0])
            if all(_expires_at(authority) <= now for authority in authorities):
                raise FileRefusedError(
                    f"{CLIENT_CA}: every certificate in {self.client_ca} has expired"
                )
        return Credentials(
            chain,
            key,
            client_ca[0] if client_ca else None,
            min(map(_expires_at, certificates)),
        )

    def _check_time(self, certificate: x509.Certificate, now: float) -> None:
        subject = certificate.subject.rfc4514_string()
        if _expires_at(certificate) <= now:
            end = certificate.not_valid_after_utc
            raise FileRefusedError(
                f"{CERTIFICATE}: the certificate of {subject!r} in {self.certificate}"
                f" has expired at {end:%Y-%m-%dT%H:%M:%SZ}"
            )
        begin = certificate.not_valid_before_utc
        if begin.timestamp() > now:
            raise FileRefusedError(
                f"{CERTIFICATE}: the certificate of {subject!r} in {self.certificate}"
                f" is not valid before {begin:%Y-%m-%dT%H:%M:%SZ}"
            )

    def _check_key(self, certificate: x509.Certificate, pem: bytes) -> None:
        try:
            key = load_pem_private_key(pem, password=None)
        except TypeError:
            raise FileRefusedError(f"{KEY}: {self.key} is encrypted, and must not be") from None
        except (ValueError, UnsupportedAlgorithm):
            # The text of the cause may hold a part of the key.
            raise FileRefusedError(f"{KEY}: {self.key} holds no private key in PEM") from None
        match key:
            case rsa.RSAPrivateKey() if key.key_size >= _LEAST_RSA_BITS:
                pass
            case ec.EllipticCurvePrivateKey() if isinstance(key.curve, _CURVES):
                pass
            case _:
                raise FileRefusedError(
                    f"{KEY}: the key in {self.key} must be ECDSA on P-256, P-384 or P-521,"
                    f" or RSA of at least {_LEAST_RSA_BITS} bits"
                )
        if key.public_key() != _public_key(certificate):
            raise FileRefusedError(
                f"{KEY}: the key in {self.key} does not match"
                f" the first certificate in {self.certificate}"
            )


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the files hold, checked.

    Attributes:
        chain: the server's certificates, PEM.
        key: its private key, PEM.
        client_ca: the CAs of the clients, PEM; None: clients need no certificate.
        expires_at: when the first of the server's certificates expires, seconds since the epoch.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    expires_at: float


def _certificates(setting: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
        for certificate in found:
            # It is parsed when it is asked for, and asked for in messages.
            certificate.subject.rfc4514_string()
    except ValueError:
        raise FileRefusedError(f"{setting}: {path} holds no certificate in PEM") from None
    return found


def _public_key(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None  # not that of a key that is allowed


def _expires_at(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()
