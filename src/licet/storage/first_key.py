"""The connection of whoever owns the database, for the key that nobody's key can make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg
from psycopg import Connection

from licet.storage.administration import make
from licet.storage.api_keys import read_tag_key
from licet.storage.errors import translated
from licet.storage.pool import READ_WRITE

__all__ = ["connected", "make", "read_tag_key"]

_TIMEOUT: Final[LiteralString] = "SET statement_timeout = '10s'"


@contextmanager
def connected(admin_url: str) -> Iterator[Connection[Any]]:
    """Provide a connection. Raises UnavailableError."""
    with (
        translated(deadline_bound=False),
        psycopg.connect(
            admin_url,
            autocommit=True,
            connect_timeout=5,
            application_name="licet init",
            target_session_attrs=READ_WRITE,
        ) as connection,
    ):
        connection.execute(_TIMEOUT)
        yield connection
