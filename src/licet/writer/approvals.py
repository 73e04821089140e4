"""Approvals as changes: asked for by decisions, used up by them, and resolved.

Of what is pending, memory has a little, under the revision of what its principal holds: whatever
becomes of an approval is a revision of that, so what memory says of it is never over.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import BoundedSemaphore, Lock
from typing import Final, NamedTuple, Protocol

from licet.app.administration import AdminChange, AdminChanges
from licet.app.approval_ports import ApprovalChanged, Pending
from licet.app.new_keys import digest
from licet.app.ports import AT_ONCE, Applied, Confirmation, Deadline, Ids, NotAtOnceError
from licet.domain.approval import (
    MAX_PENDING,
    PENDING_SECONDS,
    REJECTION_SECONDS,
    Approval,
    ApprovalState,
    Needed,
    approval_of,
    purpose,
)
from licet.domain.audit_event import AuditEvent, EventType
from licet.domain.caller import ANONYMOUS
from licet.domain.canonical_json import JsonValue, canonical
from licet.domain.capability_set import OneUse
from licet.domain.decision import Request
from licet.domain.errors import (
    ConflictError,
    DeadlineError,
    HistoryUnconfirmedError,
    LicetError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
    UnavailableError,
)
from licet.domain.names import ApprovalId, Caller

_log: Final = logging.getLogger(__name__)

REMEMBERED: Final = 4096
"""Of how many questions it is remembered what is pending."""
_REMEMBER_SECONDS: Final = 60.0
_FULL_SECONDS: Final = 5.0
"""For how long it is remembered that a principal has as many pending approvals as it may."""
PENDING_SECONDS_AT_MOST: Final = 1.0
"""How long a DENY waits until its approval is stored."""
USE_SECONDS_AT_MOST: Final = 2.0
"""How long a decision waits until its approval is used up: its thread is one of a few."""
_PAUSE_SECONDS: Final = 1.0
THREADS: Final = 4
"""How many decisions wait for that at once."""
_UNAVAILABLE: Final = Pending("", "no approval can be asked for now")
_FULL: Final = Pending("", f"its principal has {MAX_PENDING} pending approvals already")
_REJECTED: Final = "an approval was rejected"
_TOO_MANY: Final = "TOO_MANY_APPROVALS"
_DONE: Final = "done"
_REFUSALS: Final = {
    "APPROVAL_RESOLVED": "it has been resolved already",
    "APPROVAL_EXPIRED": "its time is over; it has to be asked for again",
    "APPROVAL_GIVEN": "the caller's roles have approved it already; another one is missing",
    "PARENT_ENDED": "the capability that covers it has ended",
    "PARENT_EXPIRED": "the capability that covers it has expired",
    "PRINCIPAL_SUSPENDED": "its principal is suspended",
}


class ApprovalReads(Protocol):
    """Finds what stands of a question; see `storage.approvals`."""

    def standing(
        self, asked: Mapping[str, JsonValue], deadline: Deadline
    ) -> tuple[Approval | None, int]:
        """Return it, and how many pending approvals its principal has."""
        ...


class _Remembered(NamedTuple):
    pending: Pending
    until: float


class ApprovalWriter:
    """See `app.approval_ports`: `Approvals` and `ApprovalChanges`."""

    def __init__(
        self, changes: AdminChanges, reads: ApprovalReads, ids: Ids, clock: Callable[[], float]
    ) -> None:
        """Compose it; the clock counts seconds and never steps."""
        self._changes = changes
        self._reads = reads
        self._ids = ids
        self._clock = clock
        # Guards the next two.
        self._mutex = Lock()
        self._remembered: OrderedDict[tuple[object, ...], _Remembered] = OrderedDict()
        self._not_before = 0.0
        self._room = BoundedSemaphore(THREADS)
        self.requested = 0
        """How many approvals this process asked for; read by metrics, as the following are."""
        self.not_requested = 0
        """How many denials came without one, because none could be asked for."""
        self.used = 0
        """How many of its decisions used one up."""

    def pending(
        self, needed: Needed, request: Request, caller: Caller, deadline: Deadline
    ) -> Pending:
        """See `Approvals.pending`."""
        key = (needed[:4], needed.revision)
        known = self._known(key)
        if known is not None:
            return known if known.approval_id else self._without(known)
        if deadline is AT_ONCE:
            raise NotAtOnceError
        soon = self._at_most(PENDING_SECONDS_AT_MOST, deadline)
        is_hurried = soon.remaining(PENDING_SECONDS_AT_MOST) < PENDING_SECONDS_AT_MOST / 2
        if not self._room.acquire(blocking=False):
            return self._without(_UNAVAILABLE)
        try:
            found = self._found_or_made(needed, request, caller, soon)
        except LicetError as exc:
            # That one caller would not wait for long says nothing of the database.
            if not (is_hurried and isinstance(exc, DeadlineError)):
                _log.warning("an approval could not be asked for: %s", exc)
                with self._mutex:
                    self._not_before = self._clock() + _PAUSE_SECONDS
            return self._without(_UNAVAILABLE)
        finally:
            self._room.release()
        self._remember(key, found)
        return found if found.approval_id else self._without(found)

    def use(self, one: OneUse, request: Request, caller: Caller, deadline: Deadline) -> bool:
        """See `Approvals.use`."""
        request_id = self._ids.request_id()
        change = AdminChange(
            event_type=EventType.APPROVAL_USED,
            request_id=request_id,
            digest=digest([EventType.APPROVAL_USED, request_id]),
            actor=caller,
            facts=canonical({"action": request.action, "roles": sorted(one.roles)}),
            details={
                "id": one.capability.id,
                "principal": request.principal,
                "action": request.action,
                "resource": request.resource,
                "session_id": request.session_id,
                "not_approved_by": None if caller == ANONYMOUS.caller else caller,
            },
        )
        try:
            soon = self._at_most(USE_SECONDS_AT_MOST, deadline)
            is_used = self._changes.commit(change, soon).status == _DONE
        except OutcomeUnknownError as exc:
            message = "nothing was decided; it is not known whether the approval is used up"
            raise UnavailableError(message) from exc
        except (ConflictError, DeadlineError, HistoryUnconfirmedError) as exc:
            message = f"nothing was decided; the approval cannot be used now: {exc}"
            raise UnavailableError(message) from exc
        with self._mutex:
            self.used += is_used
        return is_used

    def change(self, change: AdminChange, deadline: Deadline) -> ApprovalChanged:
        """See `ApprovalChanges.change`."""
        applied = self._changes.make(change, _raise_refusal, deadline)
        return ApprovalChanged(
            approval_of(applied.outcome),
            applied.revision,
            applied.confirmation or Confirmation(0, 0),
        )

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """See `ApprovalChanges.refuse`."""
        self._changes.refuse(event, deadline)

    def _at_most(self, seconds: float, deadline: Deadline) -> Deadline:
        """Return an earlier deadline: of what the caller has left, the answer needs the rest."""
        return Deadline.after(deadline.remaining(2 * seconds) / 2, self._clock)

    def _known(self, key: tuple[object, ...]) -> Pending | None:
        now = self._clock()
        with self._mutex:
            remembered = self._remembered.get(key)
            if remembered is not None and now < remembered.until:
                return remembered.pending
            return _UNAVAILABLE if now < self._not_before else None

    def _remember(self, key: tuple[object, ...], found: Pending) -> None:
        until = self._clock() + (_REMEMBER_SECONDS if found.approval_id else _FULL_SECONDS)
        with self._mutex:
            self._remembered[key] = _Remembered(found, until)
            self._remembered.move_to_end(key)
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)

    def _found_or_made(
        self, needed: Needed, request: Request, caller: Caller, deadline: Deadline
    ) -> Pending:
        asked: dict[str, JsonValue] = {
            "principal": needed.principal,
            "action": needed.action,
            "resource": needed.resource,
            "roles": list(needed.roles),
            "rejection_seconds": REJECTION_SECONDS,
        }
        standing, count = self._reads.standing(asked, deadline)
        if standing is not None:
            return _pending(standing)
        if count >= MAX_PENDING:
            return _FULL
        applied = self._changes.commit(
            _requested(needed, request, caller, asked, self._ids), deadline
        )
        with self._mutex:
            self.requested += applied.status == _DONE
        return _made(applied)

    def _without(self, pending: Pending) -> Pending:
        with self._mutex:
            self.not_requested += 1
        return pending


def _requested(
    needed: Needed, request: Request, caller: Caller, asked: Mapping[str, JsonValue], ids: Ids
) -> AdminChange:
    approval_id, why = ApprovalId(ids.capability_id()), purpose(request)
    facts: dict[str, JsonValue] = {
        "approval_id": approval_id,
        "action": needed.action,
        "roles": list(needed.roles),
        "policies": list(needed.policies),
        "policy_set": needed.policy_set,
    }
    if why:
        facts["purpose"] = why
    return AdminChange(
        event_type=EventType.APPROVAL_REQUESTED,
        request_id=ids.request_id(),
        digest=digest([EventType.APPROVAL_REQUESTED, approval_id]),
        actor=caller,
        facts=canonical(facts),
        details={
            "principal": needed.principal,
            "approval": {
                **asked,
                "id": approval_id,
                "policies": list(needed.policies),
                "policy_set": needed.policy_set,
                "parent_id": needed.parent_id,
                "purpose": why,
                "session_id": request.session_id,
                "seconds": PENDING_SECONDS,
                "most": MAX_PENDING,
            },
        },
    )


def _made(applied: Applied) -> Pending:
    if applied.status == _TOO_MANY:
        return _FULL
    if "id" not in applied.outcome:  # its capability has ended meanwhile
        return Pending("", "")
    return _pending(approval_of(applied.outcome))


def _pending(standing: Approval) -> Pending:
    is_rejected = standing.state is ApprovalState.REJECTED
    return Pending(standing.id, f"{_REJECTED} by {standing.resolved_by}" if is_rejected else "")


def _raise_refusal(status: str) -> None:
    match status:
        case "done":
            return
        case "APPROVAL_NOT_FOUND":
            raise NotFoundError("there is no such approval")
        case _:
            raise PreconditionError(status, _REFUSALS[status])
