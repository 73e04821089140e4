"""Hits beside misses: one call in ten is about a principal that has to be read from the database.

Hits are h2load's, as many as will go. The misses beside them are made by `callers.py`, each time
for another principal, a ninth as many as there were hits in the round before. The cache has room
for a few of those principals only, so that each is forgotten long before it is asked for again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event
from time import perf_counter
from typing import Final

from benchmarks import customs, seed
from benchmarks.callers import Callers, Calling, write_requests
from benchmarks.figures import BenchmarkError, Bound, Figure, Target, ratios, spread
from benchmarks.h2load import FULL
from benchmarks.report import Progress
from benchmarks.seed import Match
from benchmarks.server import Variant
from benchmarks.servers import Server
from benchmarks.stand import Site, Stand
from benchmarks.throughput import AUTHORIZE, Kind, Rounds, authorize, burst
from licet.domain.names import Principal
from licet.v1 import authorization_pb2 as pb

SECTION: Final = "Misses among hits"
TARGET: Final = Target(Bound.AT_LEAST, 0.75)
COLD: Final = seed.principals("read", 5000)
"""Principals that are not in memory when they are asked for."""

_CACHE: Final = {"LICET_CACHE_BYTES": str(2 * 1024 * 1024)}
_FIRST_SHARE: Final = 0.06
"""Misses for each hit in the first round that warms up: hits are fewer beside misses."""
_WARM_UPS: Final = 3
_LEAD_SECONDS: Final = 0.25
"""By how much the misses begin earlier, and end later, than the hits."""


def measure(site: Site, principal: Principal, rounds: Rounds, progress: Progress) -> list[Figure]:
    """Compare hits and misses together with hits alone."""
    site.keep_to({site.cores.load})
    with ExitStack() as stack:
        core = {site.cores.server}
        server = Server(Variant.LICET, site.url, site.state, core, settings=_CACHE)
        stand = stack.enter_context(Stand(site, stack.enter_context(server)))
        customs.put_policies(stand.channel)
        key = customs.key(stand.channel)
        hits, both = (authorize(stand, principal, Match.EXACT, key) for _ in range(2))
        callers = stack.enter_context(_callers(stand, hits))
        mixed = _Mixed(stand, both, callers, stack.enter_context(ThreadPoolExecutor(1)))
        burst(stand, hits, rounds.seconds)
        mixed.rate = _FIRST_SHARE * hits.clocked[-1]
        for _ in range(_WARM_UPS):
            mixed.burst(rounds.seconds)
        for measured in (hits.rates, hits.shares, hits.costs, both.rates, mixed.parts):
            measured.clear()
        for number in range(1, rounds.count + 1):
            progress.step(f"misses among hits, round {number} of {rounds.count}")
            # Each comes first as often as the other.
            for alone in (True, False) if number % 2 else (False, True):
                if alone:
                    burst(stand, hits, rounds.seconds)
                else:
                    mixed.burst(rounds.seconds)
    return [
        Figure(
            SECTION,
            "Authorize, a tenth of them misses / hits alone",
            ratios(both.rates, hits.rates),
            target=TARGET,
            settings=customs.GROUP,
        ),
        Figure(SECTION, "misses, of all calls", spread(mixed.parts)),
        Figure(SECTION, "hits alone", spread(hits.rates), "calls/s", settings=customs.GROUP),
    ]


class _Mixed:
    """Hits with misses beside them.

    Attributes:
        rate: misses a second in the next burst.
        parts: of all calls that were misses, burst by burst.
    """

    def __init__(
        self, stand: Stand, kind: Kind, callers: Callers, thread: ThreadPoolExecutor
    ) -> None:
        self._stand = stand
        self._kind = kind
        self._callers = callers
        self._thread = thread
        self.rate = 0.0
        self.parts: list[float] = []

    def burst(self, seconds: float) -> None:
        stand, kind = self._stand, self._kind
        lasts = seconds + 2 * _LEAD_SECONDS
        stored = stand.shipped()
        missing = self._thread.submit(self._callers.call, lasts, self.rate)
        Event().wait(_LEAD_SECONDS)
        used, begin = stand.server_seconds(), perf_counter()
        hits = stand.load.burst(
            *(kind.method, kind.request, kind.response_bytes, seconds),
            FULL._replace(credential=kind.credential),
        )
        taken, spent = perf_counter() - begin, stand.server_seconds() - used
        if missing.done():
            raise BenchmarkError("the misses were over before the hits were")
        answered = missing.result()
        stand.await_shipped(stored + hits + answered)
        misses = answered * taken / lasts
        kind.rates.append((hits + misses) / spent)
        self.parts.append(misses / (hits + misses))
        self.rate = hits / taken / 9


def _callers(stand: Stand, hits: Kind) -> Callers:
    requests = [
        pb.AuthorizeRequest(
            principal=principal, action="read", resource=seed.covered(Match.EXACT, 0)
        )
        for principal in COLD
    ]
    size = stand.stub.Authorize(requests[0]).ByteSize()
    path = write_requests(stand.site.folder / "cold", requests)
    calling = Calling(stand.address, AUTHORIZE, path, [size], credential=hits.credential)
    return Callers([calling], {stand.site.cores.load})
