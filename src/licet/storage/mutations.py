"""Changes of authorization state; the migration says what licet.apply_mutations does, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from licet.app.ports import Applied, Deadline, Grant, Revoke
from licet.domain.audit_event import AuditEvent
from licet.domain.errors import OutcomeUnknownError
from licet.domain.instant import rfc3339
from licet.domain.pattern import containment_regex
from licet.storage.pool import Database

_APPLY: Final[LiteralString] = """
SELECT status, revision, outcome
FROM licet.apply_mutations(%(mutations)s) ORDER BY ordinal
"""

_EARLIER: Final[LiteralString] = """
SELECT r.status, r.revision, r.outcome || '{"replayed": true}', r.digest
FROM licet.requests AS r WHERE r.request_id = %(request_id)s
"""

_REFUSED: Final[LiteralString] = "SELECT audit.record_refusal(%(event)s)"

REUSED: Final = "REQUEST_ID_REUSED"


class PostgresMutations:
    """Applies mutations. Every method is safe to repeat with the same request id."""

    def __init__(self, database: Database) -> None:
        """Write through this pool."""
        self._database = database

    def apply(self, batch: Sequence[Grant | Revoke], deadline: Deadline) -> Sequence[Applied]:
        """Apply mutations, in order, in one transaction and as one revision.

        Raises:
            OutcomeUnknownError: the connection was lost before the answer came; all of it happened
                or nothing did.
            UnavailableError, DeadlineError, ConflictError: nothing happened.
        """
        bodies = [_grant(m) if isinstance(m, Grant) else _revoke(m) for m in batch]
        with self._database.connection(deadline) as connection:
            try:
                rows = connection.execute(_APPLY, {"mutations": Jsonb(bodies)}).fetchall()
            except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                # On a connection that still works the server itself said that it failed.
                if not connection.broken and not connection.closed:
                    raise
                raise OutcomeUnknownError(
                    "the connection was lost before the outcome of the change was known"
                ) from exc
        return [_applied(*row) for row in rows]

    def earlier(self, request_id: str, digest: bytes, deadline: Deadline) -> Applied | None:
        """Return what the mutation with this request id did, or None.

        Raises:
            UnavailableError, DeadlineError: nothing is known.
        """
        with self._database.connection(deadline) as connection:
            row = connection.execute(_EARLIER, {"request_id": request_id}).fetchone()
        if row is None:
            return None
        found = _applied(*row[:3])
        return found if row[3] == digest else found._replace(status=REUSED)

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


def _applied(status: str, revision: int, outcome: dict[str, Any]) -> Applied:
    return Applied(status, revision, outcome)


def _grant(grant: Grant) -> dict[str, object]:
    terms = grant.terms
    return {
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
        "session_id": terms.session_id,
        "metadata": json.loads(terms.metadata),
        "actor": grant.actor,
        "trace_id": grant.trace_id,
        "facts": json.loads(grant.facts),
    }


def _revoke(revoke: Revoke) -> dict[str, object]:
    target = revoke.target
    return {
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
        "facts": json.loads(revoke.facts),
    }
