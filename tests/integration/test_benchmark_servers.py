"""The server that the replica protocol is measured against lacks it, and nothing else."""

from __future__ import annotations

import grpc

from benchmarks.server import WithoutProtocol
from licet import config
from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from licet.v1.decision_pb2 import DECISION_ALLOW
from tests.fakes.postgres import Database


def test_without_the_protocol_memory_is_used_for_ever_and_nobody_waits(database: Database) -> None:
    settings = config.load(listen="127.0.0.1:0", database_url=database.url, lease_seconds=0.25)
    licet = WithoutProtocol(settings).start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{licet.server.port}") as channel:
            stub = AuthorizationServiceStub(channel)
            request = pb.AuthorizeRequest(
                principal="agent:a", action="read", resource="doc:reports/q3"
            )
            granted = stub.Grant(
                pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:reports/**"),
                timeout=10,
            )
            assert stub.Authorize(request, timeout=10).decision == DECISION_ALLOW
            revoked = stub.Revoke(pb.RevokeRequest(capability_id=granted.capability.id), timeout=10)
            assert (revoked.replicas_confirmed, revoked.replicas_fenced) == (0, 0)
            # The revocation is not heard of here: so nothing of the protocol is at work.
            assert stub.Authorize(request, timeout=10).decision == DECISION_ALLOW
    finally:
        licet.stop()
