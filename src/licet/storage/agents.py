"""Agents, their tokens and bootstrap tokens as stored; they are changed by `administration.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, LiteralString, NamedTuple

from psycopg.sql import SQL

from licet.app.ports import Deadline
from licet.domain.agent import Agent, AgentStatus, BootstrapToken
from licet.domain.api_key import KeyId
from licet.domain.instant import Instant, rfc3339
from licet.domain.names import Caller
from licet.domain.pattern import ResourcePattern
from licet.storage.pool import Database

# One row at least, with the revision; the tokens of the same snapshot beside it. What has ended or
# is used up has no row.
_HELD: Final[LiteralString] = """
SELECT (SELECT max(c.revision) FROM licet.changes AS c), t.id, t.secret_sha256, t.agent,
       t.principals, (extract(epoch FROM t.dies_at) * 1000000)::bigint
FROM (VALUES (1)) AS one LEFT JOIN (
  SELECT a.id, a.secret_sha256, a.agent, NULL::text[] AS principals,
         least(a.expires_at, a.overlap_ends_at) AS dies_at
  FROM licet.agent_tokens AS a
  WHERE a.id = ANY (%(ids)s) AND a.ended_revision IS NULL
    AND NOT EXISTS (SELECT FROM licet.suspensions AS s
                    WHERE s.principal = 'agent:' || a.agent AND s.resumed_revision IS NULL)
  UNION ALL
  SELECT b.id, b.secret_sha256, NULL, b.principals, b.expires_at
  FROM licet.bootstrap_tokens AS b
  WHERE b.id = ANY (%(ids)s) AND b.ended_revision IS NULL AND b.uses < b.max_uses
) AS t ON true
"""

_AGENT_COLUMNS: Final[LiteralString] = """
  a.name, a.hostname, a.address, a.public_key,
  s.status, (extract(epoch FROM a.created_at) * 1000000)::bigint,
  (extract(epoch FROM a.registered_at) * 1000000)::bigint, a.registered_by, a.registered_revision,
  (SELECT (extract(epoch FROM h.heard_at) * 1000000)::bigint
   FROM licet.agent_heartbeats AS h WHERE h.agent = a.name),
  (extract(epoch FROM a.offline_at) * 1000000)::bigint, coalesce(t.id, ''),
  (extract(epoch FROM t.dies_at) * 1000000)::bigint,
  (extract(epoch FROM a.deactivated_at) * 1000000)::bigint, coalesce(a.deactivated_by, ''),
  coalesce(a.deactivation_reason, '')
"""
_AGENTS: Final[LiteralString] = """
FROM licet.agents AS a
CROSS JOIN LATERAL (
  SELECT CASE WHEN a.deactivated_at IS NOT NULL THEN 'inactive'
              WHEN a.offline_at IS NOT NULL THEN 'offline' ELSE 'active' END AS status) AS s
LEFT JOIN LATERAL (
  SELECT n.id, least(n.expires_at, n.overlap_ends_at) AS dies_at FROM licet.agent_tokens AS n
  WHERE n.agent = a.name AND n.ended_revision IS NULL
    AND least(n.expires_at, n.overlap_ends_at) > clock_timestamp()
  ORDER BY n.created_revision DESC LIMIT 1) AS t ON true
"""
_AGENT: Final = SQL("SELECT {columns} {agents} WHERE a.name = %(name)s").format(
    columns=SQL(_AGENT_COLUMNS), agents=SQL(_AGENTS)
)
_AGENT_PAGE: Final = SQL("""
SELECT {columns} {agents}
WHERE a.name > %(after)s
  AND (%(status)s::text IS NULL OR s.status = %(status)s)
ORDER BY a.name LIMIT %(limit)s
""").format(columns=SQL(_AGENT_COLUMNS), agents=SQL(_AGENTS))

_BOOTSTRAP_COLUMNS: Final[LiteralString] = """
  b.id, b.name, b.principals, b.max_uses, b.uses,
  (extract(epoch FROM b.expires_at) * 1000000)::bigint,
  (extract(epoch FROM b.created_at) * 1000000)::bigint, b.created_by, b.created_revision,
  (extract(epoch FROM b.ended_at) * 1000000)::bigint, coalesce(b.ended_by, ''),
  coalesce(b.end_reason, '')
"""
_BOOTSTRAP: Final = SQL(
    "SELECT {columns} FROM licet.bootstrap_tokens AS b WHERE b.id = %(id)s"
).format(columns=SQL(_BOOTSTRAP_COLUMNS))
_BOOTSTRAP_PAGE: Final = SQL("""
SELECT {columns} FROM licet.bootstrap_tokens AS b
WHERE b.id > %(after)s
  AND (%(include_ended)s OR (b.ended_revision IS NULL AND b.uses < b.max_uses
       AND b.expires_at > %(now)s::timestamptz))
ORDER BY b.id LIMIT %(limit)s
""").format(columns=SQL(_BOOTSTRAP_COLUMNS))

# In the order of names, so that two servers that write the same ones do not wait for each other. A
# server's clock may be ahead of the database's; the time of an agent never is.
_HEARD: Final[LiteralString] = """
WITH heard AS (
  SELECT h.name, least(h.at, clock_timestamp()) AS at
  FROM unnest(%(names)s::text[], %(at)s::timestamptz[]) AS h (name, at)
), kept AS (
  INSERT INTO licet.agent_heartbeats AS k (agent, heard_at)
  SELECT a.name, h.at FROM heard AS h JOIN licet.agents AS a ON a.name = h.name ORDER BY a.name
  ON CONFLICT (agent) DO UPDATE SET heard_at = greatest(k.heard_at, excluded.heard_at)
)
SELECT a.name FROM heard AS h JOIN licet.agents AS a ON a.name = h.name
WHERE a.deactivated_at IS NULL AND h.at > a.offline_at
"""
_BRING_BACK: Final[LiteralString] = "SELECT licet.bring_back_agents(%(names)s)"
_MARK_SILENT: Final[LiteralString] = """
SELECT licet.mark_silent_agents(make_interval(secs => %(seconds)s), %(most)s)
"""
_AT_ONCE: Final = 256
"""How many agents change their status in one transaction, which holds the mutation lock."""


class HeldToken(NamedTuple):
    """A token that counts now: of an agent, or, with `agent` empty, a bootstrap token."""

    digest: bytes
    agent: str
    principals: tuple[ResourcePattern, ...]
    dies_at: Instant


class PostgresAgents:
    """See `app.agent_ports.AgentStore`, `replica.heartbeats.Heard` and `steward.agents.Silence`."""

    def __init__(self, database: Database) -> None:
        """Use this pool."""
        self._database = database

    def held(
        self, ids: Collection[KeyId], deadline: Deadline
    ) -> tuple[int, Mapping[KeyId, HeldToken]]:
        """Return the revision and, of one snapshot, the tokens that count still.

        Raises:
            UnavailableError, DeadlineError: nothing is known.
        """
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_HELD, {"ids": list(ids)}).fetchall()
        found = {
            KeyId(row[1]): HeldToken(
                bytes(row[2]),
                row[3] or "",
                tuple(map(ResourcePattern, row[4] or ())),
                Instant(row[5]),
            )
            for row in rows
            if row[1] is not None
        }
        return rows[0][0], found

    def agent(self, name: str, deadline: Deadline) -> Agent | None:
        """See `AgentStore.agent`."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_AGENT, {"name": name}).fetchone()
        return None if row is None else _agent(*row)

    def agents(
        self, after: str, limit: int, status: AgentStatus | None, deadline: Deadline
    ) -> Sequence[Agent]:
        """See `AgentStore.agents`."""
        parameters = {"after": after, "limit": limit, "status": status}
        with self._database.connection(deadline) as connection:
            return [_agent(*row) for row in connection.execute(_AGENT_PAGE, parameters).fetchall()]

    def bootstrap_token(self, token_id: KeyId, deadline: Deadline) -> BootstrapToken | None:
        """See `AgentStore.bootstrap_token`."""
        with self._database.connection(deadline) as connection:
            row = connection.execute(_BOOTSTRAP, {"id": token_id}).fetchone()
        return None if row is None else _bootstrap(*row)

    def bootstrap_tokens(
        self, after: str, limit: int, now: Instant, deadline: Deadline, *, include_ended: bool
    ) -> Sequence[BootstrapToken]:
        """See `AgentStore.bootstrap_tokens`."""
        parameters = {
            "after": after,
            "limit": limit,
            "now": rfc3339(now),
            "include_ended": include_ended,
        }
        with self._database.connection(deadline) as connection:
            rows = connection.execute(_BOOTSTRAP_PAGE, parameters).fetchall()
        return [_bootstrap(*row) for row in rows]

    def heard(self, heard: Mapping[str, Instant], deadline: Deadline) -> None:
        """See `replica.heartbeats.Heard.heard`."""
        parameters = {"names": list(heard), "at": [rfc3339(at) for at in heard.values()]}
        with self._database.connection(deadline) as connection:
            back = [name for (name,) in connection.execute(_HEARD, parameters).fetchall()]
            # Kept already: what fails from here on, the next heartbeat makes good.
            for first in range(0, len(back), _AT_ONCE):
                connection.execute(_BRING_BACK, {"names": back[first : first + _AT_ONCE]})

    def mark_silent(self, seconds: float, deadline: Deadline) -> int:
        """See `steward.agents.Silence.mark_silent`."""
        marked = 0
        with self._database.connection(deadline) as connection:
            while True:
                row = connection.execute(
                    _MARK_SILENT, {"seconds": seconds, "most": _AT_ONCE}
                ).fetchone()
                now = 0 if row is None else int(row[0])
                marked += now
                if now < _AT_ONCE:
                    return marked


def _agent(  # noqa: PLR0913, PLR0917 - one argument per column
    name: str,
    hostname: str,
    address: str,
    public_key: str,
    status: str,
    created_at: int,
    registered_at: int,
    registered_by: str,
    revision: int,
    heard_at: int | None,
    offline_at: int | None,
    token_id: str,
    token_expires_at: int | None,
    deactivated_at: int | None,
    deactivated_by: str,
    reason: str,
) -> Agent:
    return Agent(
        name=name,
        hostname=hostname,
        address=address,
        public_key=public_key,
        status=AgentStatus(status),
        created_at=Instant(created_at),
        registered_at=Instant(registered_at),
        registered_by=Caller(registered_by),
        revision=revision,
        heard_at=_instant(heard_at),
        offline_at=_instant(offline_at),
        token_id=token_id,
        token_expires_at=_instant(token_expires_at),
        deactivated_at=_instant(deactivated_at),
        deactivated_by=deactivated_by,
        reason=reason,
    )


def _bootstrap(token_id: str, name: str, principals: list[str], *rest: Any) -> BootstrapToken:  # noqa: ANN401 - columns of several types
    max_uses, uses, expires_at, created_at, created_by, revision, ended_at, *end = rest
    return BootstrapToken(
        KeyId(token_id),
        name,
        tuple(map(ResourcePattern, principals)),
        max_uses,
        uses,
        Instant(expires_at),
        Instant(created_at),
        Caller(created_by),
        revision,
        _instant(ended_at),
        *end,
    )


def _instant(micros: int | None) -> Instant | None:
    return None if micros is None else Instant(micros)
