"""The methods of IdentityService that are about agents; `agents.py` checks what may be asked."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from typing_extensions import override

from licet.app.agents import ManageAgents
from licet.app.bootstrap_tokens import ManageBootstrapTokens
from licet.domain.agent import agent_name
from licet.server import agents, convert
from licet.server.identity import deadline_of, identity_of
from licet.server.places import Places
from licet.v1 import agents_pb2 as pb
from licet.v1 import identity_pb2_grpc as pb_grpc


@dataclass(frozen=True, slots=True)
class AgentUseCases:
    """What is offered of agents; `heartbeat_seconds`: how often they are to say that they live."""

    agents: ManageAgents
    bootstrap_tokens: ManageBootstrapTokens
    heartbeat_seconds: float


class AgentMethods(pb_grpc.IdentityServiceServicer):
    """Serves what is about agents; a part of IdentityService."""

    def __init__(self, use_cases: AgentUseCases, mutations: Places) -> None:
        """Serve these use cases; changes share their places with those of capabilities."""
        self._agents = use_cases.agents
        self._bootstrap_tokens = use_cases.bootstrap_tokens
        self._heartbeat_seconds = use_cases.heartbeat_seconds
        self._changes = mutations

    @override
    def CreateBootstrapToken(
        self, request: pb.CreateBootstrapTokenRequest, context: grpc.ServicerContext
    ) -> pb.CreateBootstrapTokenResponse:
        command, caller = agents.create_bootstrap(request), identity_of(context)
        with self._changes:
            return agents.bootstrap_created(
                self._bootstrap_tokens.create(command, caller, deadline_of(context))
            )

    @override
    def RevokeBootstrapToken(
        self, request: pb.RevokeBootstrapTokenRequest, context: grpc.ServicerContext
    ) -> pb.RevokeBootstrapTokenResponse:
        command, caller = agents.revoke_bootstrap(request), identity_of(context)
        with self._changes:
            return agents.bootstrap_revoked(
                self._bootstrap_tokens.revoke(command, caller, deadline_of(context))
            )

    @override
    def ListBootstrapTokens(
        self, request: pb.ListBootstrapTokensRequest, context: grpc.ServicerContext
    ) -> pb.ListBootstrapTokensResponse:
        size, token = convert.page_size(request.page_size), convert.page_token(request.page_token)
        return agents.bootstrap_page(
            self._bootstrap_tokens.page(
                size, token, deadline_of(context), include_ended=request.include_ended
            )
        )

    @override
    def RegisterAgent(
        self, request: pb.RegisterAgentRequest, context: grpc.ServicerContext
    ) -> pb.RegisterAgentResponse:
        command, caller = agents.register(request), identity_of(context)
        with self._changes:
            given = self._agents.register(command, caller, deadline_of(context))
        return agents.registered(given, self._heartbeat_seconds)

    @override
    def RotateAgentToken(
        self, request: pb.RotateAgentTokenRequest, context: grpc.ServicerContext
    ) -> pb.RotateAgentTokenResponse:
        request_id, caller = agents.rotate(request), identity_of(context)
        with self._changes:
            return agents.rotated(self._agents.rotate(request_id, caller, deadline_of(context)))

    @override
    def AgentHeartbeat(
        self, request: pb.AgentHeartbeatRequest, context: grpc.ServicerContext
    ) -> pb.AgentHeartbeatResponse:
        caller = identity_of(context)
        left = self._agents.heartbeat(caller)
        return agents.heartbeat(caller, left, self._heartbeat_seconds)

    @override
    def GetAgent(
        self, request: pb.GetAgentRequest, context: grpc.ServicerContext
    ) -> pb.GetAgentResponse:
        return agents.agent(self._agents.get(agent_name(request.name), deadline_of(context)))

    @override
    def ListAgents(
        self, request: pb.ListAgentsRequest, context: grpc.ServicerContext
    ) -> pb.ListAgentsResponse:
        size, token = convert.page_size(request.page_size), convert.page_token(request.page_token)
        status = agents.wanted_status(request)
        return agents.agent_page(self._agents.page(status, size, token, deadline_of(context)))

    @override
    def DeactivateAgent(
        self, request: pb.DeactivateAgentRequest, context: grpc.ServicerContext
    ) -> pb.DeactivateAgentResponse:
        command, caller = agents.switch(request), identity_of(context)
        with self._changes:
            return agents.deactivated(
                self._agents.deactivate(command, caller, deadline_of(context))
            )

    @override
    def ActivateAgent(
        self, request: pb.ActivateAgentRequest, context: grpc.ServicerContext
    ) -> pb.ActivateAgentResponse:
        command, caller = agents.switch(request), identity_of(context)
        with self._changes:
            return agents.activated(self._agents.activate(command, caller, deadline_of(context)))
