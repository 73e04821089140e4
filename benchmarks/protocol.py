"""What the replica protocol takes from decisions: beside a server that answers without it.

The two servers take turns on the server's core; a third one, beside the load, takes the mutations,
so that what they cost themselves is not in the figures: only what another replica's mutations cost
this one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Event
from typing import Final, LiteralString

from benchmarks import mutations
from benchmarks.figures import Bound, Figure, Target, ratios, spread
from benchmarks.h2load import Traffic
from benchmarks.report import Progress
from benchmarks.seed import Match
from benchmarks.server import Variant
from benchmarks.servers import Server
from benchmarks.stand import Site, Stand, standing
from benchmarks.throughput import Kind, Rounds, authorize, burst
from licet.domain.names import Principal

SECTION: Final = "The replica protocol"
AT_REST_TARGET: Final = Target(Bound.AT_LEAST, 0.97)
MUTATED_TARGET: Final = Target(Bound.AT_LEAST, 0.85)
MUTATIONS: Final = 200
"""A second; of other principals than the one asked about."""
# A little less, because a burst ends with some under way.
RATE_TARGET: Final = Target(Bound.AT_LEAST, 0.95 * MUTATIONS)

# One client paces them evenly; several would mutate in step, and share commits and revisions.
_TRAFFIC: Final = Traffic(connections=1, streams=32, rate=MUTATIONS)
_REVISION: Final[LiteralString] = "SELECT max(revision) FROM licet.changes"
_WARM_UP_SECONDS: Final = 0.5
_LEAD_SECONDS: Final = 0.25
"""By how much the mutations begin earlier, and end later, than the decisions."""


def measure(site: Site, principal: Principal, rounds: Rounds, progress: Progress) -> list[Figure]:
    """Compare a server with one without the protocol, at rest and while others are mutated."""
    site.keep_to({site.cores.load})
    with (
        standing(site, Variant.LICET, Variant.WITHOUT_PROTOCOL) as (licet, without),
        Server(Variant.LICET, site.url, site.state, {site.cores.load}) as server,
        Stand(site, server) as other,
        ThreadPoolExecutor(1) as thread,
    ):
        bare, at_rest, busy = (
            authorize(stand, principal, Match.EXACT) for stand in (without, licet, licet)
        )
        for stand, kind in ((without, bare), (licet, at_rest)):
            burst(stand, kind, _WARM_UP_SECONDS)
            kind.rates.clear()
        mutated = _Mutated(other, thread)
        runs: list[tuple[Stand, Kind, Callable[[], AbstractContextManager[None]]]] = [
            (without, bare, nullcontext),
            (licet, at_rest, nullcontext),
            (licet, busy, lambda: mutated.during(rounds.seconds)),
        ]
        order = random.Random(rounds.count)
        for number in range(1, rounds.count + 1):
            progress.step(f"the replica protocol, round {number} of {rounds.count}")
            for stand, kind, meanwhile in order.sample(runs, len(runs)):
                with meanwhile():
                    burst(stand, kind, rounds.seconds)
    return _figures(bare, at_rest, busy, mutated)


class _Mutated:
    """Mutations in the background, and how many a second there were, and how many revisions."""

    def __init__(self, other: Stand, thread: ThreadPoolExecutor) -> None:
        self._other = other
        self._thread = thread
        self.rates: list[float] = []
        self.revisions: list[float] = []

    @contextmanager
    def during(self, seconds: float) -> Iterator[None]:
        lasts = seconds + 2 * _LEAD_SECONDS
        before = _revision(self._other.site)
        mutating = self._thread.submit(mutations.grants, self._other, _TRAFFIC, lasts)
        Event().wait(_LEAD_SECONDS)
        yield
        self.rates.append(mutating.result() / lasts)
        self.revisions.append((_revision(self._other.site) - before) / lasts)


def _revision(site: Site) -> int:
    row = site.admin.execute(_REVISION).fetchone()
    return 0 if row is None else int(row[0])


def _figures(bare: Kind, at_rest: Kind, busy: Kind, mutated: _Mutated) -> list[Figure]:
    return [
        Figure(
            SECTION,
            "cached Authorize with the protocol at rest / without the protocol",
            ratios(at_rest.rates, bare.rates),
            target=AT_REST_TARGET,
        ),
        Figure(
            SECTION,
            f"the same during {MUTATIONS} mutations a second of others / without, at rest",
            ratios(busy.rates, bare.rates),
            target=MUTATED_TARGET,
        ),
        Figure(SECTION, "mutations meanwhile", spread(mutated.rates), "a second", RATE_TARGET),
        Figure(SECTION, "revisions meanwhile", spread(mutated.revisions), "a second"),
        Figure(
            SECTION,
            "the server's part of its core meanwhile",
            spread(busy.shares),
        ),
    ]
