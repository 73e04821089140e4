"""Callers known by their certificates, on a real server with TLS; and keys beside them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest
import trustme
from google.protobuf.duration_pb2 import Duration

from licet.domain.api_key import EXPECTED
from licet.domain.caller import Scope
from licet.v1 import authorization_pb2 as az
from licet.v1 import identity_pb2 as pb
from licet.v1 import users_pb2 as up
from tests.fakes.api import count, refused
from tests.fakes.callers import As, calling, make_key
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.serving import Failure, Served, serving
from tests.fakes.tls import (
    Folder,
    Pair,
    channel_credentials,
    client_pair,
    from_now,
    listed,
    server_pair,
    uri,
)
from tests.integration.test_caller_scopes import METHODS, check_scope

CA = trustme.CA()
WHO = pb.GetCallerRequest()
QUESTION = az.AuthorizeRequest(principal="agent:a", action="read", resource="doc:a")
_SECONDS = 30.0


def files_of(folder: Folder, table: bytes) -> dict[str, Path]:
    """Write the files of a server that knows these callers, and return its settings."""
    return folder.settings(server_pair(CA), CA) | {
        "tls_callers_file": folder.write("callers.toml", table)
    }


@pytest.fixture(scope="module")
def served(
    cluster: Cluster, migrated_template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Provide a server that knows one caller with each scope, by the scope's name; and a person."""
    table = b"".join(listed(f"service:{scope}", str(scope), str(scope)) for scope in Scope)
    table += listed("user:person", "person", "read")
    files = files_of(Folder(tmp_path_factory.mktemp("tls")), table)
    with cluster.database(migrated_template) as database, serving(database, **files) as running:
        yield running


def showing(served: Served, pair: Pair | str, *headers: str) -> AbstractContextManager[As]:
    """Provide the services, called with a pair, or with the certificate of a name."""
    shown = client_pair(CA, subject=f"CN={pair}") if isinstance(pair, str) else pair
    return calling(served.address, *headers, tls=channel_credentials(CA, shown))


def who(services: As) -> pb.GetCallerResponse:
    return services.identity.GetCaller(WHO, timeout=10)


def unauthenticated(services: As) -> Failure:
    failed = refused(lambda: who(services))
    assert failed.code is grpc.StatusCode.UNAUTHENTICATED
    return failed


@pytest.fixture(scope="module")
def key(served: Served) -> pb.CreateApiKeyResponse:
    """Provide a key that an admin made."""
    with showing(served, "admin") as admin:
        return make_key(admin, "read", ttl=Duration(seconds=600))


@pytest.mark.parametrize("scope", Scope)
def test_a_certificate_opens_what_its_scopes_do(served: Served, scope: Scope) -> None:
    with showing(served, "admin") as admin:
        stranger = make_key(admin, "admin", ttl=Duration(seconds=600)).key.key_id
    with showing(served, scope) as caller:
        for method in METHODS:
            check_scope(caller, method, scope, stranger)


def test_it_is_said_who_the_certificate_is(served: Served) -> None:
    end = from_now(hours=2).replace(microsecond=0)
    with showing(served, client_pair(CA, subject="CN=read", expires=end)) as caller:
        found = who(caller)
    assert (found.caller, list(found.scopes), found.key_id) == ("service:read", ["read"], "")
    assert found.expires_at.ToSeconds() == end.timestamp()


def test_what_it_does_is_on_record_as_its_own(served: Served) -> None:
    with showing(served, "grant") as caller:
        request = az.GrantRequest(principal="agent:a", actions=["read"], resource="doc:a")
        granted = caller.authorization.Grant(request, timeout=10)
    with showing(served, "authorize") as caller:
        caller.authorization.Authorize(QUESTION, timeout=10)
    assert granted.capability.granted_by == "service:grant"
    query = "SELECT count(*) FROM audit.events WHERE event_type = %s AND actor = %s"
    for kind in ("grant", "decision"):
        name = "service:grant" if kind == "grant" else "service:authorize"
        assert eventually(lambda: count(served.database, query, kind, name) > 0, 10)  # noqa: B023 - at once


def test_one_that_is_not_in_the_table_is_nobody_and_needs_a_key(
    served: Served, key: pb.CreateApiKeyResponse
) -> None:
    with showing(served, "stranger") as caller:
        assert unauthenticated(caller).message == EXPECTED
    with showing(served, "stranger", "Bearer licet_wrong") as caller:
        assert unauthenticated(caller).message == EXPECTED
    with showing(served, "stranger", f"Bearer {key.token}") as caller:
        assert who(caller).key_id == key.key.key_id


@pytest.mark.parametrize("header", ["", "Bearer licet_wrong"])
def test_one_that_is_in_the_table_counts_before_a_key(
    served: Served, key: pb.CreateApiKeyResponse, header: str
) -> None:
    with showing(served, "audit", header or f"Bearer {key.token}") as caller:
        assert who(caller).caller == "service:audit"


def test_one_that_is_not_clear_is_refused_with_a_key_too(
    served: Served, key: pb.CreateApiKeyResponse
) -> None:
    twice = client_pair(CA, uri("spiffe://a.example/a"), uri("spiffe://a.example/b"))
    with showing(served, twice, f"Bearer {key.token}") as caller:
        assert unauthenticated(caller).message == "the certificate has several URIs"


def test_a_key_that_it_makes_does_not_outlive_it(served: Served) -> None:
    with showing(served, "identity") as caller:
        for ttl in (None, Duration(seconds=7200)):
            failed = refused(lambda: make_key(caller, "identity", ttl=ttl))  # noqa: B023 - at once
            assert (failed.code, failed.reason) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "EXPIRY_WIDER",
            )
        assert make_key(caller, "identity", ttl=Duration(seconds=60)).token


def test_keys_alone_will_do_where_no_certificate_is_asked_for(
    database: Database, tmp_path: Path
) -> None:
    files = Folder(tmp_path).settings(server_pair(CA))
    tls = channel_credentials(CA, None)
    with serving(database, **files) as served, calling(served.address, tls=tls) as anybody:
        # On loopback, and nothing says who clients are.
        assert who(anybody).caller == "caller:anonymous"
        made = make_key(anybody, "read")
    files |= {"authentication": "required"}  # type: ignore[dict-item] # settings of any type
    with serving(database, **files) as served:
        with calling(served.address, tls=tls) as caller:
            assert unauthenticated(caller).message == EXPECTED
        with calling(served.address, f"Bearer {made.token}", tls=tls) as caller:
            assert who(caller).key_id == made.key.key_id


def test_without_a_table_a_certificate_is_nobodys(database: Database, tmp_path: Path) -> None:
    files = Folder(tmp_path).settings(server_pair(CA), CA)
    with serving(database, **files) as served, showing(served, "admin") as caller:
        # On loopback, too: who asks for certificates does not take anybody for admin.
        assert unauthenticated(caller).message == EXPECTED


def test_a_changed_table_counts_for_the_calls_of_an_open_connection(
    database: Database, tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    files = files_of(folder, listed("service:door", "door", "read"))
    with (
        serving(database, connection_seconds=3600.0, heartbeat_seconds=0.2, **files) as served,
        showing(served, "door") as caller,
    ):
        request = az.ListCapabilitiesRequest()
        caller.authorization.ListCapabilities(request, timeout=10)
        watch = caller.authorization.WatchChanges(az.WatchChangesRequest(), timeout=60)
        assert next(watch).HasField("heartbeat")
        folder.write("callers.toml", listed("service:gate", "door", "audit"))
        assert eventually(lambda: who(caller).caller == "service:gate", _SECONDS)
        failed = refused(lambda: caller.authorization.ListCapabilities(request, timeout=10))
        assert (failed.code, failed.reason) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "SCOPE_MISSING",
        )
        assert refused(lambda: list(watch)).reason == "SCOPE_MISSING"
        folder.write("callers.toml", listed("service:gate", "other", "audit"))

        def is_nobody() -> bool:
            try:
                return not who(caller).caller
            except grpc.RpcError as exc:
                return exc.code() is grpc.StatusCode.UNAUTHENTICATED

        assert eventually(is_nobody, _SECONDS)


def test_one_that_expires_counts_no_more_on_an_open_connection(
    database: Database, tmp_path: Path
) -> None:
    more = threading.Semaphore(1)

    def questions() -> Iterator[az.StreamAuthorizeRequest]:
        while True:
            more.acquire()
            yield az.StreamAuthorizeRequest(requests=[QUESTION])

    files = files_of(Folder(tmp_path), listed("service:door", "door", "read", "authorize"))
    with serving(database, connection_seconds=3600.0, heartbeat_seconds=0.2, **files) as served:
        brief = client_pair(CA, subject="CN=door", expires=from_now(seconds=5))
        with showing(served, brief) as caller:
            stream = caller.authorization.StreamAuthorize(questions(), timeout=60)
            assert next(stream).responses
            watch = caller.authorization.WatchChanges(az.WatchChangesRequest(), timeout=60)
            assert next(watch).HasField("heartbeat")
            assert who(caller).caller == "service:door"
            # The watch sends all the time, and so finds out when that is.
            ended = refused(lambda: list(watch))
            more.release()
            failures = [ended, unauthenticated(caller), refused(lambda: next(stream))]
            more.release()
    for failed in failures:
        assert failed.code is grpc.StatusCode.UNAUTHENTICATED
        assert failed.message == "the client's certificate has expired"


def test_one_whose_principal_is_suspended_or_disabled_is_nobody(served: Served) -> None:
    with showing(served, "admin") as admin, showing(served, "read") as caller:
        assert who(caller).caller == "service:read"
        suspend = up.SuspendPrincipalRequest(principal="service:read")
        admin.identity.SuspendPrincipal(suspend, timeout=10)
        assert unauthenticated(caller).message == "the caller is suspended or disabled"
        resume = up.ResumePrincipalRequest(principal="service:read")
        admin.identity.ResumePrincipal(resume, timeout=10)
        assert who(caller).caller == "service:read"
    with showing(served, "admin") as admin, showing(served, "person") as caller:
        request = up.CreateUserRequest(
            principal="user:person", email="p@example.org", roles=["auditor"]
        )
        admin.identity.CreateUser(request, timeout=10)
        # Its scopes are those of the table, which is the operator's.
        assert list(who(caller).scopes) == ["read"]
        disable = up.DisableUserRequest(principal="user:person")
        admin.identity.DisableUser(disable, timeout=10)
        assert unauthenticated(caller).message == "the caller is suspended or disabled"
        enable = up.EnableUserRequest(principal="user:person")
        admin.identity.EnableUser(enable, timeout=10)
        assert who(caller).caller == "user:person"
