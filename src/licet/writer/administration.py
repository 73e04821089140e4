"""Changes of licet's own administration: committed one by one, and waited for like mutations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

from licet.app.administration import AdminChange
from licet.app.ports import Applied, Deadline
from licet.domain.audit_event import AuditEvent
from licet.domain.errors import (
    ConflictError,
    LicetError,
    NotPermittedError,
    OutcomeUnknownError,
    RequestIdReusedError,
    UnavailableError,
)
from licet.writer.acknowledgements import Acknowledgements
from licet.writer.group_commit import MUTATION_SECONDS

_log: Final = logging.getLogger(__name__)


class AdminChangeStore(Protocol):
    """Makes changes in the database; see `storage.administration`."""

    def make(self, change: AdminChange, deadline: Deadline) -> Applied:
        """Make a change, safely repeatable with the same request id."""
        ...


class AdminChangeWriter:
    """See `app.administration.AdminChanges`."""

    def __init__(
        self,
        store: AdminChangeStore,
        acknowledgements: Acknowledgements,
        refuse: Callable[[AuditEvent, Deadline], None],
    ) -> None:
        """Compose it; `refuse` records a refused attempt."""
        self._store = store
        self._acknowledgements = acknowledgements
        self._refuse = refuse

    def make(
        self, change: AdminChange, raise_refusal: Callable[[str], None], deadline: Deadline
    ) -> Applied:
        """See `AdminChanges.make`."""
        applied = self.commit(change, deadline)
        raise_refusal(applied.status)
        # Also of what was done before: whoever did it may be waiting still.
        confirmation = self._acknowledgements.wait(
            applied.revision, deadline, MUTATION_SECONDS, applied.history
        )
        return applied._replace(confirmation=confirmation)

    def commit(self, change: AdminChange, deadline: Deadline) -> Applied:
        """See `AdminChanges.commit`."""
        applied = self._applied(change, deadline)
        if applied.status == "REQUEST_ID_REUSED":
            raise RequestIdReusedError("request_id was used before with another body")
        if applied.status == "CALLER_BARRED":
            raise NotPermittedError(
                applied.status, "the caller was suspended or disabled meanwhile"
            )
        return applied

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """See `AdminChanges.refuse`."""
        self._refuse(event, deadline)

    def _applied(self, change: AdminChange, deadline: Deadline) -> Applied:
        try:
            return self._store.make(change, deadline)
        except OutcomeUnknownError:
            _log.warning("the answer to a change (%s) was lost; asking again", change.event_type)
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
                    return self._store.make(change, deadline)
        except LicetError as exc:
            # Whatever this attempt met, the first one may have been committed.
            raise unknown from exc
        raise unknown
