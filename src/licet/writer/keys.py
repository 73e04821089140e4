"""Changes of API keys, and why one is refused."""

from __future__ import annotations

from typing import Final

from licet.app.administration import AdminChanges
from licet.app.key_ports import KeyChange, KeyChanged
from licet.app.ports import Confirmation, Deadline
from licet.domain.api_key import KeyId
from licet.domain.audit_event import AuditEvent
from licet.domain.errors import InvalidRequestError, NotFoundError, PreconditionError
from licet.domain.instant import Instant

_REFUSALS: Final = {
    "KEY_ENDED": "the API key has been revoked",
    "KEY_EXPIRED": "the API key has expired",
    "KEY_ROTATED": "the API key was rotated before",
    "KEYS_EXIST": "there are API keys already",
}


class KeyWriter:
    """See `app.keys.KeyChanges`."""

    def __init__(self, changes: AdminChanges) -> None:
        """Make them by these."""
        self._changes = changes

    def change(self, change: KeyChange, deadline: Deadline) -> KeyChanged:
        """See `KeyChanges.change`."""
        applied = self._changes.make(change.as_admin_change(), raise_refusal, deadline)
        confirmation = applied.confirmation or Confirmation(0, 0)
        created_at = applied.outcome.get("created_at")
        return KeyChanged(
            key_id=KeyId(applied.outcome["key_id"]),
            revision=applied.revision,
            confirmed=confirmation.confirmed,
            fenced=confirmation.fenced,
            already_ended=applied.status == "already_ended",
            created_at=None if created_at is None else Instant(int(created_at)),
        )

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """See `KeyChanges.refuse`."""
        self._changes.refuse(event, deadline)


def raise_refusal(status: str) -> None:
    """Raise the error of a change that the database refused."""
    match status:
        case "done" | "already_ended":
            return
        case "KEY_NOT_FOUND":
            raise NotFoundError("there is no such API key")
        case "ALREADY_EXPIRED":
            raise InvalidRequestError.of("expires_at", "must be in the future")
        case _:
            raise PreconditionError(status, _REFUSALS[status])
