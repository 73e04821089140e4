"""IdentityService: three lines an RPC. What may be asked is checked in `keys.py`."""

from __future__ import annotations

import grpc
from typing_extensions import override

from licet.app.keys import ManageKeys
from licet.server import convert, keys
from licet.server.agent_methods import AgentMethods, AgentUseCases
from licet.server.identity import deadline_of, identity_of
from licet.server.places import Places
from licet.v1 import identity_pb2 as pb


class IdentityService(AgentMethods):
    """Serves `licet.v1.IdentityService`."""

    def __init__(self, manage: ManageKeys, agents: AgentUseCases, mutations: Places) -> None:
        """Serve these use cases; changes share their places with those of capabilities."""
        super().__init__(agents, mutations)
        self._keys = manage
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
        deadline = deadline_of(context)
        return keys.page(
            self._keys.page(size, token, deadline, include_ended=request.include_ended)
        )

    @override
    def GetCaller(
        self, request: pb.GetCallerRequest, context: grpc.ServicerContext
    ) -> pb.GetCallerResponse:
        return keys.caller(identity_of(context))
