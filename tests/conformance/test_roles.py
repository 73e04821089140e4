"""What the database itself refuses, whoever asks: the rights of roles, and the log's triggers.

The server could be wrong, or somebody could sit at its connection; these hold all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

import grpc
import psycopg
import pytest
from psycopg import errors

from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import refused
from tests.fakes.postgres import Cluster, Database
from tests.fakes.serving import Served
from tests.fakes.used_database import denied, used_database

PARTITION: LiteralString = """
SELECT 'audit.' || c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'audit.events'::regclass ORDER BY c.relname LIMIT 1
"""
EVENT: LiteralString = """
(v, event_id, occurred_at, event_type, actor, principal, action, resource, capability_id, result,
 reason, policy_id, session_id, trace_id, revision, metadata)
SELECT 1, gen_random_uuid(), occurred_at, 'grant', '', '', '', '', '', 'done', '', '', '', '',
  1, '{}'
FROM audit.events LIMIT 1
"""


@pytest.fixture(scope="module")
def used(cluster: Cluster, migrated_template: Database) -> Iterator[tuple[Database, str, str]]:
    """Provide a database after use, with a parent, its child, decisions and changes on record."""
    with used_database(cluster, migrated_template) as used:
        yield used


@pytest.fixture
def admin(used: tuple[Database, str, str]) -> Iterator[psycopg.Connection]:
    """Provide a transaction of the administrator, which is rolled back."""
    with used[0].connect() as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.fixture
def server(admin: psycopg.Connection) -> psycopg.Connection:
    """Provide a connection in the server's role."""
    admin.execute("SET ROLE licet_server")
    return admin


NOT_FOR_THE_SERVER: list[LiteralString] = [
    "UPDATE audit.events SET reason = 'x'",
    "DELETE FROM audit.events",
    "TRUNCATE audit.events",
    "UPDATE {partition} SET reason = 'x'",
    "DELETE FROM {partition}",
    "TRUNCATE {partition}",
    "INSERT INTO {partition} " + EVENT,
    "DROP TABLE {partition}",
    "ALTER TABLE audit.events DETACH PARTITION {partition}",
    "ALTER TABLE audit.events DISABLE TRIGGER append_only",
    "ALTER TABLE {partition} DISABLE TRIGGER append_only",
    "DROP TRIGGER append_only ON audit.events",
    "CREATE TRIGGER t BEFORE INSERT ON audit.events EXECUTE FUNCTION audit.refuse_change()",
    # What a server that knows of no conditions would read.
    "SELECT id FROM licet.capabilities",
    "INSERT INTO licet.capabilities SELECT * FROM licet.all_capabilities LIMIT 0",
    "UPDATE licet.all_capabilities SET conditions = '{}'",
    "DELETE FROM licet.all_capabilities",
    "UPDATE licet.capabilities SET ended_revision = NULL",
    "UPDATE licet.capabilities SET principal = 'agent:z'",
    "DELETE FROM licet.capabilities",
    "TRUNCATE licet.capabilities CASCADE",
    "ALTER TABLE licet.capabilities DISABLE TRIGGER guard_capability",
    "ALTER TABLE licet.capabilities DROP CONSTRAINT capability_end_is_whole",
    "INSERT INTO licet.api_keys SELECT * FROM licet.api_keys LIMIT 0",
    "UPDATE licet.api_keys SET scopes = '{admin}'",
    "UPDATE licet.api_keys SET ended_at = NULL",
    "DELETE FROM licet.api_keys",
    "TRUNCATE licet.api_keys CASCADE",
    "UPDATE licet.api_key_uses SET id = ''",
    "DELETE FROM licet.api_key_uses",
    "ALTER TABLE licet.api_keys DISABLE TRIGGER guard_api_key",
    "SELECT licet.insert_api_key('{}', 1, now())",
    "SELECT licet.apply_key_change('{}', 1, now())",
    "INSERT INTO licet.policy_sets SELECT * FROM licet.policy_sets LIMIT 0",
    "UPDATE licet.policy_sets SET source = ''",
    "DELETE FROM licet.policy_sets",
    "TRUNCATE licet.policy_sets CASCADE",
    "ALTER TABLE licet.policy_sets DISABLE TRIGGER guard_policy_set",
    "SELECT licet.apply_policy_change('{}', 1, now())",
    "SELECT * FROM licet.buckets",
    "INSERT INTO licet.buckets VALUES ('', 0, 0, '{}')",
    "UPDATE licet.buckets SET tat = 0",
    "DELETE FROM licet.buckets",
    "TRUNCATE licet.buckets",
    "SELECT licet.exchange_slice(0, '{}', 0, 0, true, 0, 0, 0, 0, 1, 1, 1, 1)",
    "DROP FUNCTION licet.make_admin_change(jsonb)",
    "INSERT INTO licet.users SELECT * FROM licet.users LIMIT 0",
    "UPDATE licet.users SET roles = '{admin}'",
    "DELETE FROM licet.users",
    "TRUNCATE licet.users",
    "ALTER TABLE licet.users DISABLE TRIGGER guard_user",
    "INSERT INTO licet.suspensions SELECT * FROM licet.suspensions LIMIT 0",
    "UPDATE licet.suspensions SET resumed_revision = NULL",
    "DELETE FROM licet.suspensions",
    "TRUNCATE licet.suspensions",
    "ALTER TABLE licet.suspensions DISABLE TRIGGER guard_suspension",
    "SELECT licet.is_barred('user:a')",
    "SELECT licet.key_names('user:a')",
    "SELECT licet.apply_user_change('{}', 1, now())",
    "SELECT licet.apply_principal_change('{}', 1, now())",
    "SELECT licet.apply_admin_change('{}', 1, now())",
    "INSERT INTO licet.bootstrap_tokens SELECT * FROM licet.bootstrap_tokens LIMIT 0",
    "UPDATE licet.bootstrap_tokens SET uses = 0",
    "DELETE FROM licet.bootstrap_tokens",
    "INSERT INTO licet.agents SELECT * FROM licet.agents LIMIT 0",
    "UPDATE licet.agents SET deactivated_at = NULL",
    "DELETE FROM licet.agents",
    "TRUNCATE licet.agents CASCADE",
    "INSERT INTO licet.agent_tokens SELECT * FROM licet.agent_tokens LIMIT 0",
    "UPDATE licet.agent_tokens SET expires_at = 'infinity'",
    "DELETE FROM licet.agent_tokens",
    "UPDATE licet.agent_heartbeats SET agent = ''",
    "DELETE FROM licet.agent_heartbeats",
    "ALTER TABLE licet.agent_tokens DISABLE TRIGGER guard_agent_token",
    "SELECT licet.insert_agent_token('a', '{}', 1, now())",
    "SELECT licet.end_agent_tokens('a', 0, 1, now())",
    "SELECT licet.register_agent('{}', 1, now())",
    "SELECT licet.rotate_agent_token('{}', 1, now())",
    "SELECT licet.switch_agent('{}', 1, now())",
    "SELECT licet.apply_agent_change('{}', 1, now())",
    "SELECT licet.apply_bootstrap_change('{}', 1, now())",
    "SELECT licet.set_agents_offline('{}', true)",
    "INSERT INTO licet.changes VALUES (99, 0, '{}')",
    "DELETE FROM licet.changes",
    "UPDATE licet.requests SET outcome = '{}'",
    "DELETE FROM licet.requests",
    "UPDATE licet.meta SET page_token_key = ''",
    "UPDATE licet.migrations SET sha256 = ''",
    "DELETE FROM licet.migrations",
    "UPDATE audit.writers SET writer_id = 7",
    "UPDATE audit.writers SET info = '{}'",
    "DELETE FROM audit.writers",
    "CREATE TABLE licet.x ()",
    "CREATE TABLE audit.x ()",
    "CREATE TABLE public.x ()",
    "CREATE SCHEMA x",
    "CREATE FUNCTION licet.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION licet.x(jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DROP FUNCTION licet.apply_mutations(jsonb, jsonb)",
    "ALTER TABLE licet.capabilities ADD COLUMN x int",
    "DROP TABLE licet.capabilities CASCADE",
    "DROP SCHEMA licet CASCADE",
    "DROP INDEX licet.capability_living_idx",
    "CREATE INDEX x ON licet.capabilities (id)",
    "ALTER FUNCTION licet.apply_mutations(jsonb, jsonb) SECURITY INVOKER",
    "ALTER ROLE licet_server SUPERUSER",
    "CREATE ROLE licet_test_role",
    "SET session_replication_role = replica",
    "SELECT licet.apply_grant('{}', 1, now())",
    "SELECT licet.apply_grants('[]', 1, now())",
    "SELECT licet.went_backwards(NULL, NULL)",
    "SELECT licet.begin_epoch()",
    "SELECT licet.confirm_epoch(gen_random_uuid())",
    "SELECT licet.apply_revoke('{}', 1, now())",
    "SELECT audit.next_change_event_id()",
    "SELECT audit.record_change(NULL, now(), '', '{}', '', '', '', '', '', '', 1, '{}')",
    "SELECT nextval('audit.change_event_seq')",
    "COPY licet.capabilities FROM PROGRAM 'true'",
    "SELECT pg_read_file('PG_VERSION')",
]


@pytest.mark.parametrize("statement", NOT_FOR_THE_SERVER)
def test_the_servers_role_is_refused(server: psycopg.Connection, statement: LiteralString) -> None:
    with denied(server, errors.InsufficientPrivilege):
        server.execute(_on_partition(server, statement))


def test_a_server_has_no_other_rights_than_its_roles(served: Served, database: Database) -> None:
    with database.connect() as admin:
        admin.execute("REVOKE EXECUTE ON FUNCTION licet.apply_mutations FROM licet_server")
        admin.execute("REVOKE SELECT ON licet.all_capabilities FROM licet_server")
    # The tests' server logs in as an administrator, and gave those rights up.
    grant = pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:x")
    for call in (
        lambda: served.stub.Grant(grant, timeout=10),
        lambda: served.authorize("agent:a", "read", "doc:x"),
    ):
        assert refused(call).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("role", ["licet_auditor", "nobody"])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT page_token_key FROM licet.meta",
        "SELECT * FROM licet.requests",
        "SELECT secret_sha256 FROM licet.api_keys",
        "SELECT email FROM licet.users",
        "SELECT reason FROM licet.suspensions",
        "SELECT licet.user_as_json(NULL)",
        "SELECT secret_sha256 FROM licet.agent_tokens",
        "SELECT secret_sha256 FROM licet.bootstrap_tokens",
        "SELECT licet.mark_silent_agents(interval '0', 1)",
        "SELECT licet.bring_back_agents('{}')",
        "SELECT licet.make_admin_change('{}')",
        "SELECT licet.apply_mutations('[]', '[]')",
        "SELECT licet.living_matching(NULL, NULL, NULL, NULL)",
        "SELECT audit.ensure_partition('2000-01-01')",
        "SELECT audit.record_refusal('{}')",
        "INSERT INTO audit.events " + EVENT,
        "UPDATE licet.capabilities SET principal = 'agent:z'",
    ],
)
def test_other_roles_are_refused(
    admin: psycopg.Connection, role: str, statement: LiteralString
) -> None:
    if role == "nobody":
        admin.execute("CREATE ROLE licet_test_nobody")
        admin.execute("SET LOCAL ROLE licet_test_nobody")
    else:
        admin.execute("SET LOCAL ROLE licet_auditor")
    with denied(admin, errors.InsufficientPrivilege):
        admin.execute(statement)


def test_the_auditor_reads_the_log_and_the_capabilities(admin: psycopg.Connection) -> None:
    admin.execute("SET ROLE licet_auditor")
    for query in (
        "SELECT count(*) FROM audit.events",
        "SELECT count(*) FROM licet.capabilities",
        "SELECT count(*) FROM licet.changes",
    ):
        (number,) = admin.execute(query).fetchone() or (0,)
        assert number >= 2


@pytest.mark.parametrize("replica", [False, True], ids=["normally", "as-replication"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit.events SET reason = 'x'",
        "DELETE FROM audit.events",
        "DELETE FROM audit.events WHERE false",
        "TRUNCATE audit.events",
        "UPDATE {partition} SET reason = 'x'",
        "DELETE FROM {partition}",
        "TRUNCATE {partition}",
    ],
)
def test_nobody_changes_what_is_on_record(
    admin: psycopg.Connection, statement: LiteralString, replica: bool
) -> None:
    everything = "SELECT e::text FROM audit.events AS e ORDER BY 1"
    before = admin.execute(everything).fetchall()
    if replica:
        admin.execute("SET LOCAL session_replication_role = replica")
    with denied(admin, errors.InsufficientPrivilege, match="append-only"):
        admin.execute(_on_partition(admin, statement))
    assert admin.execute(everything).fetchall() == before


def _on_partition(connection: psycopg.Connection, statement: str) -> LiteralString:
    (partition,) = connection.execute(PARTITION).fetchone() or ("",)
    filled: LiteralString = statement.replace("{partition}", partition)
    return filled
