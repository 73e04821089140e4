"""What a caller needs for each method, and how often it may call: how that is enforced.

A method without a rule is for `admin` only; a test fails when one of the protos has none. Health
and reflection are open to everybody who reaches the port: load balancers and `grpcurl` have no key,
and neither says anything about principals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import grpc

from licet.domain.caller import EVERYTHING, SCOPE_MISSING, Credential, Identity, Scope
from licet.domain.errors import (
    ForbiddenError,
    LicetError,
    RateLimitedError,
    UnauthenticatedError,
)
from licet.server.failures import FailedCalls, address_of, network_of
from licet.server.identity import attach, identity_of
from licet.server.lanes import Tally
from licet.server.rates import Buckets
from licet.server.strangers import FAILURES, Strangers

_ANYBODY: Final = EVERYTHING
"""Any caller who has a scope: all but bootstrap tokens, and keys whose user's roles have none of
their scopes. The use case decides further."""

_AUTHORIZATION: Final[Mapping[str, frozenset[Scope]]] = {
    "Authorize": frozenset({Scope.AUTHORIZE}),
    "BatchAuthorize": frozenset({Scope.AUTHORIZE}),
    "StreamAuthorize": frozenset({Scope.AUTHORIZE}),
    "Grant": _ANYBODY,  # `grant`, or holding the parent: app/grant.py
    "Revoke": _ANYBODY,  # `revoke`, or having granted, or holding an ancestor: app/revoke.py
    "GetCapability": frozenset({Scope.READ}),
    "ListCapabilities": frozenset({Scope.READ}),
    "QueryAudit": frozenset({Scope.AUDIT}),
    "WatchChanges": frozenset({Scope.READ}),
}
_AUDIT: Final[Mapping[str, frozenset[Scope]]] = {
    "GetCheckpoint": frozenset({Scope.AUDIT}),
    "ProveInclusion": frozenset({Scope.AUDIT}),
    "ProveConsistency": frozenset({Scope.AUDIT}),
    "ExportAudit": frozenset({Scope.AUDIT}),
    "ImportAudit": frozenset({Scope.ADMIN}),
}
_IDENTITY: Final[Mapping[str, frozenset[Scope]]] = {
    "CreateApiKey": frozenset({Scope.IDENTITY}),
    "RotateApiKey": _ANYBODY,  # its own key, or `identity`: app/keys.py
    "RevokeApiKey": _ANYBODY,  # its own key, or `identity`: app/keys.py
    "ListApiKeys": frozenset({Scope.IDENTITY}),
    "GetCaller": _ANYBODY,
    "CreateUser": frozenset({Scope.IDENTITY}),
    "GetUser": frozenset({Scope.IDENTITY}),
    "UpdateUser": frozenset({Scope.IDENTITY}),
    "DisableUser": frozenset({Scope.IDENTITY}),
    "EnableUser": frozenset({Scope.IDENTITY}),
    "ListUsers": frozenset({Scope.IDENTITY}),
    "SuspendPrincipal": frozenset({Scope.REVOKE}),
    "ResumePrincipal": frozenset({Scope.GRANT}),  # it gives back: `revoke` is not enough
    "ListSuspensions": frozenset({Scope.READ}),
    "CreateBootstrapToken": frozenset({Scope.ADMIN}),
    "ListBootstrapTokens": frozenset({Scope.IDENTITY}),
    "RevokeBootstrapToken": frozenset({Scope.IDENTITY}),
    "GetAgent": frozenset({Scope.IDENTITY}),
    "ListAgents": frozenset({Scope.IDENTITY}),
    "DeactivateAgent": frozenset({Scope.IDENTITY}),
    "ActivateAgent": frozenset({Scope.IDENTITY}),
}
# Who replays needs `audit`, too: app/replay.py.
_POLICY: Final[Mapping[str, frozenset[Scope]]] = dict.fromkeys(
    (
        "PutPolicySet",
        "GetPolicySet",
        "ListPolicySets",
        "RollbackPolicySet",
        "TestPolicySet",
        "ReplayPolicySet",
    ),
    frozenset({Scope.POLICY}),
)
_APPROVALS: Final[Mapping[str, frozenset[Scope]]] = {
    "ListApprovals": frozenset({Scope.APPROVE, Scope.READ}),
    "GetApproval": _ANYBODY,  # `approve` or `read`, or having asked: app/approvals.py
    "ResolveApproval": frozenset({Scope.APPROVE}),  # and the role: app/approvals.py
}

RULES: Final[Mapping[str, frozenset[Scope]]] = {
    f"/licet.v1.{service}/{method}": scopes
    for service, methods in (
        ("AuthorizationService", _AUTHORIZATION),
        ("AuditService", _AUDIT),
        ("IdentityService", _IDENTITY),
        ("PolicyService", _POLICY),
        ("ApprovalService", _APPROVALS),
    )
    for method, scopes in methods.items()
}
"""Of each method, the scopes of which a caller needs one; `admin` is enough for all of them."""

CREDENTIALS: Final[Mapping[str, Credential]] = {
    "/licet.v1.IdentityService/RegisterAgent": Credential.BOOTSTRAP,
    "/licet.v1.IdentityService/RotateAgentToken": Credential.AGENT,
    "/licet.v1.IdentityService/AgentHeartbeat": Credential.AGENT,
}
"""Methods that a kind of credential opens, and no scope: not even `admin`."""
CREDENTIAL_KIND: Final = "CREDENTIAL_KIND"

_ADMIN_ONLY: Final = frozenset({Scope.ADMIN})


CALLER: Final = "caller"
ADDRESS: Final = "address"
LIMITS: Final = (CALLER, ADDRESS, FAILURES)
"""The names of the limits on rates: ErrorInfo's metadata, and part of the metrics' names."""


class Authenticates(Protocol):
    """Finds out who calls; see `Authentication`."""

    @property
    def strangers(self) -> Strangers:
        """Where those who are not known yet go."""
        ...

    def __call__(self, context: grpc.ServicerContext) -> Identity:
        """Return who calls, now."""
        ...

    def knows(self, context: grpc.ServicerContext, /) -> bool:
        """Say whether a call may be somebody's without further verifying."""
        ...

    def may_know(self, metadata: Iterable[tuple[str, str | bytes]], /) -> bool:
        """Say as much of a call of which only its metadata is there."""
        ...


class Admit(Protocol):
    """Lets a call in, or a part of one."""

    def __call__(self, context: grpc.ServicerContext, questions: int = 1) -> None:
        """Attach its identity; count so many questions, of the caller and of the address."""
        ...


class Authority:
    """Lets callers in, or does not."""

    def __init__(
        self,
        authenticate: Authenticates,
        failures: FailedCalls,
        callers: Buckets | None = None,
        addresses: Buckets | None = None,
    ) -> None:
        """Compose it.

        Args:
            authenticate: finds out who calls.
            failures: where it is noted that somebody was not let in.
            callers: how much each caller may ask; None: as much as it likes.
            addresses: how much each address may, whoever calls from there; None: likewise.
        """
        self._authenticate = authenticate
        self._callers = callers
        self._addresses = addresses
        self.failures = failures
        """Read by metrics."""
        self.limited: Final = {name: Tally() for name in LIMITS}
        """How many calls each limit has refused; read by metrics."""

    @property
    def strangers(self) -> Strangers:
        """Where those go who are not known yet."""
        return self._authenticate.strangers

    def knows(self, context: grpc.ServicerContext) -> bool:
        """Say whether a call is no stranger's. It does not block."""
        return self._authenticate.knows(context)

    def may_know(self, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
        """Say whether a call with this metadata is no stranger's. It does not block."""
        return self._authenticate.may_know(metadata)

    def admission(self, method: str) -> Admit:
        """Return what lets a call of a method in and attaches its identity.

        Of a caller who is known it does not block. It raises:
            UnauthenticatedError: it is nobody's. ForbiddenError: its caller has no scope for it.
            RateLimitedError: its caller asks too often, or its address does.
            UnavailableError, DeadlineError: who calls cannot be known.
        """
        authenticate, callers, addresses = self._authenticate, self._callers, self._addresses
        kind = CREDENTIALS.get(method)
        scopes = RULES.get(method, _ADMIN_ONLY)
        names = " or ".join(sorted(scopes))

        def admit(context: grpc.ServicerContext, questions: int = 1) -> None:
            identity = authenticate(context)
            attach(context, identity)
            # Not before: who has to be looked for elsewhere comes here a second time.
            if addresses is not None and questions:
                _take(addresses, ADDRESS, network_of(context.peer()), questions)
            # Also of a caller who lacks the scope: to be told so costs as much.
            if callers is not None and questions:
                _take(callers, CALLER, identity.caller, questions)
            if kind is not None:
                if identity.credential is not kind:
                    raise ForbiddenError(CREDENTIAL_KIND, f"this is called with a {kind}")
            elif scopes.isdisjoint(identity.powers):
                raise ForbiddenError(SCOPE_MISSING, f"this needs the scope {names}")

        return admit

    def note(self, error: LicetError, context: grpc.ServicerContext) -> None:
        """Take note of an error if it means that a caller was not let in."""
        if isinstance(error, UnauthenticatedError):
            self.failures.note(f"address:{address_of(context.peer())}", error.reason)
        elif isinstance(error, ForbiddenError):
            self.failures.note(identity_of(context).caller, error.code)
        elif isinstance(error, RateLimitedError):
            self.limited[error.limit].add()
            if error.limit == FAILURES:
                self.failures.note(f"address:{address_of(context.peer())}", error.reason)


def _take(buckets: Buckets, limit: str, name: str, questions: int) -> None:
    seconds = buckets.take(name, questions)
    if seconds:
        raise RateLimitedError(limit, f"the {limit} asks too much: slow down", seconds)
