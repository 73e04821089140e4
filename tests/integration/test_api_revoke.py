"""Revoke: by id, by every field of a filter, with its cascade, as a dry run, and repeated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from licet.v1 import authorization_pb2 as pb
from licet.v1.capability_pb2 import END_CAUSE_CASCADE, END_CAUSE_REVOKED, Capability
from licet.v1.decision_pb2 import (
    DECISION_ALLOW,
    DECISION_DENY,
    REASON_CAPABILITY_EXPIRED,
    REASON_CAPABILITY_REVOKED,
)
from tests.fakes.api import count, micros, refused, rows
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.serving import Served, serving

pytestmark = pytest.mark.usefixtures("both_ways")

UNKNOWN = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


def _revoke(served: Served, **fields: Any) -> pb.RevokeResponse:  # noqa: ANN401 - a field
    return served.stub.Revoke(pb.RevokeRequest(**fields), timeout=10)


def _by(served: Served, **fields: str) -> pb.RevokeResponse:
    return _revoke(served, filter=pb.RevokeFilter(**fields))


def _read(served: Served, capability_id: str) -> Capability:
    request = pb.GetCapabilityRequest(capability_id=capability_id)
    return served.stub.GetCapability(request, timeout=10).capability


def _chain(served: Served, length: int) -> list[str]:
    """Delegate from agent:0 to agent:1 and so on; return the ids."""
    ids: list[str] = []
    for level in range(length):
        parent = {"parent_capability_id": ids[-1]} if ids else {}
        depth = length - level
        ids.append(
            served.grant(f"agent:{level}", "read", "doc:x", delegation_depth=depth, **parent)
        )
    return ids


def _allowed(served: Served, level: int) -> bool:
    return served.authorize(f"agent:{level}", "read", "doc:x").decision == DECISION_ALLOW


@pytest.fixture(scope="module")
def shared(cluster: Cluster, migrated_template: Database, both_ways: str) -> Iterator[Served]:
    """Provide one server for the tests that leave nothing behind."""
    assert both_ways
    with cluster.database(migrated_template) as database, serving(database) as served:
        yield served


def test_a_revoked_capability_says_who_ended_it_when_and_why(served: Served) -> None:
    capability_id = served.grant("agent:0", "read", "doc:x")
    assert _allowed(served, 0)
    revoked = _revoke(served, capability_id=capability_id.upper(), reason="left the team")
    assert (revoked.ended_count, list(revoked.ended_capability_ids)) == (1, [capability_id])
    assert (revoked.revision, revoked.already_ended) == (2, False)
    assert (revoked.replicas_confirmed, revoked.replicas_fenced) == (1, 0)
    ended = _read(served, capability_id)
    assert (ended.ended_by, ended.end_reason) == ("caller:anonymous", "left the team")
    assert ended.end_cause == END_CAUSE_REVOKED
    denied = served.authorize("agent:0", "read", "doc:x")
    assert (denied.decision, denied.reason) == (DECISION_DENY, REASON_CAPABILITY_REVOKED)
    assert (denied.capability_id, denied.revision) == (capability_id, 2)
    (event,) = served.stub.QueryAudit(
        pb.QueryAuditRequest(event_types=["revoke"]), timeout=10
    ).events
    assert micros(event.occurred_at) == micros(ended.ended_at)
    assert (event.capability_id, event.principal, event.reason) == (capability_id, "agent:0", "")
    assert event.metadata["reason"] == "left the team"


def test_a_revocation_ends_all_descendants_and_nothing_else(
    served: Served, database: Database
) -> None:
    ids = _chain(served, 5)
    branch = served.grant("agent:9", "read", "doc:x", parent_capability_id=ids[1])
    assert all(_allowed(served, level) for level in (0, 1, 2, 3, 4, 9))
    revoked = _revoke(served, capability_id=ids[2])
    assert revoked.ended_count == 3
    assert sorted(revoked.ended_capability_ids) == sorted(ids[2:])
    assert [_allowed(served, level) for level in (0, 1, 2, 3, 4, 9)] == [
        *(True, True),
        *(False, False, False),
        True,
    ]
    assert not _read(served, branch).HasField("ended_at")
    ends = [_read(served, capability_id) for capability_id in ids[2:]]
    assert [end.end_cause for end in ends] == [
        END_CAUSE_REVOKED,
        END_CAUSE_CASCADE,
        END_CAUSE_CASCADE,
    ]
    found = rows(
        database,
        "SELECT capability_id, reason, revision FROM audit.events WHERE event_type = 'revoke'",
    )
    revision = revoked.revision
    assert sorted(found) == sorted(
        [(ids[2], "", revision), (ids[3], "CASCADE", revision), (ids[4], "CASCADE", revision)]
    )


def test_a_revocation_ends_a_wide_tree_and_lists_the_first_thousand(
    served: Served, database: Database
) -> None:
    root = served.grant("agent:0", "read", "doc:x", delegation_depth=2)
    with database.connect() as admin:
        admin.execute(
            """INSERT INTO licet.capabilities (id, parent_id, principal, actions, resource,
                 granted_by, granted_at, delegation_depth, granted_revision, granted_event_id)
               SELECT gen_random_uuid(), %s, 'agent:' || n, '{read}', 'doc:x', 'caller:seed', now(),
                 0, 1, gen_random_uuid() FROM generate_series(1, 1100) AS n""",
            [root],
        )
    assert _allowed(served, 1100)
    revoked = _revoke(served, capability_id=root)
    assert revoked.ended_count == 1101
    assert len(set(revoked.ended_capability_ids)) == 1000
    assert not _allowed(served, 1100)
    living = "SELECT count(*) FROM licet.capabilities WHERE ended_revision IS NULL"
    assert count(database, living) == 0
    events = "SELECT count(DISTINCT capability_id) FROM audit.events WHERE event_type = 'revoke'"
    assert count(database, events) == 1101


# Which of these a filter ends.
HELD: dict[str, tuple[str, str, str]] = {
    "a": ("agent:a", "doc:x/1", "s-1"),
    "b": ("agent:a", "doc:x/*", "s-2"),
    "c": ("agent:b", "doc:x/**", "s-1"),
    "d": ("agent:b", "doc:**", ""),
    "e": ("agent:ab", "doc:xy/1", "s-10"),
    "f": ("agent:c", "fs:x/1", ""),
    "g": ("agent:c", "doc:x", ""),
}
FILTERS: dict[str, tuple[dict[str, str], str]] = {
    "principal": ({"principal": "agent:a"}, "ab"),
    "session": ({"session_id": "s-1"}, "ac"),
    "grantor": ({"granted_by": "caller:anonymous"}, "abcdefg"),
    "other-grantor": ({"granted_by": "caller:other"}, ""),
    "resource-exactly": ({"resource": "doc:x/1"}, "a"),
    "resource-any-segment": ({"resource": "doc:x/*"}, "ab"),
    "resource-rest": ({"resource": "doc:x/**"}, "abc"),
    "resource-type": ({"resource": "doc:**"}, "abcdeg"),
    "principal-and-session": ({"principal": "agent:b", "session_id": "s-1"}, "c"),
    "all-fields": (
        {
            "principal": "agent:a",
            "session_id": "s-2",
            "resource": "doc:**",
            "granted_by": "caller:anonymous",
        },
        "b",
    ),
    "contradiction": ({"principal": "agent:a", "resource": "fs:**"}, ""),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_ends_exactly_what_matches_and_its_dry_run_says_so(
    served: Served, database: Database, name: str
) -> None:
    fields, expected = FILTERS[name]
    ids = {
        key: served.grant(principal, "read", resource, session_id=session)
        for key, (principal, resource, session) in HELD.items()
    }
    wanted = sorted(ids[key] for key in expected)
    dry = _revoke(served, filter=pb.RevokeFilter(**fields), dry_run=True)
    assert (dry.ended_count, list(dry.ended_capability_ids)) == (len(wanted), wanted)
    ended = "SELECT id::text FROM licet.capabilities WHERE ended_revision IS NOT NULL ORDER BY id"
    assert rows(database, ended) == []
    revoked = _by(served, **fields)
    assert (revoked.ended_count, list(revoked.ended_capability_ids)) == (len(wanted), wanted)
    assert [key for (key,) in rows(database, ended)] == wanted
    assert revoked.already_ended is False


def test_a_filter_takes_every_character_of_its_resource_literally(served: Served) -> None:
    kept = [served.grant("agent:a", "read", f"doc:{text}/1") for text in ("aXb", "ab", "a|b")]
    ended = [served.grant("agent:a", "read", f"doc:a.b{text}/1") for text in ("", "", "")]
    assert sorted(_by(served, resource="doc:a.b/*").ended_capability_ids) == sorted(ended)
    odd = r"doc:$^(a)[b]{1}+?\d|é /1"
    capability_id = served.grant("agent:a", "read", odd)
    assert list(_by(served, resource=odd).ended_capability_ids) == [capability_id]
    assert not any(_read(served, capability_id).HasField("ended_at") for capability_id in kept)


def test_a_filter_takes_the_descendants_of_what_matches_along(served: Served) -> None:
    ids = _chain(served, 4)
    revoked = _by(served, principal="agent:1")
    assert sorted(revoked.ended_capability_ids) == sorted(ids[1:])
    assert [_read(served, i).end_cause for i in ids[1:]] == [
        END_CAUSE_REVOKED,
        END_CAUSE_CASCADE,
        END_CAUSE_CASCADE,
    ]


def test_a_filter_that_matches_nothing_succeeds_and_is_on_record(
    served: Served, database: Database
) -> None:
    served.grant("agent:a", "read", "doc:x")
    revoked = _by(served, principal="agent:nobody")
    assert (revoked.ended_count, revoked.revision) == (0, 1)
    found = rows(database, "SELECT result, reason FROM audit.events WHERE event_type = 'revoke'")
    assert found == [("done", "NOTHING_MATCHED")]


def test_a_dry_run_changes_nothing_at_all(served: Served, database: Database) -> None:
    ids = _chain(served, 3)
    state = """SELECT (SELECT array_agg(c::text ORDER BY c.id) FROM licet.capabilities AS c),
                 (SELECT array_agg(e::text ORDER BY e.event_id) FROM audit.events AS e
                  WHERE e.event_type !~ '^audit'),
                 (SELECT count(*) FROM licet.changes), (SELECT count(*) FROM licet.requests)"""
    before = rows(database, state)
    for fields in ({"capability_id": ids[0]}, {"filter": pb.RevokeFilter(principal="agent:0")}):
        dry = _revoke(served, dry_run=True, **fields)
        assert (dry.ended_count, dry.revision) == (3, 3)
        assert sorted(dry.ended_capability_ids) == sorted(ids)
        assert (dry.replicas_confirmed, dry.already_ended) == (0, False)
    unknown = refused(lambda: _revoke(served, capability_id=UNKNOWN, dry_run=True))
    assert unknown.code is grpc.StatusCode.NOT_FOUND
    assert rows(database, state) == before
    assert all(_allowed(served, level) for level in range(3))


def test_what_has_ended_already_says_so_with_the_revision_of_its_end(served: Served) -> None:
    ids = _chain(served, 2)
    revoked = _revoke(served, capability_id=ids[0], reason="first")
    served.grant("agent:a", "read", "doc:y")
    for capability_id in ids:  # itself, and by cascade
        again = _revoke(served, capability_id=capability_id, reason="second")
        assert (again.ended_count, again.already_ended) == (0, True)
        assert again.revision == revoked.revision
        assert _read(served, capability_id).end_reason == "first"
        dry = _revoke(served, capability_id=capability_id, dry_run=True)
        assert (dry.ended_count, dry.already_ended) == (0, True)


def test_an_expired_capability_can_still_be_revoked(served: Served) -> None:
    # A replica whose clock is behind may still allow by it.
    capability_id = served.grant("agent:0", "read", "doc:x", ttl=Duration(nanos=100_000_000))
    assert eventually(lambda: not _allowed(served, 0))
    revoked = _revoke(served, capability_id=capability_id)
    assert (revoked.ended_count, revoked.already_ended) == (1, False)
    assert served.authorize("agent:0", "read", "doc:x").reason == REASON_CAPABILITY_EXPIRED


def test_an_unknown_capability_is_not_found_and_the_attempt_on_record(
    served: Served, database: Database
) -> None:
    unknown = refused(lambda: _revoke(served, capability_id=UNKNOWN))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    found = rows(
        database,
        "SELECT capability_id, result, reason FROM audit.events WHERE event_type = 'revoke'",
    )
    assert found == [(UNKNOWN, "refused", "NOT_FOUND")]


def test_a_repeated_key_does_nothing_more_and_says_the_same(
    served: Served, database: Database
) -> None:
    ids = _chain(served, 3)
    first = _revoke(served, capability_id=ids[0], request_id="key-1", reason="r")
    assert _revoke(served, capability_id=ids[0], request_id="key-1", reason="r") == first
    other: dict[str, dict[str, Any]] = {
        "reason": {"capability_id": ids[0], "reason": "other"},
        "target": {"capability_id": ids[1], "reason": "r"},
        "filter": {"filter": pb.RevokeFilter(principal="agent:0"), "reason": "r"},
    }
    for fields in other.values():
        reused = refused(lambda f=fields: _revoke(served, request_id="key-1", **f))  # type: ignore[misc] # bound now
        assert reused.code is grpc.StatusCode.ALREADY_EXISTS
    assert count(database, "SELECT count(*) FROM audit.events WHERE event_type = 'revoke'") == 3


def test_a_repeated_key_of_a_filter_does_not_end_what_was_granted_since(served: Served) -> None:
    served.grant("agent:0", "read", "doc:x")
    target = pb.RevokeFilter(principal="agent:0")
    first = _revoke(served, filter=target, request_id="key-1")
    served.grant("agent:0", "read", "doc:x")
    assert _revoke(served, filter=target, request_id="key-1") == first
    assert _allowed(served, 0)


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({}, "capability_id"),
    "both": (
        {"capability_id": UNKNOWN, "filter": pb.RevokeFilter(principal="agent:a")},
        "capability_id",
    ),
    "empty-filter": ({"filter": pb.RevokeFilter()}, "filter"),
    "bad-id": ({"capability_id": UNKNOWN[:-1]}, "capability_id"),
    "principal": ({"filter": pb.RevokeFilter(principal="a")}, "filter.principal"),
    "resource": ({"filter": pb.RevokeFilter(resource="doc:a*")}, "filter.resource"),
    "grantor": ({"filter": pb.RevokeFilter(granted_by="A:b")}, "filter.granted_by"),
    "session": ({"filter": pb.RevokeFilter(session_id="\x7f")}, "filter.session_id"),
    "reason": ({"capability_id": UNKNOWN, "reason": "x" * 1025}, "reason"),
    "dry-run-with-key": (
        {"capability_id": UNKNOWN, "dry_run": True, "request_id": "k"},
        "request_id",
    ),
}


@pytest.mark.parametrize("rule", INVALID)
def test_a_malformed_revocation_names_its_field_and_ends_nothing(shared: Served, rule: str) -> None:
    shared.grant("agent:0", "read", "doc:x")
    fields, field = INVALID[rule]
    invalid = refused(lambda: _revoke(shared, **fields))
    assert (invalid.code, invalid.fields) == (_INVALID, (field,))
    assert _allowed(shared, 0)
