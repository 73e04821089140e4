"""What the use cases of approvals need from the outside; see `ports.py` for the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from licet.app.administration import AdminChange
from licet.app.ports import Confirmation, Deadline
from licet.domain.approval import Approval, ApprovalState, Needed
from licet.domain.audit_event import AuditEvent
from licet.domain.capability_set import OneUse
from licet.domain.decision import Request
from licet.domain.names import ApprovalId, Caller, Principal


class Pending(NamedTuple):
    """What a DENY says of its approval.

    Attributes:
        approval_id: the pending one, or one that was rejected shortly before; empty: there is none.
        note: one clause for people, about what is not as usual; empty: nothing.
    """

    approval_id: str
    note: str = ""


class Approvals(Protocol):
    """What decisions do about approvals."""

    def pending(
        self, needed: Needed, request: Request, caller: Caller, deadline: Deadline
    ) -> Pending:
        """Return the pending approval, found or made. It takes a second at most.

        It never fails: what cannot be stored now is not pending.

        Raises:
            NotAtOnceError: the deadline is `AT_ONCE`, and it is not in memory.
        """
        ...

    def use(self, one: OneUse, request: Request, caller: Caller, deadline: Deadline) -> bool:
        """Use a capability up, committed when this returns; False: it cannot be used any more.

        It takes two seconds at most.

        Exactly one of all that ask, in all processes, is told True.

        Raises:
            NotPermittedError: the caller was suspended or disabled meanwhile.
            UnavailableError: nothing may be allowed by it now; it may be used up.
        """
        ...


class ApprovalChanged(NamedTuple):
    """What a resolution did, now or when the same request came first."""

    approval: Approval
    revision: int
    confirmation: Confirmation


class ApprovalChanges(Protocol):
    """The only way to resolve approvals. When it returns, that holds on every replica."""

    def change(self, change: AdminChange, deadline: Deadline) -> ApprovalChanged:
        """Resolve an approval and record it in the audit log, in one transaction.

        Raises:
            NotFoundError: there is no such approval; the attempt is on record.
            PreconditionError: it cannot be resolved any more, or not so; the attempt is on record.
            NotPermittedError, RequestIdReusedError, ConflictError, UnavailableError,
                OutcomeUnknownError: see `AdminChanges.make`.
        """
        ...

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """Record an attempt that the rules do not allow. See `ports.Mutations.refuse`."""
        ...


class ApprovalFilter(NamedTuple):
    """Which approvals to list: those that match every field that is set."""

    state: ApprovalState | None = None
    principal: Principal | None = None


class ApprovalStore(Protocol):
    """Approvals as stored. Every method raises UnavailableError or DeadlineError."""

    def find(self, approval_id: ApprovalId, deadline: Deadline) -> Approval | None:
        """Return an approval, or None when there is none with this id."""
        ...

    def page(
        self, wanted: ApprovalFilter, after: ApprovalId | None, limit: int, deadline: Deadline
    ) -> Sequence[Approval]:
        """Return the first `limit` approvals after an id, the oldest first."""
        ...
