"""A real PostgreSQL for the tests, and a database of its own for each; nothing is simulated.

The server is an embedded one that lives as long as the test run, or the one that
`LICET_TEST_DATABASE_URL` names, whose role must be allowed to create databases and roles.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from licet.storage.embedded import EmbeddedPostgres

URL_VARIABLE = "LICET_TEST_DATABASE_URL"

_SETTINGS = {
    "max_connections": "200",
    # The data is thrown away: it need not survive a crash.
    "fsync": "off",
    "full_page_writes": "off",
    # Statistics change only when a test says ANALYZE, so plans are the same every time.
    "autovacuum": "off",
}


@dataclass(frozen=True, slots=True)
class Database:
    """One database, used by one test.

    Attributes:
        name: its name on the server.
        url: how libpq connects to it as the server's administrator.
    """

    name: str
    url: str

    def connect(self) -> psycopg.Connection:
        """Open a connection of the administrator, in autocommit."""
        return psycopg.connect(self.url, autocommit=True)


class Cluster:
    """A PostgreSQL server on which the tests make and drop databases."""

    def __init__(self, url: str) -> None:
        """Use the server at `url`."""
        self._url = url

    @contextmanager
    def database(
        self, template: Database | None = None, *, same_log: bool = False
    ) -> Iterator[Database]:
        """Provide a new database, a copy of `template` or empty; it is dropped afterwards.

        Nobody may be connected to `template`. A copy has an audit log of its own, unless it stands
        for a restored backup.
        """
        name = f"licet_test_{uuid4().hex}"
        source = "template1" if template is None else template.name
        self._execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(source)
            )
        )
        database = Database(name, make_conninfo(self._url, dbname=name))
        try:
            if template is not None and not same_log:
                with database.connect() as admin:
                    admin.execute("UPDATE audit.log SET log_id = gen_random_uuid()")
            yield database
        finally:
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        # On a connection of its own: a test that times out in here breaks no other one's.
        with psycopg.connect(self._url, autocommit=True) as admin:
            admin.execute(statement)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Provide the server of this test run."""
    url = os.environ.get(URL_VARIABLE)
    if url:
        yield Cluster(url)
        return
    with (
        reachable_folder() as folder,
        EmbeddedPostgres(folder / "postgres", settings=_SETTINGS) as server,
    ):
        yield Cluster(server.conninfo)


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Provide a temporary folder that every account can enter; pytest's are closed to others.

    Started by root, PostgreSQL runs as another account.
    """
    with tempfile.TemporaryDirectory(prefix="licet-test-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o711)
        yield folder


def eventually(holds: Callable[[], bool], timeout_seconds: float = 10.0) -> bool:
    """Return whether `holds` becomes true in time: for what cannot be waited for."""
    deadline = monotonic() + timeout_seconds
    pause = threading.Event()
    while not holds():
        if monotonic() > deadline:
            return False
        pause.wait(0.01)
    return True
