"""Changes that wait hold no thread; whatever clients do, both ways of serving do the same."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from time import monotonic
from typing import Any

import grpc
import pytest

from licet.app.grant import GrantCapability
from licet.v1 import authorization_pb2 as pb
from licet.writer.mutations import MutationWriter
from tests.fakes.api import capability_count, capability_ids, count, refused, struct
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.replicas import stopped_replica
from tests.fakes.serving import Served, calls_left, serving

PATIENCE = 20.0
WAITING = """
SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted
"""
ENDED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


@pytest.fixture(scope="module")
def shared(cluster: Cluster, migrated_template: Database, both_ways: str) -> Iterator[Served]:
    """Provide a server for all tests that leave nothing behind."""
    assert both_ways
    with cluster.database(migrated_template) as database, serving(database) as served:
        yield served


@pytest.fixture
def survives(shared: Served) -> Iterator[None]:
    """Whatever a test did, no call and no place is left of it, and the server goes on."""
    yield
    assert eventually(lambda: calls_left(shared) == (0, 0), PATIENCE)
    assert eventually(lambda: len(shared.licet.server.mutations) == 0, PATIENCE)
    assert shared.grant("agent:after", "read", "doc:x")


def request(number: int = 0, **fields: Any) -> pb.GrantRequest:  # noqa: ANN401 - any field
    return pb.GrantRequest(
        principal=f"agent:{number}", actions=["read"], resource="doc:x", **fields
    )


def begun(served: Served, number: int, seconds: float = PATIENCE) -> Any:  # noqa: ANN401 - a call
    return served.stub.Grant.future(request(number), timeout=seconds)


def mutation_threads() -> int:
    return sum(thread.name.startswith("licet-mutation") for thread in threading.enumerate())


@pytest.mark.usefixtures("survives")
def test_a_storm_of_changes_that_are_cancelled_or_late_leaves_nothing_behind(
    shared: Served,
) -> None:
    before = capability_count(shared.database)
    calls = []
    for number in range(240):
        calls.append(begun(shared, number, 0.003 if number % 3 == 0 else PATIENCE))
        if number % 3 == 1:
            calls[-1].cancel()
    seen: Counter[tuple[int, grpc.StatusCode]] = Counter()
    answered = set()
    for number, call in enumerate(calls):
        code = call.code()
        seen[number % 3, code] += 1
        if code is grpc.StatusCode.OK:
            answered.add(call.result().capability.id)
            assert call.result().capability.principal == f"agent:{number}"
    assert seen[2, grpc.StatusCode.OK] == 80, seen
    assert seen[0, grpc.StatusCode.DEADLINE_EXCEEDED]
    assert seen[1, grpc.StatusCode.CANCELLED]
    assert eventually(lambda: len(shared.licet.server.mutations) == 0, PATIENCE)
    # Nobody was told of one that is not there; what is there is on record, once.
    assert len(answered) >= 80
    assert answered <= capability_ids(shared.database)
    stored = capability_count(shared.database)
    assert before + len(answered) <= stored <= before + 240
    grants = "SELECT count(DISTINCT capability_id) FROM audit.events WHERE event_type = 'grant'"
    assert count(shared.database, grants) == stored


@pytest.mark.usefixtures("survives")
def test_a_bug_after_the_commit_is_an_internal_error_and_no_more(
    shared: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def planted(*_: object) -> None:
        raise ZeroDivisionError("planted")

    before = capability_count(shared.database)
    with monkeypatch.context() as bug:
        bug.setattr(MutationWriter, "_granted", planted)
        found = refused(lambda: shared.stub.Grant(request(), timeout=PATIENCE))
    assert (found.code, found.message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "planted" in caplog.text
    assert capability_count(shared.database) == before + 1


@pytest.mark.usefixtures("survives")
def test_who_waits_for_what_a_former_request_did_holds_up_nobody(shared: Served) -> None:
    database = shared.database
    first = shared.stub.Grant(request(1, request_id="again"), timeout=PATIENCE).capability.id
    before = capability_count(database)
    with stopped_replica(database):
        with database.connect() as other, other.transaction():
            other.execute("SELECT pg_advisory_xact_lock(20010)")
            calls = [begun(shared, 2)]
            assert eventually(lambda: count(database, WAITING) == 1, PATIENCE)
            # In one batch, of which this is no change: its revision has to be waited for apart.
            again = shared.stub.Grant.future(request(1, request_id="again"), timeout=PATIENCE)
            calls.append(begun(shared, 3))
            assert eventually(lambda: len(shared.licet.server.mutations) == 3, PATIENCE)
        assert eventually(lambda: capability_count(database) == before + 2, PATIENCE)
        calls.append(begun(shared, 4))
        assert eventually(lambda: capability_count(database) == before + 3)
        assert not any(call.done() for call in (again, *calls))
    assert again.result().capability.id == first
    assert {call.result().capability.id for call in calls} <= capability_ids(database)


def test_changes_that_wait_hold_no_thread(database: Database) -> None:
    before = mutation_threads()
    with serving(database, serving="auto") as served:
        with stopped_replica(database):
            calls = [begun(served, number) for number in range(50)]
            assert eventually(lambda: capability_count(database) == 50, PATIENCE)
            assert mutation_threads() == before
            assert len(served.licet.server.mutations) == 50
        assert len({call.result().capability.id for call in calls}) == 50
        assert eventually(lambda: len(served.licet.server.mutations) == 0)


def test_what_has_to_be_read_first_is_begun_by_a_thread_of_changes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, by = GrantCapability.begin, []

    def noting(*given: Any) -> None:  # noqa: ANN401 - as the method
        by.append(threading.current_thread().name.startswith("licet-mutation"))
        begin(*given)

    monkeypatch.setattr(GrantCapability, "begin", noting)
    with serving(database, serving="auto") as served:
        parent = served.grant("agent:a", "read", "doc:x", delegation_depth=1)
        assert by == [False]
        for fields, expected in (
            ({"parent_capability_id": parent}, [False, True]),
            ({"condition": "true"}, [False, True]),
            ({"metadata": struct(text="x" * 1100)}, [True]),
        ):
            by.clear()
            assert served.grant("agent:b", "read", "doc:x", **fields)
            assert by == expected
        assert eventually(lambda: len(served.licet.server.mutations) == 0)


def test_draining_does_not_wait_for_a_replica_longer_than_its_grace(
    database: Database, both_ways: str
) -> None:
    with serving(database, serving=both_ways) as served, stopped_replica(database):
        calls = [begun(served, number, 60) for number in range(3)]
        assert eventually(lambda: capability_count(database) == 3, PATIENCE)
        begin = monotonic()
        served.licet.server.drain(0.5)
        assert monotonic() - begin < 10
        assert {call.code() for call in calls} <= ENDED
