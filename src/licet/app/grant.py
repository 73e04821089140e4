"""Grant: a capability from nothing, or a delegation from a parent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from json.encoder import encode_basestring_ascii
from typing import NamedTuple

from licet.app.conditions import CompiledConditions, check_condition, no_conditions
from licet.app.ports import (
    AT_ONCE,
    Capabilities,
    Clock,
    Deadline,
    Ended,
    Grant,
    Granted,
    Ids,
    Mutations,
    NotAtOnceError,
)
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.caller import Identity, Scope, check_change
from licet.domain.canonical_json import Embedded, JsonObject, JsonValue, canonical
from licet.domain.capability import Capability, Terms, check_attenuation, inherit
from licet.domain.errors import (
    InvalidRequestError,
    NotFoundError,
    NotPermittedError,
    RefusedError,
)
from licet.domain.instant import LATEST, Instant, rfc3339
from licet.domain.names import Caller, CapabilityId


class GrantCommand(NamedTuple):
    """What a caller asks for, its names checked.

    Attributes:
        terms: with `expires_at` unset when `ttl` is given.
        ttl: microseconds from now, or None.
        request_id: the caller's idempotency key, or empty.
    """

    terms: Terms
    ttl: int | None
    parent_id: CapabilityId | None
    request_id: str
    trace_id: str


class GrantCapability:
    """Grants capabilities.

    An attempt that the rules refuse is on record before the error is raised.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        mutations: Mutations,
        clock: Clock,
        ids: Ids,
        conditions: CompiledConditions = no_conditions,
    ) -> None:
        """Compose the use case."""
        self._conditions = conditions
        self._capabilities = capabilities
        self._mutations = mutations
        self._clock = clock
        self._ids = ids

    def __call__(self, command: GrantCommand, caller: Identity, deadline: Deadline) -> Granted:
        """Grant, or delegate when there is a parent.

        A grant needs the scope `grant`; a delegation needs to be the parent's holder, or `admin`.
        Both are for what is inside the caller's limits only.

        Raises:
            InvalidRequestError: the times contradict each other, or are over, or the condition
                cannot be used. NotFoundError: there
                is no such parent; the attempt is on record. NotPermittedError: the caller may not,
                or the delegation would be wider than its parent; the attempt is on record.
                PreconditionError: the parent has ended or has no depth left; the attempt is on
                record. RequestIdReusedError: see
                `Mutations.grant`, as for UnavailableError and OutcomeUnknownError.
        """
        prepared = self._prepared(command, caller, deadline)
        if isinstance(prepared, Granted):
            return prepared
        return self._mutations.grant(prepared, deadline)

    def begin(
        self,
        command: GrantCommand,
        caller: Identity,
        deadline: Deadline,
        patience: Deadline,
        tell: Callable[[Ended[Granted]], None],
    ) -> None:
        """Do the same, and wait for the change no longer than it takes to hand it on.

        Args:
            command: what to grant.
            caller: who asks.
            deadline: for what comes before the change; `AT_ONCE`: only what needs no database does.
            patience: for the change.
            tell: see `Mutations.begin_grant`.

        Raises:
            NotAtOnceError: there is something to read, to compile or to record first; nothing has
                happened. Otherwise as above, and nobody is told.
        """
        prepared = self._prepared(command, caller, deadline)
        if isinstance(prepared, Granted):
            tell(Ended(lambda: prepared, waits=False))
        else:
            self._mutations.begin_grant(prepared, patience, tell)

    def _prepared(
        self, command: GrantCommand, caller: Identity, deadline: Deadline
    ) -> Grant | Granted:
        """Return the change, or what the same request has done before."""
        if deadline is AT_ONCE and (command.parent_id is not None or command.terms.condition):
            raise NotAtOnceError
        self._check_authority(command, caller, deadline)
        facts = _facts(command.terms, command.parent_id)
        digest = _digest(command, caller.caller, facts)
        # (1) A repetition gets its first outcome, whatever has become of the parent since; without
        # a parent the mutation itself sees to that.
        if command.request_id and command.parent_id is not None:
            before = self._mutations.granted_before(command.request_id, digest, deadline)
            if before is not None:
                return before
        check_condition(command.terms.condition, self._conditions, deadline)
        # (2) The terms, inside the parent's.
        now = self._clock.now()
        terms = _timed(command, now)
        if command.parent_id is not None:
            terms = self._attenuated(command, command.parent_id, terms, caller, deadline)
        if (
            terms.not_before is not None
            and terms.expires_at is not None
            and terms.not_before >= terms.expires_at
        ):
            raise InvalidRequestError.of("not_before", "must be before the expiry")
        # (3) The change; what can have changed since (2) is checked again under the mutation lock.
        return Grant(
            request_id=command.request_id or self._ids.request_id(),
            digest=digest,
            capability_id=self._ids.capability_id(),
            terms=terms,
            parent_id=command.parent_id,
            actor=caller.caller,
            trace_id=command.trace_id,
            facts=facts if terms is command.terms else _facts(terms, command.parent_id),
        )

    def _check_authority(self, command: GrantCommand, caller: Identity, deadline: Deadline) -> None:
        """Check what can be told without the parent."""
        try:
            limits = caller.delegation_limits
            if command.parent_id is None:
                limits = caller.limits
                caller.check_scope(Scope.GRANT)
            check_change(limits, command.terms.principal, command.terms.resource)
        except NotPermittedError as refusal:
            event = _refusal(command, command.terms, caller.caller, self._clock.now(), refusal.code)
            self._mutations.refuse(event, deadline)
            raise

    def _attenuated(
        self,
        command: GrantCommand,
        parent_id: CapabilityId,
        terms: Terms,
        caller: Identity,
        deadline: Deadline,
    ) -> Terms:
        now = self._clock.now()
        parent = self._capabilities.find(parent_id, deadline)
        if parent is None:
            self._mutations.refuse(
                _refusal(command, terms, caller.caller, now, "PARENT_NOT_FOUND"), deadline
            )
            message = f"there is no capability {parent_id} to delegate from"
            raise NotFoundError(message)
        inherited = inherit(terms, parent)
        try:
            _check_holder(parent, caller)
            check_attenuation(inherited, parent, now)
        except RefusedError as refusal:
            self._mutations.refuse(
                _refusal(command, inherited, caller.caller, now, refusal.code), deadline
            )
            raise
        return inherited


def _check_holder(parent: Capability, caller: Identity) -> None:
    if not caller.acts_as(parent.terms.principal) and not caller.may(Scope.ADMIN):
        raise NotPermittedError("NOT_HOLDER", "the parent capability is not the caller's")


def _refusal(
    command: GrantCommand, terms: Terms, caller: Caller, now: Instant, code: str
) -> AuditEvent:
    return AuditEvent(
        occurred_at=now,
        event_type=EventType.GRANT if command.parent_id is None else EventType.DELEGATE,
        actor=caller,
        principal=terms.principal,
        action="",
        resource=terms.resource,
        capability_id=command.parent_id or "",
        result=Result.REFUSED,
        reason=code,
        policy_id="",
        session_id=terms.session_id,
        trace_id=command.trace_id,
        revision=0,
        metadata=_facts(terms, command.parent_id),
    )


def _timed(command: GrantCommand, now: Instant) -> Terms:
    if command.ttl is None:
        return command.terms
    expires_at = now + command.ttl
    if expires_at > LATEST:
        raise InvalidRequestError.of("ttl", "must end before the year 10000")
    return replace(command.terms, expires_at=Instant(expires_at))


def _facts(terms: Terms, parent_id: CapabilityId | None) -> JsonObject:
    facts: dict[str, JsonValue | Embedded] = {
        "actions": terms.actions,
        "delegation_depth": terms.delegation_depth,
        "expires_at": None if terms.expires_at is None else rfc3339(terms.expires_at),
        "metadata": Embedded(terms.metadata),
        "not_before": None if terms.not_before is None else rfc3339(terms.not_before),
        "parent_id": parent_id,
    }
    if terms.condition:
        # Left out otherwise: a repetition across an upgrade has the digest that it had.
        facts["condition"] = terms.condition
    return canonical(facts)


def _digest(command: GrantCommand, caller: Caller, facts: JsonObject) -> bytes:
    """Return a digest of the body, as the caller sent it.

    With `ttl`, not with the expiry that it led to.
    """
    terms = command.terms
    # Written as `json.dumps` writes a list, in a third of the time: the digests that are stored
    # are of that text.
    names = (caller, terms.principal, terms.resource, terms.session_id)
    quoted = ", ".join(map(encode_basestring_ascii, names))
    ttl = "null" if command.ttl is None else str(command.ttl)
    text = f'["grant", {quoted}, {ttl}, {encode_basestring_ascii(facts)}]'
    return hashlib.sha256(text.encode()).digest()
