"""Mutations: committed with others, then waited for until every replica has applied them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn, Protocol, TypeVar

from licet.app.ports import (
    AT_ONCE,
    Applied,
    Capabilities,
    Confirmation,
    Deadline,
    Ended,
    Grant,
    Granted,
    NotAtOnceError,
    Revoke,
    Revoked,
)
from licet.domain.audit_event import AuditEvent
from licet.domain.capability import Capability
from licet.domain.errors import (
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
    RequestIdReusedError,
    UnavailableError,
)
from licet.domain.instant import Instant
from licet.domain.names import CapabilityId
from licet.writer.acknowledgements import Acknowledgements
from licet.writer.group_commit import MUTATION_SECONDS, GroupCommit

_Result = TypeVar("_Result", Granted, Revoked)

_REFUSALS: Final = {
    "PARENT_ENDED": "the parent capability has been revoked",
    "PARENT_EXPIRED": "the parent capability has expired",
}


_ANSWER_SECONDS: Final = 0.1
"""How much of the caller's time, and never more than a tenth, is kept for the answer to travel: a
caller whose own clock is first does not hear that the change is committed."""


class Attempts(Protocol):
    """Earlier and refused attempts in the database; see `storage.mutations`."""

    def earlier(self, request_id: str, digest: bytes, deadline: Deadline) -> Applied | None:
        """Return what the mutation with this request id did, or None."""
        ...

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """Record a refused attempt."""
        ...


class MutationWriter:
    """See `ports.Mutations`."""

    def __init__(
        self,
        commit: GroupCommit,
        acknowledgements: Acknowledgements,
        attempts: Attempts,
        capabilities: Capabilities,
    ) -> None:
        """Compose it."""
        self._commit = commit
        self._acknowledgements = acknowledgements
        self._attempts = attempts
        self._capabilities = capabilities

    def granted_before(self, request_id: str, digest: bytes, deadline: Deadline) -> Granted | None:
        """See `ports.Mutations.granted_before`."""
        earlier = self._attempts.earlier(request_id, digest, deadline)
        if earlier is None:
            return None
        _raise_refusal(earlier.status)
        self._confirmed(earlier, deadline)
        return self._stored(earlier, deadline)

    def grant(self, grant: Grant, deadline: Deadline) -> Granted:
        """See `ports.Mutations.grant`."""
        deadline = _with_time_to_answer(deadline)
        return self._granted(grant, deadline, self._commit.submit(grant, deadline))

    def begin_grant(
        self, grant: Grant, deadline: Deadline, tell: Callable[[Ended[Granted]], None]
    ) -> None:
        """See `ports.Mutations.begin_grant`."""
        deadline = _with_time_to_answer(deadline)
        finish = partial(self._granted, grant, deadline)
        self._commit.begin(grant, deadline, lambda outcome: tell(_ended(finish, outcome)))

    def _granted(self, grant: Grant, deadline: Deadline, applied: Applied) -> Granted:
        _raise_refusal(applied.status)
        self._confirmed(applied, deadline)
        if applied.outcome.get("replayed"):
            return self._stored(applied, deadline)
        capability = Capability(
            id=grant.capability_id,
            terms=grant.terms,
            parent_id=grant.parent_id,
            granted_by=grant.actor,
            granted_at=Instant(int(applied.outcome["granted_at"])),
            revision=applied.revision,
            end=None,
        )
        return Granted(capability, applied.revision)

    def revoke(self, revoke: Revoke, deadline: Deadline) -> Revoked:
        """See `ports.Mutations.revoke`."""
        deadline = _with_time_to_answer(deadline)
        return self._revoked(deadline, self._commit.submit(revoke, deadline))

    def begin_revoke(
        self, revoke: Revoke, deadline: Deadline, tell: Callable[[Ended[Revoked]], None]
    ) -> None:
        """See `ports.Mutations.begin_revoke`."""
        deadline = _with_time_to_answer(deadline)
        finish = partial(self._revoked, deadline)
        self._commit.begin(revoke, deadline, lambda outcome: tell(_ended(finish, outcome)))

    def _revoked(self, deadline: Deadline, applied: Applied) -> Revoked:
        _raise_refusal(applied.status)
        # Also when it had ended before: whoever ended it may be waiting still.
        confirmation = self._confirmed(applied, deadline)
        return Revoked(
            ended=applied.outcome["count"],
            ids=tuple(CapabilityId(identifier) for identifier in applied.outcome["ids"]),
            revision=applied.revision,
            confirmed=confirmation.confirmed,
            fenced=confirmation.fenced,
            already_ended=applied.status == "already_ended",
        )

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """See `ports.Mutations.refuse`."""
        if deadline is AT_ONCE:
            raise NotAtOnceError
        self._attempts.refuse(event, deadline)

    def _confirmed(self, applied: Applied, deadline: Deadline) -> Confirmation:
        if applied.confirmation is not None:
            return applied.confirmation
        return self._acknowledgements.wait(
            applied.revision, deadline, MUTATION_SECONDS, applied.history
        )

    def _stored(self, applied: Applied, deadline: Deadline) -> Granted:
        capability_id = CapabilityId(applied.outcome["capability_id"])
        try:
            found = self._capabilities.find(capability_id, deadline)
        except (UnavailableError, DeadlineError) as exc:
            # The grant is committed: to say that nothing happened would be a lie.
            raise OutcomeUnknownError(
                f"capability {capability_id} was granted, but could not be read back"
            ) from exc
        if found is None:
            raise RuntimeError(f"capability {capability_id} was granted and is not there")
        return Granted(found, applied.revision)


def _ended(finish: Callable[[Applied], _Result], outcome: Applied | Exception) -> Ended[_Result]:
    """Return how a mutation ended; what it did before has to be waited for, or read."""
    if isinstance(outcome, Exception):
        return Ended(partial(_raise, outcome), waits=False)
    waits = outcome.confirmation is None or "replayed" in outcome.outcome
    return Ended(partial(finish, outcome), waits)


def _raise(error: Exception) -> NoReturn:
    raise error


def _with_time_to_answer(deadline: Deadline) -> Deadline:
    def left() -> float:
        whole = deadline.remaining(MUTATION_SECONDS)
        return whole - min(_ANSWER_SECONDS, whole / 10)

    return Deadline(left)


def _raise_refusal(status: str) -> None:
    """Raise the error of a mutation that the database refused."""
    match status:
        case "done" | "already_ended":
            return
        case "REQUEST_ID_REUSED":
            raise RequestIdReusedError("request_id was used before with another body")
        case "NOT_FOUND":
            raise NotFoundError("there is no such capability")
        case "PARENT_NOT_FOUND":
            raise NotFoundError("there is no such capability to delegate from")
        case "ALREADY_EXPIRED":
            raise InvalidRequestError.of("expires_at", "must be in the future")
        case "FAILED":
            raise RuntimeError("a constraint of the database refused a mutation that was checked")
        case _:
            raise PreconditionError(status, _REFUSALS[status])
