"""Users and suspensions as stored. They are changed by `storage/administration.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, LiteralString

from licet.app.ports import Deadline
from licet.app.user_ports import Suspension, SuspensionFilter, UserFilter, user_of
from licet.domain.caller import Scope
from licet.domain.instant import Instant
from licet.domain.names import Caller, Principal
from licet.domain.user import User
from licet.storage.pool import Database

_FIND: Final[LiteralString] = """
SELECT licet.user_as_json(u) FROM licet.users AS u WHERE u.principal = ANY (%(principals)s)
"""

_WITH_EMAIL: Final[LiteralString] = """
SELECT licet.user_as_json(u) FROM licet.users AS u WHERE u.email = %(email)s
"""

_PAGE: Final[LiteralString] = """
SELECT licet.user_as_json(u) FROM licet.users AS u
WHERE u.principal > %(after)s
  AND (%(role)s::text IS NULL OR %(role)s = ANY (u.roles))
  AND (%(include_disabled)s OR u.disabled_at IS NULL)
ORDER BY u.principal LIMIT %(limit)s
"""

_KEY_SCOPES: Final[LiteralString] = """
SELECT DISTINCT unnest(k.scopes) FROM licet.api_keys AS k
WHERE k.caller = %(principal)s AND k.ended_revision IS NULL
  AND least(k.expires_at, k.overlap_ends_at) > clock_timestamp()
"""

_SUSPENSIONS: Final[LiteralString] = """
SELECT s.principal, s.reason, (extract(epoch FROM s.suspended_at) * 1000000)::bigint,
       s.suspended_by, s.suspended_revision,
       (extract(epoch FROM s.resumed_at) * 1000000)::bigint, coalesce(s.resumed_by, ''),
       coalesce(s.resume_reason, '')
FROM licet.suspensions AS s
WHERE s.suspended_revision > %(after)s
  AND (%(principal)s::text IS NULL OR s.principal = %(principal)s)
  AND (%(include_ended)s OR s.resumed_revision IS NULL)
ORDER BY s.suspended_revision LIMIT %(limit)s
"""


class PostgresUsers:
    """See `app.user_ports.UserStore`."""

    def __init__(self, database: Database) -> None:
        """Use this pool."""
        self._database = database

    def key_scopes(self, principal: Principal, deadline: Deadline) -> frozenset[Scope]:
        """See `UserStore.key_scopes`."""
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_KEY_SCOPES, {"principal": principal}).fetchall()
        return frozenset(Scope(scope) for (scope,) in rows)

    def find(self, principals: Collection[str], deadline: Deadline) -> Mapping[str, User]:
        """See `UserStore.find`."""
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_FIND, {"principals": list(principals)}).fetchall()
        return {user.principal: user for user in (user_of(found) for (found,) in rows)}

    def with_email(self, email: str, deadline: Deadline) -> User | None:
        """See `UserStore.with_email`."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_WITH_EMAIL, {"email": email}).fetchone()
        return None if row is None else user_of(row[0])

    def page(
        self, wanted: UserFilter, after: str, limit: int, deadline: Deadline
    ) -> Sequence[User]:
        """See `UserStore.page`."""
        parameters = wanted._asdict() | {"after": after, "limit": limit}
        with self._database.connection(deadline) as connection:
            return [user_of(found) for (found,) in connection.execute(_PAGE, parameters).fetchall()]


class PostgresSuspensions:
    """See `app.user_ports.SuspensionStore`."""

    def __init__(self, database: Database) -> None:
        """Use this pool."""
        self._database = database

    def page(
        self, wanted: SuspensionFilter, after: int, limit: int, deadline: Deadline
    ) -> Sequence[Suspension]:
        """See `SuspensionStore.page`."""
        parameters = wanted._asdict() | {"after": after, "limit": limit}
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_SUSPENSIONS, parameters).fetchall()
        return [_suspension(*row) for row in rows]


def _suspension(  # noqa: PLR0913, PLR0917 - one argument per column
    principal: str,
    reason: str,
    suspended_at: int,
    suspended_by: str,
    revision: int,
    resumed_at: int | None,
    resumed_by: str,
    resume_reason: str,
) -> Suspension:
    return Suspension(
        Principal(principal),
        reason,
        Instant(suspended_at),
        Caller(suspended_by),
        revision,
        None if resumed_at is None else Instant(resumed_at),
        resumed_by,
        resume_reason,
    )
