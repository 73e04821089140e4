"""How long answers take at loads that do not wait for them, and what a decision costs then.

An open loop: calls come at their times, whether or not earlier ones were answered. What a late
generator leaves out, coordinated omission, is charged to the answers: see `corrected`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import median
from threading import Event
from time import perf_counter
from typing import Final

from benchmarks import customs
from benchmarks.figures import (
    Bound,
    Curve,
    Figure,
    Found,
    Plot,
    Point,
    Target,
    percentile,
    ratios,
    spread,
)
from benchmarks.h2load import PACERS, TICK_SECONDS, Sent, Traffic, UnansweredError
from benchmarks.report import Progress
from benchmarks.seed import Match
from benchmarks.server import Variant
from benchmarks.stand import Site, Stand, standing
from benchmarks.throughput import NO_OP_OF_STOCK, Kind, Rounds, authorize, burst, no_op
from licet.domain.names import Principal

SECTION: Final = "Latency, at an offered load"
TAIL_TARGET: Final = Target(Bound.AT_MOST, 1.2)
IDLE_TARGET: Final = Target(Bound.AT_MOST, 1.3)
IDLE: Final = 100.0
"""Calls a second of a fleet that does hardly anything."""
HALF: Final = 0.5
FEW_LOADS: Final = (HALF,)
ALL_LOADS: Final = (0.1, 0.25, HALF, 0.75, 0.9)
"""Parts of the peak load."""

_PERCENTILES: Final = (50.0, 99.0, 99.9)
_WAITING: Final = Traffic(PACERS, 2)
"""What finds a peak: as many clients as make the loads that are parts of it."""
_PEAKS: Final = 5
_PEAK_SECONDS: Final = 0.6
_WARM_UP_SECONDS: Final = 0.5
_REST_SECONDS: Final = 3.0
_TICK_MICROSECONDS: Final = 1e6 * TICK_SECONDS


@dataclass(slots=True)
class _Served:
    """Who is called, and what was measured of it, by the offered load and round by round.

    Attributes:
        name: for people.
        stand: with the server.
        kind: of call.
        settings: of the server.
        peak: calls a second, by the clock, of clients whose next one waits for an answer.
        at_rest: seconds of the server's core in a second without calls.
        latencies: the percentiles, in milliseconds.
        costs: seconds of the server's core for one call.
    """

    name: str
    stand: Stand
    kind: Kind
    settings: str
    peak: float = 0.0
    at_rest: float = 0.0
    latencies: dict[float, list[list[float]]] = field(default_factory=dict)
    costs: dict[float, list[float]] = field(default_factory=dict)

    def at(self, load: float, percent: float) -> list[float]:
        """Return a percentile of each round at a load."""
        place = _PERCENTILES.index(percent)
        return [found[place] for found in self.latencies[load]]


def corrected(sent: Sent) -> list[float]:
    """Return latencies in milliseconds, from when each call should have been sent.

    A client sends at its ticks what has come due. A call that is later than that by more than a
    tick would have waited if the client had not: that is added to its latency. The schedule begins
    so that its most punctual call is in time.
    """
    if not sent.starts:
        return []
    due = [start - number * sent.period for number, start in enumerate(sent.starts)]
    begin = min(due)
    return [
        (latency + max(at - begin - _TICK_MICROSECONDS, 0.0)) / 1000
        for at, latency in zip(due, sent.latencies, strict=True)
    ]


def measure(
    site: Site,
    principal: Principal,
    loads: Sequence[float],
    rounds: Rounds,
    progress: Progress,
) -> Found:
    """Offer parts of its own peak load to each kind of server, and 100 calls a second."""
    site.keep_to({site.cores.load})
    variants = Variant.LICET, Variant.UNSYNCED, Variant.STOCK
    # Else their work would be in the latencies of licet, and not in those of the no-op.
    with standing(site, *variants, load_first=True) as (group, none, stock):
        customs.put_policies(group.channel)
        key = customs.key(group.channel)
        served = [
            _Served(
                "Authorize, `none`",
                none,
                authorize(none, principal, Match.EXACT, key),
                customs.NONE,
            ),
            _Served(
                "Authorize, `group`",
                group,
                authorize(group, principal, Match.EXACT, key),
                customs.GROUP,
            ),
            _Served(NO_OP_OF_STOCK, stock, no_op(), customs.STOCK),
        ]
        order = random.Random(rounds.count)
        _find_peaks(served, order)
        _rest(served)
        runs = [(each, load) for each in served for load in (0.0, *loads)]
        for number in range(1, rounds.count + 1):
            progress.step(f"latency, round {number} of {rounds.count}")
            for each, load in order.sample(runs, len(runs)):
                _offer_what_it_takes(each, load, rounds.seconds)
    return Found(_figures(*served), _plots(served, loads))


def _find_peaks(served: Sequence[_Served], order: random.Random) -> None:
    """Find them in turn: half of a peak of other minutes is another part of what can be had."""
    for seconds in (_WARM_UP_SECONDS, *[_PEAK_SECONDS] * _PEAKS):
        for each in order.sample(served, len(served)):
            burst(each.stand, each.kind, seconds, _WAITING)
    for each in served:
        each.peak = median(each.kind.clocked[1:])


def _rest(served: Sequence[_Served]) -> None:
    """Measure what the servers do on their own."""
    before, begin = [each.stand.server_seconds() for each in served], perf_counter()
    Event().wait(_REST_SECONDS)
    taken = perf_counter() - begin
    for each, used in zip(served, before, strict=True):
        each.at_rest = (each.stand.server_seconds() - used) / taken


def _offer_what_it_takes(served: _Served, load: float, seconds: float) -> None:
    """Offer it; above half of its peak, a round of the no-op with unanswered calls is left out.

    Calls may cost more in an open loop than at the peak, where they leave together: then a server
    falls behind for as long as it lasts, and what waits at the end is not answered.

    Raises:
        UnansweredError: licet left calls unanswered, or the no-op did at half of the peak or less.
    """
    try:
        _offer(served, load, seconds)
    except UnansweredError:
        if load <= HALF or served.settings != customs.STOCK:
            raise


def _offer(served: _Served, load: float, seconds: float) -> None:
    """Offer a part of the peak load; 0: IDLE."""
    stand, kind = served.stand, served.kind
    rate = served.peak * load or IDLE
    stored, used = stand.shipped(), stand.server_seconds()
    calls, sent = stand.load.paced(
        kind.method, kind.request, kind.response_bytes, seconds, rate, kind.credential
    )
    spent = stand.server_seconds() - used
    stand.await_shipped(stored + calls * kind.decisions)
    found = list(chain.from_iterable(corrected(each) for each in sent))
    served.latencies.setdefault(load, []).append(
        [percentile(found, percent) for percent in _PERCENTILES]
    )
    served.costs.setdefault(load, []).append(spent / calls)


def _figures(none: _Served, group: _Served, stock: _Served) -> list[Figure]:
    figures = [
        Figure(
            SECTION,
            f"p99 of a cached Authorize at half of its peak load / of {NO_OP_OF_STOCK} at half of"
            " its own",
            ratios(each.at(HALF, 99.0), stock.at(HALF, 99.0)),
            target=target,
            settings=each.settings,
        )
        for each, target in ((none, TAIL_TARGET), (group, None))
    ]
    figures += [
        Figure(
            SECTION,
            f"the server's time for a decision, {IDLE:.0f} a second / at half of the peak load",
            ratios(each.costs[0.0], each.costs[HALF]),
            target=target,
            settings=each.settings,
        )
        for each, target in ((none, IDLE_TARGET), (group, IDLE_TARGET))
    ]
    figures.append(
        Figure(
            SECTION,
            f"the same of {NO_OP_OF_STOCK}",
            ratios(stock.costs[0.0], stock.costs[HALF]),
            settings=customs.STOCK,
        )
    )
    for each in (none, group, stock):
        name, settings = each.name, each.settings
        figures += [
            Figure(SECTION, f"{name}: peak", spread([each.peak]), "calls/s", settings=settings),
            Figure(
                SECTION,
                f"{name}: the server's time without a call",
                spread([1000 * each.at_rest]),
                "ms a second",
                settings=settings,
            ),
        ]
        figures += [
            Figure(
                SECTION,
                f"{name}: p{percent:g} at half of it",
                spread(each.at(HALF, percent)),
                "ms",
                settings=settings,
            )
            for percent in _PERCENTILES
        ]
        figures += [
            Figure(
                SECTION,
                f"{name}: the server's time, {where}",
                spread([1e6 * cost for cost in each.costs[load]]),
                "us",
                settings=settings,
            )
            for load, where in ((0.0, f"{IDLE:.0f} a second"), (HALF, "at half of it"))
        ]
        figures += [
            Figure(
                SECTION,
                f"{name}: p99 at {load:.2f} of it",
                spread(each.at(load, 99.0)),
                "ms",
                settings=settings,
            )
            for load in sorted(each.latencies)
            if load > HALF
        ]
    return figures


def _plots(served: Sequence[_Served], loads: Sequence[float]) -> list[Plot]:
    if len(loads) == 1:
        return []
    return [
        Plot(
            f"latency-p{percent:g}".replace(".", "-"),
            f"p{percent:g} of the latency, against the offered load",
            "offered calls a second",
            "ms, coordinated omission charged",
            [
                Curve(
                    each.name,
                    [
                        Point(each.peak * load, spread(each.at(load, percent)))
                        for load in sorted(loads)
                        if load in each.latencies
                    ],
                )
                for each in served
            ],
            customs.IN_USE,
            is_log_up=True,
        )
        for percent in _PERCENTILES
    ]
