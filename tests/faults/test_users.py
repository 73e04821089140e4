"""Users and suspensions whose changes are interrupted, and while the database is away."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from licet.v1 import decision_pb2
from licet.v1 import identity_pb2 as pb
from licet.v1 import users_pb2 as up
from tests.fakes.api import refused, rows
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.serving import Served, failure, serving
from tests.integration.test_metrics import scraped

WHO = pb.GetCallerRequest()
SUSPENDED = decision_pb2.REASON_PRINCIPAL_SUSPENDED
BOB = up.CreateUserRequest(principal="user:bob", email="bob@example.org", roles=["user"])
COUNTS = """
SELECT (SELECT max(revision) FROM licet.changes),
       (SELECT count(*) FROM audit.events WHERE event_type ~ '^(user|principal)')
"""

# Lost before the server saw it, or executed with the answer lost.
both = pytest.mark.parametrize("executed", [False, True], ids=["lost", "executed"])


@pytest.fixture
def admin(fragile: Served) -> Iterator[As]:
    """Provide the services as the admin calls them."""
    with calling(fragile.address) as services:
        yield services


@both
def test_changes_whose_answers_are_lost_hold_once_when_they_return(
    fragile: Served, admin: As, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    """A user is made and disabled, a principal suspended and resumed."""
    fault = proxy.arm(Fault(b'"user.created"', forward=executed))
    made = admin.identity.CreateUser(BOB, timeout=10)
    assert fault.happened()
    assert made.user.email == "bob@example.org"
    token = make_key(admin, "authorize", principal="user:bob").token
    with holding(fragile.address, token) as bob:
        bob.identity.GetCaller(WHO, timeout=10)
        fault = proxy.arm(Fault(b'"user.disabled"', forward=executed))
        request = up.DisableUserRequest(principal="user:bob")
        disabled = admin.identity.DisableUser(request, timeout=10)
        assert fault.happened()
        assert not disabled.already_disabled
        failed = refused(lambda: bob.identity.GetCaller(WHO, timeout=10))
        assert failed.code is grpc.StatusCode.UNAUTHENTICATED
    capability = fragile.grant("agent:a", "read", "doc:a")
    assert fragile.authorize("agent:a", "read", "doc:a").capability_id == capability
    fault = proxy.arm(Fault(b'"principal.suspended"', forward=executed))
    suspend = up.SuspendPrincipalRequest(principal="agent:a")
    suspended = admin.identity.SuspendPrincipal(suspend, timeout=10)
    assert fault.happened()
    assert not suspended.already_suspended
    assert fragile.authorize("agent:a", "read", "doc:a").reason == SUSPENDED
    fault = proxy.arm(Fault(b'"principal.resumed"', forward=executed))
    resume = up.ResumePrincipalRequest(principal="agent:a")
    resumed = admin.identity.ResumePrincipal(resume, timeout=10)
    assert fault.happened()
    assert fragile.authorize("agent:a", "read", "doc:a").capability_id == capability
    assert rows(database, COUNTS) == [(resumed.revision, 4)]
    assert resumed.revision == 6


def test_who_was_suspended_while_the_replica_slept_is_never_allowed_again(
    fragile: Served, proxy: PostgresProxy, database: Database
) -> None:
    """The suspension is made elsewhere; this replica is shut out, and comes back."""
    fragile.grant("agent:a", "read", "doc:a")
    assert fragile.authorize("agent:a", "read", "doc:a").decision == decision_pb2.DECISION_ALLOW
    proxy.go_down()
    with database.connect() as connection:
        connection.execute(
            "SELECT licet.make_admin_change(jsonb_build_object('kind', 'principal.suspended',"
            " 'principal', 'agent:a', 'request_id', 'r', 'digest', repeat('00', 32), 'actor',"
            " 'user:a', 'trace_id', '', 'reason', '', 'facts', '{}'::jsonb))"
        )

    def asked() -> int | grpc.StatusCode:
        try:
            return fragile.authorize("agent:a", "read", "doc:a").reason
        except grpc.RpcError as exc:
            return failure(exc).code

    # What whoever suspends does before it returns: it waits for the lease, then shuts out.
    assert eventually(lambda: asked() is grpc.StatusCode.UNAVAILABLE)
    with database.connect() as connection:
        connection.execute("DELETE FROM licet.replicas")
    proxy.come_back()
    seen: set[int | grpc.StatusCode] = set()

    def is_suspended() -> bool:
        seen.add(asked())
        return SUSPENDED in seen

    assert eventually(is_suspended)
    assert seen <= {grpc.StatusCode.UNAVAILABLE, SUSPENDED}


def test_without_a_lease_the_database_says_that_it_is_suspended(database: Database) -> None:
    """Nothing in memory counts then, and each question is a read."""
    with serving(database, metrics_listen="127.0.0.1:0") as served:
        served.grant("agent:a", "read", "doc:a")
        with calling(served.address) as admin:
            request = up.SuspendPrincipalRequest(principal="agent:a")
            admin.identity.SuspendPrincipal(request, timeout=10)
        with database.connect() as connection, connection.transaction():
            # The row that this replica renews: its lease runs out, and reads go on.
            connection.execute("SELECT FROM licet.replicas FOR UPDATE")
            assert eventually(lambda: scraped(served)["licet_lease_remaining_seconds"] <= 0)
            before = scraped(served)["licet_set_reads_total"]
            for _ in range(3):
                assert served.authorize("agent:a", "read", "doc:a").reason == SUSPENDED
            assert scraped(served)["licet_set_reads_total"] == before + 3
