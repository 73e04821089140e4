"""Who may change what of the audit log, table by table: all that is not listed here is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg import errors

from tests.fakes.postgres import Cluster, Database
from tests.fakes.sealed_log import sealed_log

ROLES: Final = ("licet_server", "licet_sealer", "licet_auditor")
MAY: Final = {
    "licet_server": {"writers": {"UPDATE shipped_seq", "UPDATE closed_seq"}},
    "licet_sealer": {
        "writers": {"UPDATE shipped_seq", "UPDATE closed_seq"},
        "log": {"UPDATE origin", "UPDATE epoch", "UPDATE tree_size", "UPDATE root"},
        # What is sealed leaves the queue, and by that alone.
        "queue": {
            *("UPDATE batch_id", "UPDATE writer_id", "UPDATE first_id", "UPDATE last_id"),
            *("UPDATE min_at", "UPDATE max_at", "UPDATE n", "UPDATE digest", "UPDATE mac"),
            "DELETE",
        },
    },
    "licet_auditor": {},
}
"""What each may change of what is there."""
MAY_INSERT: Final = {
    "licet_server": {"events", "writers", "queue", "quarantine"},
    "licet_sealer": {
        *("events", "writers", "queue", "quarantine"),
        *("batches", "nodes", "checkpoints", "archives"),
    },
    "licet_auditor": set[str](),
}
APPEND_ONLY: Final = {
    *("events", "batches", "nodes", "checkpoints", "quarantine", "archives", "imported")
}
UPDATE: Final = "UPDATE audit.{0} SET {1} = {2}"
DELETE: Final = "DELETE FROM audit.{0}"
INSERT: Final = "INSERT INTO audit.{0} OVERRIDING SYSTEM VALUE SELECT * FROM audit.{0} LIMIT 0"
DEFINITIONS: Final = (
    "TRUNCATE audit.{}",
    "DROP TABLE audit.{} CASCADE",
    "ALTER TABLE audit.{} ADD COLUMN x int",
    "ALTER TABLE audit.{} DISABLE TRIGGER ALL",
    "ALTER TABLE audit.{} OWNER TO CURRENT_USER",
    "CREATE INDEX ON audit.{} ((1))",
    "CREATE RULE x AS ON INSERT TO audit.{} DO INSTEAD NOTHING",
    "CREATE TRIGGER x BEFORE INSERT ON audit.{} EXECUTE FUNCTION audit.refuse_change()",
)


@pytest.fixture(scope="module")
def sealed(
    cluster: Cluster, migrated_template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """Provide a log that is sealed and signed, with partitions of several days."""
    folder: Path = tmp_path_factory.mktemp("roles")
    with cluster.database(migrated_template) as database:
        with sealed_log(database, folder) as log:
            log.grow(300)
            log.admin.execute("SELECT audit.ensure_partition('2030-01-01')")
            log.admin.execute("SELECT audit.pass_over(1, 301, 301, 'x', '\\x00')")
        yield database


@pytest.fixture
def admin(sealed: Database) -> Iterator[psycopg.Connection]:
    with sealed.connect() as connection, connection.transaction(force_rollback=True):
        yield connection


def _tables(admin: psycopg.Connection) -> dict[str, list[str]]:
    """Return every table of the log with its columns."""
    found = admin.execute(
        "SELECT c.relname, array_agg(a.attname::text) FROM pg_class AS c JOIN pg_attribute AS a"
        " ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind IN ('r', 'p') GROUP BY 1"
    ).fetchall()
    return dict(found)


def _update(table: str, column: str) -> str:
    # Where PostgreSQL numbers, it says so before it asks for the right, but for its own number.
    is_numbered = (table, column) in {("quarantine", "id"), ("queue", "batch_id")}
    return UPDATE.format(table, column, "DEFAULT" if is_numbered else column)


def _is_refused(connection: psycopg.Connection, statement: str) -> bool:
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement.encode())
    except errors.InsufficientPrivilege:
        return True
    except psycopg.Error:
        return False  # for another reason: the right is there
    return False


def test_the_log_has_the_tables_that_the_matrix_is_about(admin: psycopg.Connection) -> None:
    tables = set(_tables(admin))
    partitions = {name for name in tables if name.startswith("events_")}
    assert len(partitions) >= 2
    assert tables - partitions == APPEND_ONLY | {"log", "queue", "writers"}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_changes_what_it_may_and_nothing_else(admin: psycopg.Connection, role: str) -> None:
    tables = _tables(admin)
    admin.execute(f"SET ROLE {role}".encode())
    done: dict[str, set[str]] = {}
    for table, columns in tables.items():
        changes = {f"UPDATE {column}": _update(table, column) for column in columns}
        changes["DELETE"] = DELETE.format(table)
        allowed = {name for name, text in changes.items() if not _is_refused(admin, text)}
        if allowed:
            done[table] = allowed
    assert done == MAY[role]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_adds_where_it_may_and_never_to_a_partition(
    admin: psycopg.Connection, role: str
) -> None:
    tables = _tables(admin)
    admin.execute(f"SET ROLE {role}".encode())
    refused = {table for table in tables if _is_refused(admin, INSERT.format(table))}
    assert set(tables) - refused == MAY_INSERT[role]


@pytest.mark.parametrize("role", ROLES)
def test_no_role_of_a_service_defines_anything(admin: psycopg.Connection, role: str) -> None:
    tables = _tables(admin)
    admin.execute(f"SET ROLE {role}".encode())
    for table in tables:
        for statement in DEFINITIONS:
            assert _is_refused(admin, statement.format(table)), statement.format(table)


@pytest.mark.parametrize("replica", [False, True], ids=["normally", "as-replication"])
def test_not_even_a_superuser_changes_what_was_added(
    admin: psycopg.Connection, replica: bool
) -> None:
    if replica:
        admin.execute("SET LOCAL session_replication_role = replica")
    for table, columns in _tables(admin).items():
        if table.partition("_")[0] not in APPEND_ONLY:
            continue
        for statement in (
            _update(table, columns[0]),
            DELETE.format(table),
            f"{DELETE.format(table)} WHERE false",
            f"TRUNCATE audit.{table} CASCADE",
        ):
            assert _is_refused(admin, statement), statement
