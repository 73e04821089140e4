"""Approvals: what a request needs one of, and what one that was given is good for.

Pure. The steps of a request that policies deny with APPROVAL_REQUIRED:

(1) A capability for one use, of its principal and for exactly its action and resource, is alive.
(2) Its parent alone allows the request, as `decide` says: its time, and whatever else it demands.
(3) The policies have nothing against that, with the roles that approved as given. They see the
    parent: what is exact about the child is the approval's doing.
(4) Then it is used up, which the database does, for one request; and only that is an ALLOW.
(5) Otherwise the answer is what (3) says, if it is about something else; or an approval is asked
    for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from licet.domain.capability_set import CapabilitySet, OneUse
from licet.domain.condition import Evaluate
from licet.domain.decision import Decision, Reason, Request, decide
from licet.domain.instant import Instant
from licet.domain.names import Action, ApprovalId, Caller, CapabilityId, Principal, Resource
from licet.domain.policy_set import PolicySet

PENDING_SECONDS: Final = 86_400
"""For how long a pending approval can be resolved."""
REJECTION_SECONDS: Final = 900
"""For how long what was rejected is not asked for again."""
MAX_PENDING: Final = 20
"""How many pending approvals a principal has, and how many new ones a call asks for."""
TTL_SECONDS: Final = 900
"""For how long an approval can be used, unless told otherwise."""
MAX_TTL_SECONDS: Final = 3600
PURPOSE_BYTES: Final = 1024
MAX_NAMED: Final = 20
"""How many of the policies that demand an approval are named: audit events have a bound."""
_PURPOSE: Final = "purpose"


class ApprovalState(StrEnum):
    """Where an approval is; the values are stored and sent."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    USED = "USED"


class Consent(NamedTuple):
    """That somebody approved for a role. The capability lives at most `ttl_seconds`."""

    role: str
    given_by: Caller
    given_at: Instant
    comment: str
    ttl_seconds: int


class Approval(NamedTuple):
    """An approval as stored.

    Attributes:
        id: its id.
        principal, action, resource: what it is for, exactly.
        roles: each has to approve.
        policies: the first of those that demand it, of version `policy_set`.
        policy_set: see there.
        purpose: what the first who asked says of it.
        session_id: in which that was asked.
        parent_id: the capability that covers it.
        asked_by: the first caller who asked.
        asked_at: when.
        expires_at: until then it can be resolved.
        state: where it is; one whose time is over is EXPIRED.
        resolved_at: when it was rejected, or the last consent given; with the next two.
        resolved_by: by whom.
        comment: why.
        capability_id: the capability for one use; empty: there is none.
        used_at: when that was used; None: it was not.
        consents: so far, the earliest first.
    """

    id: ApprovalId
    principal: Principal
    action: Action
    resource: Resource
    roles: tuple[str, ...]
    policies: tuple[str, ...]
    policy_set: int
    purpose: str
    session_id: str
    parent_id: CapabilityId
    asked_by: Caller
    asked_at: Instant
    expires_at: Instant
    state: ApprovalState
    resolved_at: Instant | None
    resolved_by: str
    comment: str
    capability_id: str
    used_at: Instant | None
    consents: tuple[Consent, ...]

    def at(self, now: Instant) -> Approval:
        """Return it as it is at an instant: one whose time is over cannot be resolved."""
        if self.state is ApprovalState.PENDING and now >= self.expires_at:
            return self._replace(state=ApprovalState.EXPIRED)
        return self


class Needed(NamedTuple):
    """What a request that was denied needs the approval of; what it is found by.

    Attributes:
        principal, action, resource: of the request.
        roles: each has to approve; sorted.
        policies: the first of those that demand it.
        policy_set: their version.
        parent_id: the capability that covers the request.
        revision: of what the principal holds.
    """

    principal: Principal
    action: Action
    resource: Resource
    roles: tuple[str, ...]
    policies: tuple[str, ...]
    policy_set: int
    parent_id: CapabilityId
    revision: int


def approvable(  # noqa: PLR0913, PLR0917 - all that decides
    held: CapabilitySet,
    policies: PolicySet,
    request: Request,
    now: Instant,
    earliest: Instant,
    evaluate: Evaluate,
    tried: Collection[CapabilityId],
) -> Iterator[tuple[OneUse, Decision]]:
    """Yield each approval that a request could use, and what comes of it then: steps (1) to (3).

    But for those that were tried. An ALLOW is none yet: step (4) comes after it.
    """
    for one in held.for_one_use(request.action, request.resource):
        if one.capability.id in tried:
            continue
        if now >= one.capability.expires_at or earliest < one.capability.not_before:
            continue
        if request.capability_id is not None and request.capability_id != one.parent_id:
            continue
        by_parent = decide(
            held, request._replace(capability_id=one.parent_id), now, earliest, evaluate
        )
        if by_parent.allowed:
            yield one, policies.judge(by_parent, request, now, earliest, one.roles)


def used(one: OneUse, decision: Decision, now: Instant) -> Decision:
    """Return the ALLOW of a capability that was used up: it is good for this request, once."""
    return decision._replace(capability=one.capability, valid_until=now)


def needed(
    policies: PolicySet, decision: Decision, request: Request, now: Instant, earliest: Instant
) -> Needed:
    """Return what a DENY with APPROVAL_REQUIRED needs: the roles of all policies that match."""
    capability = decision.capability
    if decision.reason is not Reason.APPROVAL_REQUIRED or capability is None:
        message = f"{decision.reason} needs no approval"
        raise AssertionError(message)
    demanded = policies.approvals(request, capability, now, earliest)
    return Needed(
        request.principal,
        request.action,
        request.resource,
        tuple(sorted(set(demanded.values()))),
        tuple(demanded)[:MAX_NAMED],
        policies.version,
        capability.id,
        decision.revision,
    )


def purpose(request: Request) -> str:
    """Return the text that the request's context has as its purpose, cut; empty: it has none."""
    found = json.loads(request.context).get(_PURPOSE)
    if not isinstance(found, str):
        return ""
    shown = "".join(letter if letter.isprintable() else " " for letter in found)
    return shown.encode(errors="replace")[:PURPOSE_BYTES].decode(errors="ignore").strip()


def roles_of(approval: Approval, own: Collection[str], *, is_admin: bool) -> tuple[str, ...]:
    """Return for which of its roles somebody with these may approve; an admin for all."""
    return tuple(role for role in approval.roles if is_admin or role in own)


def approval_of(found: Mapping[str, Any]) -> Approval:
    """Return an approval from what licet.approval_as_json makes of it."""
    resolved_at, used_at = found["resolved_at"], found["used_at"]
    return Approval(
        id=ApprovalId(found["id"]),
        principal=Principal(found["principal"]),
        action=Action(found["action"]),
        resource=Resource(found["resource"]),
        roles=tuple(found["roles"]),
        policies=tuple(found["policies"]),
        policy_set=found["policy_set"],
        purpose=found["purpose"],
        session_id=found["session_id"],
        parent_id=CapabilityId(found["parent_id"]),
        asked_by=Caller(found["asked_by"]),
        asked_at=Instant(found["asked_at"]),
        expires_at=Instant(found["expires_at"]),
        state=ApprovalState(found["state"]),
        resolved_at=None if resolved_at is None else Instant(resolved_at),
        resolved_by=found["resolved_by"],
        comment=found["comment"],
        capability_id=found["capability_id"],
        used_at=None if used_at is None else Instant(used_at),
        consents=tuple(
            Consent(
                given["role"],
                Caller(given["given_by"]),
                Instant(given["given_at"]),
                given["comment"],
                given["ttl_seconds"],
            )
            for given in found["consents"]
        ),
    )
