"""Changes of agents and their tokens, and why one is refused."""

from __future__ import annotations

from typing import Final

from licet.app.administration import AdminChange, AdminChanges
from licet.app.agent_ports import AgentChanged
from licet.app.ports import Confirmation, Deadline
from licet.domain.api_key import EXPECTED
from licet.domain.audit_event import AuditEvent
from licet.domain.errors import (
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    UnauthenticatedError,
)
from licet.domain.instant import Instant

_DONE: Final = frozenset({"done", "already_ended", "already_inactive", "already_active"})
_REFUSALS: Final = {
    "AGENT_EXISTS": "the agent has a token that has not ended; deactivate and activate it first",
    "AGENT_INACTIVE": "the agent was deactivated, and has to be activated first",
    "HOSTNAME_TAKEN": "another agent has this hostname",
}


class AgentWriter:
    """See `app.agent_ports.AgentChanges`."""

    def __init__(self, changes: AdminChanges) -> None:
        """Make them by these."""
        self._changes = changes

    def change(self, change: AdminChange, deadline: Deadline) -> AgentChanged:
        """See `AgentChanges.change`."""
        applied = self._changes.make(change, raise_refusal, deadline)
        confirmation = applied.confirmation or Confirmation(0, 0)
        outcome = applied.outcome
        return AgentChanged(
            token_id=outcome.get("token_id", ""),
            revision=applied.revision,
            confirmed=confirmation.confirmed,
            fenced=confirmation.fenced,
            already=applied.status != "done",
            created_at=_instant(outcome.get("created_at")),
            expires_at=_instant(outcome.get("expires_at")),
        )

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """See `AgentChanges.refuse`."""
        self._changes.refuse(event, deadline)


def raise_refusal(status: str) -> None:
    """Raise the error of a change that the database refused."""
    match status:
        case done if done in _DONE:
            return
        case "BOOTSTRAP_ENDED" | "TOKEN_ENDED":
            # As if it had not been let in: why a credential does not count is not told.
            raise UnauthenticatedError(EXPECTED)
        case "AGENT_NOT_FOUND":
            raise NotFoundError("there is no such agent")
        case "BOOTSTRAP_NOT_FOUND":
            raise NotFoundError("there is no such bootstrap token")
        case "ALREADY_EXPIRED":
            raise InvalidRequestError.of("ttl", "must end in the future")
        case _:
            raise PreconditionError(status, _REFUSALS[status])


def _instant(micros: int | None) -> Instant | None:
    return None if micros is None else Instant(int(micros))
