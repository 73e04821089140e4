"""What calls return: the messages of the API as frozen values.

Fields have the API's names and meanings: a text that does not apply is empty, an instant or a
duration that is unset is None. Instants are aware, in UTC, to the microsecond.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NoReturn, TypeAlias

from licet.domain.canonical_json import JsonValue

JsonObject: TypeAlias = Mapping[str, JsonValue]
"""A JSON object: metadata or context."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A capability whose resource pattern covers the resource, and why it did or did not apply."""

    capability_id: str
    resource: str
    actions: tuple[str, ...]
    verdict: str
    detail: str


@dataclass(frozen=True, slots=True)
class ConsideredPolicy:
    """A policy by itself, and what came of it; `effect` is what it demands."""

    policy_id: str
    outcome: str
    effect: str
    detail: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The candidates, the applicable ones first, at most 100; `candidate_count` counts all.

    Likewise the policies, those that matched first; none when no capability allows.
    """

    candidates: tuple[Candidate, ...]
    candidate_count: int
    policies: tuple[ConsideredPolicy, ...]
    policy_count: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request.

    Attributes:
        allowed: ALLOW or DENY.
        reason: GRANTED, or why not. New reasons may come: treat an unknown one as that of a DENY.
        detail: one sentence for people; not stable.
        capability_id: the capability that allowed; with a DENY the one that came closest.
        policy_id: the policy that denied.
        decision_id: the id of the decision's audit event.
        revision: the revision of authorization state on which the decision rests.
        valid_until: when this ALLOW ends by itself.
        retry_after: of a policy's DENY, when asking again can succeed, if that is known.
        explanation: only when it was asked for.
        correlation_id: the request's.
        approval_id: with APPROVAL_REQUIRED, the approval to wait for.
    """

    allowed: bool
    reason: str
    detail: str
    capability_id: str
    policy_id: str
    decision_id: str
    revision: int
    valid_until: datetime | None
    retry_after: timedelta | None
    explanation: Explanation | None
    correlation_id: str
    approval_id: str

    def __bool__(self) -> NoReturn:
        """Refuse: an object is true by default, so `if decision:` would take a DENY for an ALLOW.

        Raises:
            TypeError: always.
        """
        raise TypeError("a Decision is neither true nor false: ask for its `allowed`")


@dataclass(frozen=True, slots=True)
class Capability:
    """A capability as stored.

    Attributes:
        id: its id.
        principal: who holds it.
        actions: what the holder may do; the single `*` means any action.
        resource: on which resources, a resource pattern.
        granted_by: the caller who granted it.
        granted_at: when.
        not_before: from when on it may be used.
        expires_at: when it ends by itself; from this instant on it allows nothing.
        parent_id: the capability from which it was delegated.
        delegation_depth: how many further times it may be delegated.
        condition: what has to hold for each decision, besides the conditions of its ancestors.
        session_id: the session with which it ends.
        metadata: what the grantor wrote about it.
        revision: the revision at which it was granted.
        ended_at: when it ended before its time.
        ended_by: the caller who ended it.
        end_reason: the reason given.
        end_cause: REVOKED, CASCADE, EXPIRED, SESSION_ENDED or USED; empty while it has not ended.
        approved_roles: who approved it, and so it is for one use; empty: it is an ordinary one.
    """

    id: str
    principal: str
    actions: tuple[str, ...]
    resource: str
    granted_by: str
    granted_at: datetime
    not_before: datetime | None
    expires_at: datetime | None
    parent_id: str
    delegation_depth: int
    condition: str
    session_id: str
    metadata: JsonObject
    revision: int
    ended_at: datetime | None
    ended_by: str
    end_reason: str
    end_cause: str
    approved_roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CapabilityTree:
    """A capability and, when asked for, the delegations around it.

    Attributes:
        capability: the capability itself.
        ancestors: from its parent up to the root.
        descendants: all that was delegated from it, a parent before its children.
        descendants_truncated: there are more descendants than were returned.
    """

    capability: Capability
    ancestors: tuple[Capability, ...]
    descendants: tuple[Capability, ...]
    descendants_truncated: bool


@dataclass(frozen=True, slots=True)
class CapabilityPage:
    """One page of capabilities, oldest first; `next_page_token` is empty on the last one."""

    capabilities: tuple[Capability, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a revocation ended, or with `dry_run` would end.

    Attributes:
        ended_count: how many capabilities, descendants included.
        ended_capability_ids: the first 1,000 of them.
        revision: the revision of the change; of the earlier one when `already_ended`.
        replicas_confirmed: how many replicas confirmed that they no longer use them.
        replicas_fenced: how many replicas were shut out instead.
        already_ended: the capability named had ended before.
    """

    ended_count: int
    ended_capability_ids: tuple[str, ...]
    revision: int
    replicas_confirmed: int
    replicas_fenced: int
    already_ended: bool


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """The record of one decision or one change.

    Attributes:
        event_id: its id; a decision's `decision_id`.
        occurred_at: when it happened.
        event_type: `decision`, `grant`, `delegate` or `revoke`; more may come.
        actor: the caller who caused it.
        principal: whose rights are concerned.
        action: of a decision.
        resource: of a decision, or the resource pattern of a capability.
        capability_id: the capability concerned.
        result: `allow` or `deny` for decisions, `done` or `refused` for changes.
        reason: of a DENY or of a refusal, by name.
        policy_id: the policy that denied.
        session_id: the session.
        trace_id: the trace.
        revision: on which a decision rests, or at which a change happened.
        metadata: further facts, by type of event.
    """

    event_id: str
    occurred_at: datetime
    event_type: str
    actor: str
    principal: str
    action: str
    resource: str
    capability_id: str
    result: str
    reason: str
    policy_id: str
    session_id: str
    trace_id: str
    revision: int
    metadata: JsonObject


@dataclass(frozen=True, slots=True)
class AuditPage:
    """One page of audit events, newest first.

    Attributes:
        events: the page, which may be empty although there is a next one.
        next_page_token: for the next page; empty on the last one.
        checkpoint: the signed checkpoint up to which the log is sealed; empty when nothing is.
    """

    events: tuple[AuditEvent, ...]
    next_page_token: str
    checkpoint: str


class ServingStatus(StrEnum):
    """What the server says of itself."""

    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    UNKNOWN = "UNKNOWN"
