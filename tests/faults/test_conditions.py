"""Conditions that this release cannot use, and servers that know of none: nobody is allowed."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest

from licet.storage import migrate
from licet.storage.schema import packaged_migrations
from licet.v1 import decision_pb2 as d
from tests.fakes.api import struct
from tests.fakes.postgres import Database
from tests.fakes.serving import serving

# As the release before conditions reads what a principal holds.
FORMER_READ: LiteralString = """
SELECT c.id, c.resource, c.actions, c.not_before, c.expires_at FROM licet.capabilities AS c
WHERE c.principal = 'agent:a' AND c.ended_revision IS NULL AND c.expires_at > now()
"""
BROKEN: dict[str, LiteralString] = {
    "of a later release": "a_later_function(context)",
    "no expression": ") (",
    "of another type": "action",
    "too long": "action == 'read' || action == 'read' || action == 'read'" + " || true" * 400,
    "nothing": "",
}


def test_a_condition_that_cannot_be_compiled_allows_nobody(database: Database) -> None:
    stored = [
        (f"agent:{number}", conditions)
        for number, conditions in enumerate(
            found for text in BROKEN.values() for found in ([text], [text, "true"])
        )
    ]
    with serving(database) as served:
        for principal, _ in stored:
            served.grant(principal, "read", "doc:**", condition="true")
            assert served.authorize(principal, "read", "doc:x").reason == d.REASON_GRANTED
    with database.connect() as admin:
        admin.execute("SET session_replication_role = replica")
        for principal, conditions in stored:
            admin.execute(
                "UPDATE licet.capabilities SET condition = %s, conditions = %s"
                " WHERE principal = %s",
                [conditions[-1], conditions, principal],
            )
    with serving(database) as served:
        for principal, conditions in stored:
            for _ in range(2):
                answer = served.authorize(principal, "read", "doc:x", explain=True)
                assert answer.decision == d.DECISION_DENY, conditions
                assert answer.reason == d.REASON_POLICY_ERROR
                (candidate,) = answer.explanation.candidates
                assert candidate.verdict == d.CANDIDATE_VERDICT_CONDITION_FAILED
        # Others are not concerned.
        served.grant("agent:b", "read", "doc:**")
        assert served.authorize("agent:b", "read", "doc:x").reason == d.REASON_GRANTED


def test_a_server_of_the_former_release_cannot_read_what_is_held(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("SET ROLE licet_server")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(FORMER_READ)


def test_whoever_inserts_a_capability_it_has_the_conditions_of_its_parent(
    database: Database,
) -> None:
    with serving(database) as served:
        parent = served.grant(
            "agent:a", "read", "doc:**", condition="context.x == 1", delegation_depth=1
        )
        insert: LiteralString = """
            INSERT INTO licet.capabilities (id, parent_id, principal, actions, resource, granted_by,
              granted_at, delegation_depth, conditions, granted_revision, granted_event_id)
            VALUES (gen_random_uuid(), %s, 'agent:b', '{read}', 'doc:**', 'user:a', now(), 0, %s, 1,
              gen_random_uuid()) RETURNING conditions"""
        with database.connect() as admin:
            for claimed in ([], ["true"]):
                found = admin.execute(insert, [parent, claimed]).fetchone()
                assert found == (["context.x == 1"],)
        answer = served.authorize("agent:b", "read", "doc:x", context=struct(x=2))
        assert answer.reason == d.REASON_CONDITION_FAILED


def test_taking_the_migration_back_leaves_no_capability_without_its_condition(
    database: Database,
) -> None:
    with serving(database) as served:
        root = served.grant("agent:a", "read", "doc:**", condition="true", delegation_depth=1)
        served.grant("agent:b", "read", "doc:**", parent_capability_id=root)
        plain = served.grant("agent:c", "read", "doc:**")
    ids = [migration.id for migration in packaged_migrations()]
    migrate.down(database.url, len(ids) - ids.index("0017.conditions"))
    with database.connect() as admin:
        assert admin.execute("SELECT id::text FROM licet.capabilities").fetchall() == [(plain,)]
        admin.execute("SET ROLE licet_server")
        assert len(admin.execute(FORMER_READ).fetchall()) == 0
