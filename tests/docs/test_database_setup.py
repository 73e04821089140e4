"""The set-up of a database as the operations page shows it, done on a new PostgreSQL."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from licet.client import Client
from licet.storage.embedded import EmbeddedPostgres
from tests.docs.blocks import blocks_of, text_of
from tests.fakes.postgres import reachable_folder

PAGE = "docs/operations.md"
SHOWN = "db.example/licet"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """Provide a PostgreSQL on which nobody has made a role yet."""
    with reachable_folder() as folder, EmbeddedPostgres(folder / "postgres") as running:
        # It comes with the database that the page is about to make.
        with psycopg.connect(postgres(running), autocommit=True) as admin:
            admin.execute("DROP DATABASE licet")
        yield running


def postgres(server: EmbeddedPostgres, **changed: str) -> str:
    return make_conninfo(server.conninfo, **({"dbname": "postgres"} | changed))


def execute(conninfo: str, sql: str) -> list[list[tuple[object, ...]]]:
    """Run each statement by itself, as psql would, and return the rows of each."""
    rows = []
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in filter(str.strip, sql.split(";")):
            cursor = connection.execute(statement.encode())
            rows.append(cursor.fetchall() if cursor.description else [])
    return rows


def commands(server: EmbeddedPostgres, mentioning: str) -> list[str]:
    """Return the page's commands that mention a text, for this server instead of the page's."""
    folder = conninfo_to_dict(server.conninfo)["host"]
    # Both logins are let in without a password here.
    place = f"/licet?host={quote(str(folder), safe='')}&port=5432"
    return [
        re.sub(rf"=(\S+@){re.escape(SHOWN)}", rf"='\1{place}'", line)
        for block in blocks_of(PAGE, "sh")
        for line in block.text.splitlines()
        if SHOWN in line and mentioning in line
    ]


def test_the_set_up_of_the_page_gives_a_server_that_works_and_cannot_change_the_schema(
    server: EmbeddedPostgres, environment: dict[str, str]
) -> None:
    roles, monitoring = (block.text for block in blocks_of(PAGE, "sql"))
    execute(postgres(server), roles)

    [migrate] = commands(server, "licet migrate up")
    subprocess.run(
        ["/usr/bin/env", "bash", "-e", "-c", migrate], env=environment, check=True, timeout=60
    )

    [serve] = commands(server, "licet serve")
    with subprocess.Popen(
        ["/usr/bin/env", "bash", "-c", re.sub(r"\blicet serve", "exec licet serve", serve)],
        env=environment | {"LICET_LISTEN": "127.0.0.1:0", "LICET_WORKERS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            greeting = process.stdout.readline()
            with Client(greeting.split()[-1], timeout=20) as licet:
                licet.grant("agent:worker-17", "read", "doc:reports/**")
                assert licet.authorize("agent:worker-17", "read", "doc:reports/q3").allowed
        finally:
            process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 0

    as_owner = postgres(server, user="licet_owner", dbname="licet")
    [[[_, shipped]], [[revision]]] = execute(as_owner, monitoring)
    # The latest writer is the server, or the steward in it: they began in the same second.
    assert shipped in {1, 3}
    assert revision == 1
    as_server = postgres(server, user="licet_app", dbname="licet")
    # What the page does after a restore, which only the owner may.
    for url, status in ((as_server, 2), (as_owner, 0)):
        for command in ("licet epoch new", "licet epoch confirm"):
            assert command in text_of(PAGE)
            done = subprocess.run(
                ["/usr/bin/env", "bash", "-c", command],
                env=environment | {"LICET_DATABASE_URL": url},
                check=False,
                timeout=60,
            )
            assert done.returncode == status

    for forbidden in (
        "CREATE TABLE licet.mine ()",
        "DELETE FROM audit.events",
        "UPDATE licet.capabilities SET principal = 'agent:me'",
        "INSERT INTO licet.changes (revision, kind, principals) VALUES (9, 1, '{}')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(as_server, forbidden)
