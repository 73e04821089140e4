"""A licet whose connections to PostgreSQL can be broken, and what must hold after every fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.postgres import Database
from tests.fakes.proxy import PostgresProxy
from tests.fakes.serving import Served, serving


@pytest.fixture
def proxy(database: Database) -> Iterator[PostgresProxy]:
    """Provide a proxy in front of a new database."""
    with PostgresProxy(database) as running:
        yield running


@pytest.fixture
def fragile(proxy: PostgresProxy) -> Iterator[Served]:
    """Provide a licet that reaches its database through the proxy only."""
    with serving(proxy.database, drain_seconds=0.2, pool_acquire_seconds=0.3) as running:
        yield running
        # What waits for the database can be stored, so that stopping does not wait in vain.
        proxy.resume()
        proxy.come_back()
