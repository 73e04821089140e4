"""What hostile clients send, what they may be told, and what a service does all the same."""

from __future__ import annotations

import math
from typing import Final

import grpc
from google.protobuf.message import Message

from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import all_stored
from tests.fakes.serving import Served

Code = grpc.StatusCode
UNKNOWN: Final = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"
INVALID: Final = Code.INVALID_ARGUMENT
# What a client can cause. Everything else is a bug, or says that the service suffered.
ITS_FAULT: Final = {
    INVALID,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.PERMISSION_DENIED,
    Code.FAILED_PRECONDITION,
    Code.RESOURCE_EXHAUSTED,
}
METHODS: Final = {
    method.name: method for method in pb.DESCRIPTOR.services_by_name["AuthorizationService"].methods
}
UNARY: Final = [name for name, method in METHODS.items() if not method.server_streaming]
VALID: Final[dict[str, Message]] = {
    "Authorize": pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x"),
    "BatchAuthorize": pb.BatchAuthorizeRequest(
        requests=[pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")]
    ),
    "Grant": pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:x"),
    "Revoke": pb.RevokeRequest(filter=pb.RevokeFilter(principal="agent:nobody")),
    "GetCapability": pb.GetCapabilityRequest(capability_id=UNKNOWN),
    "ListCapabilities": pb.ListCapabilitiesRequest(),
    "QueryAudit": pb.QueryAuditRequest(),
}
TEXTS: Final = [
    "",
    "x" * 1_000_000,
    "agent:" + "x" * 251,
    "agent:" + "é" * 200,
    "\0",
    "agent:a\0b",
    "agent:a\x1b[2J",
    "agent:a\r\nb",
    "agent:a\x7f",
    "agent:\u202egnp",  # right to left
    "agent:a\u200bb",  # zero width
    "agent:\ufeffa",
    "agent:a\u2028b",
    "agent:e\u0301",  # not composed
    "agent:\u212b",  # composed otherwise
    "agent:\U0010ffff",
    "agent:\ue000",
    "аgent:a",  # Cyrillic
    "Agent:a",
    "agent",
    ":",
    "doc:/../x",
    "doc:*****",
    "doc:" + "*/" * 500 + "**",
    "doc:" + "(a+)+" * 200,
    "doc:[[:alpha:]]\\1{9999}",
    "'; DROP TABLE licet.capabilities; --",
    "%s%(x)s{0}$1",
    UNKNOWN[:-1] + "g",
    "🙂" * 32,
]
NUMBERS: Final = [0, -1, 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63)]
DOUBLES: Final = [
    *(0.0, -0.0, 1.5, math.nan, math.inf, -math.inf),
    *(5e-324, 1.7e308, 2.0**53, 2.0**63, 1e20),
]


def assert_survived(hostile: Served) -> None:
    """Check that a service still grants, decides, records and revokes."""
    granted = hostile.grant("agent:survivor", "read", "doc:x")
    answer = hostile.authorize("agent:survivor", "read", "doc:x")
    assert answer.capability_id
    assert all_stored(hostile.database, [answer.decision_id])
    revoke = pb.RevokeRequest(capability_id=granted)
    assert hostile.stub.Revoke(revoke, timeout=10).ended_count == 1
