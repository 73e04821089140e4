"""What a decision and a page cost beside an audit log, by how many events it has."""

from __future__ import annotations

import random
from collections.abc import Sequence
from time import perf_counter
from typing import Final, NamedTuple

from benchmarks import customs
from benchmarks.figures import Curve, Figure, Found, Plot, Point, ratios, spread
from benchmarks.report import Progress
from benchmarks.seed import ACTIONS, Match, covered
from benchmarks.stand import Stand
from benchmarks.throughput import NO_OP_OF_STOCK, Rounds, authorize, burst, no_op
from licet.domain.names import Principal
from licet.v1 import authorization_pb2 as pb

SECTION: Final = "By the size of the audit log"

_HOLDER: Final = Principal("agent:audited")
_PAGES: Final = 20
_WARM_UP_SECONDS: Final = 0.5


class Size(NamedTuple):
    """What was measured beside a log.

    Attributes:
        events: how many it had at first.
        authorize: calls a second of a cached Authorize, round by round.
        no_op: the same of the no-op RPC of stock gRPC.
        pages: milliseconds of pages without a filter.
    """

    events: int
    authorize: list[float]
    no_op: list[float]
    pages: list[float]


def measure(stand: Stand, stock: Stand, events: int, rounds: Rounds, progress: Progress) -> Size:
    """Compare a cached Authorize with the no-op, and read the newest page."""
    stand.stub.Grant(
        pb.GrantRequest(principal=_HOLDER, actions=ACTIONS, resource=covered(Match.EXACT, 0))
    )
    customs.put_policies(stand.channel)
    decided = authorize(stand, _HOLDER, Match.EXACT, customs.key(stand.channel))
    nothing = no_op()
    runs = [(stand, decided), (stock, nothing)]
    for on, kind in runs:
        burst(on, kind, _WARM_UP_SECONDS)
        kind.rates.clear()
    order = random.Random(rounds.count)
    for number in range(1, rounds.count + 1):
        progress.step(f"beside {events:,} audit events, round {number} of {rounds.count}")
        for on, kind in order.sample(runs, len(runs)):
            burst(on, kind, rounds.seconds)
    pages = []
    for _ in range(_PAGES):
        begin = perf_counter()
        stand.stub.QueryAudit(pb.QueryAuditRequest(page_size=100))
        pages.append(1000 * (perf_counter() - begin))
    return Size(events, decided.rates, nothing.rates, pages)


def found(sizes: Sequence[Size]) -> Found:
    """Return the figures, and how they grow if there are several sizes."""
    figures = [
        Figure(
            SECTION,
            f"cached Authorize / {NO_OP_OF_STOCK}, beside {size.events:,} events",
            ratios(size.authorize, size.no_op),
            settings=customs.GROUP,
        )
        for size in sizes
    ]
    if len(sizes) == 1:
        return Found(figures)
    decisions = [Point(size.events, ratios(size.authorize, size.no_op)) for size in sizes]
    pages = [Point(size.events, spread(size.pages)) for size in sizes]
    plots = [
        Plot(
            "audit-size",
            "A cached Authorize, by the size of the audit log",
            "audit events stored",
            f"calls a second / {NO_OP_OF_STOCK}",
            [Curve("cached Authorize", decisions)],
            customs.GROUP,
            is_log_across=True,
        ),
        Plot(
            "audit-pages",
            "A page of the audit log, by its size",
            "audit events stored",
            "ms for the newest 100",
            [Curve("no filter", pages)],
            customs.GROUP,
            is_log_across=True,
        ),
    ]
    return Found(figures, plots)
