"""Suspend and resume principals: the kill switch, which can be taken back.

A principal that is suspended is denied everything, whatever it holds, and nobody may call as it.
What it holds and what it passed on stays as it is: to end that, revoke.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from licet.app.administration import AdminChange
from licet.app.new_keys import digest
from licet.app.ports import Clock, Deadline, Ids, PageTokens
from licet.app.read import Page, cut
from licet.app.user_ports import (
    StandingChanged,
    StandingChanges,
    Suspension,
    SuspensionFilter,
    SuspensionStore,
    UserStore,
    powers_now,
    seen,
)
from licet.domain.audit_event import AuditEvent, EventType, Result
from licet.domain.caller import OUTSIDE_LIMITS, Identity
from licet.domain.canonical_json import canonical
from licet.domain.errors import NotPermittedError
from licet.domain.names import Principal
from licet.domain.user import User

_ITEM_BYTES: Final = 3500
"""What a suspension weighs at most in a message."""


class SuspendCommand(NamedTuple):
    """The principal to suspend or to resume, its name checked."""

    principal: Principal
    reason: str
    request_id: str


class SuspendPrincipals:
    """Suspends, resumes and lists."""

    def __init__(  # noqa: PLR0913, PLR0917 - the ports
        self,
        changes: StandingChanges,
        suspensions: SuspensionStore,
        users: UserStore,
        ids: Ids,
        clock: Clock,
        tokens: PageTokens,
    ) -> None:
        """Compose the use cases."""
        self._changes = changes
        self._suspensions = suspensions
        self._users = users
        self._ids = ids
        self._clock = clock
        self._tokens = tokens

    def suspend(
        self, command: SuspendCommand, caller: Identity, deadline: Deadline
    ) -> StandingChanged:
        """Deny a principal everything, and let nobody call as it.

        Raises:
            NotPermittedError: the principal is the caller itself, outside its limits, or may call
                with scopes that the caller has not; the attempt is on record. Others: see
                `StandingChanges.change`.
        """
        return self._change(EventType.PRINCIPAL_SUSPENDED, command, caller, deadline)

    def resume(
        self, command: SuspendCommand, caller: Identity, deadline: Deadline
    ) -> StandingChanged:
        """Let what a principal holds count again. Raises as `suspend` does."""
        return self._change(EventType.PRINCIPAL_RESUMED, command, caller, deadline)

    def page(
        self, wanted: SuspensionFilter, size: int, token: str, deadline: Deadline
    ) -> Page[Suspension]:
        """Return one page, oldest first.

        Raises:
            InvalidRequestError: the token is not of this list.
            UnavailableError, DeadlineError: see `SuspensionStore`.
        """
        listed = digest(["suspensions", *wanted])
        after = int(self._tokens.open(listed, token)) if token else 0
        found = self._suspensions.page(wanted, after, size + 1, deadline)
        return cut(
            found,
            size,
            lambda _: _ITEM_BYTES,
            lambda last: self._tokens.seal(listed, str(last.revision)),
        )

    def _change(
        self, kind: EventType, command: SuspendCommand, caller: Identity, deadline: Deadline
    ) -> StandingChanged:
        facts = canonical({"reason": command.reason})
        users = self._users.find([command.principal, caller.caller], deadline)
        try:
            self._check_authority(command.principal, caller, users, deadline)
        except NotPermittedError as refusal:
            event = AuditEvent(
                occurred_at=self._clock.now(),
                event_type=kind,
                actor=caller.caller,
                principal=command.principal,
                action="",
                resource="",
                capability_id="",
                result=Result.REFUSED,
                reason=refusal.code,
                policy_id="",
                session_id="",
                trace_id="",
                revision=0,
                metadata=facts,
            )
            self._changes.refuse(event, deadline)
            raise
        return self._changes.change(
            AdminChange(
                event_type=kind,
                request_id=command.request_id or self._ids.request_id(),
                digest=digest([kind, caller.caller, *command[:-1]]),
                actor=caller.caller,
                facts=facts,
                details={
                    "principal": command.principal,
                    "reason": command.reason,
                    "seen": seen(users, command.principal, caller.caller),
                },
            ),
            deadline,
        )

    def _check_authority(
        self,
        principal: Principal,
        caller: Identity,
        users: Mapping[str, User],
        deadline: Deadline,
    ) -> None:
        # (1) Limits. It concerns every resource: who is limited to some cannot do it.
        if caller.limits.resources or not caller.limits.cover_principal(principal):
            raise NotPermittedError(OUTSIDE_LIMITS, "this is outside the caller's limits")
        # (2) Itself: by mistake, most likely, and it could not take that back.
        if caller.acts_as(principal):
            raise NotPermittedError("OWN_RIGHTS", "nobody changes what they may themselves")
        # (3) Scopes: its keys stop, or count again.
        user = users.get(principal)
        scopes = self._users.key_scopes(principal, deadline) if user is None else user.powers
        extra = sorted(scopes - powers_now(caller, users))
        if extra:
            raise NotPermittedError("SCOPES_WIDER", f"the caller has not {', '.join(extra)} itself")
