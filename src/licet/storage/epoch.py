"""The history of the database, for its operator: looked at, begun anew, confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

import psycopg
from psycopg import Connection

from licet.storage.errors import translated
from licet.storage.pool import READ_WRITE

_SHOW: Final[LiteralString] = """
SELECT m.epoch, m.epoch = c.epoch, licet.went_backwards(NULL, NULL),
       (SELECT max(revision) FROM licet.changes)
FROM licet.meta AS m CROSS JOIN licet.confirmed AS c
"""
_BEGIN: Final[LiteralString] = "SELECT licet.begin_epoch()"
_CONFIRM: Final[LiteralString] = "SELECT licet.confirm_epoch(%s)"
_TIMEOUT: Final[LiteralString] = "SET statement_timeout = '10s'"


class History(NamedTuple):
    """The history as it stands.

    Attributes:
        epoch: its name.
        is_confirmed: whether changes are made in it.
        is_other: the database is not that of the last change, and no server has noticed it yet.
        revision: of the latest change.
    """

    epoch: UUID
    is_confirmed: bool
    is_other: bool
    revision: int


def show(admin_url: str) -> History:
    """Return the history. Raises UnavailableError."""
    with _connected(admin_url) as connection:
        return History(*_row(connection, _SHOW))


def begin(admin_url: str) -> UUID:
    """Begin an epoch, in which nothing is changed before it is confirmed; return its name.

    Raises:
        UnavailableError: the database cannot be reached, or this is not its owner.
    """
    with _connected(admin_url) as connection:
        epoch: UUID = _row(connection, _BEGIN)[0]
        return epoch


def confirm(admin_url: str, epoch: UUID) -> bool:
    """Let changes be made in an epoch; return whether it was still the present one.

    Raises:
        UnavailableError: the database cannot be reached, or this is not its owner.
    """
    with _connected(admin_url) as connection:
        return bool(_row(connection, _CONFIRM, epoch)[0])


@contextmanager
def _connected(admin_url: str) -> Iterator[Connection[Any]]:
    with (
        translated(deadline_bound=False),
        psycopg.connect(
            admin_url,
            autocommit=True,
            connect_timeout=5,
            application_name="licet epoch",
            target_session_attrs=READ_WRITE,
        ) as connection,
    ):
        connection.execute(_TIMEOUT)
        yield connection


def _row(connection: Connection[Any], statement: LiteralString, *parameters: object) -> Any:  # noqa: ANN401 - columns
    row = connection.execute(statement, parameters).fetchone()
    if row is None:
        raise RuntimeError("licet.meta has no row")
    return row
