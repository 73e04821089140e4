"""What the database itself keeps of capabilities: they end, once, and none exceeds its parent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.fakes.postgres import Cluster, Database
from tests.fakes.used_database import denied, used_database


@pytest.fixture(scope="module")
def used(cluster: Cluster, migrated_template: Database) -> Iterator[tuple[Database, str, str]]:
    """Provide a database after use, with a parent, its child, decisions and changes on record."""
    with used_database(cluster, migrated_template) as used:
        yield used


@pytest.fixture
def child(used: tuple[Database, str, str]) -> str:
    """Provide the id of the child."""
    return used[2]


@pytest.fixture
def admin(used: tuple[Database, str, str]) -> Iterator[psycopg.Connection]:
    """Provide a transaction of the administrator, which is rolled back."""
    with used[0].connect() as connection, connection.transaction(force_rollback=True):
        yield connection


IMMUTABLE: dict[str, LiteralString] = {
    "id": "id = gen_random_uuid()",
    "parent_id": "parent_id = NULL",
    "principal": "principal = 'agent:z'",
    "actions": "actions = '{write}'",
    "resource": "resource = 'doc:y'",
    "granted_by": "granted_by = 'caller:z'",
    "granted_at": "granted_at = now()",
    "not_before": "not_before = now()",
    "expires_at": "expires_at = '2099-01-01'",
    "delegation_depth": "delegation_depth = delegation_depth + 1",
    "condition": "condition = 'true'",
    "conditions": "conditions = '{true}'",
    "session_id": "session_id = 's'",
    "metadata": "metadata = '{\"a\": 1}'",
    "granted_revision": "granted_revision = granted_revision + 1",
    "granted_event_id": "granted_event_id = gen_random_uuid()",
    "approved_roles": "approved_roles = '{security}'",
}
END: LiteralString = """
UPDATE licet.capabilities SET ended_revision = 99, ended_event_id = gen_random_uuid(),
  ended_at = now(), ended_by = 'caller:a', end_reason = '', end_cause = 'REVOKED' WHERE id = %s
"""


@pytest.mark.parametrize("column", IMMUTABLE)
def test_nothing_but_the_end_of_a_capability_changes(
    admin: psycopg.Connection, child: str, column: str
) -> None:
    update: LiteralString = "UPDATE licet.capabilities SET {} WHERE id = %s"
    with denied(admin, errors.IntegrityError):
        admin.execute(update.format(IMMUTABLE[column]), [child])
    # Not even together with its end.
    both: LiteralString = END.replace("SET ", "SET " + IMMUTABLE[column] + ", ")
    with denied(admin, errors.IntegrityError):
        admin.execute(both, [child])


def test_every_column_of_a_capability_is_covered(admin: psycopg.Connection) -> None:
    found = admin.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'licet.capabilities'::regclass"
        " AND attnum > 0 AND attname NOT LIKE 'end%'"
    ).fetchall()
    assert {name for (name,) in found} == set(IMMUTABLE)


def test_a_capability_ends_once_and_is_never_deleted(admin: psycopg.Connection, child: str) -> None:
    with denied(admin, errors.IntegrityError):
        admin.execute("DELETE FROM licet.capabilities WHERE id = %s", [child])
    admin.execute(END, [child])
    for again in (END, "UPDATE licet.capabilities SET ended_revision = NULL WHERE id = %s"):
        with denied(admin, errors.IntegrityError, match="has ended"):
            admin.execute(again, [child])
    with denied(admin, errors.IntegrityError):
        admin.execute("DELETE FROM licet.capabilities WHERE id = %s", [child])


BAD_ROWS: dict[str, tuple[dict[str, object], str]] = {
    "depth-of-parent": ({"delegation_depth": 2}, ""),
    "later-expiry": ({"expires_at": "infinity"}, ""),
    "earlier-begin": ({"not_before": "-infinity"}, ""),
    "other-action": ({"actions": ["write"]}, ""),
    "more-actions": ({"actions": ["read", "write"]}, ""),
    "any-action": ({"actions": ["*"]}, ""),
    "no-actions": ({"actions": []}, "capability_has_actions"),
    "null-action": ({"actions": ["read", None], "parent_id": None}, "capability_has_actions"),
    "principal": ({"principal": "Agent:a"}, "capability_principal_is_name"),
    "long-principal": ({"principal": "a:" + "x" * 255}, "capability_principal_is_name"),
    "resource": ({"resource": "doc"}, "capability_resource_is_name"),
    "no-time": (
        {"not_before": "2050-01-01", "expires_at": "2050-01-01"},
        "capability_time_is_not_empty",
    ),
    "depth": ({"delegation_depth": 65, "parent_id": None}, "capability_depth_in_range"),
    "negative": ({"delegation_depth": -1}, "capability_depth_in_range"),
    "metadata": ({"metadata": Jsonb([])}, "capability_metadata_is_object"),
    "long-condition": ({"condition": "x" * 2049}, ""),
    "half-an-end": ({"ended_revision": 9}, "capability_end_is_whole"),
}


@pytest.mark.parametrize("rule", BAD_ROWS)
def test_a_wrong_capability_cannot_be_stored(
    admin: psycopg.Connection, child: str, rule: str
) -> None:
    overrides, constraint = BAD_ROWS[rule]
    good: dict[str, object] = {
        "parent_id": None,
        "principal": "agent:b",
        "actions": ["read"],
        "resource": "doc:x",
        "not_before": "2040-01-01",
        "expires_at": "2090-01-01",
        "delegation_depth": 1,
        "metadata": Jsonb({}),
        "condition": "",
        "ended_revision": None,
    }
    insert: LiteralString = """
        INSERT INTO licet.capabilities (id, parent_id, principal, actions, resource, granted_by,
          granted_at, not_before, expires_at, delegation_depth, metadata, condition,
          granted_revision, granted_event_id, ended_revision)
        VALUES (coalesce(%(id)s, gen_random_uuid()), %(parent_id)s::uuid, %(principal)s,
          %(actions)s, %(resource)s, 'caller:a', now(), %(not_before)s, %(expires_at)s,
          %(delegation_depth)s, %(metadata)s, %(condition)s, 1, gen_random_uuid(),
          %(ended_revision)s)
        RETURNING id"""
    limits = good | {"id": None, "delegation_depth": 2}
    (bound,) = admin.execute(insert, limits).fetchone() or ("",)
    inside = good | {"id": None, "parent_id": bound}
    admin.execute(insert, inside)  # as it should be
    with denied(admin, errors.IntegrityError) as refused:
        admin.execute(insert, inside | overrides)
    assert (refused.value.diag.constraint_name or "") == constraint
    with denied(admin, errors.IntegrityError):
        admin.execute(insert, inside | {"id": child})  # the id is taken
    admin.execute(END, [bound])
    with denied(admin, errors.IntegrityError):
        admin.execute(insert, inside)  # of a dead parent
