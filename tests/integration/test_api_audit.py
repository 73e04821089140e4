"""QueryAudit: every filter against SQL, pages that stay whole while decisions arrive, forgeries."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from licet.v1 import authorization_pb2 as pb
from licet.v1.audit_pb2 import AuditEvent
from licet.v1.decision_pb2 import DECISION_ALLOW, DECISION_DENY
from tests.fakes.api import all_stored, micros, refused, rows, struct, timestamp
from tests.fakes.postgres import Cluster, Database
from tests.fakes.serving import Served, serving

DAY = 86_400_000_000
BASE = 1_795_305_600_000_000  # 2026-11-22T00:00:00Z
_INVALID = grpc.StatusCode.INVALID_ARGUMENT

_SEED = """
SELECT audit.ensure_partition(to_timestamp(%(base)s / 1e6) - n * interval '1 day')
FROM generate_series(0, 3) AS n;
"""
_EVENTS = """
INSERT INTO audit.events (v, event_id, occurred_at, event_type, actor, principal, action, resource,
  capability_id, result, reason, policy_id, session_id, trace_id, revision, metadata)
SELECT 1, ('00000000-0000-8000-8000-' || lpad(to_hex(n * 7919 %% 1000), 12, '0'))::uuid,
  -- Days, instants that several events share, and one that is a partition's first.
  to_timestamp(%(base)s / 1e6) - (n %% 4) * interval '1 day' + (n / 12) * interval '1 microsecond',
  CASE WHEN n %% 5 = 0 THEN 'grant' WHEN n %% 7 = 0 THEN 'revoke' ELSE 'decision' END,
  'caller:' || n %% 3, 'agent:' || n %% 11, CASE WHEN n %% 5 = 0 THEN '' ELSE 'read' END,
  'doc:' || n %% 4 || '/' || n %% 6,
  CASE WHEN n %% 2 = 0 THEN '0199c5f0-6a5e-7cc3-98c4-dc0c0c07398' || n %% 10 ELSE '' END,
  CASE WHEN n %% 5 = 0 OR n %% 7 = 0 THEN 'done' WHEN n %% 3 = 0 THEN 'deny' ELSE 'allow' END,
  CASE WHEN n %% 3 = 0 THEN 'CAPABILITY_EXPIRED' ELSE '' END,
  CASE WHEN n %% 9 = 0 THEN 'policy-1' ELSE '' END, CASE WHEN n %% 8 = 0 THEN 's-1' ELSE '' END,
  CASE WHEN n %% 10 = 0 THEN 't-1' ELSE '' END, n,
  CASE WHEN n %% 5 = 0 THEN jsonb_build_object('a', n %% 2, 'list', jsonb_build_array(n %% 3, 'x'),
    'deep', jsonb_build_object('k', n %% 4 = 0)) ELSE '{}' END
FROM generate_series(1, 300) AS n
"""


@pytest.fixture(scope="module")
def log(cluster: Cluster, migrated_template: Database) -> Iterator[Served]:
    """Provide a server over a log of 300 events, which no test adds to."""
    with cluster.database(migrated_template) as database:
        with database.connect() as admin:
            admin.execute(_SEED, {"base": BASE})
            admin.execute(_EVENTS, {"base": BASE})
        with serving(database) as served:
            yield served


def _page(served: Served, **fields: Any) -> pb.QueryAuditResponse:  # noqa: ANN401 - a field
    return served.stub.QueryAudit(pb.QueryAuditRequest(**fields), timeout=10)


def _events(served: Served, **fields: Any) -> list[AuditEvent]:  # noqa: ANN401 - a field
    """Read all pages."""
    events: list[AuditEvent] = []
    token = ""
    while True:
        page = _page(served, page_token=token, **fields)
        events += page.events
        token = page.next_page_token
        if not token:
            return events


FILTERS: dict[str, tuple[dict[str, Any], LiteralString]] = {
    "none": ({}, "true"),
    "type": ({"event_types": ["grant"]}, "event_type = 'grant'"),
    "types": ({"event_types": ["grant", "decision"]}, "event_type IN ('grant', 'decision')"),
    "changes": ({"event_types": ["revoke", "grant"]}, "event_type IN ('revoke', 'grant')"),
    "no-such": ({"event_types": ["delegate"]}, "false"),
    "principal": ({"principal": "agent:1"}, "principal = 'agent:1'"),
    "actor": ({"actor": "caller:2"}, "actor = 'caller:2'"),
    "resource": ({"resource": "doc:1/1"}, "resource = 'doc:1/1'"),
    "pattern": ({"resource": "doc:1/*"}, "resource LIKE 'doc:1/%%'"),
    "everything-of-a-type": ({"resource": "doc:**"}, "resource LIKE 'doc:%%'"),
    "nothing-of-another": ({"resource": "fs:**"}, "false"),
    "action": ({"action": "read"}, "action = 'read'"),
    "capability": (
        {"capability_id": "0199C5F0-6A5E-7CC3-98C4-DC0C0C073984"},
        "capability_id = '0199c5f0-6a5e-7cc3-98c4-dc0c0c073984'",
    ),
    "allows": ({"decision": DECISION_ALLOW}, "result = 'allow'"),
    "denials": ({"decision": DECISION_DENY}, "result = 'deny'"),
    "reason": ({"reason": "CAPABILITY_EXPIRED"}, "reason = 'CAPABILITY_EXPIRED'"),
    "policy": ({"policy_id": "policy-1"}, "policy_id = 'policy-1'"),
    "session": ({"session_id": "s-1"}, "session_id = 's-1'"),
    "trace": ({"trace_id": "t-1"}, "trace_id = 't-1'"),
    "metadata": ({"metadata": struct(a=1)}, "(metadata ->> 'a') = '1'"),
    "metadata-deep": ({"metadata": struct(deep={"k": True})}, "metadata #>> '{deep,k}' = 'true'"),
    "metadata-list": ({"metadata": struct(list=["x", 2])}, "metadata #>> '{list,0}' = '2'"),
    "metadata-empty": ({"metadata": struct()}, "true"),
    "metadata-type-matters": ({"metadata": struct(a="1")}, "false"),
    "from": ({"from": timestamp(BASE)}, "occurred_at >= '2026-11-22T00:00:00Z'"),
    "from-to": (
        {"from": timestamp(BASE - DAY + 5), "to": timestamp(BASE + 7)},
        (
            "occurred_at >= '2026-11-21T00:00:00.000005Z'"
            " AND occurred_at < '2026-11-22T00:00:00.000007Z'"
        ),
    ),
    "to": ({"to": timestamp(BASE - DAY)}, "occurred_at < '2026-11-21T00:00:00Z'"),
    "nanos-round-up": (
        {"from": Timestamp(seconds=BASE // 1_000_000, nanos=5001)},
        "occurred_at >= '2026-11-22T00:00:00.000006Z'",
    ),
    "to-before-from": ({"from": timestamp(BASE), "to": timestamp(BASE - 1)}, "false"),
    "several": (
        {
            "event_types": ["decision"],
            "actor": "caller:1",
            "action": "read",
            "decision": DECISION_ALLOW,
            "resource": "doc:*/1",
        },
        (
            "event_type = 'decision' AND actor = 'caller:1' AND result = 'allow'"
            " AND resource LIKE '%%/1'"
        ),
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_finds_what_sql_finds_newest_first(log: Served, name: str) -> None:
    fields, condition = FILTERS[name]
    query: LiteralString = "SELECT event_id::text FROM audit.events WHERE " + condition  # noqa: S608 - from above
    query += " ORDER BY occurred_at DESC, event_id DESC"
    expected = [event_id for (event_id,) in rows(log.database, query)]
    assert expected or condition == "false"
    for size in (1000, 23):
        assert [e.event_id for e in _events(log, page_size=size, **fields)] == expected


def test_a_page_of_one_walks_through_events_of_one_instant(log: Served) -> None:
    events = _events(log, principal="agent:1", page_size=1)
    assert len(events) == len({event.event_id for event in events}) == 28
    order = [(micros(event.occurred_at), event.event_id) for event in events]
    assert order == sorted(order, reverse=True)


def test_an_event_has_all_its_fields(log: Served) -> None:
    (event,) = (e for e in _events(log) if e.revision == 40)
    assert event == AuditEvent(
        event_id=event.event_id,
        occurred_at=timestamp(BASE + 3),
        event_type="grant",
        actor="caller:1",
        principal="agent:7",
        action="",
        resource="doc:0/4",
        capability_id="0199c5f0-6a5e-7cc3-98c4-dc0c0c073980",
        result="done",
        reason="",
        policy_id="",
        session_id="s-1",
        trace_id="t-1",
        revision=40,
        metadata=struct(a=0, list=[1, "x"], deep={"k": True}),
    )


def test_pages_have_no_duplicates_and_no_gaps_while_decisions_arrive(
    served: Served, database: Database
) -> None:
    batch = pb.BatchAuthorizeRequest(
        requests=[pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")] * 40
    )

    def decide() -> list[str]:
        answers = served.stub.BatchAuthorize(batch, timeout=10).responses
        return [answer.decision_id for answer in answers]

    before = [decision_id for _ in range(5) for decision_id in decide()]
    assert all_stored(database, before)
    walks = []
    with ThreadPoolExecutor(2) as pool:
        for fields in (
            {"page_size": 7},
            {"page_size": 50},
            {"page_size": 9, "principal": "agent:a"},
        ):
            deciding = [pool.submit(lambda: [decide() for _ in range(20)]) for _ in range(2)]
            walks.append(_events(served, **fields))
            assert len([future.result(20) for future in deciding]) == 2
    stored = "SELECT event_id::text FROM audit.events ORDER BY occurred_at DESC, event_id DESC"
    order = {event_id: place for place, (event_id,) in enumerate(rows(database, stored))}
    for walk in walks:
        ids = [event.event_id for event in walk]
        assert len(ids) == len(set(ids))
        assert set(before) <= set(ids)
        assert [order[i] for i in ids] == sorted(order[i] for i in ids)


def test_a_token_serves_its_own_filter_only(log: Served) -> None:
    token = _page(log, principal="agent:1", page_size=1).next_page_token
    assert _page(log, principal="agent:1", page_size=3, page_token=token).events
    others: list[dict[str, Any]] = [
        {},
        {"actor": "agent:1"},
        {"principal": "agent:2"},
        {"principal": "agent:1", "metadata": struct()},
        {"principal": "agent:1", "to": timestamp(BASE)},
    ]
    for other in others:
        invalid = refused(lambda fields=other: _page(log, page_token=token, **fields))  # type: ignore[misc] # bound now
        assert (invalid.code, invalid.fields) == (_INVALID, ("page_token",))


def test_a_token_signed_with_another_key_is_refused(log: Served, database: Database) -> None:
    with database.connect() as admin:
        # A database of its own; a copy of a template has the template's key.
        admin.execute("UPDATE licet.meta SET page_token_key = sha256('another')")
    token = _page(log, page_size=1).next_page_token
    with serving(database) as served:
        invalid = refused(lambda: _page(served, page_token=token))
    assert (invalid.code, invalid.fields) == (_INVALID, ("page_token",))


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "type": ({"event_types": ["grant", "nonsense"]}, "event_types[1]"),
    "types": ({"event_types": ["grant"] * 33}, "event_types"),
    "principal": ({"principal": "a"}, "principal"),
    "actor": ({"actor": "a"}, "actor"),
    "resource": ({"resource": "doc:a*"}, "resource"),
    "action": ({"action": "*"}, "action"),
    "capability": ({"capability_id": "x"}, "capability_id"),
    "decision": ({"decision": 3}, "decision"),
    "reason": ({"reason": "x" * 129}, "reason"),
    "policy": ({"policy_id": "\n"}, "policy_id"),
    "session": ({"session_id": "\u202e"}, "session_id"),
    "trace": ({"trace_id": "e\u0301"}, "trace_id"),
    "metadata": ({"metadata": struct(a="\0")}, "metadata"),
    "from": ({"from": Timestamp(seconds=-1)}, "from"),
    "to": ({"to": Timestamp(seconds=1, nanos=1_000_000_000)}, "to"),
}


@pytest.mark.parametrize("rule", INVALID)
def test_a_malformed_filter_names_its_field(log: Served, rule: str) -> None:
    fields, field = INVALID[rule]
    invalid = refused(lambda: _page(log, **fields))
    assert (invalid.code, invalid.fields) == (_INVALID, (field,))
