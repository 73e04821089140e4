"""PostgreSQL away, slow, full or restarted under the service: never a wrong ALLOW, never a hang."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from time import monotonic

import grpc

from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_ALLOW, DECISION_DENY
from tests.fakes.api import all_stored, capability_count, count, refused, stored_decisions
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import PostgresProxy
from tests.fakes.serving import Served, failure, serving

MUTATION_LOCK = 20010
WAITS_FOR_IT = """
SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database
WHERE locktype = 'advisory' AND NOT granted AND d.datname = current_database()
"""
RUNNING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'licet' AND state = 'active'
  AND query LIKE '%%apply_mutations%%'
"""


@contextmanager
def _mutations_blocked(database: Database) -> Iterator[None]:
    with database.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [MUTATION_LOCK])
        yield


def test_a_grant_whose_deadline_passes_at_a_lock_has_granted_nothing(
    served: Served, database: Database
) -> None:
    with _mutations_blocked(database):
        began = monotonic()
        late = refused(
            lambda: served.stub.Grant(
                pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:x"),
                timeout=0.3,
            )
        )
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert monotonic() - began < 2
        # The deadline is PostgreSQL's, too: it does not go on for a caller who has left.
        assert eventually(lambda: count(database, RUNNING) == 0, timeout_seconds=2)
    assert capability_count(database) == 0
    assert served.authorize("agent:a", "read", "doc:x").decision == DECISION_DENY
    served.grant("agent:b", "read", "doc:x")
    assert capability_count(database) == 1
    assert count(database, "SELECT count(*) FROM audit.events WHERE event_type = 'grant'") == 1


def test_a_grant_without_a_deadline_is_bounded_by_the_servers_limit(database: Database) -> None:
    with serving(database, statement_seconds=1) as served, _mutations_blocked(database):
        slow = refused(
            lambda: served.stub.Grant(
                pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:x")
            )
        )
        assert (slow.code, slow.retry) == (grpc.StatusCode.UNAVAILABLE, True)
    assert capability_count(database) == 0


def test_an_exhausted_pool_is_unavailable_in_bounded_time(database: Database) -> None:
    with (
        serving(database, pool_min=1, pool_max=1, pool_acquire_seconds=0.3) as served,
        ThreadPoolExecutor(1) as other,
    ):
        cached = served.grant("agent:cached", "read", "doc:x")
        assert served.authorize("agent:cached", "read", "doc:x").capability_id == cached
        with _mutations_blocked(database):
            blocked = other.submit(served.grant, "agent:a", "read", "doc:x")
            assert eventually(lambda: count(database, WAITS_FOR_IT) == 1)
            began = monotonic()
            exhausted = refused(lambda: served.authorize("agent:a", "read", "doc:x"))
            assert monotonic() - began < 2
            assert (exhausted.code, exhausted.retry) == (grpc.StatusCode.UNAVAILABLE, True)
            # What is in memory needs no connection.
            assert served.authorize("agent:cached", "read", "doc:x").capability_id == cached
        granted = blocked.result(10)
        assert served.authorize("agent:a", "read", "doc:x").capability_id == granted


def test_the_service_recovers_when_all_its_backends_are_killed(
    served: Served, database: Database
) -> None:
    allowed = served.grant("agent:a", "read", "doc:x")
    answered = [served.authorize("agent:a", "read", "doc:x").decision_id]
    for round_number in range(3):
        with database.connect() as admin:
            killed = admin.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        assert killed is not None
        assert killed[0] >= 1
        # From memory at once; the rest as soon as there are new connections.
        answer = served.authorize("agent:a", "read", "doc:x")
        assert answer.capability_id == allowed
        assert eventually(partial(_works, served, f"agent:new-{round_number}"))
        answered.append(answer.decision_id)
    assert all_stored(database, answered)
    stored = stored_decisions(database)
    assert len(stored) == len(set(stored))
    assert capability_count(database) == 4


def test_without_a_database_memory_answers_and_the_rest_is_unavailable(
    fragile: Served, proxy: PostgresProxy, database: Database
) -> None:
    allowed = fragile.grant("agent:a", "read", "doc:x")
    fragile.grant("agent:b", "read", "doc:x")
    answered = [fragile.authorize("agent:a", "read", "doc:x").decision_id]
    proxy.go_down()
    answer = fragile.authorize("agent:a", "read", "doc:x")
    assert (answer.decision, answer.capability_id) == (DECISION_ALLOW, allowed)
    answered.append(answer.decision_id)
    for call in (
        lambda: fragile.authorize("agent:b", "read", "doc:x"),  # holds it, not in memory
        lambda: fragile.authorize("agent:c", "read", "doc:x"),
        lambda: fragile.stub.GetCapability(
            pb.GetCapabilityRequest(capability_id=allowed), timeout=10
        ),
        lambda: fragile.stub.QueryAudit(pb.QueryAuditRequest(), timeout=10),
    ):
        down = refused(call)
        assert (down.code, down.retry) == (grpc.StatusCode.UNAVAILABLE, True)
        assert "postgres" not in down.message.lower()
    proxy.come_back()
    assert eventually(lambda: _answers(fragile, "agent:b"))
    assert all_stored(database, answered)


def test_a_batch_with_one_unknown_principal_is_not_answered_without_a_database(
    fragile: Served, proxy: PostgresProxy
) -> None:
    fragile.grant("agent:a", "read", "doc:x")
    fragile.authorize("agent:a", "read", "doc:x")
    proxy.go_down()
    requests = [
        pb.AuthorizeRequest(principal=principal, action="read", resource="doc:x")
        for principal in ("agent:a", "agent:b")
    ]
    down = refused(
        lambda: fragile.stub.BatchAuthorize(pb.BatchAuthorizeRequest(requests=requests), timeout=10)
    )
    assert down.code is grpc.StatusCode.UNAVAILABLE


def test_a_stalled_database_does_not_hold_calls_beyond_their_deadline(
    proxy: PostgresProxy,
) -> None:
    # The lease outlasts the test: what is in memory needs no database meanwhile.
    few = {"threads": 2, "pool_min": 2, "drain_seconds": 0.2, "lease_seconds": 30}
    with serving(proxy.database, **few) as served:
        cached = served.grant("agent:cached", "read", "doc:x")
        served.authorize("agent:cached", "read", "doc:x")
        proxy.stall()
        try:
            calls = [
                served.stub.Authorize.future(
                    pb.AuthorizeRequest(principal=f"agent:{i}", action="read", resource="doc:x"),
                    timeout=0.3,
                )
                for i in range(4)
            ]
            for call in calls:
                assert refused(call.result).code is grpc.StatusCode.DEADLINE_EXCEEDED
            # Their threads are free again, for what needs no database.
            request = pb.AuthorizeRequest(principal="agent:cached", action="read", resource="doc:x")
            assert served.stub.Authorize(request, timeout=15).capability_id == cached
        finally:
            proxy.resume()
            proxy.cut()


def _works(served: Served, principal: str) -> bool:
    """Whether a read and a change work; what they answer must be right in any case."""
    try:
        assert served.authorize(principal, "read", "doc:x").decision == DECISION_DENY
        served.grant(principal, "read", "doc:x", request_id=principal)
    except grpc.RpcError as error:
        assert failure(error).code is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - some may fail
        return False
    return served.authorize(principal, "read", "doc:x").decision == DECISION_ALLOW


def _answers(served: Served, principal: str) -> bool:
    try:
        return served.authorize(principal, "read", "doc:x").decision == DECISION_ALLOW
    except grpc.RpcError:
        return False
