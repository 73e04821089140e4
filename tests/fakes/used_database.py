"""A database after use, and statements that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.fakes.postgres import Cluster, Database
from tests.fakes.serving import serving


@contextmanager
def used_database(cluster: Cluster, template: Database) -> Iterator[tuple[Database, str, str]]:
    """Provide a database after use, with a parent, its child, decisions and changes on record."""
    with cluster.database(template) as database:
        with serving(database) as served:
            parent = served.grant("agent:a", "read", "doc:**", delegation_depth=2)
            child = served.grant("agent:b", "read", "doc:x", parent_capability_id=parent)
            served.authorize("agent:b", "read", "doc:x")
        yield database, parent, child


@contextmanager
def denied(
    connection: psycopg.Connection, error: type[psycopg.Error], match: str | None = None
) -> Iterator[pytest.ExceptionInfo[psycopg.Error]]:
    """Assert that the block is refused; the transaction goes on."""
    with pytest.raises(error, match=match) as raised, connection.transaction():
        yield raised
