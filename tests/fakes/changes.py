"""Changes that are in the database all at once, as no mutation could make them."""

from __future__ import annotations

from tests.fakes.postgres import Database

_ADD = """
INSERT INTO licet.changes (revision, kind, principals)
SELECT latest + n, %(kind)s,
       ARRAY(SELECT 'agent:' || i || %(suffix)s FROM generate_series(1, %(names)s) AS i)
FROM (SELECT max(revision) AS latest FROM licet.changes) AS l, generate_series(1, %(count)s) AS n
"""


def add_changes(  # noqa: PLR0913 - what a change can be
    database: Database,
    count: int,
    *,
    names: int,
    suffix: str = "",
    everything: bool = False,
    trim: int = 0,
) -> None:
    """Add changes, each of so many principals, in one transaction; trim the first ones in it."""
    parameters = {"count": count, "names": names, "suffix": suffix, "kind": int(everything)}
    with database.connect() as admin, admin.transaction():
        admin.execute("SELECT pg_advisory_xact_lock(20010)")
        admin.execute(_ADD, parameters)
        if trim:
            admin.execute("DELETE FROM licet.changes WHERE revision <= %s", [trim])
            admin.execute("UPDATE licet.meta SET trimmed_through = %s", [trim])
        admin.execute("NOTIFY licet_changes")


def trim_through(database: Database, revision: int) -> None:
    """Make the changes up to a revision old, and trim what is old as licet does."""
    with database.connect() as admin:
        age = "UPDATE licet.changes SET at = at - interval '25 hours' WHERE revision <= %s"
        admin.execute(age, [revision])
        admin.execute("SET ROLE licet_server")
        admin.execute("SELECT licet.trim_history('24 hours', 1000)")
