"""Calls a second by how many are under way at once, by the clock."""

from __future__ import annotations

import random
from typing import Final

from benchmarks import customs
from benchmarks.figures import Curve, Figure, Found, Plot, Point, ratios, spread
from benchmarks.h2load import Traffic
from benchmarks.report import Progress
from benchmarks.seed import Match
from benchmarks.server import Variant
from benchmarks.stand import Site, Stand, standing
from benchmarks.throughput import NO_OP_OF_STOCK, Kind, Rounds, authorize, burst, no_op
from licet.domain.names import Principal

SECTION: Final = "Calls a second, by how many are under way"
IN_FLIGHT: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SHOWN: Final = (1, 8, 64, 512)
_CONNECTIONS: Final = 8
_WARM_UP_SECONDS: Final = 0.5


def measure(site: Site, principal: Principal, rounds: Rounds, progress: Progress) -> Found:
    """Make calls with more and more of them under way, on up to 8 connections."""
    site.keep_to({site.cores.load})
    with standing(site, Variant.LICET, Variant.UNSYNCED, Variant.STOCK) as (group, none, stock):
        customs.put_policies(group.channel)
        key = customs.key(group.channel)
        runs: dict[tuple[str, int], tuple[Stand, Kind]] = {}
        for in_flight in IN_FLIGHT:
            runs["Authorize, `none`", in_flight] = (
                none,
                authorize(none, principal, Match.EXACT, key),
            )
            runs["Authorize, `group`", in_flight] = (
                group,
                authorize(group, principal, Match.EXACT, key),
            )
            runs[NO_OP_OF_STOCK, in_flight] = (stock, no_op())
        for name in dict.fromkeys(name for name, _ in runs):
            stand, kind = runs[name, IN_FLIGHT[-1]]
            burst(stand, kind, _WARM_UP_SECONDS)
            for measured in (kind.rates, kind.shares, kind.costs):
                measured.clear()
        order = random.Random(rounds.count)
        for number in range(1, rounds.count + 1):
            progress.step(f"calls under way, round {number} of {rounds.count}")
            for name, in_flight in order.sample(list(runs), len(runs)):
                stand, kind = runs[name, in_flight]
                burst(stand, kind, rounds.seconds, traffic_of(in_flight))
    return _found({place: kind.clocked for place, (_, kind) in runs.items()})


def traffic_of(in_flight: int) -> Traffic:
    """Return traffic with so many calls under way, on as many connections as there are for it."""
    connections = min(in_flight, _CONNECTIONS)
    return Traffic(connections, in_flight // connections)


def _found(rates: dict[tuple[str, int], list[float]]) -> Found:
    names = list(dict.fromkeys(name for name, _ in rates))
    figures = [
        Figure(
            SECTION,
            f"{name} / {NO_OP_OF_STOCK}, {in_flight} under way",
            ratios(rates[name, in_flight], rates[NO_OP_OF_STOCK, in_flight]),
        )
        for name in names
        if name != NO_OP_OF_STOCK
        for in_flight in _SHOWN
    ]
    plot = Plot(
        "concurrency",
        "Calls a second, by how many are under way",
        "calls under way",
        "calls/s, by the clock",
        [Curve(name, [Point(at, spread(rates[name, at])) for at in IN_FLIGHT]) for name in names],
        customs.IN_USE,
        is_log_across=True,
    )
    return Found(figures, [plot])
