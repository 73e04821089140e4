"""Approvals: listed, read, and resolved by those who may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from licet.app.administration import AdminChange
from licet.app.approval_ports import (
    ApprovalChanged,
    ApprovalChanges,
    ApprovalFilter,
    ApprovalStore,
)
from licet.app.new_keys import digest
from licet.app.ports import Clock, Deadline, Ids, PageTokens
from licet.app.read import Page, cut
from licet.app.user_ports import UserStore, powers_now, seen
from licet.domain.approval import Approval, roles_of
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.caller import ANONYMOUS, SCOPE_MISSING, Identity, Scope, check_change
from licet.domain.canonical_json import JsonObject, JsonValue, canonical
from licet.domain.errors import NotFoundError, NotPermittedError
from licet.domain.instant import Instant
from licet.domain.names import ApprovalId
from licet.domain.pattern import ResourcePattern
from licet.domain.user import User

_ITEM_BYTES: Final = 6000
"""What an approval weighs at most in a message, without its policies and consents."""
_POLICY_BYTES: Final = 256
_CONSENT_BYTES: Final = 1600


class ResolveCommand(NamedTuple):
    """How an approval is to be resolved, its fields checked."""

    approval_id: ApprovalId
    is_consent: bool
    comment: str
    ttl_seconds: int
    request_id: str


class ManageApprovals:
    """See the module."""

    def __init__(  # noqa: PLR0913, PLR0917 - the ports
        self,
        changes: ApprovalChanges,
        approvals: ApprovalStore,
        users: UserStore,
        ids: Ids,
        clock: Clock,
        tokens: PageTokens,
    ) -> None:
        """Compose the use cases."""
        self._changes = changes
        self._approvals = approvals
        self._users = users
        self._ids = ids
        self._clock = clock
        self._tokens = tokens

    def resolve(
        self, command: ResolveCommand, caller: Identity, deadline: Deadline
    ) -> ApprovalChanged:
        """Approve for all roles that the caller has, or reject.

        Raises:
            NotFoundError: there is no such approval; nothing happened.
            NotPermittedError: it is outside the caller's limits, is the caller's own, or the caller
                has none of its roles; the attempt is on record.
            ConflictError: the caller's roles have changed meanwhile; nothing happened.
            Others: see `ApprovalChanges.change`.
        """
        approval = self._found(command.approval_id, deadline)
        users = self._users.find([caller.caller], deadline)
        kind = EventType.APPROVAL_APPROVED if command.is_consent else EventType.APPROVAL_REJECTED
        facts: dict[str, JsonValue] = {
            "approval_id": approval.id,
            "action": approval.action,
            "comment": command.comment,
        }
        try:
            roles = _roles(approval, caller, users, is_consent=command.is_consent)
        except NotPermittedError as refusal:
            now = self._clock.now()
            refused = _refusal(kind, now, approval, caller, refusal.code, canonical(facts))
            self._changes.refuse(refused, deadline)
            raise
        if command.is_consent:
            # With what the capability can be compared that it may have made.
            facts |= {
                "roles": list(roles),
                "all_roles": list(approval.roles),
                "parent_id": approval.parent_id,
                "ttl_seconds": command.ttl_seconds,
            }
        return self._changes.change(
            AdminChange(
                event_type=kind,
                request_id=command.request_id or self._ids.request_id(),
                digest=digest([kind, caller.caller, *command[:-1]]),
                actor=caller.caller,
                facts=canonical(facts),
                details={
                    "id": approval.id,
                    "principal": approval.principal,
                    "roles": list(roles),
                    "comment": command.comment,
                    "ttl_seconds": command.ttl_seconds,
                    "capability_id": self._ids.capability_id(),
                    "seen": seen(users, caller.caller),
                },
            ),
            deadline,
        )

    def get(self, approval_id: ApprovalId, caller: Identity, deadline: Deadline) -> Approval:
        """Return an approval, to whom it concerns.

        Raises:
            NotFoundError: there is none with this id, or the caller may not read it.
            UnavailableError, DeadlineError: see `ApprovalStore`.
        """
        found = self._found(approval_id, deadline)
        if not (
            caller.may(Scope.READ)
            or caller.may(Scope.APPROVE)
            or caller.acts_as(found.principal)
            or caller.caller == found.asked_by
        ):
            raise _unknown(approval_id)
        return found.at(self._clock.now())

    def page(
        self, wanted: ApprovalFilter, size: int, token: str, deadline: Deadline
    ) -> Page[Approval]:
        """Return one page, the oldest first.

        Raises:
            InvalidRequestError: the token is not of this list.
            UnavailableError, DeadlineError: see `ApprovalStore`.
        """
        listed = digest(["approvals", *wanted])
        after = ApprovalId(self._tokens.open(listed, token)) if token else None
        now = self._clock.now()
        found = [
            approval.at(now) for approval in self._approvals.page(wanted, after, size + 1, deadline)
        ]
        return cut(found, size, _bytes, lambda last: self._tokens.seal(listed, last.id))

    def _found(self, approval_id: ApprovalId, deadline: Deadline) -> Approval:
        found = self._approvals.find(approval_id, deadline)
        if found is None:
            raise _unknown(approval_id)
        return found


def _roles(
    approval: Approval, caller: Identity, users: Mapping[str, User], *, is_consent: bool
) -> tuple[str, ...]:
    """Return for which roles a caller resolves an approval.

    Raises:
        NotPermittedError: it may not.
    """
    # (1) What it was let in with, as far as it still is so.
    powers = powers_now(caller, users)
    if Scope.APPROVE not in powers:
        raise NotPermittedError(SCOPE_MISSING, f"this needs the scope {Scope.APPROVE}")
    # (2) Limits.
    check_change(caller.limits, approval.principal, ResourcePattern(approval.resource))
    # (3) Four eyes. Of callers who are not authenticated nobody knows whose they are. To reject
    # one's own is to withdraw it.
    own = caller.acts_as(approval.principal) or caller.caller == approval.asked_by
    if is_consent and own and caller != ANONYMOUS:
        raise NotPermittedError("OWN_REQUEST", "nobody approves what they ask for themselves")
    # (4) The role.
    user = users.get(caller.caller)
    roles = roles_of(approval, () if user is None else user.roles, is_admin=Scope.ADMIN in powers)
    if not roles:
        wanted = " or ".join(approval.roles)
        raise NotPermittedError(
            "ROLE_MISSING", f"this needs a user with the role {wanted}, or the scope admin"
        )
    return roles


def _refusal(  # noqa: PLR0913, PLR0917 - what the event is made of
    kind: EventType,
    now: Instant,
    approval: Approval,
    caller: Identity,
    reason: str,
    facts: JsonObject,
) -> AuditEvent:
    return AuditEvent(
        occurred_at=now,
        event_type=kind,
        actor=caller.caller,
        principal=approval.principal,
        action="",
        resource=approval.resource,
        capability_id="",
        result=Result.REFUSED,
        reason=reason,
        policy_id="",
        session_id=approval.session_id,
        trace_id="",
        revision=0,
        metadata=facts,
    )


def _unknown(approval_id: ApprovalId) -> NotFoundError:
    return NotFoundError(f"there is no approval {approval_id}")


def _bytes(approval: Approval) -> int:
    policies, consents = len(approval.policies), len(approval.consents)
    return _ITEM_BYTES + _POLICY_BYTES * policies + _CONSENT_BYTES * consents
