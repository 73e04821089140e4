"""Changes of licet's own administration; the migrations say what licet.make_admin_change does."""

from __future__ import annotations

import json
from typing import Any, Final, LiteralString

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from licet.app.administration import AdminChange
from licet.app.ports import Applied, Deadline
from licet.domain.errors import HistoryUnconfirmedError, OutcomeUnknownError
from licet.storage.mutations import UNCONFIRMED_MESSAGE
from licet.storage.pool import Database

_CHANGE: Final[LiteralString] = """
SELECT status, revision, outcome, history FROM licet.make_admin_change(%(change)s)
"""


class PostgresAdminChanges:
    """See `writer.administration.AdminChangeStore`."""

    def __init__(self, database: Database) -> None:
        """Use this pool."""
        self._database = database

    def make(self, change: AdminChange, deadline: Deadline) -> Applied:
        """Make a change; safe to repeat with the same request id.

        Raises:
            HistoryUnconfirmedError: nothing happened, and nothing will before an operator acts.
            OutcomeUnknownError: the connection was lost before the answer came.
            UnavailableError, DeadlineError, ConflictError: nothing happened.
        """
        with self._database.connection(deadline) as connection:
            try:
                return make(connection, change)
            except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                # On a connection that still works the server itself said that it failed.
                if not connection.broken and not connection.closed:
                    raise
                raise OutcomeUnknownError(
                    "the connection was lost before the outcome of the change was known"
                ) from exc


def make(connection: Connection[Any], change: AdminChange) -> Applied:
    """Make a change on a connection.

    Raises:
        HistoryUnconfirmedError: nothing happened.
    """
    body = dict(change.details) | {
        "kind": change.event_type,
        "request_id": change.request_id,
        "digest": change.digest.hex(),
        "actor": change.actor,
        "trace_id": "",
        "facts": json.loads(change.facts),
    }
    row = connection.execute(_CHANGE, {"change": Jsonb(body)}).fetchone()
    if row is None:
        raise RuntimeError("licet.make_admin_change returns a row")
    if row[0] == "HISTORY_UNCONFIRMED":
        raise HistoryUnconfirmedError(UNCONFIRMED_MESSAGE)
    return Applied(*row)
