"""Approvals: listed, read and resolved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

import grpc

from licet.client import messages, transport
from licet.client.errors import invalid
from licet.v1 import approval_pb2 as pb
from licet.v1.approval_pb2_grpc import ApprovalServiceStub

MAX_PAGE: Final = 1000
_PREFIX: Final = "APPROVAL_STATE_"


@dataclass(frozen=True, slots=True)
class Consent:
    """That somebody approved for a role; the fields are those of the API."""

    role: str
    given_by: str
    given_at: datetime
    comment: str
    ttl: timedelta


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval; the fields are those of the API.

    `state` is PENDING, APPROVED, REJECTED, EXPIRED or USED.
    """

    id: str
    principal: str
    action: str
    resource: str
    roles: tuple[str, ...]
    policy_ids: tuple[str, ...]
    policy_set: int
    purpose: str
    session_id: str
    parent_capability_id: str
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    state: str
    resolved_at: datetime | None
    resolved_by: str
    comment: str
    capability_id: str
    used_at: datetime | None
    consents: tuple[Consent, ...]


@dataclass(frozen=True, slots=True)
class ApprovalResolution:
    """What a resolution did; the approval is still PENDING when another role has to approve."""

    approval: Approval
    revision: int
    replicas_confirmed: int
    replicas_fenced: int


class Approvals:
    """The calls about approvals; `Client.approvals`."""

    def __init__(self, channel: grpc.Channel, seconds: Callable[[float | None], float]) -> None:
        """Call over this channel; `seconds` gives each call its timeout."""
        self._stub = ApprovalServiceStub(channel)
        self._seconds = seconds

    def get(self, approval_id: str, *, timeout: float | None = None) -> Approval:
        """Read an approval.

        Raises:
            LicetCallError: it was not answered, or there is none that the caller may read.
        """
        request = messages.build(pb.GetApprovalRequest, approval_id=approval_id)
        answer = transport.read(self._stub.GetApproval, request, self._seconds(timeout))
        return _approval(answer.approval)

    def list(
        self,
        *,
        state: str = "",
        principal: str = "",
        page_size: int = MAX_PAGE,
        timeout: float | None = None,
    ) -> Iterator[Approval]:
        """Iterate over approvals, the oldest first; pages are read as they are needed.

        Raises:
            LicetCallError: at once, there is no such state; while iterating, a page was not
                answered. `timeout` is for each page.
        """
        names = pb.ApprovalState.keys() if state else ()
        if state and _PREFIX + state not in names:
            known = ", ".join(name.removeprefix(_PREFIX) for name in names[1:])
            raise invalid("state", f"must be one of {known}")
        number = pb.ApprovalState.Value(_PREFIX + state) if state else None
        return self._pages(number, principal, page_size, timeout)

    def _pages(
        self,
        state: pb.ApprovalState.ValueType | None,
        principal: str,
        page_size: int,
        timeout: float | None,
    ) -> Iterator[Approval]:
        token = ""
        while True:
            request = messages.build(
                pb.ListApprovalsRequest,
                state=state,
                principal=principal,
                page_size=page_size,
                page_token=token,
            )
            page = transport.read(self._stub.ListApprovals, request, self._seconds(timeout))
            yield from map(_approval, page.approvals)
            token = page.next_page_token
            if not token:
                return

    def approve(
        self,
        approval_id: str,
        *,
        comment: str = "",
        ttl: timedelta | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> ApprovalResolution:
        """Approve for each of its roles that the caller has.

        Args:
            approval_id: which.
            comment: why.
            ttl: for how long it can be used; at most an hour, and 15 minutes unless told otherwise.
            request_id: idempotency key; one is made when there is none.
            timeout: seconds, when not the client's.

        Raises:
            LicetCallError: see there for what is known then.
        """
        request = messages.build(
            pb.ResolveApprovalRequest,
            approval_id=approval_id,
            resolution=pb.APPROVAL_STATE_APPROVED,
            comment=comment,
            ttl=messages.duration(ttl),
            request_id=request_id or uuid4().hex,
        )
        return self._resolve(request, timeout)

    def reject(
        self,
        approval_id: str,
        *,
        comment: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> ApprovalResolution:
        """Reject; the same is not asked for again for 15 minutes.

        Raises:
            LicetCallError: see there for what is known then.
        """
        request = messages.build(
            pb.ResolveApprovalRequest,
            approval_id=approval_id,
            resolution=pb.APPROVAL_STATE_REJECTED,
            comment=comment,
            request_id=request_id or uuid4().hex,
        )
        return self._resolve(request, timeout)

    def _resolve(
        self, request: pb.ResolveApprovalRequest, timeout: float | None
    ) -> ApprovalResolution:
        answer = transport.change(self._stub.ResolveApproval, request, self._seconds(timeout))
        return ApprovalResolution(
            approval=_approval(answer.approval),
            revision=answer.revision,
            replicas_confirmed=answer.replicas_confirmed,
            replicas_fenced=answer.replicas_fenced,
        )


def _approval(message: pb.Approval) -> Approval:
    return Approval(
        id=message.id,
        principal=message.principal,
        action=message.action,
        resource=message.resource,
        roles=tuple(message.roles),
        policy_ids=tuple(message.policy_ids),
        policy_set=message.policy_set,
        purpose=message.purpose,
        session_id=message.session_id,
        parent_capability_id=message.parent_capability_id,
        asked_by=message.asked_by,
        asked_at=messages.instant(message.asked_at),
        expires_at=messages.instant(message.expires_at),
        state=messages.enum_name(pb.ApprovalState.DESCRIPTOR, message.state),
        resolved_at=messages.optional_instant(message, "resolved_at"),
        resolved_by=message.resolved_by,
        comment=message.comment,
        capability_id=message.capability_id,
        used_at=messages.optional_instant(message, "used_at"),
        consents=tuple(map(_consent, message.consents)),
    )


def _consent(message: pb.ApprovalConsent) -> Consent:
    return Consent(
        role=message.role,
        given_by=message.given_by,
        given_at=messages.instant(message.given_at),
        comment=message.comment,
        ttl=message.ttl.ToTimedelta(),
    )
