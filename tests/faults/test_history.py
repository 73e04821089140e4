"""History that goes backwards: nobody is told OK for what may be lost, and nothing is changed on.

A restore is played by what it leaves behind: changes that are gone, a database that is another one,
or a copy of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from uuid import UUID, uuid4

import grpc
import pytest

from licet.domain.errors import UnavailableError
from licet.storage import epoch
from licet.storage.replicas import EarlierSessions, PostgresReplicaSession
from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_ALLOW, DECISION_DENY
from tests.fakes.api import capability_count, count, refused, rows
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.serving import Failure, Served, serving

MUTATION_LOCK = 20010
WAITS_FOR_IT = """
SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database
WHERE locktype = 'advisory' AND NOT granted AND d.datname = current_database()
"""
LOST = {
    "the database is another one": """
        CREATE OR REPLACE FUNCTION licet.this_database() RETURNS text LANGUAGE sql STABLE
        AS $$ SELECT 'another' $$""",
    "a replica knows of more": "DELETE FROM licet.changes WHERE revision > 1",
}
NOBODY = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"
SILENT = """
INSERT INTO licet.replicas (incarnation, applied, lease_seconds) VALUES (gen_random_uuid(), 0, 25)
"""
"""A replica that acknowledges nothing, and is not fenced before this test is over."""

_Mutation = Callable[[], object]


@pytest.fixture
def two(database: Database) -> Iterator[tuple[Served, Served]]:
    with serving(database) as one, serving(database) as other:
        yield one, other


def execute(database: Database, statement: str) -> None:
    with database.connect() as connection:
        connection.execute(statement.encode())


def grant(served: Served, parent_capability_id: str = "", request_id: str = "") -> pb.GrantResponse:
    request = pb.GrantRequest(
        principal="agent:a",
        actions=["read"],
        resource="doc:x",
        parent_capability_id=parent_capability_id,
        request_id=request_id,
    )
    return served.stub.Grant(request, timeout=20)


def mutations(served: Served, parent_id: str) -> list[_Mutation]:
    return [
        lambda: grant(served),
        lambda: grant(served, request_id="key-1"),
        lambda: grant(served, parent_capability_id=parent_id, request_id="key-2"),
        lambda: served.stub.Revoke(pb.RevokeRequest(capability_id=parent_id), timeout=20),
        lambda: served.stub.Revoke(pb.RevokeRequest(capability_id=NOBODY), timeout=20),
    ]


def is_refused(call: _Mutation) -> bool:
    failure = refused(call)
    return is_unconfirmed(failure)


def is_unconfirmed(failure: Failure) -> bool:
    return (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "HISTORY_UNCONFIRMED",
    )


def present(database: Database) -> UUID:
    return epoch.show(database.url).epoch


def test_in_a_new_epoch_everything_is_refused_by_all_until_it_is_confirmed(
    database: Database, two: tuple[Served, Served]
) -> None:
    parent = two[0].grant("agent:a", "read", "doc:x", delegation_depth=1, request_id="key-2")
    two[0].grant("agent:a", "read", "doc:x", parent_capability_id=parent, request_id="key-3")
    before = capability_count(database)
    begun = epoch.begin(database.url)
    for served in two:
        assert all(is_refused(call) for call in mutations(served, parent))
        # What was answered before is not told again either.
        assert is_refused(partial(grant, served, parent, "key-3"))
        assert served.authorize("agent:a", "read", "doc:x").decision == DECISION_ALLOW
    assert capability_count(database) == before
    assert not epoch.confirm(database.url, uuid4())
    assert is_refused(lambda: grant(two[0]))
    assert epoch.confirm(database.url, begun)
    two[0].stub.Revoke(pb.RevokeRequest(capability_id=parent), timeout=20)
    for served in two:
        assert served.authorize("agent:a", "read", "doc:x").decision == DECISION_DENY
    assert count(database, "SELECT count(*) FROM licet.replicas") == 2


@pytest.mark.parametrize("statement", LOST.values(), ids=LOST)
def test_a_history_that_went_backwards_is_noticed_and_stays_so_until_it_is_confirmed(
    database: Database, two: tuple[Served, Served], statement: str
) -> None:
    first = two[0].grant("agent:a", "read", "doc:x")
    two[1].stub.Revoke(pb.RevokeRequest(capability_id=first), timeout=20)
    before = present(database)
    execute(database, statement)
    # By a replica that renews, or by the first mutation, whichever is first.
    assert eventually(lambda: present(database) != before)
    for served in two:
        assert is_refused(partial(grant, served))
    # A server that comes later knows nothing of all that, and refuses, too.
    with serving(database) as third:
        assert is_refused(lambda: grant(third))
        assert epoch.confirm(database.url, present(database))
        grant(third)
        for served in (*two, third):
            assert served.authorize("agent:a", "read", "doc:x").decision == DECISION_ALLOW


def test_the_mutation_itself_finds_the_database_another_one(
    database: Database, served: Served
) -> None:
    grant(served)
    before = present(database)
    # As long as this lock is held, no replica can say so.
    with database.connect() as other, ThreadPoolExecutor(1) as caller:
        other.execute("SELECT pg_advisory_lock(%s)", [MUTATION_LOCK])
        other.execute("UPDATE licet.confirmed SET database = 'another'")
        call = caller.submit(is_refused, lambda: grant(served))
        assert eventually(lambda: count(database, WAITS_FOR_IT) >= 1)
        assert present(database) == before
        other.execute("SELECT pg_advisory_unlock(%s)", [MUTATION_LOCK])
        assert call.result(20)
    assert present(database) != before
    assert capability_count(database) == 1


def test_a_restored_copy_is_another_database(cluster: Cluster, database: Database) -> None:
    with serving(database) as served:
        grant(served)
    with cluster.database(database, same_log=True) as copy, serving(copy) as restored:
        assert is_refused(lambda: grant(restored))
        assert restored.authorize("agent:a", "read", "doc:x").decision == DECISION_ALLOW
        assert epoch.confirm(copy.url, present(copy))
        grant(restored)


@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "statement",
    ["SELECT licet.begin_epoch()", LOST["the database is another one"]],
    ids=["new-epoch", "other-database"],
)
def test_a_mutation_in_flight_across_histories_is_not_answered_with_ok(
    database: Database, served: Served, committed: bool, statement: str
) -> None:
    grant(served)
    with database.connect() as other, ThreadPoolExecutor(1) as caller:
        if committed:
            execute(database, SILENT)
            call = caller.submit(refused, lambda: grant(served))
            assert eventually(lambda: capability_count(database) == 2)
            other.execute(statement.encode())
        else:
            other.execute("SELECT pg_advisory_lock(%s)", [MUTATION_LOCK])
            call = caller.submit(refused, lambda: grant(served))
            assert eventually(lambda: count(database, WAITS_FOR_IT) >= 1)
            other.execute(statement.encode())
            other.execute("SELECT pg_advisory_unlock(%s)", [MUTATION_LOCK])
        failure = call.result(20)
    if committed:
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "OUTCOME_UNKNOWN",
        )
    else:
        assert is_unconfirmed(failure)
    assert capability_count(database) == 1 + committed


@pytest.mark.parametrize("executed", [False, True], ids=["lost", "executed"])
def test_a_lost_answer_that_is_asked_for_again_in_a_new_epoch_stays_unknown(
    fragile: Served, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    grant(fragile)
    fault = proxy.arm(
        Fault(
            b'"kind": "grant"',
            forward=executed,
            then=lambda: execute(database, "SELECT licet.begin_epoch()"),
        )
    )
    unknown = refused(lambda: grant(fragile, request_id="key-1"))
    assert fault.happened()
    assert unknown.reason == "OUTCOME_UNKNOWN"
    assert epoch.confirm(database.url, present(database))
    grant(fragile, request_id="key-1")
    assert capability_count(database) == 2


def test_nothing_is_acknowledged_in_another_history(database: Database) -> None:
    earlier = EarlierSessions()
    with closing(session(database, earlier)) as replica:
        incarnation = uuid4()
        registered = replica.register(incarnation)
        assert replica.renew(incarnation, 0) == registered.epoch
        begun = epoch.begin(database.url)
        assert replica.changes_after(0) == []
        assert replica.renew(incarnation, 0) == begun
        assert rows(database, "SELECT beat, applied FROM licet.replicas") == [(1, 0)]
    # Nor by the next session of the same process, nor what the database has not.
    with closing(session(database, earlier)) as replica:
        assert replica.renew(incarnation, 0) == begun
        again = uuid4()
        assert replica.register(again).epoch == begun
        assert replica.renew(again, 7) is None
        assert rows(database, "SELECT beat, applied FROM licet.replicas") == [(0, 0)]


def test_what_a_registration_left_behind_is_taken_back_by_the_next_one(
    proxy: PostgresProxy, database: Database
) -> None:
    earlier = EarlierSessions()
    proxy.arm(Fault(b"COMMIT"))
    with (
        closing(session(proxy.database, earlier)) as replica,
        pytest.raises(UnavailableError, match="cannot be reached"),
    ):
        replica.register(uuid4())
    assert count(database, "SELECT count(*) FROM licet.replicas") == 1
    with closing(session(proxy.database, earlier)) as replica:
        incarnation = uuid4()
        replica.register(incarnation)
        assert rows(database, "SELECT incarnation FROM licet.replicas") == [(incarnation,)]


def session(database: Database, earlier: EarlierSessions) -> PostgresReplicaSession:
    return PostgresReplicaSession(database.url, "test", 1.0, lambda: 0.0, lambda *_: None, earlier)
