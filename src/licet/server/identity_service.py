"""IdentityService: three lines an RPC. What may be asked is checked in `keys.py` and `users.py`."""

from __future__ import annotations

from typing import Final

import grpc
from typing_extensions import override

from licet.server import convert, keys, users
from licet.server.agent_methods import AgentMethods
from licet.server.identity import deadline_of, identity_of
from licet.server.places import Places
from licet.server.service import IdentityUseCases
from licet.v1 import identity_pb2 as pb
from licet.v1 import users_pb2

CHANGES: Final = (
    *("CreateApiKey", "RotateApiKey", "RevokeApiKey"),
    *("CreateUser", "UpdateUser", "DisableUser", "EnableUser"),
    *("SuspendPrincipal", "ResumePrincipal"),
    *("CreateBootstrapToken", "RevokeBootstrapToken", "RegisterAgent", "RotateAgentToken"),
    *("DeactivateAgent", "ActivateAgent"),
)
"""The methods that wait for the replicas."""


class IdentityService(AgentMethods):
    """Serves `licet.v1.IdentityService`."""

    def __init__(self, use_cases: IdentityUseCases, mutations: Places) -> None:
        """Serve these use cases; changes share their places with those of capabilities."""
        super().__init__(use_cases.agents, mutations)
        self._keys = use_cases.keys
        self._users = use_cases.users
        self._suspensions = use_cases.suspensions
        self._mutations = mutations

    @override
    def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: grpc.ServicerContext
    ) -> pb.CreateApiKeyResponse:
        command, caller = keys.create(request), identity_of(context)
        with self._mutations:
            return keys.created(self._keys.create(command, caller, deadline_of(context)))

    @override
    def RotateApiKey(
        self, request: pb.RotateApiKeyRequest, context: grpc.ServicerContext
    ) -> pb.RotateApiKeyResponse:
        command, caller = keys.rotate(request), identity_of(context)
        with self._mutations:
            return keys.rotated(self._keys.rotate(command, caller, deadline_of(context)))

    @override
    def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: grpc.ServicerContext
    ) -> pb.RevokeApiKeyResponse:
        command, caller = keys.revoke(request), identity_of(context)
        with self._mutations:
            return keys.revoked(self._keys.revoke(command, caller, deadline_of(context)))

    @override
    def ListApiKeys(
        self, request: pb.ListApiKeysRequest, context: grpc.ServicerContext
    ) -> pb.ListApiKeysResponse:
        size, token = convert.page_size(request.page_size), convert.page_token(request.page_token)
        wanted = keys.wanted(request)
        return keys.page(self._keys.page(wanted, size, token, deadline_of(context)))

    @override
    def GetCaller(
        self, request: pb.GetCallerRequest, context: grpc.ServicerContext
    ) -> pb.GetCallerResponse:
        return keys.caller(identity_of(context))

    @override
    def CreateUser(
        self, request: users_pb2.CreateUserRequest, context: grpc.ServicerContext
    ) -> users_pb2.CreateUserResponse:
        command, caller = users.create(request), identity_of(context)
        with self._mutations:
            changed = self._users.create(command, caller, deadline_of(context))
        return users.created(changed)

    @override
    def GetUser(
        self, request: users_pb2.GetUserRequest, context: grpc.ServicerContext
    ) -> users_pb2.GetUserResponse:
        principal, email = users.get(request)
        return users.found(self._users.get(principal, email, deadline_of(context)))

    @override
    def UpdateUser(
        self, request: users_pb2.UpdateUserRequest, context: grpc.ServicerContext
    ) -> users_pb2.UpdateUserResponse:
        command, caller = users.update(request), identity_of(context)
        with self._mutations:
            changed = self._users.update(command, caller, deadline_of(context))
        return users.updated(changed)

    @override
    def DisableUser(
        self, request: users_pb2.DisableUserRequest, context: grpc.ServicerContext
    ) -> users_pb2.DisableUserResponse:
        command, caller = users.disable(request), identity_of(context)
        with self._mutations:
            changed = self._users.disable(command, caller, deadline_of(context))
        return users.disabled(changed)

    @override
    def EnableUser(
        self, request: users_pb2.EnableUserRequest, context: grpc.ServicerContext
    ) -> users_pb2.EnableUserResponse:
        command, caller = users.enable(request), identity_of(context)
        with self._mutations:
            changed = self._users.enable(command, caller, deadline_of(context))
        return users.enabled(changed)

    @override
    def ListUsers(
        self, request: users_pb2.ListUsersRequest, context: grpc.ServicerContext
    ) -> users_pb2.ListUsersResponse:
        size, token = convert.page_size(request.page_size), convert.page_token(request.page_token)
        wanted = users.wanted(request)
        return users.page(self._users.page(wanted, size, token, deadline_of(context)))

    @override
    def SuspendPrincipal(
        self, request: users_pb2.SuspendPrincipalRequest, context: grpc.ServicerContext
    ) -> users_pb2.SuspendPrincipalResponse:
        command, caller = users.suspend(request), identity_of(context)
        with self._mutations:
            changed = self._suspensions.suspend(command, caller, deadline_of(context))
        return users.suspended(changed)

    @override
    def ResumePrincipal(
        self, request: users_pb2.ResumePrincipalRequest, context: grpc.ServicerContext
    ) -> users_pb2.ResumePrincipalResponse:
        command, caller = users.resume(request), identity_of(context)
        with self._mutations:
            changed = self._suspensions.resume(command, caller, deadline_of(context))
        return users.resumed(changed)

    @override
    def ListSuspensions(
        self, request: users_pb2.ListSuspensionsRequest, context: grpc.ServicerContext
    ) -> users_pb2.ListSuspensionsResponse:
        size, token = convert.page_size(request.page_size), convert.page_token(request.page_token)
        wanted = users.wanted_suspensions(request)
        return users.suspensions(self._suspensions.page(wanted, size, token, deadline_of(context)))
