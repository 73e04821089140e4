"""API keys as stored. They are changed by `storage/administration.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import Connection
from psycopg.sql import SQL

from licet.app.key_ports import KeyFilter
from licet.app.ports import Deadline
from licet.domain import api_key
from licet.domain.api_key import ApiKey, KeyId
from licet.domain.caller import Identity, Limits, Scope
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import Caller
from licet.domain.pattern import ResourcePattern
from licet.domain.user import Role
from licet.storage.pool import Database

_COLUMNS: Final[LiteralString] = """
  k.id, k.name, k.scopes, k.caller, k.principals, k.resources,
  (extract(epoch FROM k.created_at) * 1000000)::bigint, k.created_by, k.created_revision,
  CASE WHEN k.expires_at <> 'infinity'
       THEN (extract(epoch FROM k.expires_at) * 1000000)::bigint END,
  (extract(epoch FROM k.overlap_ends_at) * 1000000)::bigint, coalesce(k.replaces, ''),
  coalesce((SELECT n.id FROM licet.api_keys AS n WHERE n.replaces = k.id), ''),
  (extract(epoch FROM k.ended_at) * 1000000)::bigint, coalesce(k.ended_by, ''),
  coalesce(k.end_reason, ''),
  (SELECT (extract(epoch FROM u.last_used_at) * 1000000)::bigint
   FROM licet.api_key_uses AS u WHERE u.id = k.id)
"""

# One row at least, with the revision; the keys of the same snapshot beside it, and what has become
# of those as whom they act.
_HELD: Final = SQL("""
SELECT (SELECT max(c.revision) FROM licet.changes AS c), k.secret_sha256, u.roles,
       u.disabled_at IS NOT NULL OR s.principal IS NOT NULL, {columns}
FROM (VALUES (1)) AS one
LEFT JOIN licet.api_keys AS k ON k.id = ANY (%(ids)s)
LEFT JOIN licet.users AS u ON u.principal = k.caller
LEFT JOIN licet.suspensions AS s ON s.principal = k.caller AND s.resumed_revision IS NULL
""").format(columns=SQL(_COLUMNS))

_FIND: Final = SQL("SELECT {columns} FROM licet.api_keys AS k WHERE k.id = %(id)s").format(
    columns=SQL(_COLUMNS)
)

_PAGE: Final = SQL("""
SELECT {columns} FROM licet.api_keys AS k
WHERE k.id > %(after)s
  AND (%(caller)s::text IS NULL OR k.caller = %(caller)s)
  AND (%(created_by)s::text IS NULL OR k.created_by = %(created_by)s)
  AND (%(include_ended)s OR (k.ended_revision IS NULL
       AND least(k.expires_at, coalesce(k.overlap_ends_at, 'infinity')) > %(now)s::timestamptz))
ORDER BY k.id LIMIT %(limit)s
""").format(columns=SQL(_COLUMNS))

# In the order of ids, so that two servers that write the same ones do not wait for each other.
_USED: Final[LiteralString] = """
INSERT INTO licet.api_key_uses AS u (id, last_used_at)
SELECT k.id, clock_timestamp() FROM licet.api_keys AS k WHERE k.id = ANY (%(ids)s) ORDER BY k.id
ON CONFLICT (id) DO UPDATE SET last_used_at = greatest(u.last_used_at, excluded.last_used_at)
"""

_TAG_KEY: Final[LiteralString] = "SELECT page_token_key FROM licet.meta"


class StoredKey(NamedTuple):
    """A key with what decides whether it counts.

    Attributes:
        digest: of its secret.
        key: the key.
        roles: of the user as whom it acts; None: that is no user.
        is_barred: nobody may call as whom it acts as.
    """

    digest: bytes
    key: ApiKey
    roles: tuple[Role, ...] | None
    is_barred: bool

    def identity(self) -> Identity | None:
        """Return the caller whom it authenticates; None: nobody."""
        if self.is_barred or self.key.ended_at is not None:
            return None
        return self.key.identity(self.roles)


class PostgresApiKeys:
    """See `app.keys.ApiKeyStore` and `replica.api_keys.KeyUses`."""

    def __init__(self, database: Database) -> None:
        """Use this pool."""
        self._database = database

    def held(
        self, ids: Collection[KeyId], deadline: Deadline
    ) -> tuple[int, Mapping[KeyId, StoredKey]]:
        """Return the revision and the keys of one snapshot.

        Raises:
            UnavailableError, DeadlineError: nothing is known.
        """
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_HELD, {"ids": list(ids)}).fetchall()
        found = {}
        for _, secret, roles, is_barred, *columns in rows:
            if secret is not None:
                key = _key(*columns)
                limited_to = None if roles is None else tuple(map(Role, roles))
                found[key.key_id] = StoredKey(bytes(secret), key, limited_to, is_barred)
        return rows[0][0], found

    def find(self, key_id: KeyId, deadline: Deadline) -> ApiKey | None:
        """See `ApiKeyStore.find`."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_FIND, {"id": key_id}).fetchone()
        return None if row is None else _key(*row)

    def page(
        self, wanted: KeyFilter, after: KeyId | None, limit: int, now: Instant, deadline: Deadline
    ) -> Sequence[ApiKey]:
        """See `ApiKeyStore.page`."""
        parameters = wanted._asdict() | {
            "after": after or "",
            "limit": limit,
            "now": rfc3339(now),
        }
        with self._database.connection(deadline) as connection:
            return [_key(*row) for row in connection.execute(_PAGE, parameters).fetchall()]

    def used(self, keys: Sequence[KeyId], deadline: Deadline) -> None:
        """See `KeyUses.used`."""
        with self._database.connection(deadline) as connection:
            connection.execute(_USED, {"ids": list(keys)})

    def tag_key(self, deadline: Deadline) -> bytes:
        """Return the key with which ids are made. Raises UnavailableError or DeadlineError."""
        with self._database.connection(deadline) as connection:
            return read_tag_key(connection)


def read_tag_key(connection: Connection[Any]) -> bytes:
    """Return the key with which ids are made."""
    row = connection.execute(_TAG_KEY).fetchone()
    if row is None:
        raise RuntimeError("licet.meta has no row")
    return api_key.tag_key(bytes(row[0]))


def _key(  # noqa: PLR0913, PLR0917 - one argument per column
    identifier: str,
    name: str,
    scopes: list[str],
    caller: str,
    principals: list[str],
    resources: list[str],
    created_at: int,
    created_by: str,
    revision: int,
    expires_at: int | None,
    overlap_ends_at: int | None,
    replaces: str,
    replaced_by: str,
    ended_at: int | None,
    ended_by: str,
    end_reason: str,
    last_used_at: int | None,
) -> ApiKey:
    return ApiKey(
        key_id=KeyId(identifier),
        name=name,
        scopes=tuple(map(Scope, scopes)),
        caller=Caller(caller),
        limits=Limits.of(map(ResourcePattern, principals), map(ResourcePattern, resources)),
        created_at=Instant(created_at),
        created_by=Caller(created_by),
        revision=revision,
        expires_at=_instant(expires_at),
        overlap_ends_at=_instant(overlap_ends_at),
        replaces=replaces,
        replaced_by=replaced_by,
        ended_at=_instant(ended_at),
        ended_by=ended_by,
        end_reason=end_reason,
        last_used_at=_instant(last_used_at),
    )


def _instant(micros: int | None) -> Instant | None:
    return None if micros is None else Instant(micros)
