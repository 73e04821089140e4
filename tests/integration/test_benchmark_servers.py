"""The server that the replica protocol is measured against lacks it, and nothing else."""

from __future__ import annotations

import grpc

from benchmarks.server import WithoutProtocol
from licet import config
from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from licet.v1.decision_pb2 import DECISION_ALLOW
from tests.fakes.postgres import Database
from tests.fakes.serving import serving


def test_without_the_protocol_memory_is_used_for_ever(database: Database) -> None:
    request = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:reports/q3")
    settings = config.load(listen="127.0.0.1:0", database_url=database.url, lease_seconds=0.25)
    with serving(database) as other:
        granted = other.grant("agent:a", "read", "doc:reports/**")
        licet = WithoutProtocol(settings).start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{licet.server.port}") as channel:
                stub = AuthorizationServiceStub(channel)
                assert stub.Authorize(request, timeout=10).decision == DECISION_ALLOW
                revocation = pb.RevokeRequest(capability_id=granted)
                assert other.stub.Revoke(revocation, timeout=10).replicas_confirmed == 1
                # It is not heard of here: so nothing of the protocol is at work.
                assert stub.Authorize(request, timeout=10).decision == DECISION_ALLOW
        finally:
            licet.stop()
