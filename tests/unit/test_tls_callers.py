"""The table of callers with a certificate: what it says, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from licet.domain.caller import EVERYTHING, Identity, Scope
from licet.domain.instant import from_datetime
from licet.domain.names import Caller
from licet.server.followed import FileRefusedError
from licet.server.peer import PeerRefusedError
from licet.server.tls_callers import TlsCallers, parse_callers
from tests.fakes.tls import Pair, client_pair, from_now, uri

CA = trustme.CA()
PATH = Path("/etc/licet/callers.toml")
TABLE = """
[[caller]]
name = "service:gateway"
spiffe_id = "spiffe://example.org/ns/prod/sa/gateway"
scopes = ["authorize", "read"]

[[caller]]
name = "user:alice"
subject = "CN=alice,OU=ops,O=Example"
scopes = ["admin"]

[[caller]]
name = "user:bob"
common_name = "bob"
scopes = ["grant"]
"""


def table(text: str) -> TlsCallers:
    return parse_callers(PATH, (text.encode(),))


def ask(callers: TlsCallers, pair: Pair, now: float | None = None) -> Identity | None:
    return callers.caller_of({"x509_pem_cert": [pair.certificate]}, now)


def test_a_client_is_who_the_table_says() -> None:
    callers = table(TABLE)
    gateway = client_pair(CA, uri("spiffe://example.org/ns/prod/sa/gateway"))
    alice = client_pair(CA, subject="CN=alice,OU=ops,O=Example")
    bob = client_pair(CA, subject="CN=bob,O=Elsewhere")
    for _ in range(2):  # the second time from memory
        found = [ask(callers, pair) for pair in (gateway, alice, bob)]
        assert [(who.caller, " ".join(sorted(who.scopes))) for who in found if who] == [
            ("service:gateway", "authorize read"),
            ("user:alice", "admin"),
            ("user:bob", "grant"),
        ]


@pytest.mark.parametrize(
    ("spiffe", "subject"),
    [
        ("spiffe://example.org/ns/prod/sa/other", ""),
        # Another trust domain, signed by the same CA.
        ("spiffe://example.com/ns/prod/sa/gateway", ""),
        # Who has a SPIFFE ID is not its subject as well.
        ("spiffe://example.org/ns/prod/sa/other", "CN=bob"),
        ("", "CN=alice"),
        ("", "CN=alice,OU=ops,O=Example,C=CH"),
        ("", "CN=Bob"),
        ("", ""),
    ],
)
def test_nobody_else_is_anybody(spiffe: str, subject: str) -> None:
    names = [uri(spiffe)] if spiffe else []
    assert ask(table(TABLE), client_pair(CA, *names, subject=subject)) is None


def test_a_connection_without_a_certificate_is_nobody() -> None:
    callers = table(TABLE)
    assert callers.caller_of({}) is None
    assert callers.caller_of({"x509_pem_cert": []}) is None
    assert table("").callers == {}


def test_an_expired_certificate_does_not_count_any_more() -> None:
    callers = table(TABLE)
    end = from_now(hours=1).replace(microsecond=0)
    pair = client_pair(CA, subject="CN=bob", expires=end)
    assert ask(callers, pair, end.timestamp() - 0.001) is not None
    for _ in range(2):
        with pytest.raises(PeerRefusedError, match="has expired"):
            ask(callers, pair, end.timestamp())


def test_what_is_ambiguous_is_refused_each_time() -> None:
    callers = table(TABLE)
    pair = client_pair(CA, uri("spiffe://example.org/a"), uri("spiffe://example.org/b"))
    for _ in range(2):
        with pytest.raises(PeerRefusedError, match="several URIs"):
            ask(callers, pair)


def test_what_is_remembered_has_a_bound() -> None:
    callers = table(TABLE)
    pair = client_pair(CA, subject="CN=bob")
    for number in range(2100):
        # Bytes after the certificate make it another one to remember.
        ask(callers, Pair(pair.certificate + b"\n" * number, pair.key))
        assert len(callers._remembered) <= 1024  # noqa: SLF001 - nothing else shows it
    assert ask(callers, pair) is not None


def test_every_scope_may_be_given() -> None:
    callers = table(TABLE.replace('["admin"]', str([str(scope) for scope in Scope])))
    end = from_now(hours=1).replace(microsecond=0)
    found = ask(callers, client_pair(CA, subject="CN=alice,OU=ops,O=Example", expires=end))
    assert found == Identity.of(Caller("user:alice"), EVERYTHING, expires_at=from_datetime(end))


def test_an_admin_in_the_table_may_do_everything() -> None:
    found = ask(table(TABLE), client_pair(CA, subject="CN=alice,OU=ops,O=Example"))
    assert found is not None
    assert all(found.may(scope) for scope in Scope)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("caller = 1", r"\[\[caller\]\] and nothing else"),
        ("callers = []", r"\[\[caller\]\] and nothing else"),
        ("[[caller]", "callers.toml"),
        ("caller = [1]", "caller 1: it must be a table"),
        (TABLE.replace("common_name", "common"), "caller 3: it has `name`, `scopes`, and one of"),
        (TABLE.replace('common_name = "bob"', ""), "caller 3: it has"),
        (TABLE + 'subject = "CN=bob"', "caller 3: it has"),
        (TABLE.replace('"bob"', "1"), "caller 3: `name` and `common_name` must be texts"),
        (TABLE.replace('"bob"', '""'), "caller 3: `name` and `common_name` must be texts"),
        (TABLE.replace("user:bob", "bob"), "caller 3: name"),
        (TABLE.replace('"grant"', '"fly"'), "caller 3: `scopes` must be a list of some of"),
        (TABLE.replace('"grant"', '["grant"]'), "caller 3: `scopes` must be a list of some of"),
        (TABLE.replace('["grant"]', "[]"), "caller 3: `scopes` must be a list of some of"),
        (TABLE.replace('["grant"]', '"admin"'), "caller 3: `scopes` must be a list"),
        (TABLE.replace("user:bob", "key:0123456789abcdef"), "caller 3: name.*licet's own"),
        (TABLE.replace("user:bob", "caller:anonymous"), "caller 3: name.*licet's own"),
        (TABLE.replace("user:bob", "service:licet"), "caller 3: name.*licet's own"),
        (TABLE.replace("CN=alice,OU=ops", "alice"), "caller 2: "),
        (TABLE.replace("example.org/ns", "example.org//ns"), "caller 1: the SPIFFE ID"),
        (TABLE + TABLE, "caller 4: it is there already, as service:gateway"),
    ],
)
def test_a_table_that_is_not_clear_is_refused(text: str, why: str) -> None:
    with pytest.raises(FileRefusedError, match=why) as refused:
        table(text)
    assert str(refused.value).startswith(f"LICET_TLS_CALLERS_FILE: {PATH}: ")


def test_a_table_that_is_no_text_is_refused() -> None:
    with pytest.raises(FileRefusedError, match=r"callers\.toml"):
        parse_callers(PATH, (b"\xff",))
