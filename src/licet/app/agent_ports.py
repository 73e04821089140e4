"""What the use cases of agents need from the outside; see `ports.py` for the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from licet.app.administration import AdminChange
from licet.app.ports import Deadline
from licet.domain.agent import Agent, AgentStatus, BootstrapToken
from licet.domain.api_key import KeyId
from licet.domain.audit_event import AuditEvent
from licet.domain.instant import Instant


class AgentChanged(NamedTuple):
    """What a change did, now or when the same request came first.

    Attributes:
        token_id: the token that was made or ended; empty: none.
        revision: of the change.
        confirmed: how many replicas know of it.
        fenced: how many were shut out instead.
        already: what was asked for was so before.
        created_at: when the bootstrap token was made; None: none was.
        expires_at: when the agent's token ends; None: none was made.
    """

    token_id: str
    revision: int
    confirmed: int
    fenced: int
    already: bool
    created_at: Instant | None
    expires_at: Instant | None


class AgentChanges(Protocol):
    """The only way to change agents. When a method returns, the change holds on every replica."""

    def change(self, change: AdminChange, deadline: Deadline) -> AgentChanged:
        """Make a change and record it in the audit log, in one transaction.

        Raises:
            UnauthenticatedError: the credential that this is done with has ended meanwhile, or is
                used up; the attempt is on record.
            PreconditionError: the agents do not allow it; the attempt is on record.
            InvalidRequestError: the new token has expired already; the attempt is on record.
            NotFoundError: there is no such agent or token; the attempt is on record.
            NotPermittedError, ConflictError: see `AdminChanges.make`.
            RequestIdReusedError: the request id was used with another digest; nothing happened.
            UnavailableError: nothing happened.
            OutcomeUnknownError: it happened whole or not at all; the same request id tells.
        """
        ...

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """Record an attempt that the rules do not allow. See `ports.Mutations.refuse`."""
        ...


class AgentStore(Protocol):
    """Agents and bootstrap tokens as stored.

    Every method raises UnavailableError or DeadlineError.
    """

    def agent(self, name: str, deadline: Deadline) -> Agent | None:
        """Return an agent, or None when there is none of this name."""
        ...

    def agents(
        self, after: str, limit: int, status: AgentStatus | None, deadline: Deadline
    ) -> Sequence[Agent]:
        """Return the first `limit` agents after a name, in their order; of a status, or of any."""
        ...

    def bootstrap_token(self, token_id: KeyId, deadline: Deadline) -> BootstrapToken | None:
        """Return a bootstrap token, or None when there is none with this id."""
        ...

    def bootstrap_tokens(
        self, after: str, limit: int, now: Instant, deadline: Deadline, *, include_ended: bool
    ) -> Sequence[BootstrapToken]:
        """Return the first `limit` bootstrap tokens after an id, in the order of ids."""
        ...


class Heartbeats(Protocol):
    """Takes note that agents live."""

    def heard(self, name: str) -> None:
        """Note that an agent was heard of now. Does not block and raises nothing."""
        ...
