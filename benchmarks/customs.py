"""What a server in use has: callers with a key, and policies."""

from __future__ import annotations

from typing import Final

import grpc

from licet.v1 import identity_pb2, policy_pb2
from licet.v1.identity_pb2_grpc import IdentityServiceStub
from licet.v1.policy_pb2_grpc import PolicyServiceStub

LEASE: Final = "lease 1 s"
"""How fresh decisions are, with the default settings: a revocation that has returned is final."""
IN_USE: Final = f"key, policies, {LEASE}"
"""The settings of figures that do not say otherwise, but for their durability."""
GROUP: Final = f"`group`, {IN_USE}"
NONE: Final = f"`none`, {IN_USE}"
STOCK: Final = "as gRPC comes"
"""Of a server that has nothing but the no-op."""

# None of these has something against what the benchmarks ask, or has to be looked at for it: what
# those cost that have is in `policy_sets.py`.
_POLICIES: Final = """
version: 1
include: [system-paths@1, secrets@1, external-destinations@1, business-hours@1]
"""


def put_policies(channel: grpc.Channel) -> None:
    """Have policies hold on all servers of a database."""
    request = policy_pb2.PutPolicySetRequest(document=_POLICIES)
    PolicyServiceStub(channel).PutPolicySet(request)


def key(channel: grpc.Channel) -> str:
    """Make an API key that may ask, and return the header that has it."""
    request = identity_pb2.CreateApiKeyRequest(name="a benchmark's", scopes=["authorize"])
    made = IdentityServiceStub(channel).CreateApiKey(request)
    return f"Bearer {made.token}"
