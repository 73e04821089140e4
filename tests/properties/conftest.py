"""What the properties that ask PostgreSQL share: one connection, since nothing they ask is kept."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.fakes.postgres import Cluster


@pytest.fixture(scope="session")
def postgres(cluster: Cluster) -> Iterator[psycopg.Connection]:
    """Provide a connection to an empty database, for statements that store nothing."""
    with cluster.database() as database, database.connect() as connection:
        yield connection
