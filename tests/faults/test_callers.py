"""Who calls, while the database is away: known under the lease, and nobody after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest

from licet.v1 import authorization_pb2 as az
from licet.v1 import identity_pb2 as pb
from tests.fakes.api import count, refused, rows
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.serving import Served, failure

WHO = pb.GetCallerRequest()
QUESTION = az.AuthorizeRequest(principal="agent:a", action="read", resource="doc:a")

# Lost before the server saw it, or executed with the answer lost.
both = pytest.mark.parametrize("executed", [False, True], ids=["lost", "executed"])


@pytest.fixture
def admin(fragile: Served) -> Iterator[As]:
    """Provide the services as the admin calls them."""
    with calling(fragile.address) as services:
        yield services


def code(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as exc:
        return failure(exc).code
    return grpc.StatusCode.OK


def test_without_a_database_nobody_is_known_when_the_lease_is_over(
    fragile: Served, admin: As, proxy: PostgresProxy
) -> None:
    made = make_key(admin, "authorize", "read")
    with holding(fragile.address, made.token) as caller:

        def who() -> grpc.StatusCode:
            return code(lambda: caller.identity.GetCaller(WHO, timeout=10))

        assert who() is grpc.StatusCode.OK
        proxy.go_down()
        # Never UNAUTHENTICATED: that would tell the caller that the key is no good.
        seen = {grpc.StatusCode.OK}

        def is_unknown() -> bool:
            seen.add(who())
            return grpc.StatusCode.UNAVAILABLE in seen

        assert eventually(is_unknown)
        assert seen == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert who() is grpc.StatusCode.UNAVAILABLE
        unknown = refused(lambda: caller.authorization.Authorize(QUESTION, timeout=10))
        assert (unknown.code, unknown.retry) == (grpc.StatusCode.UNAVAILABLE, True)
        proxy.come_back()
        assert eventually(lambda: who() is grpc.StatusCode.OK)


def test_a_key_that_was_revoked_meanwhile_is_not_known_again(
    fragile: Served, admin: As, proxy: PostgresProxy, database: Database
) -> None:
    """The replica sleeps through the revocation, in which it is shut out."""
    made = make_key(admin, "read")
    with holding(fragile.address, made.token) as caller:
        caller.identity.GetCaller(WHO, timeout=10)
        proxy.go_down()
        with database.connect() as connection:
            connection.execute(
                "SELECT licet.make_admin_change(jsonb_build_object('kind', 'key.revoked', 'id',"
                " %s::text, 'request_id', 'r', 'digest', repeat('00', 32), 'actor', 'user:a',"
                " 'trace_id', '', 'reason', '', 'facts', '{}'::jsonb))",
                [made.key.key_id],
            )
        # What the revoker does before it returns: it waits for the lease, then shuts out.
        assert eventually(
            lambda: (
                code(lambda: caller.identity.GetCaller(WHO, timeout=10))
                is grpc.StatusCode.UNAVAILABLE
            )
        )
        with database.connect() as connection:
            connection.execute("DELETE FROM licet.replicas")
        proxy.come_back()
        seen = set()

        def is_refused() -> bool:
            seen.add(code(lambda: caller.identity.GetCaller(WHO, timeout=10)))
            return grpc.StatusCode.UNAUTHENTICATED in seen

        assert eventually(is_refused)
        assert seen <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED}


@both
def test_a_key_whose_answer_is_lost_is_made_exactly_once(
    fragile: Served, admin: As, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    fault = proxy.arm(Fault(b'"key.created"', forward=executed))
    made = make_key(admin, "read")
    assert fault.happened()
    assert rows(database, "SELECT id FROM licet.api_keys") == [(made.key.key_id,)]
    created = "SELECT count(*) FROM audit.events WHERE event_type = 'key.created'"
    assert count(database, created) == 1
    with holding(fragile.address, made.token) as caller:
        assert caller.identity.GetCaller(WHO, timeout=10).key_id == made.key.key_id


@both
def test_a_revocation_whose_answer_is_lost_holds_when_it_returns(
    fragile: Served, admin: As, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    made = make_key(admin, "read")
    with holding(fragile.address, made.token) as caller:
        caller.identity.GetCaller(WHO, timeout=10)
        fault = proxy.arm(Fault(b'"key.revoked"', forward=executed))
        request = pb.RevokeApiKeyRequest(key_id=made.key.key_id)
        revoked = admin.identity.RevokeApiKey(request, timeout=10)
        assert fault.happened()
        assert not revoked.already_ended
        assert (
            code(lambda: caller.identity.GetCaller(WHO, timeout=10))
            is grpc.StatusCode.UNAUTHENTICATED
        )
    (counts,) = rows(
        database,
        "SELECT (SELECT max(revision) FROM licet.changes),"
        " (SELECT count(*) FROM audit.events WHERE event_type = 'key.revoked')",
    )
    assert counts == (revoked.revision, 1)
