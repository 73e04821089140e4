"""What calls take, where it is more than a few names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypedDict

from licet.client.results import JsonObject


@dataclass(frozen=True, slots=True)
class AuthorizeRequest:
    """One request of `authorize_many` and `authorize_stream`; see `Client.authorize`.

    Attributes:
        principal: who acts.
        action: what is done.
        resource: what it is done to.
        context: facts for conditions and policies.
        capability_id: exercise only this capability.
        session_id: the session in which the principal acts.
        trace_id: the trace to which the request belongs.
        correlation_id: returned with the decision.
        explain: ask for the candidates.
    """

    principal: str
    action: str
    resource: str
    context: JsonObject | None = None
    capability_id: str | None = None
    session_id: str = ""
    trace_id: str = ""
    correlation_id: str = ""
    explain: bool = False


class GrantFields(TypedDict, total=False):
    """What a grant or a delegation may say besides who, what and on which resources.

    Attributes:
        expires_at: when the capability ends by itself; not together with `ttl`. Neither: it does
            not expire, or with a parent it expires with the parent.
        ttl: for how long it lives.
        not_before: from when on it may be used.
        delegation_depth: how many further times it may be delegated.
        condition: an expression of CEL that has to hold for each decision; a delegation has those
            of its ancestors as well.
        session_id: the session with which it ends.
        metadata: facts for people and programs, which licet does not read.
        request_id: idempotency key. One is made when there is none; give your own where you may
            have to repeat the call after an error.
        trace_id: the trace to which the request belongs.
    """

    expires_at: datetime | None
    ttl: timedelta | None
    not_before: datetime | None
    delegation_depth: int
    condition: str
    session_id: str
    metadata: JsonObject | None
    request_id: str
    trace_id: str


class CapabilityFilter(TypedDict, total=False):
    """Which capabilities to list: those that match every field that is set and not empty.

    Attributes:
        principal: the holder, exactly.
        resource: a resource pattern; matches capabilities whose own pattern lies inside it.
        granted_by: the caller who granted it, exactly.
        session_id: the session it is bound to, exactly.
        parent_capability_id: the parent from which it was delegated.
        include_ended: also those that have ended or expired.
    """

    principal: str
    resource: str
    granted_by: str
    session_id: str
    parent_capability_id: str
    include_ended: bool


class AuditFilter(TypedDict, total=False):
    """Which audit events to list: those that match every field that is set and not empty.

    Attributes:
        event_types: any of these.
        principal: whose rights are concerned, exactly.
        actor: the caller who caused the event, exactly.
        resource: a resource, exactly, or a resource pattern: all resources inside it.
        action: the action, exactly.
        capability_id: the capability.
        allowed: only decisions that allowed, or only those that denied.
        reason: exactly, such as CAPABILITY_EXPIRED.
        policy_id: the policy, exactly.
        session_id: the session, exactly.
        trace_id: the trace, exactly.
        metadata: events whose metadata contains this.
        since: events at or after this instant.
        until: events before this instant.
    """

    event_types: Sequence[str]
    principal: str
    actor: str
    resource: str
    action: str
    capability_id: str
    allowed: bool | None
    reason: str
    policy_id: str
    session_id: str
    trace_id: str
    metadata: JsonObject | None
    since: datetime | None
    until: datetime | None
