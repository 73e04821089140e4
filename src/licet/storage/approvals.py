"""Approvals as stored. They are changed by `storage/administration.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, LiteralString

from psycopg.sql import SQL, Composed
from psycopg.types.json import Jsonb

from licet.app.approval_ports import ApprovalFilter
from licet.app.ports import Clock, Deadline
from licet.domain.approval import Approval, ApprovalState, approval_of
from licet.domain.canonical_json import JsonValue
from licet.domain.instant import rfc3339
from licet.domain.names import ApprovalId
from licet.storage.pool import Database

_FIND: Final[LiteralString] = """
SELECT licet.approval_as_json(a) FROM licet.approvals AS a WHERE a.id = %(id)s::uuid
"""

_STANDING: Final[LiteralString] = "SELECT standing, pending FROM licet.find_approval(%(asked)s)"

# What is over since is stored as pending until the principal asks again.
_OF_STATE: Final[Mapping[ApprovalState, LiteralString]] = {
    ApprovalState.PENDING: "a.state = 'PENDING' AND a.expires_at > %(now)s::timestamptz",
    ApprovalState.EXPIRED: "(a.state = 'EXPIRED'"
    " OR (a.state = 'PENDING' AND a.expires_at <= %(now)s::timestamptz))",
    ApprovalState.APPROVED: "a.state = 'APPROVED'",
    ApprovalState.REJECTED: "a.state = 'REJECTED'",
    ApprovalState.USED: "a.state = 'USED'",
}


class PostgresApprovals:
    """See `app.approval_ports.ApprovalStore`; also finds what stands of a question."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Use this pool; the clock tells what is over."""
        self._database = database
        self._clock = clock

    def find(self, approval_id: ApprovalId, deadline: Deadline) -> Approval | None:
        """See `ApprovalStore.find`."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_FIND, {"id": approval_id}).fetchone()
        return None if row is None else approval_of(row[0])

    def page(
        self, wanted: ApprovalFilter, after: ApprovalId | None, limit: int, deadline: Deadline
    ) -> Sequence[Approval]:
        """See `ApprovalStore.page`."""
        parameters = {
            "principal": wanted.principal,
            "after": after,
            "limit": limit,
            "now": rfc3339(self._clock.now()),
        }
        with self._database.connection(deadline) as connection:
            # Not prepared: a generic plan could not know which of the conditions is selective.
            rows = connection.execute(
                list_statement(wanted, after), parameters, prepare=False
            ).fetchall()
        return [approval_of(found) for (found,) in rows]

    def standing(
        self, asked: Mapping[str, JsonValue], deadline: Deadline
    ) -> tuple[Approval | None, int]:
        """Return what is pending for a question, or was rejected shortly before.

        And how many pending ones its principal has.

        Raises:
            UnavailableError, DeadlineError: nothing is known.
        """
        with self._database.connection(deadline) as connection:
            row = connection.execute(_STANDING, {"asked": Jsonb(asked)}).fetchone()
        if row is None:
            raise RuntimeError("licet.find_approval returns a row")
        return None if row[0] is None else approval_of(row[0]), row[1]


def list_statement(wanted: ApprovalFilter, after: ApprovalId | None) -> Composed:
    """Return the statement of one page, with only the conditions that apply."""
    conditions = [] if wanted.state is None else [SQL(_OF_STATE[wanted.state])]
    if wanted.principal is not None:
        conditions.append(SQL("a.principal = %(principal)s"))
    if after is not None:
        conditions.append(SQL("a.id > %(after)s::uuid"))
    where = SQL(" AND ").join(conditions) if conditions else SQL("true")
    return SQL(
        "SELECT licet.approval_as_json(a) FROM licet.approvals AS a"
        " WHERE {where} ORDER BY a.id LIMIT %(limit)s"
    ).format(where=where)
