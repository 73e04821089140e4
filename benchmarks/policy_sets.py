"""What the built-in sets cost an Authorize, on one server: they hold in every other burst.

Two requests: one that no built-in policy is about, and one that has to satisfy a policy.
"""

from __future__ import annotations

import random
from typing import Final

from benchmarks.figures import BenchmarkError, Bound, Figure, Target, ratios, spread
from benchmarks.policies import BUILT_IN, limits
from benchmarks.report import Progress
from benchmarks.seed import Match, covered
from benchmarks.stand import Stand
from benchmarks.throughput import AUTHORIZE, Kind, Rounds, burst
from licet.domain.names import Principal
from licet.v1 import authorization_pb2 as pb
from licet.v1 import policy_pb2
from licet.v1.decision_pb2 import DECISION_ALLOW
from licet.v1.policy_pb2_grpc import PolicyServiceStub

SECTION: Final = "Built-in policy sets, under full load"
TARGET: Final = Target(Bound.AT_LEAST, 0.85)
LIMIT_TARGET: Final = Target(Bound.AT_MOST, 0.02)
_NONE: Final = "version: 1"
_ALL: Final = f"version: 1\ninclude: [{BUILT_IN}]"
# Of secrets@1, which demands a security level, and an authentication that is recent: that is left
# out, because a request of a benchmark stays the same.
_DEMANDING: Final = f"""
version: 1
include: [{BUILT_IN}]
policies:
  - name: cleared
    match:
      resources: ["doc:**"]
    require:
      mfa: true
      security_level: 2
"""


def measure(stand: Stand, principal: Principal, rounds: Rounds, progress: Progress) -> list[Figure]:
    """Compare calls while sets hold with calls while none does.

    Raises:
        BenchmarkError: a request was denied.
    """
    figures = []
    for what, document in (
        ("no policy is about the request", _ALL),
        ("one demands two facts of its context", _DEMANDING),
    ):
        without, with_sets = (_kind(stand, principal, held) for held in (_NONE, document))
        order = random.Random(rounds.count)
        for number in range(1, rounds.count + 1):
            progress.step(f"policy sets, {what}, round {number} of {rounds.count}")
            both = [(without, _NONE), (with_sets, document)]
            for kind, held in order.sample(both, len(both)):
                _put(stand, held)
                burst(stand, kind, rounds.seconds)
        figures += [
            Figure(
                SECTION,
                f"Authorize with all built-in sets / without policies; {what}",
                ratios(with_sets.rates, without.rates),
                target=TARGET,
            ),
            Figure(SECTION, f"with them; {what}", spread(with_sets.rates), "decisions/s"),
        ]
        if document is _ALL:
            # In processor time, which is what rates are counted in: an Authorize of this run.
            added, _ = limits(rounds.count)
            share = [
                nanoseconds * rate / 1e9
                for nanoseconds, rate in zip(added, without.rates, strict=True)
            ]
            name = "a limit's part of the CPU of an Authorize of this run"
            figures.append(Figure(SECTION, name, spread(share), target=LIMIT_TARGET))
    return figures


def _put(stand: Stand, document: str) -> None:
    PolicyServiceStub(stand.channel).PutPolicySet(policy_pb2.PutPolicySetRequest(document=document))


def _kind(stand: Stand, principal: Principal, document: str) -> Kind:
    _put(stand, document)
    request = pb.AuthorizeRequest(
        principal=principal, action="read", resource=covered(Match.EXACT, 0)
    )
    request.context.update({"mfa": True, "security_level": 3})
    response = stand.stub.Authorize(request)
    if response.decision != DECISION_ALLOW:
        raise BenchmarkError(f"{principal}: decided {response.detail!r}")
    return Kind(AUTHORIZE, request, response.ByteSize(), 1)
