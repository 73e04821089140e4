"""Values for tests that name only what they are about, and a clock that stands still."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from licet.app.ports import Deadline, Reading
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.caller import Identity, Scope
from licet.domain.canonical_json import EMPTY
from licet.domain.capability import Capability, End, EndCause, Terms
from licet.domain.capability_set import ALWAYS, NEVER, CapabilitySet, HeldCapability, Standing
from licet.domain.decision import Request
from licet.domain.instant import Instant
from licet.domain.names import Action, Caller, CapabilityId, Principal, Resource
from licet.domain.pattern import ResourcePattern
from licet.replica.capability_sets import CachedCapabilitySets, SetLoader
from licet.replica.lease import Lease

NOW = Instant(1_800_000_000_000_000)
"""Some instant: 2027-01-15T08:00:00Z."""
PATIENT = Deadline(lambda: None)
"""The deadline of a caller who set none."""
HOLDER = Principal("agent:worker-17")
CALLER = Caller("service:console")


def admin(caller: Caller = CALLER) -> Identity:
    """Return the identity of a caller who may do everything."""
    return Identity.of(caller, {Scope.ADMIN})


class StillClock:
    """A clock that shows what it is set to, and counts how often it is read."""

    def __init__(self, now: int = NOW) -> None:
        self.instant = Instant(now)
        self.readings = 0

    def now(self) -> Instant:
        self.readings += 1
        return self.instant

    def reading(self) -> Reading:
        return Reading(self.now(), self.instant)


def identifier(number: int) -> CapabilityId:
    """Return the id of a test's capability: the number in the shape of a UUID of version 7."""
    return CapabilityId(f"0199c5f0-6a5e-7cc3-98c4-{number:012x}")


def actions(text: str) -> tuple[Action, ...]:
    """Return actions that are separated by spaces."""
    return tuple(Action(word) for word in text.split())


def terms(
    allowed: str = "read",
    resource: str = "doc:reports/**",
    delegation_depth: int = 0,
    **other: Any,  # noqa: ANN401 - any field
) -> Terms:
    """Return terms; what is not named is unbounded or empty."""
    plain = Terms(
        principal=HOLDER,
        actions=actions(allowed),
        resource=ResourcePattern(resource),
        not_before=None,
        expires_at=None,
        delegation_depth=delegation_depth,
        session_id="",
        metadata=EMPTY,
    )
    return replace(plain, **other)


def capability(number: int, has: Terms, *, ended_at: int | None = None) -> Capability:
    """Return a capability as stored, revoked when `ended_at` is given."""
    end = None
    if ended_at is not None:
        end = End(Instant(ended_at), CALLER, "compromised", EndCause.REVOKED)
    return Capability(identifier(number), has, None, CALLER, NOW, 1, end)


def held(  # noqa: PLR0913 - one argument per field
    number: int,
    resource: str = "doc:reports/**",
    allowed: str = "read",
    *,
    not_before: int = ALWAYS,
    expires_at: int = NEVER,
    ended_at: int | None = None,
    cause: EndCause = EndCause.REVOKED,
    conditions: tuple[str, ...] = (),
) -> HeldCapability:
    """Return a capability of `HOLDER`, revoked when `ended_at` is given."""
    return HeldCapability(
        identifier(number),
        ResourcePattern(resource),
        actions(allowed),
        Instant(not_before),
        Instant(expires_at),
        None if ended_at is None else cause,
        NEVER if ended_at is None else Instant(ended_at),
        conditions,
    )


def holding(
    *capabilities: HeldCapability,
    revision: int = 7,
    now: int = NOW,
    standing: Standing = Standing.GOOD,
) -> CapabilitySet:
    """Return the set of `HOLDER`, taken apart as the database does: the expired count as ended."""
    living = [c for c in capabilities if c.end_cause is None and c.expires_at > now]
    ended = [c for c in capabilities if c.end_cause is not None or c.expires_at <= now]
    return CapabilitySet(HOLDER, revision, living, ended, standing)


def asking(
    resource: str = "doc:reports/2026", action: str = "read", *, only: int | None = None
) -> Request:
    """Return the question whether `HOLDER` may, with the capability `only` if one is named."""
    return Request(
        HOLDER,
        Action(action),
        Resource(resource),
        capability_id=None if only is None else identifier(only),
    )


def event(**fields: Any) -> AuditEvent:  # noqa: ANN401 - any field
    """Return an audit event: a plain allow, but for the fields given."""
    plain = AuditEvent(
        occurred_at=NOW,
        event_type=EventType.DECISION,
        actor=CALLER,
        principal=HOLDER,
        action="read",
        resource="doc:reports/2026",
        capability_id=identifier(1),
        result=Result.ALLOW,
        reason="",
        policy_id="",
        session_id="",
        trace_id="",
        revision=7,
    )
    return plain._replace(**fields)


def registered(
    load: SetLoader, max_bytes: int, max_negative: int, revision: int = 1
) -> CachedCapabilitySets:
    """Return capability sets of a replica whose lease never ends, registered at a revision."""
    lease = Lease(lambda: 0.0)
    lease.extend(1.0)
    sets = CachedCapabilitySets(load, lease, max_bytes, max_negative)
    sets.reset(revision)
    return sets
