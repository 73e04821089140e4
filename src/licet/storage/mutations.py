"""Changes of authorization state; the migration says what licet.apply_mutations does, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from licet.app.ports import Applied, Deadline, Grant, Revoke
from licet.domain.audit_event import AuditEvent
from licet.domain.canonical_json import JsonObject
from licet.domain.errors import HistoryUnconfirmedError, OutcomeUnknownError
from licet.domain.instant import rfc3339
from licet.domain.pattern import containment_regex
from licet.storage.pool import Database

_APPLY: Final[LiteralString] = """
SELECT status, revision, outcome, history
FROM licet.apply_mutations(%(grants)s::jsonb, %(revocations)s::jsonb) ORDER BY ordinal
"""

# In a history that is not confirmed there is nothing that may be told to have happened.
_EARLIER: Final[LiteralString] = """
SELECT CASE WHEN m.epoch = c.epoch THEN r.status ELSE 'HISTORY_UNCONFIRMED' END,
       r.revision, r.outcome || '{"replayed": true}', licet.history(), r.digest
FROM licet.requests AS r CROSS JOIN licet.meta AS m CROSS JOIN licet.confirmed AS c
WHERE r.request_id = %(request_id)s
"""

_REFUSED: Final[LiteralString] = "SELECT audit.record_refusal(%(event)s)"

UNCONFIRMED_MESSAGE: Final = (
    "the database was restored or has failed over: nothing is changed before its operator"
    " has confirmed that (licet epoch)"
)
REUSED: Final = "REQUEST_ID_REUSED"
_UNCONFIRMED: Final = "HISTORY_UNCONFIRMED"


class PostgresMutations:
    """Applies mutations. Every method is safe to repeat with the same request id."""

    def __init__(self, database: Database) -> None:
        """Write through this pool."""
        self._database = database

    def apply(self, batch: Sequence[Grant | Revoke], deadline: Deadline) -> Sequence[Applied]:
        """Apply mutations in one transaction and as one revision: the grants, then the revocations.

        Raises:
            HistoryUnconfirmedError: nothing happened, and nothing will before an operator acts.
            OutcomeUnknownError: the connection was lost before the answer came; all of it happened
                or nothing did.
            UnavailableError, DeadlineError, ConflictError: nothing happened.
        """
        grants = [m for m in batch if isinstance(m, Grant)]
        revocations = [m for m in batch if not isinstance(m, Grant)]
        parameters = {
            "grants": _array(map(_grant, grants)),
            "revocations": _array(map(_revoke, revocations)),
        }
        with self._database.connection(deadline) as connection:
            try:
                rows = connection.execute(_APPLY, parameters).fetchall()
            except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                # On a connection that still works the server itself said that it failed.
                if not connection.broken and not connection.closed:
                    raise
                raise OutcomeUnknownError(
                    "the connection was lost before the outcome of the change was known"
                ) from exc
        granted = (_applied(*row) for row in rows[: len(grants)])
        revoked = (_applied(*row) for row in rows[len(grants) :])
        return [next(granted if isinstance(m, Grant) else revoked) for m in batch]

    def earlier(self, request_id: str, digest: bytes, deadline: Deadline) -> Applied | None:
        """Return what the mutation with this request id did, or None.

        Raises:
            HistoryUnconfirmedError: what is stored may not be what the caller was told.
            UnavailableError, DeadlineError: nothing is known.
        """
        with self._database.connection(deadline) as connection:
            row = connection.execute(_EARLIER, {"request_id": request_id}).fetchone()
        if row is None:
            return None
        found = _applied(*row[:4])
        return found if row[4] == digest else found._replace(status=REUSED)

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """Record a refused attempt.

        Raises:
            UnavailableError, DeadlineError: it may not be on record.
        """
        facts = event._asdict() | {
            "occurred_at": rfc3339(event.occurred_at),
            "metadata": json.loads(event.metadata),
        }
        with self._database.connection(deadline) as connection:
            connection.execute(_REFUSED, {"event": Jsonb(facts)})


def _applied(status: str, revision: int, outcome: dict[str, Any], history: UUID) -> Applied:
    if status == _UNCONFIRMED:
        raise HistoryUnconfirmedError(UNCONFIRMED_MESSAGE)
    return Applied(status, revision, outcome, history)


def _array(bodies: Iterable[str]) -> str:
    return f"[{','.join(bodies)}]"


def _body(fields: Mapping[str, object], embedded: Mapping[str, JsonObject]) -> str:
    """Return the text of an object; some of its members are canonical text already."""
    members = "".join(f', "{name}": {text}' for name, text in embedded.items())
    return f"{json.dumps(fields)[:-1]}{members}}}"


def _grant(grant: Grant) -> str:
    terms = grant.terms
    fields = {
        "kind": "grant" if grant.parent_id is None else "delegate",
        "request_id": grant.request_id,
        "digest": grant.digest.hex(),
        "id": grant.capability_id,
        "parent_id": grant.parent_id,
        "principal": terms.principal,
        "actions": terms.actions,
        "resource": terms.resource,
        "not_before": None if terms.not_before is None else rfc3339(terms.not_before),
        "expires_at": None if terms.expires_at is None else rfc3339(terms.expires_at),
        "delegation_depth": terms.delegation_depth,
        "condition": terms.condition,
        "session_id": terms.session_id,
        "actor": grant.actor,
        "trace_id": grant.trace_id,
    }
    return _body(fields, {"metadata": terms.metadata, "facts": grant.facts})


def _revoke(revoke: Revoke) -> str:
    target = revoke.target
    fields = {
        "kind": "revoke",
        "request_id": revoke.request_id,
        "digest": revoke.digest.hex(),
        "id": target.capability_id,
        "filter": {
            "principal": target.principal,
            "resource": target.resource,
            "resource_regex": None
            if target.resource is None
            else containment_regex(target.resource),
            "granted_by": target.granted_by,
            "session_id": target.session_id,
        },
        "reason": revoke.reason,
        "actor": revoke.actor,
        "trace_id": revoke.trace_id,
    }
    return _body(fields, {"facts": revoke.facts})
