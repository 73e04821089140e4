"""ApprovalService: three lines an RPC. What may be asked is checked in `approvals.py`."""

from __future__ import annotations

from typing import Final

import grpc
from typing_extensions import override

from licet.app.approvals import ManageApprovals
from licet.server import approvals, convert
from licet.server.identity import deadline_of, identity_of
from licet.server.places import Places
from licet.v1 import approval_pb2 as pb
from licet.v1 import approval_pb2_grpc as pb_grpc

SERVICE: Final = pb.DESCRIPTOR.services_by_name["ApprovalService"].full_name


class ApprovalService(pb_grpc.ApprovalServiceServicer):
    """Serves `licet.v1.ApprovalService`."""

    def __init__(self, manage: ManageApprovals, mutations: Places) -> None:
        """Serve these use cases; changes share their places with those of capabilities."""
        self._approvals = manage
        self._mutations = mutations

    @override
    def ListApprovals(
        self, request: pb.ListApprovalsRequest, context: grpc.ServicerContext
    ) -> pb.ListApprovalsResponse:
        size, token = convert.page_size(request.page_size), convert.page_token(request.page_token)
        wanted = approvals.wanted(request)
        return approvals.page(self._approvals.page(wanted, size, token, deadline_of(context)))

    @override
    def GetApproval(
        self, request: pb.GetApprovalRequest, context: grpc.ServicerContext
    ) -> pb.GetApprovalResponse:
        approval_id, caller = approvals.approval_id(request.approval_id), identity_of(context)
        return approvals.found(self._approvals.get(approval_id, caller, deadline_of(context)))

    @override
    def ResolveApproval(
        self, request: pb.ResolveApprovalRequest, context: grpc.ServicerContext
    ) -> pb.ResolveApprovalResponse:
        command, caller = approvals.resolve(request), identity_of(context)
        with self._mutations:
            return approvals.resolved(
                self._approvals.resolve(command, caller, deadline_of(context))
            )
