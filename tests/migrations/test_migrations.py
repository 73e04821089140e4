"""The migrations of this release: their form, and forward, back and forward again on real data."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from licet.storage import migrate
from licet.storage.schema import check, expected_migrations, packaged_migrations
from tests.fakes.postgres import Cluster, Database
from tests.migrations.real_data import fill

FOLDER = Path(__file__).parents[2] / "migrations"
FORWARD = sorted(path for path in FOLDER.glob("*.sql") if ".rollback." not in path.name)
IDS = [path.stem for path in FORWARD]

# A data folder that has applied one of these refuses it with another content: what is to change
# goes into a migration of its own.
LANDED = {
    "0001.capabilities": "eac13a12c201a229c5613524223c283a6df55fc46623ba303ed4287b83614a58",
    "0002.audit": "7567bbb2ddfd31c99300cbfdd782fb01ef0bddbea38ed0d7290aba86b913c493",
    "0003.mutations": "98f169f346c73904ac93030a917bb5ee620462662723af34a9a21feccb92b07a",
    "0004.retention": "41566205304e7a97423ade15c21cbee7c348226e1188e450d77e7ed086f202b1",
    "0005.history": "35c02e31fae8daf5c9a354a2bfe0961eeb4a591a679fe851c087668289da4244",
    "0006.replicas": "d6c9b5dae08c52ffda3036aa945facad92b89e0828f9787c4807da9de22dd91c",
    "0007.guards_and_plans": "d43afabc413e0a2310daf937f56f7cdf71e66503f125d42a0b894329214a7b63",
    "0008.sealing": "3afcd1babbee22531439238c52f8e9a5287c52341110b63cc74ce86345c2d306",
    "0009.sealed_changes": "65589115022f6431789835fd8113c6a14c557556225dc84f86179f04b04950fb",
    "0010.audit_patterns": "5fddfecfbba3e02f7ec3eaf5ec04ef9b00e6a4054bf055ac44b11aaf3cdcec8e",
    "0011.archives": "f9fff64bb0cdaf3c99e247954a8eea2e39a5ff690c00e796e5f6db3e897c711b",
    "0012.callers": "ab7be5abae2993154ef982e3820a4640480fd0b8a26820a98e1ee39f736286bb",
    "0013.users": "37df713ec1def754592ea55e7d9ec40fbe9295af5b79ea8d4c74eb2a4729a593",
    "0014.agents": "17fc5c05d130f492158bf95c547fcef47a7a9913b4fbd717b44958bb9df9129f",
    "0015.import": "abfcbfb19c5fcb0d2d08c0eac9bec858604175b4b68e3ae257db19c5c624d028",
    "0016.policies": "93a53d49783bc83881dff8124c36d5654c55931f65f1e9110a23da0a15829cef",
    "0017.conditions": "71c7d1a04dc1dafcc721b6f2a0142b42fea15e911741213a47a36592a083ea08",
    "0018.limits": "b85466759c3a836adc9e1aea4b87411b4cf6d3c9a478639818c1a9f344799176",
    "0019.approvals": "286874651a40a5781ddb7eedf34de41babd4375dd5792185dc2ae44d68583dbc",
}

# What the schema consists of, but for what data brings along (the partitions of the audit log).
OBJECTS = """
WITH relation AS (
  SELECT c.oid, c.relname, c.relkind, c.relacl, n.nspname
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname IN ('licet', 'audit') AND NOT c.relispartition AND c.relkind <> 't'
)
SELECT 'schema', nspname, concat_ws(' ', nspacl)
FROM pg_namespace WHERE nspname IN ('licet', 'audit')
UNION ALL
SELECT 'relation', nspname || '.' || relname, concat_ws(' ', relkind, relacl) FROM relation
UNION ALL
SELECT 'column', r.nspname || '.' || r.relname || '.' || a.attname,
       concat_ws(' ', row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum),
                 format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attacl,
                 pg_get_expr(d.adbin, d.adrelid))
FROM relation AS r
JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL
SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid)
FROM pg_index JOIN relation AS r ON r.oid = indrelid
UNION ALL
SELECT 'constraint', r.relname || '.' || conname, pg_get_constraintdef(c.oid)
FROM pg_constraint AS c JOIN relation AS r ON r.oid = c.conrelid
UNION ALL
SELECT 'trigger', r.relname || '.' || tgname, concat_ws(' ', tgenabled, pg_get_triggerdef(t.oid))
FROM pg_trigger AS t JOIN relation AS r ON r.oid = t.tgrelid WHERE NOT tgisinternal
UNION ALL
SELECT 'function', p.oid::regprocedure::text, concat_ws(' ', pg_get_functiondef(p.oid), proacl)
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname IN ('licet', 'audit')
UNION ALL
SELECT 'type', t.oid::regtype::text, t.typtype::text
FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
WHERE n.nspname IN ('licet', 'audit') AND t.typtype <> 'c' AND t.typcategory <> 'A'
"""

# Everything in the database that neither PostgreSQL, nor yoyo, nor the templates brought.
LEFTOVERS = """
SELECT 'schema', nspname::text FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname NOT IN ('public', 'information_schema')
UNION ALL
SELECT 'relation', c.oid::regclass::text FROM pg_class AS c
WHERE c.oid >= 16384 AND c.relnamespace <> 'pg_toast'::regnamespace AND c.relname !~ '^_yoyo_'
UNION ALL
SELECT 'function', oid::regprocedure::text FROM pg_proc WHERE oid >= 16384
UNION ALL
SELECT 'type', oid::regtype::text FROM pg_type WHERE oid >= 16384 AND typname !~ '^_?_yoyo_'
UNION ALL
SELECT 'trigger', tgname::text FROM pg_trigger
UNION ALL
SELECT 'extension', extname::text FROM pg_extension WHERE extname <> 'plpgsql'
UNION ALL
SELECT 'default privilege', defaclacl::text FROM pg_default_acl
"""

TABLES = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('licet', 'audit') AND c.relkind IN ('r', 'p') AND c.relname <> 'migrations'
"""


def objects(connection: psycopg.Connection) -> dict[tuple[str, str], str]:
    return {(kind, name): text for kind, name, text in connection.execute(OBJECTS).fetchall()}


def row_counts(connection: psycopg.Connection) -> dict[str, int]:
    counts = {}
    for schema, table in connection.execute(TABLES).fetchall():
        name = sql.Identifier(schema, table)
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
        assert row is not None
        counts[f"{schema}.{table}"] = row[0]
    return counts


def test_what_has_landed_stays_as_it_is() -> None:
    found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in FORWARD}
    assert LANDED.items() <= found.items()


def test_the_ids_are_contiguous_and_named() -> None:
    assert [int(name.partition(".")[0]) for name in IDS] == list(range(1, len(IDS) + 1))
    assert all(re.fullmatch(r"[0-9]{4}\.[a-z][a-z0-9_]*", name) for name in IDS)


def test_each_has_a_rollback_and_each_rollback_has_one() -> None:
    expected = {f"{name}.sql" for name in IDS} | {f"{name}.rollback.sql" for name in IDS}
    assert {path.name for path in FOLDER.iterdir()} == expected


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.sql")), ids=lambda path: path.name)
def test_each_is_bounded_in_time(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for setting in ("lock_timeout", "statement_timeout"):
        assert re.search(rf"^SET LOCAL {setting} = '[0-9]+s';$", text, re.MULTILINE)


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.name)
def test_each_says_what_it_locks_and_what_it_breaks(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for line, start in zip(
        lines, ("-- What: ", "-- Locks on existing tables: ", "-- Code of the previous release: "),
        strict=False,
    ):  # fmt: skip
        assert line.startswith(start)


def test_the_files_of_this_repository_are_the_packaged_ones() -> None:
    expected = [(path.stem, hashlib.sha256(path.read_bytes()).hexdigest()) for path in FORWARD]
    assert list(expected_migrations()) == expected
    assert [migration.id for migration in packaged_migrations()] == IDS


def test_the_servers_role_can_check_the_schema(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("SET ROLE licet_server")
        assert check(connection).is_expected


def test_the_servers_role_sees_that_the_schema_is_missing(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        assert check(connection).missing == tuple(IDS)


def test_real_data_is_in_every_table(database: Database) -> None:
    fill(database)
    with database.connect() as connection:
        assert min(row_counts(connection).values()) > 0


@pytest.mark.parametrize("steps", range(1, len(IDS) + 1))
def test_back_and_forward_again_on_real_data(database: Database, steps: int) -> None:
    fill(database)
    with database.connect() as connection:
        before, rows_before = objects(connection), row_counts(connection)
        assert migrate.down(database.url, steps) == tuple(reversed(IDS[-steps:]))
        rows_between = row_counts(connection)
        # What the step did not make is not touched by taking it back.
        assert rows_between.items() <= rows_before.items()
        assert migrate.up(database.url) == tuple(IDS[-steps:])
        assert objects(connection) == before
        assert rows_between.items() <= row_counts(connection).items()
        assert check(connection).is_expected


def test_all_the_way_back_leaves_nothing(database: Database) -> None:
    fill(database)
    migrate.down(database.url, len(IDS))
    with database.connect() as connection:
        assert connection.execute(LEFTOVERS).fetchall() == []
    assert migrate.up(database.url) == tuple(IDS)
    fill(database)


def test_a_second_database_of_the_same_server_can_be_migrated(
    cluster: Cluster, database: Database
) -> None:
    # The roles belong to the server and exist already; taking one schema back leaves the other.
    with cluster.database() as second:
        assert migrate.up(second.url) == tuple(IDS)
        migrate.down(second.url, len(IDS))
    fill(database)
