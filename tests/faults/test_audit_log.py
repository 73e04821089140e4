"""Decisions reach the audit log exactly once, whatever breaks between the two."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import grpc
import pytest

from licet.domain.audit_event import event_id
from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import all_stored, rows, stored_decisions
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.serving import Served, failure, serving


def _decide(served: Served, number: int) -> list[str]:
    """Take decisions in one batch and return their ids."""
    requests = [pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")]
    batch = pb.BatchAuthorizeRequest(requests=requests * number)
    answers = served.stub.BatchAuthorize(batch, timeout=10).responses
    return [answer.decision_id for answer in answers]


def _each_once(database: Database, decision_ids: list[str]) -> bool:
    return Counter(stored_decisions(database)) == Counter(decision_ids)


def _sequence_has_no_gap(database: Database) -> bool:
    """Say whether the numbers in event ids run from one to what each writer has shipped."""
    found = rows(
        database,
        """SELECT w.shipped_seq, count(e.seq), coalesce(max(e.seq), 0)
           FROM audit.writers AS w LEFT JOIN (
             SELECT ('x' || left(id, 12))::bit(48)::bigint AS writer_id,
                    ('x' || right(id, 15))::bit(60)::bigint AS seq
             FROM (SELECT replace(event_id::text, '-', '') AS id FROM audit.events) AS ids
           ) AS e USING (writer_id)
           GROUP BY w.writer_id, w.shipped_seq""",
    )
    return all(shipped == number == last for shipped, number, last in found)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(b"shipped_seq =", forward=False),
        Fault(b"shipped_seq ="),
        Fault(b"COPY audit.events", forward=False),
        Fault(b"COMMIT", after=b"COPY audit.events", forward=False),
        Fault(b"COMMIT", after=b"COPY audit.events"),
    ],
    ids=["no-offset", "offset", "no-events", "no-commit", "commit-without-answer"],
)
def test_events_whose_shipping_is_interrupted_are_stored_exactly_once(
    fragile: Served, proxy: PostgresProxy, database: Database, fault: Fault
) -> None:
    proxy.arm(fault)
    answered = _decide(fragile, 50)
    assert fault.happened()
    answered += _decide(fragile, 50)
    assert all_stored(database, answered)
    assert _each_once(database, answered)
    assert _sequence_has_no_gap(database)


def test_every_answered_decision_is_in_the_log_after_stopping(database: Database) -> None:
    with serving(database) as served:
        answered = [i for _ in range(5) for i in _decide(served, 1000)]
    assert _each_once(database, answered)
    assert _sequence_has_no_gap(database)


def test_no_decision_leaves_that_cannot_be_recorded(
    proxy: PostgresProxy, database: Database
) -> None:
    with serving(proxy.database, spool_max_mib=64) as served:
        allowed = served.grant("agent:a", "read", "doc:x")
        answered = _decide(served, 1)
        assert all_stored(database, answered)
        proxy.go_down()
        refusal = None
        while refusal is None:  # from memory, until the spool is full
            try:
                answered += _decide(served, 1000)
            except grpc.RpcError as exc:
                refusal = failure(exc)
        assert (refusal.code, refusal.retry) == (grpc.StatusCode.UNAVAILABLE, True)
        proxy.come_back()
        assert all_stored(database, answered)
        # There is room again when what is stored is not kept any more.
        assert eventually(lambda: served.authorize("agent:a", "read", "doc:x").capability_id != "")
    stored = stored_decisions(database)
    assert len(stored) == len(set(stored))
    assert set(answered) < set(stored)
    assert {capability_id for (capability_id,) in _capability_ids(database)} == {allowed}
    assert _sequence_has_no_gap(database)


def _capability_ids(database: Database) -> list[tuple[str]]:
    return rows(database, "SELECT capability_id FROM audit.events WHERE event_type = 'decision'")


def test_decisions_of_a_day_without_a_partition_are_stored(
    served: Served, database: Database
) -> None:
    with database.connect() as admin:
        found = admin.execute(
            "SELECT format('DROP TABLE %s', inhrelid::regclass) FROM pg_inherits"
            " WHERE inhparent = 'audit.events'::regclass"
        ).fetchall()
        assert len(found) == 4  # today and the three days after it
        for (drop,) in found:
            admin.execute(drop)
    answered = _decide(served, 10)
    assert all_stored(database, answered)
    assert _each_once(database, answered)


def test_stored_events_carry_what_was_answered(served: Served, database: Database) -> None:
    allowed = served.grant("agent:a", "read", "doc:x/*")
    answer = served.authorize(
        "agent:a", "read", "doc:x/ü", session_id="s-1", trace_id="t-1", correlation_id="c-1"
    )
    assert all_stored(database, [answer.decision_id])
    (event,) = served.stub.QueryAudit(
        pb.QueryAuditRequest(event_types=["decision"]), timeout=10
    ).events
    assert (event.event_id, event.capability_id) == (answer.decision_id, allowed)
    assert (event.principal, event.action, event.resource) == ("agent:a", "read", "doc:x/ü")
    assert (event.session_id, event.trace_id) == ("s-1", "t-1")
    assert (event.result, event.reason, event.revision) == ("allow", "", answer.revision)
    assert event.actor == "caller:anonymous"


@pytest.mark.parametrize("kept", [5, 0], ids=["behind", "unknown"])
def test_a_database_that_has_lost_events_is_sent_them_again(
    served: Served, database: Database, kept: int
) -> None:
    lost = _decide(served, 20)
    assert all_stored(database, lost)
    writer = int(lost[0].replace("-", "")[:12], 16)
    with database.connect() as admin:  # as a failover that lost commits, or a restore, leaves it
        for (table,) in admin.execute(
            "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_trigger AS t"
            " ON t.tgrelid = c.oid AND t.tgname = 'append_only'"
        ).fetchall():
            admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only")
        bounds = [event_id(writer, kept + 1), event_id(writer + 1, 0)]
        admin.execute(
            "DELETE FROM audit.events WHERE event_id >= %s AND event_id < %s",
            [UUID(int=bound) for bound in bounds],
        )
        admin.execute(
            "UPDATE audit.writers SET shipped_seq = %s WHERE writer_id = %s", [kept, writer]
        )
        if not kept:
            admin.execute("DELETE FROM audit.writers WHERE writer_id = %s", [writer])
    answered = lost + _decide(served, 10)
    assert all_stored(database, answered)
    assert _each_once(database, answered)
    assert _sequence_has_no_gap(database)
