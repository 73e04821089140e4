"""Changes of users and of who is suspended, and why one is refused."""

from __future__ import annotations

from typing import Final

from licet.app.administration import AdminChange, AdminChanges
from licet.app.ports import Confirmation, Deadline
from licet.app.user_ports import StandingChanged, UserChanged, user_of
from licet.domain.audit_event import AuditEvent
from licet.domain.errors import NotFoundError, PreconditionError

_REFUSALS: Final = {
    "USER_EXISTS": "there is a user of this name already",
    "EMAIL_TAKEN": "another user has this e-mail address",
}


class UserWriter:
    """See `app.user_ports.UserChanges`."""

    def __init__(self, changes: AdminChanges) -> None:
        """Make them by these."""
        self._changes = changes

    def change(self, change: AdminChange, deadline: Deadline) -> UserChanged:
        """See `UserChanges.change`."""
        applied = self._changes.make(change, raise_refusal, deadline)
        confirmation = applied.confirmation or Confirmation(0, 0)
        return UserChanged(
            user=user_of(applied.outcome),
            revision=applied.revision,
            confirmed=confirmation.confirmed,
            fenced=confirmation.fenced,
            already=applied.status == "already",
        )

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """See `UserChanges.refuse`."""
        self._changes.refuse(event, deadline)


class StandingWriter:
    """See `app.user_ports.StandingChanges`."""

    def __init__(self, changes: AdminChanges) -> None:
        """Make them by these."""
        self._changes = changes

    def change(self, change: AdminChange, deadline: Deadline) -> StandingChanged:
        """See `StandingChanges.change`."""
        applied = self._changes.make(change, raise_refusal, deadline)
        confirmation = applied.confirmation or Confirmation(0, 0)
        return StandingChanged(
            revision=applied.revision,
            confirmed=confirmation.confirmed,
            fenced=confirmation.fenced,
            already=applied.status == "already",
        )

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """See `StandingChanges.refuse`."""
        self._changes.refuse(event, deadline)


def raise_refusal(status: str) -> None:
    """Raise the error of a change that the database refused."""
    match status:
        case "done" | "already":
            return
        case "USER_NOT_FOUND":
            raise NotFoundError("there is no such user")
        case _:
            raise PreconditionError(status, _REFUSALS[status])
