"""Changes of API keys: committed one by one, for they are rare, and waited for like mutations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

from licet.app.key_ports import KeyChange, KeyChanged
from licet.app.ports import Applied, Deadline
from licet.domain.api_key import KeyId
from licet.domain.audit_event import AuditEvent
from licet.domain.errors import (
    ConflictError,
    InvalidRequestError,
    LicetError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
    RequestIdReusedError,
    UnavailableError,
)
from licet.domain.instant import Instant
from licet.writer.acknowledgements import Acknowledgements
from licet.writer.group_commit import MUTATION_SECONDS

_log: Final = logging.getLogger(__name__)

_REFUSALS: Final = {
    "KEY_ENDED": "the API key has been revoked",
    "KEY_EXPIRED": "the API key has expired",
    "KEY_ROTATED": "the API key was rotated before",
    "KEYS_EXIST": "there are API keys already",
}


class KeyChangeStore(Protocol):
    """Changes keys in the database; see `storage.api_keys`."""

    def change(self, change: KeyChange, deadline: Deadline) -> Applied:
        """Make a change, safely repeatable with the same request id."""
        ...


class KeyWriter:
    """See `app.keys.KeyChanges`."""

    def __init__(
        self,
        store: KeyChangeStore,
        acknowledgements: Acknowledgements,
        refuse: Callable[[AuditEvent, Deadline], None],
    ) -> None:
        """Compose it; `refuse` records a refused attempt."""
        self._store = store
        self._acknowledgements = acknowledgements
        self._refuse = refuse

    def change(self, change: KeyChange, deadline: Deadline) -> KeyChanged:
        """See `KeyChanges.change`."""
        applied = self._applied(change, deadline)
        raise_refusal(applied.status)
        # Also when it had ended before: whoever ended it may be waiting still.
        confirmation = self._acknowledgements.wait(
            applied.revision, deadline, MUTATION_SECONDS, applied.history
        )
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
        self._refuse(event, deadline)

    def _applied(self, change: KeyChange, deadline: Deadline) -> Applied:
        try:
            return self._store.change(change, deadline)
        except OutcomeUnknownError:
            _log.warning("the answer to a change of an API key was lost; asking again")
        unknown = OutcomeUnknownError(
            f"the outcome is not known yet; ask again with request_id {change.request_id}"
        )
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(
                    (OutcomeUnknownError, UnavailableError, ConflictError)
                ),
                stop=lambda _: deadline.remaining(MUTATION_SECONDS) <= 0,
                wait=wait_random_exponential(multiplier=0.05, max=0.5),
                reraise=True,
            ):
                with attempt:
                    return self._store.change(change, deadline)
        except LicetError as exc:
            # Whatever this attempt met, the first one may have been committed.
            raise unknown from exc
        raise unknown


def raise_refusal(status: str) -> None:
    """Raise the error of a change that the database refused."""
    match status:
        case "done" | "already_ended":
            return
        case "REQUEST_ID_REUSED":
            raise RequestIdReusedError("request_id was used before with another body")
        case "KEY_NOT_FOUND":
            raise NotFoundError("there is no such API key")
        case "ALREADY_EXPIRED":
            raise InvalidRequestError.of("expires_at", "must be in the future")
        case _:
            raise PreconditionError(status, _REFUSALS[status])
