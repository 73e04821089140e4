"""Who a client with a certificate is: real certificates, one for each rule."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
import trustme
from cryptography import x509

from licet.server.peer import PeerRefusedError, SpiffeId, peer_of, spiffe_id
from tests.fakes.tls import client_pair, from_now, uri

CA = trustme.CA()
GATEWAY = "spiffe://example.org/ns/prod/sa/gateway"


def test_a_spiffe_id_is_the_name_whatever_the_subject_is() -> None:
    expires = from_now(hours=3).replace(microsecond=0)
    pair = client_pair(
        CA, uri(GATEWAY), x509.DNSName("a.example"), subject="CN=alice", expires=expires
    )
    peer = peer_of(pair.certificate)
    assert peer.spiffe_id == SpiffeId("example.org", "/ns/prod/sa/gateway")
    assert str(peer.spiffe_id) == GATEWAY
    assert peer.expires_at == expires


@pytest.mark.parametrize(
    "names",
    [
        (),
        (x509.DNSName("a.example"), x509.IPAddress(IPv4Address("10.0.0.1"))),
        (uri("https://a.example/alice"),),
        # What looks like one and is of another kind is none.
        (x509.DNSName(GATEWAY),),
        (x509.RFC822Name("spiffe://example.org/ns"),),
    ],
)
def test_without_a_spiffe_id_it_is_the_subject(names: tuple[x509.GeneralName, ...]) -> None:
    peer = peer_of(client_pair(CA, *names, subject="CN=alice,OU=ops,O=Example").certificate)
    assert peer.spiffe_id is None
    assert peer.subject == x509.Name.from_rfc4514_string("CN=alice,OU=ops,O=Example")
    assert peer.common_name == "alice"


@pytest.mark.parametrize("subject", ["", "O=Example", "CN=alice,CN=bob"])
def test_a_common_name_is_one(subject: str) -> None:
    assert peer_of(client_pair(CA, subject=subject).certificate).common_name is None


@pytest.mark.parametrize(
    "others", [(uri("spiffe://example.org/b"),), (uri("https://a.example"),), (uri(GATEWAY),)]
)
def test_several_uris_are_refused(others: tuple[x509.GeneralName, ...]) -> None:
    pair = client_pair(CA, uri(GATEWAY), *others, subject="CN=alice")
    with pytest.raises(PeerRefusedError, match="several URIs"):
        peer_of(pair.certificate)
    both = client_pair(CA, uri("https://a.example"), uri("https://b.example"), subject="CN=alice")
    with pytest.raises(PeerRefusedError, match="several URIs"):
        peer_of(both.certificate)


MALFORMED = [
    "spiffe:",
    "spiffe://",
    "spiffe:///path",
    "spiffe://example.org",
    "spiffe://example.org/",
    "spiffe://example.org/a/",
    "spiffe://example.org//a",
    "spiffe://example.org/./a",
    "spiffe://example.org/a/..",
    "spiffe://example.org/a?b",
    "spiffe://example.org/a#b",
    "spiffe://example.org/a%20b",
    "spiffe://example.org:443/a",
    "spiffe://alice@example.org/a",
    "spiffe://Example.org/a",
    "SPIFFE://example.org/a",
    "spiffe://example.org/a\n",
    f"spiffe://{'a' * 256}/a",
    f"spiffe://example.org/{'a' * 2048}",
]


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: text[:40])
def test_a_malformed_spiffe_id_is_refused(text: str) -> None:
    with pytest.raises(PeerRefusedError, match="SPIFFE ID"):
        spiffe_id(text)
    # Also where the subject would be somebody.
    with pytest.raises(PeerRefusedError, match="SPIFFE ID"):
        peer_of(client_pair(CA, uri(text), subject="CN=alice").certificate)


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://example.org/a",
        "spiffe://a_b.c-d.1/A.b_c-d/...",
        f"spiffe://{'a' * 255}/a",
        f"spiffe://example.org/{'a' * 2027}",
    ],
    ids=lambda text: text[:40],
)
def test_a_spiffe_id_at_the_limits_is_taken(text: str) -> None:
    assert str(spiffe_id(text)) == text


def usage(**given: bool) -> x509.KeyUsage:
    kinds = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**(dict.fromkeys(kinds, False) | given))


@pytest.mark.parametrize(
    "extension",
    [
        x509.BasicConstraints(ca=True, path_length=None),
        usage(digital_signature=True, key_cert_sign=True),
        usage(digital_signature=True, crl_sign=True),
    ],
)
def test_what_may_sign_others_is_no_workload(extension: x509.ExtensionType) -> None:
    pair = client_pair(CA, uri(GATEWAY), extensions=[extension])
    with pytest.raises(PeerRefusedError, match="may sign others"):
        peer_of(pair.certificate)
    harmless = [x509.BasicConstraints(ca=False, path_length=None), usage(digital_signature=True)]
    assert peer_of(client_pair(CA, uri(GATEWAY), extensions=harmless).certificate).spiffe_id


def test_what_is_no_certificate_is_refused() -> None:
    for pem in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(PeerRefusedError, match="cannot be read"):
            peer_of(pem)
