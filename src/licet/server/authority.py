"""What a caller needs for each method: the one table, and how it is enforced.

A method without a rule is for `admin` only; a test fails when one of the protos has none. Health
and reflection are open to everybody who reaches the port: load balancers and `grpcurl` have no key,
and neither says anything about principals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import grpc

from licet.domain.caller import EVERYTHING, SCOPE_MISSING, Identity, Scope
from licet.domain.errors import ForbiddenError, LicetError, UnauthenticatedError
from licet.server.failures import FailedCalls, address_of
from licet.server.identity import attach, identity_of

_ANYBODY: Final = EVERYTHING
"""Any caller who was authenticated and has any scope: a key whose user's roles have none of its
scopes has none. The use case decides further."""

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
}
_POLICY: Final[Mapping[str, frozenset[Scope]]] = dict.fromkeys(
    (
        "PutPolicySet",
        "GetPolicySet",
        "ListPolicySets",
        "RollbackPolicySet",
        "TestPolicySet",
    ),
    frozenset({Scope.POLICY}),
)

RULES: Final[Mapping[str, frozenset[Scope]]] = {
    f"/licet.v1.{service}/{method}": scopes
    for service, methods in (
        ("AuthorizationService", _AUTHORIZATION),
        ("AuditService", _AUDIT),
        ("IdentityService", _IDENTITY),
        ("PolicyService", _POLICY),
    )
    for method, scopes in methods.items()
}
"""Of each method, the scopes of which a caller needs one; `admin` is enough for all of them."""

_ADMIN_ONLY: Final = frozenset({Scope.ADMIN})


class Authority:
    """Lets callers in, or does not."""

    def __init__(
        self, authenticate: Callable[[grpc.ServicerContext], Identity], failures: FailedCalls
    ) -> None:
        """Take who finds out who calls, and where it is noted that somebody was not let in."""
        self._authenticate = authenticate
        self.failures = failures
        """Read by metrics."""

    def admission(self, method: str) -> Callable[[grpc.ServicerContext], None]:
        """Return what lets a call of a method in and attaches its identity.

        It raises:
            UnauthenticatedError: it is nobody's. ForbiddenError: its caller has no scope for it.
            UnavailableError, DeadlineError: who calls cannot be known.
        """
        authenticate = self._authenticate
        scopes = RULES.get(method, _ADMIN_ONLY)
        names = " or ".join(sorted(scopes))

        def admit(context: grpc.ServicerContext) -> None:
            identity = authenticate(context)
            attach(context, identity)
            if scopes.isdisjoint(identity.powers):
                raise ForbiddenError(SCOPE_MISSING, f"this needs the scope {names}")

        return admit

    def note(self, error: LicetError, context: grpc.ServicerContext) -> None:
        """Take note of an error if it means that a caller was not let in."""
        if isinstance(error, UnauthenticatedError):
            self.failures.note(f"address:{address_of(context.peer())}", error.reason)
        elif isinstance(error, ForbiddenError):
            self.failures.note(identity_of(context).caller, error.code)
