"""Misses over gRPC and on a real database: who reads them, and what happens when that fails."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import grpc
import pytest

from licet.app.authorize import Authorize
from licet.app.ports import Deadline
from licet.domain.capability_set import CapabilitySet
from licet.domain.errors import UnavailableError
from licet.domain.names import Action, Principal, Resource
from licet.replica import reading_ahead
from licet.replica.clock import SystemClock
from licet.storage import pool
from licet.storage.held import LITTLE, LittleHeld, PostgresHeld
from licet.storage.pool import Kept, PoolLimits
from licet.v1 import authorization_pb2 as pb
from licet.v1 import identity_pb2
from tests.fakes.api import all_stored, count
from tests.fakes.callers import calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving

PATIENT = Deadline(lambda: 10.0)
AHEAD, POOL, GRPC = "licet-ahead", "licet-rpc", ""
READ = Action("read")

_GRANTS: LiteralString = """
INSERT INTO licet.capabilities (id, principal, actions, resource, granted_by, granted_at,
  expires_at, granted_revision, granted_event_id, delegation_depth,
  ended_revision, ended_event_id, ended_at, ended_by, end_reason, end_cause)
SELECT gen_random_uuid(), %(principal)s, '{read}', 'doc:' || n, 'caller:1', now(),
  CASE WHEN %(kind)s = 'expired' THEN now() - interval '1 day' ELSE 'infinity' END, 0,
  gen_random_uuid(), 0, e.revision, e.id, e.at, e.by, e.why, e.cause
FROM generate_series(1, %(count)s) AS n
LEFT JOIN LATERAL (SELECT 0 AS revision, gen_random_uuid() AS id, now() AS at, 'caller:1' AS by,
  '' AS why, 'REVOKED' AS cause WHERE %(kind)s = 'ended') AS e ON true
"""
_KILL: LiteralString = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%%one.principal%%'
"""
"""Ends the connections on which capability sets were read last."""


def _give(database: Database, principal: str, kind: str, count: int) -> None:
    with database.connect() as admin:
        admin.execute("SET session_replication_role = replica")  # the rules are not the subject
        admin.execute(_GRANTS, {"principal": principal, "kind": kind, "count": count})


@contextmanager
def _opened(database: Database, **limits: Any) -> Iterator[pool.Database]:  # noqa: ANN401 - any limit
    opened = pool.Database(database.url, PoolLimits(**limits))
    opened.open(10.0)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def deciding(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note on which threads a decision is tried."""
    deferred, tried = Authorize.deferred, list[str]()

    def noting(*given: Any) -> None:  # noqa: ANN401 - as the method
        name = threading.current_thread().name
        tried.append(next((known for known in (AHEAD, POOL) if name.startswith(known)), GRPC))
        deferred(*given)

    monkeypatch.setattr(Authorize, "deferred", noting)
    return tried


def _ids(held: CapabilitySet) -> set[str]:
    found = (held.covering(Resource(f"doc:{number}")) for number in range(1, LITTLE + 2))
    return {capability.id for covering in found for capability in covering}


@pytest.mark.parametrize("kind", ["living", "expired", "ended"])
def test_those_who_hold_little_are_read_whole_and_others_not_at_all(
    database: Database, kind: str
) -> None:
    little, much, none = (Principal(f"agent:{name}") for name in ("little", "much", "none"))
    _give(database, little, kind, LITTLE)
    _give(database, much, kind, LITTLE + 1)
    with _opened(database) as opened:
        everything = PostgresHeld(opened, SystemClock())([little, much, none], PATIENT)
        read = LittleHeld(opened, SystemClock())
        read([little], PATIENT)
        # With the cursor that was kept, and the one before.
        for found in [read([little, much, none], PATIENT) for _ in range(2)]:
            assert found.keys() == {little, none}
            for principal, held in found.items():
                assert _ids(held) == _ids(everything[principal])
                assert (held.revision, held.size) == (
                    everything[principal].revision,
                    everything[principal].size,
                )
            assert found[little].size == LITTLE
            living = found[little].exact(READ, Resource("doc:1")) is not None
            assert living == (kind == "living")
        read.rest()


def test_a_connection_is_kept_for_a_while_and_given_back_for_good(database: Database) -> None:
    now = 0.0
    with _opened(database, min_size=1, max_size=1, acquire_seconds=0.2) as opened:
        kept = Kept(opened, lambda: now)

        def backend() -> int:
            with kept.cursor(PATIENT) as cursor:
                (found,) = cursor.execute("SELECT pg_backend_pid()").fetchone() or (0,)
                return int(found)

        def others() -> bool:
            try:
                with opened.connection(PATIENT) as connection:
                    connection.execute("SELECT 1")
            except UnavailableError:
                return False
            return True

        first = backend()
        assert backend() == first
        assert not others()
        kept.give_back()
        assert others()
        # What fails is not kept: neither the connection nor what it was told.
        with pytest.raises(ZeroDivisionError), kept.cursor(PATIENT):
            raise ZeroDivisionError
        assert others()
        backend()
        now = pool.KEPT_SECONDS
        assert backend() == first  # of one connection, the same again
        kept.give_back()
        assert others()


def test_a_small_pool_is_shared_with_whoever_waits(database: Database) -> None:
    """However many misses there are: between two reads the others have their turn."""
    with _opened(database, min_size=1, max_size=1) as opened:
        read, done = LittleHeld(opened, SystemClock()), threading.Event()

        def other() -> None:
            with opened.connection(PATIENT) as connection:
                connection.execute("SELECT 1")
            done.set()

        read([Principal("agent:a")], PATIENT)
        waits = threading.Thread(target=other, daemon=True)
        waits.start()
        reads = 0
        while not done.is_set():
            read([Principal("agent:a")], PATIENT)
            reads += 1
            assert reads < 10_000
        waits.join(10.0)
        read.rest()


def test_a_connection_that_was_lost_fails_once(database: Database) -> None:
    with _opened(database) as opened:
        kept = Kept(opened, lambda: 0.0)
        with kept.cursor(PATIENT) as cursor:
            (pid,) = cursor.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        with database.connect() as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        with pytest.raises(UnavailableError), kept.cursor(PATIENT) as cursor:
            cursor.execute("SELECT 1")
        with kept.cursor(PATIENT) as cursor:
            assert cursor.execute("SELECT 1").fetchone() == (1,)
        kept.give_back()


def test_who_holds_much_is_read_by_a_thread_for_whom_nobody_waits(
    database: Database, deciding: list[str]
) -> None:
    _give(database, "agent:little", "living", LITTLE)
    _give(database, "agent:much", "living", LITTLE + 1)
    with serving(database, serving="auto") as served:
        for principal, threads in (
            ("agent:little", [GRPC, AHEAD]),
            ("agent:much", [GRPC, AHEAD, POOL]),
        ):
            assert served.authorize(principal, "read", "doc:1").capability_id
            assert deciding == threads
            deciding.clear()
            assert served.authorize(principal, "read", "doc:1").capability_id
            assert deciding == [GRPC]
            deciding.clear()


def test_a_connection_that_was_lost_is_not_the_fault_of_those_who_miss(
    database: Database, deciding: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has asked whether it still works; who finds that it does not reads for himself."""
    monkeypatch.setattr(pool, "KEPT_SECONDS", 60.0)
    monkeypatch.setattr(reading_ahead, "_REST_SECONDS", 60.0)
    with serving(database, serving="auto", lease_seconds=10) as served:
        served.grant("agent:b", "read", "doc:x")
        served.authorize("agent:a", "read", "doc:x")
        with database.connect() as admin:
            (killed,) = admin.execute(_KILL).fetchone() or (0,)
        assert killed
        deciding.clear()
        assert served.authorize("agent:b", "read", "doc:x").capability_id
        assert deciding == [GRPC, AHEAD, POOL]
        deciding.clear()
        served.authorize("agent:c", "read", "doc:x")
        assert deciding == [GRPC, AHEAD]


def test_a_miss_that_was_answered_leaves_nothing_of_its_call(database: Database) -> None:
    """Else a connection would be short of streams until the garbage is collected."""
    with serving(database, serving="auto", max_connection_calls=4) as served:
        gc.collect()
        gc.disable()
        try:
            ids = [
                served.authorize(f"agent:{number}", "read", "doc:x").decision_id
                for number in range(20)
            ]
        finally:
            gc.enable()
        assert eventually(lambda: served.licet.server.decisions.under_way == 0)
    assert all_stored(database, ids)


def test_a_read_that_waits_for_others_holds_nobody_up(database: Database) -> None:
    """Those who waited with it read for themselves, and those who come meanwhile do so at once."""
    with serving(database, serving="auto", threads=4) as served:
        served.grant("agent:a", "read", "doc:x")
        served.authorize("agent:a", "read", "doc:x")
        with database.connect() as other, other.transaction():
            other.execute("LOCK TABLE licet.capabilities")
            waiting = [_asking(served, f"agent:{number}") for number in range(3)]
            assert eventually(lambda: served.licet.server.decisions.under_way == 3)
            for _ in range(5):
                assert served.authorize("agent:a", "read", "doc:x").capability_id
            assert eventually(lambda: _blocked(database) == 3)
        answers = [call.result(10.0) for call in waiting]
    assert not any(answer.capability_id for answer in answers)
    assert all_stored(database, [answer.decision_id for answer in answers])


@pytest.mark.parametrize("durability", ["group", "none"])
def test_calls_that_wait_for_a_read_are_counted(
    database: Database, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_ahead, "LATE_SECONDS", 60.0)  # all wait, and none has a thread
    limits = {"max_calls": 3, "threads": 2, "audit_durability": durability}
    with serving(database, serving="auto", **limits) as served:
        with database.connect() as other, other.transaction():
            other.execute("LOCK TABLE licet.capabilities")
            waiting = [_asking(served, f"agent:{number}") for number in range(3)]
            assert eventually(lambda: served.licet.server.decisions.under_way == 3)
            refused = _asking(served, "agent:3").exception(10.0)
            assert refused is not None
            assert "too many calls" in str(refused)
        assert all(call.result(10.0).decision_id for call in waiting)
        assert eventually(lambda: served.licet.server.decisions.under_way == 0)


def test_a_caller_whose_key_ends_while_its_call_waits_is_let_in_no_more(
    database: Database, deciding: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_ahead, "LATE_SECONDS", 60.0)
    monkeypatch.setattr(reading_ahead, "READ_SECONDS", 60.0)  # the read lands, and nobody is late
    question = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
    with serving(database, serving="auto") as served, calling(served.address) as admin:
        made = make_key(admin, "authorize")
        with holding(served.address, made.token) as caller:
            caller.authorization.Authorize(
                pb.AuthorizeRequest(principal="agent:b", action="read", resource="doc:x"),
                timeout=10,
            )
            deciding.clear()
            with database.connect() as other, other.transaction():
                other.execute("LOCK TABLE licet.capabilities")
                call = caller.authorization.Authorize.future(question, timeout=20)
                assert eventually(lambda: _blocked(database) == 1)
                ends = identity_pb2.RevokeApiKeyRequest(key_id=made.key.key_id)
                admin.identity.RevokeApiKey(ends, timeout=10)
            assert call.code() is grpc.StatusCode.UNAUTHENTICATED
            assert deciding == [GRPC]  # and not once more when it was read
    decided = "SELECT count(*) FROM audit.events WHERE principal = 'agent:a'"
    assert count(database, decided) == 0


def _asking(served: Served, principal: str) -> Any:  # noqa: ANN401 - a call
    request = pb.AuthorizeRequest(principal=principal, action="read", resource="doc:x")
    return served.stub.Authorize.future(request, timeout=20)


def _blocked(database: Database) -> int:
    with database.connect() as admin:
        (found,) = admin.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            " AND query LIKE '%one.principal%'"
        ).fetchone() or (0,)
    return int(found)
