"""How soon a revocation is final: from sending Revoke to its return, which promises just that.

The promise itself is checked each time: all replicas are asked at once, and none may allow.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from typing import Final, LiteralString, NamedTuple

from benchmarks import seed
from benchmarks.figures import (
    BenchmarkError,
    Bound,
    Curve,
    Figure,
    Found,
    Plot,
    Target,
    distribution,
    percentile,
    ratios,
    spread,
)
from benchmarks.report import Progress
from benchmarks.server import Variant
from benchmarks.servers import Server
from benchmarks.stand import Site, Stand
from licet.config import Settings
from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_ALLOW, DECISION_DENY, Decision

REPLICAS: Final = 8
SECTION: Final = f"Revocation, {REPLICAS} replicas"
COMMITS_TARGET: Final = Target(Bound.AT_MOST, 5.0)
LEASE_MILLISECONDS: Final = 1000 * Settings.model_fields["lease_seconds"].default
LEASE_TARGET: Final = Target(Bound.AT_MOST, LEASE_MILLISECONDS)
IN_ROUND: Final = 20
"""Revocations in a round."""

_COMMITS: Final = 5
_SECONDS: Final = 30.0
_TABLE: Final[LiteralString] = (
    "CREATE TABLE commits (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"
)
_COMMIT: Final[LiteralString] = "INSERT INTO commits DEFAULT VALUES"


class _Round(NamedTuple):
    """Milliseconds of each revocation and commit, and how many replicas confirmed."""

    revocations: list[float]
    commits: list[float]
    confirmed: list[int]


def measure(site: Site, rounds: int, progress: Progress) -> Found:
    """Revoke what every replica has in memory, and compare with a commit in the same database."""
    site.keep_to(site.cores.both)
    site.admin.execute(_TABLE)
    stored = site.shipped()
    with ExitStack() as stack:
        progress.step(f"starting {REPLICAS} replicas")
        servers = [
            stack.enter_context(Server(Variant.LICET, site.url, site.state, site.cores.both))
            for _ in range(REPLICAS)
        ]
        replicas = [stack.enter_context(Stand(site, server)) for server in servers]
        _round(site, replicas, random.Random(0), "warm-up")
        found = []
        for number in range(1, rounds + 1):
            progress.step(f"{IN_ROUND} revocations, {number} of {rounds}")
            found.append(_round(site, replicas, random.Random(number), f"{number}"))
        site.await_shipped(stored + 2 * (rounds + 1) * IN_ROUND * REPLICAS)
    if median([confirmed for each in found for confirmed in each.confirmed]) != REPLICAS:
        raise BenchmarkError(f"Revoke did not wait for {REPLICAS} replicas")
    return Found(_figures(found), [_plot(found)])


def _figures(rounds: Sequence[_Round]) -> list[Figure]:
    revocations = [median(each.revocations) for each in rounds]
    commits = [median(each.commits) for each in rounds]
    slow = percentile([taken for each in rounds for taken in each.revocations], 99)
    return [
        Figure(
            SECTION,
            "Revoke until no replica allows, p50 / a commit of one row, p50",
            ratios(revocations, commits),
            target=COMMITS_TARGET,
        ),
        Figure(
            SECTION,
            "Revoke until no replica allows, p99",
            spread([slow]),
            "ms",
            LEASE_TARGET,
        ),
        Figure(SECTION, "Revoke until no replica allows, p50", spread(revocations), "ms"),
        Figure(SECTION, "a commit of one row, p50", spread(commits), "ms"),
    ]


def _plot(rounds: Sequence[_Round]) -> Plot:
    measured = {
        "Revoke, until no replica allows": [taken for each in rounds for taken in each.revocations],
        "a commit of one row": [taken for each in rounds for taken in each.commits],
    }
    return Plot(
        "revocation",
        f"From Revoke to the last denial, {REPLICAS} replicas",
        "ms",
        "percent of all that took no longer",
        [Curve(name, distribution(taken)) for name, taken in measured.items()],
        is_log_across=True,
    )


def _round(site: Site, replicas: Sequence[Stand], order: random.Random, name: str) -> _Round:
    found = _Round([], [], [])
    for number in range(IN_ROUND):
        request = pb.AuthorizeRequest(
            principal=f"agent:revoked-{name}-{number}", action="read", resource="doc:reports/2026"
        )
        granted = order.choice(replicas).stub.Grant(
            pb.GrantRequest(
                principal=request.principal, actions=seed.ACTIONS, resource=request.resource
            )
        )
        _all_decide(replicas, request, DECISION_ALLOW)
        for _ in range(_COMMITS):
            begin = perf_counter()
            site.admin.execute(_COMMIT)
            found.commits.append(1000 * (perf_counter() - begin))
        begin = perf_counter()
        revoked = order.choice(replicas).stub.Revoke(
            pb.RevokeRequest(capability_id=granted.capability.id)
        )
        found.revocations.append(1000 * (perf_counter() - begin))
        _all_decide(replicas, request, DECISION_DENY)
        found.confirmed.append(revoked.replicas_confirmed)
    return found


def _all_decide(
    replicas: Sequence[Stand], request: pb.AuthorizeRequest, expected: Decision.ValueType
) -> None:
    """Ask every replica, all at once.

    Raises:
        BenchmarkError: one decided otherwise.
    """
    asked = [replica.stub.Authorize.future(request, timeout=_SECONDS) for replica in replicas]
    for replica, answer in zip(replicas, asked, strict=True):
        response = answer.result()
        if response.decision != expected:
            raise BenchmarkError(
                f"the replica on port {replica.server.port} answered {response.detail!r}"
            )
