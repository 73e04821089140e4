"""AuditService: three lines an RPC. `proofs.py` and `imports.py` check what may be asked."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from typing_extensions import override

from licet.app.import_audit import ImportAudit
from licet.app.prove import ProveAudit
from licet.server import imports, proofs
from licet.server.identity import deadline_of, identity_of
from licet.server.places import Places
from licet.server.watchers import Watchers
from licet.v1 import audit_service_pb2 as pb
from licet.v1 import audit_service_pb2_grpc as pb_grpc


class AuditService(pb_grpc.AuditServiceServicer):
    """Serves `licet.v1.AuditService`."""

    def __init__(
        self, prove: ProveAudit, exports: Watchers, import_audit: ImportAudit, mutations: Places
    ) -> None:
        """Serve these proofs, and as many exports at once as there are places.

        An import is a change, and takes one of their places.
        """
        self._prove = prove
        self._exports = exports
        self._import = import_audit
        self._mutations = mutations

    @override
    def GetCheckpoint(
        self, request: pb.GetCheckpointRequest, context: grpc.ServicerContext
    ) -> pb.GetCheckpointResponse:
        epoch, size = proofs.epoch(request.epoch), proofs.size(request.size, "size")
        found = self._prove.checkpoint(epoch, size, deadline_of(context))
        return proofs.checkpoint(found, self._prove.key_of(found))

    @override
    def ProveInclusion(
        self, request: pb.ProveInclusionRequest, context: grpc.ServicerContext
    ) -> pb.ProveInclusionResponse:
        event_id = proofs.event_id(request)
        return proofs.inclusion(self._prove.inclusion(event_id, deadline_of(context)))

    @override
    def ProveConsistency(
        self, request: pb.ProveConsistencyRequest, context: grpc.ServicerContext
    ) -> pb.ProveConsistencyResponse:
        epoch = proofs.epoch(request.epoch)
        old = proofs.size(request.from_size, "from_size")
        new = proofs.size(request.to_size, "to_size")
        return proofs.consistency(self._prove.consistency(epoch, old, new, deadline_of(context)))

    @override
    def ExportAudit(
        self, request: pb.ExportAuditRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ExportAuditResponse]:
        epoch = proofs.epoch(request.epoch)
        first = proofs.size(request.first_leaf, "first_leaf")
        end = proofs.size(request.end_leaf, "end_leaf")
        with self._exports.place(context) as place:
            export = self._prove.export(epoch, first, end, deadline_of(context))
            for message in proofs.export(export):
                with place.sending():
                    yield message

    @override
    def ImportAudit(
        self, request: pb.ImportAuditRequest, context: grpc.ServicerContext
    ) -> pb.ImportAuditResponse:
        command, caller = imports.command(request), identity_of(context)
        with self._mutations:
            return imports.outcome(self._import(command, caller, deadline_of(context)))
