"""`licet replicas`: the fleet, as its operators see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg import sql

from tests.fakes.postgres import Database, eventually, reachable_folder
from tests.fakes.serving import serving
from tests.fakes.terminal import Finished, run, running

_DEAD = """
INSERT INTO licet.replicas (incarnation, applied, host, lease_seconds)
VALUES ('00000000-0000-4000-8000-000000000001', 0, 'gone.example', 0.5)
"""


def replicas(database: Database, *options: str, **variables: str) -> Finished:
    return run("replicas", *options, variables={"LICET_DATABASE_URL": database.url} | variables)


def test_a_fleet_that_renews_is_shown_for_people_and_for_programs(database: Database) -> None:
    with serving(database, lease_seconds=2.0) as served, serving(database):
        served.grant("agent:a", "read", "doc:x")
        shown = replicas(database, "--json")
        table = replicas(database)
    assert (shown.status, table.status, shown.err, table.err) == (0, 0, "", "")
    assert len(shown.objects) == 2
    assert [replica["lease_seconds"] for replica in shown.objects] == [2.0, 1.0]
    for replica in shown.objects:
        assert replica["renewing"] is True
        assert replica["lagging"] is False
        assert (replica["applied_revision"], replica["newest_revision"]) == (1, 1)
        assert replica["behind"] == 0
        assert replica["started"].endswith("Z")
        assert replica["incarnation"] in table.out
    assert table.out.count(" renewing") == 2


def test_a_replica_that_died_is_not_renewing_and_the_status_says_so(database: Database) -> None:
    with database.connect() as admin:
        admin.execute(_DEAD)
    # A change would shut it out; a look does not.
    with serving(database):
        shown = replicas(database, "--json")
        table = replicas(database)
    assert (shown.status, table.status) == (1, 1)
    assert {replica["host"]: replica["renewing"] for replica in shown.objects}["gone.example"] is (
        False
    )
    assert [replica["renewing"] for replica in shown.objects].count(True) == 1
    assert "not renewing" in table.out


def test_no_replica_is_no_success(database: Database) -> None:
    shown = replicas(database)
    assert (shown.status, shown.out) == (1, "")
    assert "no replica is registered" in shown.err


@pytest.mark.parametrize("role", ["licet_server", "licet_auditor"])
def test_the_roles_that_may_read_it_suffice(database: Database, role: str) -> None:
    with database.connect() as admin:
        admin.execute(_DEAD)
        name = sql.Identifier(f"{role}_of_{database.name[-8:]}")
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}").format(name, sql.Identifier(role)))
        url = f"{database.url} user={name.as_string(admin).strip(chr(34))}"
        try:
            shown = replicas(database, "--json", LICET_DATABASE_URL=url)
        finally:
            admin.execute(sql.SQL("DROP ROLE {}").format(name))
    assert [replica["host"] for replica in shown.objects] == ["gone.example"]


def test_a_login_without_the_rights_is_told_which(database: Database) -> None:
    with database.connect() as admin:
        name = f"nobody_of_{database.name[-8:]}"
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        try:
            shown = replicas(database, LICET_DATABASE_URL=f"{database.url} user={name}")
        finally:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
    assert (shown.status, shown.out) == (2, "")
    assert shown.err.count("\n") == 1
    assert "licet_auditor or licet_server" in shown.err


def test_the_embedded_database_is_looked_at_while_it_is_served_from() -> None:
    with reachable_folder() as folder:
        data_dir: Path = folder / "data"
        looked = ("replicas", "--json", "--data-dir", str(data_dir))
        assert run(*looked).status == 1
        assert not data_dir.exists()
        arguments = ("serve", "--workers", "2", "--listen", "127.0.0.1:0")
        with running(*arguments, "--data-dir", str(data_dir)) as server:
            server.lines_until("Ctrl-C")
            assert eventually(lambda: len(run(*looked).objects) == 2, 30)
            assert run(*looked).status == 0
