"""Replicas that are nothing but their entry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.fakes.postgres import Database

_SILENT: Final = """
INSERT INTO licet.replicas (incarnation, applied, lease_seconds) VALUES (gen_random_uuid(), 0, 25)
"""
_LET_GO: Final = "DELETE FROM licet.replicas WHERE lease_seconds = 25"


@contextmanager
def stopped_replica(database: Database) -> Iterator[None]:
    """Have a replica that confirms nothing, until the block ends."""
    with database.connect() as connection:
        connection.execute(_SILENT)
        try:
            yield
        finally:
            connection.execute(_LET_GO)
