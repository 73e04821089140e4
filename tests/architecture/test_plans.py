"""What PostgreSQL does for each read: the very statements, on tables of a realistic size.

A plan is right when it uses the index that is meant for it and reads no table whole. That a
decision costs one statement, or none from memory, is counted on the wire.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import tuple_row

from licet.app.audit_ports import AuditFilter, AuditPosition
from licet.app.ports import CapabilityFilter
from licet.domain.canonical_json import JsonObject
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import CapabilityId, EventId
from licet.domain.pattern import ResourcePattern, containment_regex
from licet.storage import audit_pages, capabilities, held
from licet.storage.audit_slices import AFTER_ALL, Slice
from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import all_stored
from tests.fakes.large_tables import fill
from tests.fakes.postgres import Cluster, Database
from tests.fakes.proxy import PostgresProxy
from tests.fakes.serving import serving

BASE = Instant(1_795_305_600_000_000)  # 2026-11-22T00:00:00Z
DAY = 86_400_000_000


@pytest.fixture(scope="module")
def seeded(cluster: Cluster, migrated_template: Database) -> Iterator[Database]:
    """Provide a database with 40,000 capabilities, users, and 34,000 events over four days."""
    with cluster.database(migrated_template) as database:
        fill(database)
        yield database


@pytest.fixture
def server(seeded: Database) -> Iterator[psycopg.Connection]:
    """Provide a connection of the server's role."""
    with psycopg.connect(seeded.url, autocommit=True, row_factory=tuple_row) as connection:
        connection.execute("SET ROLE licet_server")
        yield connection


class Plan:
    """The nodes of a plan that read something."""

    def __init__(self, explained: Any) -> None:  # noqa: ANN401 - JSON
        """Take what EXPLAIN (FORMAT JSON) returns."""
        plan = explained[0] if isinstance(explained, list) else json.loads(explained)[0]
        self.nodes = list(self._below(plan["Plan"]))

    def _below(self, node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        yield node
        for child in node.get("Plans", ()):
            yield from self._below(child)

    @property
    def indexes(self) -> set[str]:
        """The indexes used, a partition's by the name of its parent's."""
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def read_whole(self) -> set[str]:
        """The tables that are read whole."""
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"}

    @property
    def tables(self) -> set[str]:
        """All tables read."""
        return {node["Relation Name"] for node in self.nodes if "Relation Name" in node}


def _explained(
    connection: psycopg.Connection, statement: sql.Composable, parameters: Mapping[str, object]
) -> Plan:
    query = sql.Composed([sql.SQL("EXPLAIN (FORMAT JSON) "), statement])
    (explained,) = connection.execute(query, parameters, prepare=False).fetchone() or ("",)
    return Plan(explained)


STAND = {"suspension_lasting_idx", "users_pkey"}
"""What tells whether a principal is suspended, or a user who is disabled."""
ONCE = {"approval_approved_idx", "capabilities_pkey"}
"""What finds the capabilities for one use."""
HELD: dict[str, object] = {"now": rfc3339(BASE), "ended": 1000}


@pytest.mark.parametrize("most", [None, held.LITTLE + 1])
@pytest.mark.parametrize(
    "principals",
    [["agent:7"], ["agent:heavy"], ["agent:nobody"], [f"agent:{i}" for i in range(1000)]],
    ids=["one", "heavy", "unknown", "batch"],
)
def test_a_cache_miss_reads_by_holder(
    server: psycopg.Connection, principals: list[str], most: int | None
) -> None:
    wanted = {"principals": "\n".join(principals), "most": most}
    plan = _explained(server, sql.SQL(held.HELD), HELD | wanted)
    assert plan.indexes >= {"capability_living_idx", "capability_ended_idx"}
    own = {"capability_living_idx", "capability_ended_idx", "changes_pkey"}
    assert plan.indexes <= own | STAND | ONCE
    assert "capabilities" not in plan.read_whole
    # Of a batch as large as half the table, reading that whole is as good.
    if len(principals) == 1:
        assert plan.indexes >= STAND | ONCE
        assert not plan.read_whole & {"users", "suspensions", "approvals"}


def test_a_cache_miss_reads_by_holder_with_a_plan_for_any_parameter(
    server: psycopg.Connection,
) -> None:
    # psycopg prepares what is executed often, and PostgreSQL then plans without parameters: this
    # statement takes several times as long to plan as to execute.
    statement = sql.SQL(_as_sent(held.HELD))
    server.execute(sql.SQL("PREPARE held (text, text, bigint, bigint) AS {}").format(statement))
    for number in range(9):
        server.execute(f"EXECUTE held ('agent:nobody-{number}', '2026-11-22', 101, 101)")
    plans = server.execute(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = 'held'"
    ).fetchone()
    assert plans == (4, 5)
    (explained,) = server.execute(
        "EXPLAIN (FORMAT JSON) EXECUTE held ('agent:7', '2026-11-22', 101, 101)"
    ).fetchone() or ("",)
    plan = Plan(explained)
    assert plan.indexes >= {"capability_living_idx", "capability_ended_idx"} | STAND | ONCE
    assert not plan.read_whole & {"capabilities", "users", "suspensions", "approvals"}


def _id(number: int) -> CapabilityId:
    return CapabilityId(f"019a0000-0000-7000-8000-{number:012x}")


LISTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "principal": ({"principal": "agent:7"}, {"capability_principal_idx", "capability_living_idx"}),
    "granted_by": ({"granted_by": "caller:7"}, {"capability_granted_by_idx"}),
    "session_id": ({"session_id": "s-70"}, {"capability_session_idx"}),
    "parent_id": ({"parent_id": _id(7)}, {"capability_parent_idx"}),
    "resource": ({"resource": ResourcePattern("doc:team-7/**")}, {"capability_resource_idx"}),
    "none": ({}, {"capabilities_pkey"}),
}


@pytest.mark.parametrize("after", [None, _id(20_000)], ids=["first-page", "later-page"])
@pytest.mark.parametrize("include_ended", [False, True], ids=["living", "all"])
@pytest.mark.parametrize("name", LISTS)
def test_a_list_reads_by_its_filter(
    server: psycopg.Connection, name: str, include_ended: bool, after: CapabilityId | None
) -> None:
    fields, indexes = LISTS[name]
    wanted = CapabilityFilter(**fields, include_ended=include_ended)
    parameters = wanted._asdict() | {"after": after, "limit": 101, "now": rfc3339(BASE)}
    if wanted.resource is not None:
        parameters["resource"] = containment_regex(wanted.resource)
    plan = _explained(server, capabilities.list_statement(wanted, after), parameters)
    assert plan.indexes
    assert plan.indexes <= indexes
    assert not plan.read_whole


AUDITS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "none": ({}, {"event_time_idx"}),
    "event_types": ({"event_types": ("grant", "revoke")}, {"event_type_idx", "event_time_idx"}),
    "principal": ({"principal": "agent:7"}, {"event_principal_idx"}),
    "actor": ({"actor": "caller:7"}, {"event_actor_idx"}),
    "action": ({"action": "action-7"}, {"event_action_idx"}),
    "resource": ({"resource": ResourcePattern("doc:team-7/7")}, {"event_resource_pattern_idx"}),
    "pattern": ({"resource": ResourcePattern("doc:team-7/**")}, {"event_resource_pattern_idx"}),
    "capability_id": ({"capability_id": _id(7)}, {"event_capability_idx"}),
    "result": ({"result": "deny"}, {"event_result_idx"}),
    "reason": ({"reason": "CAPABILITY_EXPIRED"}, {"event_reason_idx", "event_time_idx"}),
    "policy_id": ({"policy_id": "policy-1"}, {"event_policy_idx"}),
    "session_id": ({"session_id": "s-6"}, {"event_session_idx"}),
    "trace_id": ({"trace_id": "t-777"}, {"event_trace_idx"}),
    "metadata": ({"metadata": JsonObject('{"ticket": 700}')}, {"event_metadata_idx"}),
    "action-denied": (
        {"action": "action-7", "result": "deny"},
        {"event_action_idx", "event_result_idx"},
    ),
}


def _of_partitions(server: psycopg.Connection, names: set[str]) -> dict[str, str]:
    """Return, by the names of the partitions' indexes, the names of the parents'."""
    found = server.execute(
        "SELECT c.relname, p.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
        " JOIN pg_class AS p ON p.oid = i.inhparent WHERE p.relname = ANY (%s)",
        [list(names)],
    )
    return dict(found.fetchall())


FIRST = Slice(Instant(BASE - 2 * DAY), AFTER_ALL, is_last=False, is_smallest=False)
LATER = Slice(None, Instant(BASE - DAY // 2), is_last=True, is_smallest=False)


@pytest.mark.parametrize("piece", [FIRST, LATER], ids=["first-slice", "later-slice"])
@pytest.mark.parametrize("name", AUDITS)
def test_an_audit_query_reads_by_its_filter(
    server: psycopg.Connection, name: str, piece: Slice
) -> None:
    fields, indexes = AUDITS[name]
    plan = _explained_slice(server, AuditFilter(**fields), piece, None)
    parents = _of_partitions(server, indexes)
    assert plan.indexes
    assert {parents.get(index, index) for index in plan.indexes} <= indexes
    assert not {t for t in plan.read_whole if _has_rows(server, t)}


def _explained_slice(
    server: psycopg.Connection, wanted: AuditFilter, piece: Slice, before: AuditPosition | None
) -> Plan:
    parameters = audit_pages.slice_parameters(wanted, piece, before) | {"limit": 101}
    statement = audit_pages.slice_statement(wanted, piece, before, is_rare=piece is LATER)
    return _explained(server, statement, parameters)


def _has_rows(server: psycopg.Connection, table: str) -> bool:
    """Say whether a partition has events; an empty one is read whole, at no cost."""
    query = sql.SQL("SELECT EXISTS (SELECT FROM audit.{})").format(sql.Identifier(table))
    (found,) = server.execute(query).fetchone() or (True,)
    return bool(found)


def test_a_slice_of_the_audit_log_leaves_other_days_alone(server: psycopg.Connection) -> None:
    piece = FIRST._replace(upper=Instant(BASE - DAY))
    assert _explained_slice(server, AuditFilter(), piece, None).tables == {"events_20261120"}
    position = AuditPosition(Instant(BASE - 2 * DAY), EventId(_id(1)))
    plan = _explained_slice(
        server, AuditFilter(), LATER._replace(upper=Instant(position.occurred_at + 1)), position
    )
    assert plan.tables <= {"events_20261120", "events_20261119", "events_20261118"}


def test_a_pattern_is_an_index_range_whatever_the_collation(server: psycopg.Connection) -> None:
    # The tests' own collation is C, where every index on a text serves patterns.
    row = server.execute(
        "SELECT pg_get_indexdef('audit.event_resource_pattern_idx'::regclass)"
    ).fetchone()
    assert row is not None
    assert "(resource text_pattern_ops, occurred_at)" in row[0]


REVOCATIONS: dict[str, dict[str, str | None]] = {
    "id": {"id": _id(7)},
    "principal": {"principal": "agent:7"},
    "resource": {"resource_regex": containment_regex(ResourcePattern("doc:team-7/**"))},
    "granted_by": {"granted_by": "caller:7"},
    "session_id": {"session_id": "s-70"},
}


@pytest.mark.parametrize("name", REVOCATIONS)
def test_a_revocation_reads_hardly_more_than_it_ends(server: psycopg.Connection, name: str) -> None:
    unset = dict.fromkeys(("id", "principal", "resource_regex", "granted_by", "session_id"))
    # The query is inside functions, which EXPLAIN does not open; what it read is counted.
    with server.transaction():
        found = server.execute(
            capabilities._WOULD_END,  # noqa: SLF001 - the statement's own
            unset | REVOCATIONS[name] | {"limit": 1000},
        ).fetchone()
        counted = server.execute(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
            " WHERE relname = 'capabilities'"
        ).fetchone()
    assert found is not None
    assert counted is not None
    assert found[0] > 0
    assert counted[0] < 20 * found[0]


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (capabilities._ANCESTORS, "capabilities_pkey"),  # noqa: SLF001 - each is a statement
        (capabilities._DESCENDANTS, "capability_parent_idx"),  # noqa: SLF001 - each is a statement
        (capabilities._FIND, "capabilities_pkey"),  # noqa: SLF001 - each is a statement
    ],
)
def test_a_tree_is_read_by_its_links(
    server: psycopg.Connection, statement: sql.Composable, index: str
) -> None:
    plan = _explained(server, statement, {"id": _id(40), "limit": 1001})
    assert index in plan.indexes


def test_a_miss_costs_one_statement_and_a_hit_none(database: Database) -> None:
    with PostgresProxy(database) as proxy, serving(proxy.database) as served:
        served.grant("agent:a", "read", "doc:x")
        for principals in (["agent:a"], ["agent:nobody"], ["agent:a", "agent:b", "agent:c"]):
            requests = [
                pb.AuthorizeRequest(principal=principal, action="read", resource="doc:x")
                for principal in principals
            ]
            batch = pb.BatchAuthorizeRequest(requests=requests)
            with proxy.statements() as miss:
                answers = served.stub.BatchAuthorize(batch, timeout=10).responses
            assert [text for text in miss if _READS_CAPABILITIES in text] == [_as_sent(held.HELD)]
            with proxy.statements() as hit:
                for _ in range(20):
                    answers = served.stub.BatchAuthorize(batch, timeout=10).responses
                assert all_stored(database, [answer.decision_id for answer in answers])
            # What remains is the audit log's shipping, the replica's renewals, and the health
            # check's probing.
            assert [text for text in hit if _READS_CAPABILITIES in text] == []


_READS_CAPABILITIES = "licet.all_capabilities"


def _as_sent(statement: LiteralString) -> LiteralString:
    """Return a statement with PostgreSQL's placeholders."""
    text = statement
    for name, place in (("principals", "$1"), ("now", "$2"), ("most", "$3"), ("ended", "$4")):
        text = text.replace("%(" + name + ")s", place)
    return text
