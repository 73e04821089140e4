"""Backup and restore as the operations page shows them, done on a PostgreSQL of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from licet.storage import migrate
from licet.storage.embedded import EmbeddedPostgres
from licet.storage.embedded.installation import Installation
from tests.docs.blocks import blocks_of
from tests.fakes.api import count, stored_decisions
from tests.fakes.postgres import Database, eventually, reachable_folder
from tests.fakes.sealing import assert_whole, metadata_of
from tests.fakes.serving import serving
from tests.fakes.terminal import Finished, run

PAGE = "docs/operations.md"
STATE = "/var/lib/licet/audit"
PATIENCE = 30.0
CHECKPOINTS = "SELECT count(*) FROM audit.checkpoints"


@pytest.fixture
def place() -> Iterator[Path]:
    """Provide a folder that PostgreSQL's account can enter."""
    with reachable_folder() as folder:
        yield folder


def command(*mentioning: str) -> str:
    """Return the page's one command that mentions these texts."""
    [line] = [
        line
        for block in blocks_of(PAGE, "sh", "bash")
        for line in block.text.splitlines()
        if all(text in line for text in mentioning)
    ]
    return line


def shell(server: EmbeddedPostgres | None, place: Path, line: str) -> None:
    """Run a command of the page with this server and these folders instead of the page's."""
    environment = dict(os.environ)
    if server is not None:
        host = quote(str(conninfo_to_dict(server.conninfo)["host"]), safe="")
        # Nobody has made the page's roles here.
        line = re.sub(
            r"postgresql://\w+@db\.example/(\w+)",
            rf"'postgresql://postgres@/\1?host={host}&port=5432'",
            line,
        ).replace("--owner=licet_owner", "--owner=postgres")
        programs = Installation.of_wheel().program("pg_dump").parent
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    line = line.replace(STATE, str(place / "state"))
    subprocess.run(
        ["/usr/bin/env", "bash", "-e", "-c", line],
        cwd=place,
        env=environment,
        check=True,
        timeout=60,
    )


def serve_a_while(database: Database, place: Path) -> str:
    """Decide something; return its id when it is on record, and all that was stored is signed."""
    with serving(database, state_dir=place / "state") as served:
        decision = served.authorize("agent:a", "read", "doc:x").decision_id
    assert decision in stored_decisions(database)
    return decision


def is_signed(database: Database) -> bool:
    return bool(
        count(
            database,
            """SELECT count(*) FROM audit.log AS l WHERE l.tree_size = (
               SELECT max(c.tree_size) FROM audit.checkpoints AS c WHERE c.epoch = l.epoch)
               AND NOT EXISTS (SELECT FROM audit.queue)""",
        )
    )


def new_epoch(place: Path, **variables: str) -> Finished:
    line = command("licet audit new-epoch")
    words = re.fullmatch(r"licet (audit) (new-epoch) (--reason) '(.*)'", line)
    assert words is not None
    variables["LICET_STATE_DIR"] = str(place / "state")
    return run(*words.groups(), "--json", variables=variables)


@pytest.mark.timeout(240)
def test_a_dump_is_restored_and_the_log_goes_on_or_says_why_it_does_not(place: Path) -> None:
    with EmbeddedPostgres(place / "postgres") as server:
        database = Database("licet", server.conninfo)
        migrate.up(database.url)
        before = serve_a_while(database, place)
        assert is_signed(database)
        shell(server, place, command("pg_dump"))
        shell(server, place, command("cp -a", STATE))
        assert (next((place / "licet-state").glob("*/signed.json"))).is_file()

        # Nothing was lost.
        restore(server, place)
        kept = serve_a_while(database, place)
        assert is_signed(database)
        assert_whole(database)

        # What was signed since the dump is lost.
        restore(server, place)
        signed = count(database, CHECKPOINTS)
        serve_a_while(database, place)
        assert not is_signed(database)
        assert count(database, CHECKPOINTS) == signed
        begun = new_epoch(place, LICET_DATABASE_URL=database.url)
        assert (begun.status, begun.err) == (0, "")
        assert begun.object["cause"].split(":")[0] in {"ROLLBACK", "FORK"}

        # The decisions of the database that is gone are still in its spools.
        assert stored_decisions(database).count(kept) == 0
        new = Path(begun.object["spools"])
        old = {
            folder
            for folder in new.parent.glob("spool-*")
            if folder != new and any(folder.iterdir())
        }
        for folder in old:
            line = command("mv ", "spool-OLD").replace("LOG", new.parent.name)
            line = line.replace("spool-OLD", folder.name).replace("spool-NEW", new.name)
            shell(None, place, line)
        with serving(database, state_dir=place / "state"):
            assert eventually(lambda: kept in stored_decisions(database), PATIENCE)
            assert eventually(lambda: is_signed(database), PATIENCE)
        found = stored_decisions(database)
        assert {before, kept} <= set(found)
        assert len(set(found)) == len(found)
        assert_whole(database)


def restore(server: EmbeddedPostgres, place: Path) -> None:
    postgres = make_conninfo(server.conninfo, dbname="postgres")
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("DROP DATABASE licet WITH (FORCE)")
    shell(server, place, command("createdb"))
    shell(server, place, command("pg_restore"))


@pytest.mark.timeout(240)
def test_a_copy_of_the_embedded_database_is_put_back(place: Path) -> None:
    data = place / "postgres"
    with EmbeddedPostgres(data) as server:
        migrate.up(server.conninfo)
        serve_a_while(Database("licet", server.conninfo), place)
    subprocess.run(["cp", "-a", str(data), str(place / "copy")], check=True)  # noqa: S607
    with EmbeddedPostgres(data) as server:
        kept = serve_a_while(Database("licet", server.conninfo), place)
    shutil.rmtree(data)
    subprocess.run(["cp", "-a", str(place / "copy"), str(data)], check=True)  # noqa: S607
    refused_then_begun(data, place, kept)


def refused_then_begun(data: Path, place: Path, kept: str) -> None:
    with EmbeddedPostgres(data) as server:
        database = Database("licet", server.conninfo)
        assert kept not in stored_decisions(database)
        signed = count(database, CHECKPOINTS)
        # The spools know this database: they give back what it lacks.
        with serving(database, state_dir=place / "state"):
            assert eventually(lambda: kept in stored_decisions(database), PATIENCE)
        assert count(database, CHECKPOINTS) == signed
    assert new_epoch(place, LICET_DATA_DIR=str(data)).status == 0
    with EmbeddedPostgres(data) as server:
        database = Database("licet", server.conninfo)
        serve_a_while(database, place)
        assert is_signed(database)
        assert_whole(database)
        [facts] = metadata_of(database, "audit.epoch")
        assert facts["cause"].split(":")[0] in {"ROLLBACK", "FORK"}
