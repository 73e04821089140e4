"""PolicyService: three lines an RPC. `policies.py` and `replays.py` check what may be asked."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from typing_extensions import override

from licet.app.policies import ManagePolicies
from licet.app.replay import ReplayPolicies
from licet.server import convert, policies, replays
from licet.server.identity import deadline_of, identity_of
from licet.server.places import Places
from licet.server.watchers import Watchers
from licet.v1 import policy_pb2 as pb
from licet.v1 import policy_pb2_grpc as pb_grpc


class PolicyService(pb_grpc.PolicyServiceServicer):
    """Serves `licet.v1.PolicyService`."""

    def __init__(
        self,
        manage: ManagePolicies,
        replay: ReplayPolicies,
        mutations: Places,
        replaying: Watchers,
    ) -> None:
        """Serve these use cases; changes share their places with those of capabilities."""
        self._policies = manage
        self._replay = replay
        self._mutations = mutations
        self._replaying = replaying

    @override
    def PutPolicySet(
        self, request: pb.PutPolicySetRequest, context: grpc.ServicerContext
    ) -> pb.PutPolicySetResponse:
        command, caller = policies.put(request), identity_of(context)
        with self._mutations:
            return policies.was_put(self._policies.put(command, caller, deadline_of(context)))

    @override
    def GetPolicySet(
        self, request: pb.GetPolicySetRequest, context: grpc.ServicerContext
    ) -> pb.GetPolicySetResponse:
        version = policies.version(request)
        return policies.found(self._policies.get(version, deadline_of(context)))

    @override
    def ListPolicySets(
        self, request: pb.ListPolicySetsRequest, context: grpc.ServicerContext
    ) -> pb.ListPolicySetsResponse:
        size, token = convert.page_size(request.page_size), convert.page_token(request.page_token)
        return policies.page(self._policies.page(size, token, deadline_of(context)))

    @override
    def RollbackPolicySet(
        self, request: pb.RollbackPolicySetRequest, context: grpc.ServicerContext
    ) -> pb.RollbackPolicySetResponse:
        command, caller = policies.rollback(request), identity_of(context)
        with self._mutations:
            done = self._policies.rollback(command, caller, deadline_of(context))
        return policies.rolled_back(done)

    @override
    def TestPolicySet(
        self, request: pb.TestPolicySetRequest, context: grpc.ServicerContext
    ) -> pb.TestPolicySetResponse:
        document, cases = policies.test(request)
        # With the changes: compiling holds a thread, and many at once would hold up decisions.
        with self._mutations:
            return policies.tested(self._policies.test(document, cases, deadline_of(context)))

    @override
    def ReplayPolicySet(
        self, request: pb.ReplayPolicySetRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ReplayPolicySetResponse]:
        command, caller = replays.replay(request), identity_of(context)
        with self._replaying.place(context) as place:
            breath, deadline = replays.Breath(), deadline_of(context)
            for step in self._replay(command, caller, deadline, breath):
                with place.sending():
                    yield replays.step(step)
