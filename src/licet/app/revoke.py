"""Revoke: end one capability or all that match a filter, and always their descendants."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Final, NamedTuple

from licet.app.ports import (
    AT_ONCE,
    Capabilities,
    Clock,
    Deadline,
    Ended,
    Ids,
    Mutations,
    NotAtOnceError,
    Revoke,
    Revoked,
    RevokeTarget,
)
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.caller import (
    OUTSIDE_LIMITS,
    UNLIMITED,
    Identity,
    Limits,
    Scope,
    check_change,
)
from licet.domain.canonical_json import JsonObject, canonical
from licet.domain.errors import NotFoundError, NotPermittedError
from licet.domain.names import Caller, CapabilityId

MAX_IDS: Final = 1000
"""How many ids of ended capabilities an answer lists."""


class RevokeCommand(NamedTuple):
    """What a caller asks for, its names checked.

    `request_id` is the caller's idempotency key, or empty.
    """

    target: RevokeTarget
    reason: str
    dry_run: bool
    request_id: str
    trace_id: str


class RevokeCapabilities:
    """Revokes capabilities."""

    def __init__(
        self, capabilities: Capabilities, mutations: Mutations, clock: Clock, ids: Ids
    ) -> None:
        """Compose the use case."""
        self._capabilities = capabilities
        self._mutations = mutations
        self._clock = clock
        self._ids = ids

    def __call__(self, command: RevokeCommand, caller: Identity, deadline: Deadline) -> Revoked:
        """Revoke, or with `dry_run` say what a revocation would end.

        It needs the scope `revoke`, within the caller's limits; one capability also who granted it
        may revoke, and who holds what it was delegated from.

        Raises:
            NotPermittedError: the caller may not; the attempt is on record.
            NotFoundError: there is no such capability; the attempt is on record unless it was a
                dry run. RequestIdReusedError: see `Mutations.revoke`, as for UnavailableError and
                OutcomeUnknownError.
        """
        if command.dry_run:
            self._check_recorded(command, caller, deadline)
            return self._dry_run(command.target, deadline)
        return self._mutations.revoke(self._prepared(command, caller, deadline), deadline)

    def begin(
        self,
        command: RevokeCommand,
        caller: Identity,
        deadline: Deadline,
        patience: Deadline,
        tell: Callable[[Ended[Revoked]], None],
    ) -> None:
        """Do the same, and wait for the change no longer than it takes to hand it on.

        Args:
            command: what to revoke.
            caller: who asks.
            deadline: for what comes before the change; `AT_ONCE`: only what needs no database does.
            patience: for the change.
            tell: see `Mutations.begin_revoke`.

        Raises:
            NotAtOnceError: there is something to read or to record first; nothing has happened.
                Otherwise as above, and nobody is told.
        """
        if not command.dry_run:
            self._mutations.begin_revoke(self._prepared(command, caller, deadline), patience, tell)
        elif deadline is AT_ONCE:
            raise NotAtOnceError
        else:
            would = self(command, caller, deadline)
            tell(Ended(lambda: would, waits=False))

    def _prepared(self, command: RevokeCommand, caller: Identity, deadline: Deadline) -> Revoke:
        """Return the change."""
        self._check_recorded(command, caller, deadline)
        return Revoke(
            request_id=command.request_id or self._ids.request_id(),
            digest=_digest(command, caller.caller),
            target=command.target,
            reason=command.reason,
            actor=caller.caller,
            trace_id=command.trace_id,
            facts=_facts(command),
        )

    def _check_recorded(self, command: RevokeCommand, caller: Identity, deadline: Deadline) -> None:
        """Check that the caller may; an attempt that it may not is on record before it is told."""
        try:
            self._check_authority(command.target, caller, deadline)
        except NotPermittedError as refusal:
            self._mutations.refuse(self._refusal(command, caller, refusal.code), deadline)
            raise
        except NotFoundError as missing:
            self._mutations.refuse(self._refusal(command, caller, missing.reason), deadline)
            raise

    def _check_authority(self, target: RevokeTarget, caller: Identity, deadline: Deadline) -> None:
        limits = caller.limits
        if caller.may(Scope.REVOKE) and limits == UNLIMITED:
            return
        if target.capability_id is None:
            caller.check_scope(Scope.REVOKE)
            _check_filter(target, limits)
            return
        if deadline is AT_ONCE:
            raise NotAtOnceError
        capability = self._capabilities.find(target.capability_id, deadline)
        if capability is None:
            # Not left to the mutation, which knows nothing of who may.
            raise NotFoundError(f"there is no capability {target.capability_id}")
        if caller.may(Scope.REVOKE):
            check_change(limits, capability.terms.principal, capability.terms.resource)
        elif capability.granted_by != caller.caller and not self._holds_above(
            capability.id, caller, deadline
        ):
            raise NotPermittedError(
                "NOT_GRANTOR", "this needs the scope revoke, or to have granted it or held it above"
            )

    def _holds_above(
        self, capability_id: CapabilityId, caller: Identity, deadline: Deadline
    ) -> bool:
        above = self._capabilities.tree(capability_id, 0, deadline).ancestors
        return any(caller.acts_as(ancestor.terms.principal) for ancestor in above)

    def _refusal(self, command: RevokeCommand, caller: Identity, code: str) -> AuditEvent:
        target = command.target
        return AuditEvent(
            occurred_at=self._clock.now(),
            event_type=EventType.REVOKE,
            actor=caller.caller,
            principal=target.principal or "",
            action="",
            resource=target.resource or "",
            capability_id=target.capability_id or "",
            result=Result.REFUSED,
            reason=code,
            policy_id="",
            session_id=target.session_id or "",
            trace_id=command.trace_id,
            revision=0,
            metadata=_facts(command),
        )

    def _dry_run(self, target: RevokeTarget, deadline: Deadline) -> Revoked:
        already_ended = False
        if target.capability_id is not None:
            capability = self._capabilities.find(target.capability_id, deadline)
            if capability is None:
                message = f"there is no capability {target.capability_id}"
                raise NotFoundError(message)
            already_ended = capability.end is not None
        found = self._capabilities.would_end(target, MAX_IDS, deadline)
        return Revoked(
            found.ended,
            found.ids,
            found.revision,
            confirmed=0,
            fenced=0,
            already_ended=already_ended,
        )


def _check_filter(target: RevokeTarget, limits: Limits) -> None:
    """Check that a filter can match only what is inside limits."""
    is_inside = (
        not limits.principals
        or (target.principal is not None and limits.cover_principal(target.principal))
    ) and (
        not limits.resources
        or (target.resource is not None and limits.cover_resource(target.resource))
    )
    if not is_inside:
        raise NotPermittedError(
            OUTSIDE_LIMITS,
            "the filter must name a principal or resource inside the caller's limits",
        )


def _facts(command: RevokeCommand) -> JsonObject:
    target = {key: value for key, value in command.target._asdict().items() if value is not None}
    return canonical({"reason": command.reason, "target": target})


def _digest(command: RevokeCommand, caller: Caller) -> bytes:
    return hashlib.sha256(json.dumps(["revoke", caller, _facts(command)]).encode()).digest()
