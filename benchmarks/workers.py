"""Two workers beside one, as `licet serve --workers` runs them.

Server, load and PostgreSQL share the cores, in each of three set-ups: one worker on one core, one
worker on two, two workers on two. From the first to the last all of them get twice as much, and
a call costs the load and PostgreSQL the same in both: their share of the cores is the same. The one
in the middle leaves to the load and to PostgreSQL what would be a core of their own.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.figures import BenchmarkError, Bound, Figure, Target, ratios, spread
from benchmarks.h2load import Traffic
from benchmarks.processes import confine
from benchmarks.report import Progress
from benchmarks.seed import Match
from benchmarks.server import Variant
from benchmarks.servers import Server
from benchmarks.stand import Site, Stand
from benchmarks.throughput import Kind, Rounds, authorize
from licet.domain.names import Principal

SECTION: Final = "Two workers"
TARGET: Final = Target(Bound.AT_LEAST, 1.6)

# As many calls as ever, on connections enough for the kernel to spread.
_TRAFFIC: Final = Traffic(connections=32, streams=2)
_WARM_UP_SECONDS: Final = 0.5


@dataclass(slots=True)
class _Setup:
    """A server on some cores, and what was measured of it, round by round.

    Attributes:
        stand: with the server.
        call: what is asked.
        workers: how many it has.
        cores: for the server, the load and PostgreSQL.
        rates: calls a second, by the clock.
        costs: seconds of the server's processor time for a call.
        cores_had: how many cores the server had, in seconds of them a second.
        least: the part of the calls that the least busy worker answered.
    """

    stand: Stand
    call: Kind
    workers: int
    cores: Collection[int]
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    cores_had: list[float] = field(default_factory=list)
    least: list[float] = field(default_factory=list)


def measure(site: Site, principal: Principal, rounds: Rounds, progress: Progress) -> list[Figure]:
    """Compare a server of two workers with one of one, each on its own port."""
    both = site.cores.both
    with (
        Server(Variant.SUPERVISED, site.url, site.state, both, workers=1) as one_server,
        Server(Variant.SUPERVISED, site.url, site.state, both, workers=2) as two_server,
        Stand(site, one_server) as one,
        Stand(site, two_server) as two,
    ):
        ask_one, ask_two = (authorize(stand, principal, Match.EXACT) for stand in (one, two))
        setups = [
            _Setup(one, ask_one, 1, {site.cores.load}),
            _Setup(one, ask_one, 1, both),
            _Setup(two, ask_two, 2, both),
        ]
        site.await_shipped(1)
        order = random.Random(rounds.count)
        for setup in setups:
            _burst(setup, _WARM_UP_SECONDS)
            for found in (setup.rates, setup.costs, setup.cores_had, setup.least):
                found.clear()
        for number in range(1, rounds.count + 1):
            progress.step(f"two workers, round {number} of {rounds.count}")
            for setup in order.sample(setups, len(setups)):
                _burst(setup, rounds.seconds)
    return _figures(setups)


def _figures(setups: Sequence[_Setup]) -> list[Figure]:
    alone, one, two = setups
    return [
        Figure(
            SECTION,
            "Authorize, 2 workers on 2 cores / 1 worker on 1 core, by the time the server had",
            ratios([two.workers * cost for cost in alone.costs], two.costs),
            target=TARGET,
        ),
        Figure(
            SECTION,
            "2 workers on 2 cores / 1 worker on 1 core, by the clock",
            ratios(two.rates, alone.rates),
        ),
        Figure(
            SECTION,
            "2 workers on 2 cores / 1 worker on 2 cores, by the clock",
            ratios(two.rates, one.rates),
        ),
        *(
            Figure(
                SECTION,
                f"calls, {setup.workers} on {len(setup.cores)}",
                spread(setup.rates),
                "calls/s",
            )
            for setup in setups
        ),
        *(
            Figure(
                SECTION,
                f"cores that the server had, {setup.workers} on {len(setup.cores)}",
                spread(setup.cores_had),
            )
            for setup in setups
        ),
        Figure(SECTION, "the part of the less busy worker", spread(two.least)),
    ]


def _burst(setup: _Setup, seconds: float) -> None:
    stand, site, call = setup.stand, setup.stand.site, setup.call
    site.keep_to(setup.cores)
    if setup.workers == 1:  # several have pinned themselves
        confine(stand.server.pids, setup.cores)
    before, used = site.shipped_by_writer(), stand.server_seconds()
    calls = stand.load.burst(call.method, call.request, call.response_bytes, seconds, _TRAFFIC)
    spent = stand.server_seconds() - used
    site.await_shipped(sum(before.values()) + calls)
    answered = [
        shipped - before.get(writer, 0)
        for writer, shipped in site.shipped_by_writer().items()
        if shipped != before.get(writer, 0)
    ]
    if len(answered) != setup.workers:
        raise BenchmarkError(f"of {setup.workers} workers {len(answered)} answered")
    setup.rates.append(calls / seconds)
    setup.costs.append(spent / calls)
    setup.cores_had.append(spent / seconds)
    setup.least.append(min(answered) / sum(answered))
