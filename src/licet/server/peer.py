"""Who a client is, by its certificate, which TLS has verified already.

Its SPIFFE ID, if it has one, else its subject. What is ambiguous or malformed is refused, and never
falls back to something else: a SPIFFE ID that is not well-formed does not make its subject count.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import NameOID
from typing_extensions import override

_SCHEME: Final = "spiffe:"
# The SPIFFE ID standard, sections 2.1 to 2.4.
_SPIFFE_ID = re.compile(
    r"spiffe://(?P<domain>[a-z0-9._-]{1,255})(?P<path>(?:/[A-Za-z0-9._-]+)*)", re.ASCII
)
_DOTS: Final = frozenset({".", ".."})
_MAX_BYTES: Final = 2048
_UNREADABLE: Final = (
    *(ValueError, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)


class PeerRefusedError(Exception):
    """A verified certificate names nobody, or nobody for certain; the message says why."""


class SpiffeId(NamedTuple):
    """A workload's name: `spiffe://<trust domain>/<path>`."""

    trust_domain: str
    path: str

    @override
    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"


class TlsPeer(NamedTuple):
    """What a client's certificate says of it.

    Attributes:
        spiffe_id: if it has one, and then nothing else counts.
        subject: its distinguished name.
        common_name: the one in its subject; None: it has none, or several.
        expires_at: when the certificate expires.
    """

    spiffe_id: SpiffeId | None
    subject: x509.Name
    common_name: str | None
    expires_at: datetime


def spiffe_id(text: str) -> SpiffeId:
    """Parse the SPIFFE ID of a workload, which has a path.

    Raises:
        PeerRefusedError: it is not well-formed.
    """
    found = _SPIFFE_ID.fullmatch(text)
    if found is None or len(text) > _MAX_BYTES or not found["path"]:
        raise PeerRefusedError("the SPIFFE ID is not of the form spiffe://trust.domain/path")
    if not _DOTS.isdisjoint(found["path"].split("/")):
        raise PeerRefusedError("the path of the SPIFFE ID has relative segments")
    return SpiffeId(found["domain"], found["path"])


def peer_of(pem: bytes) -> TlsPeer:
    """Read a client's certificate.

    Raises:
        PeerRefusedError: it cannot be read, has several URIs, or a malformed SPIFFE ID.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        uris = _uris(certificate)
        subject = certificate.subject
        is_authority = _is_authority(certificate)
    except _UNREADABLE as exc:
        raise PeerRefusedError("the certificate cannot be read") from exc
    if len(uris) > 1:
        raise PeerRefusedError("the certificate has several URIs")
    name = None
    if uris and uris[0].lower().startswith(_SCHEME):
        name = spiffe_id(uris[0])
        if is_authority:
            raise PeerRefusedError("the certificate with the SPIFFE ID may sign others")
    common_names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return TlsPeer(
        name,
        subject,
        str(common_names[0].value) if len(common_names) == 1 else None,
        certificate.not_valid_after_utc,
    )


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _is_authority(certificate: x509.Certificate) -> bool:
    """Say whether it may sign others, which no workload's may (X.509-SVID, sections 4.1, 4.3)."""
    for extension in certificate.extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                return True
            case x509.KeyUsage() as usage if usage.key_cert_sign or usage.crl_sign:
                return True
            case _:
                pass
    return False
