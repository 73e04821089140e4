"""What TLS costs: beside a server in plain text, on connections that are kept.

Clients have no certificate here, because h2load cannot show one.
"""

from __future__ import annotations

import random
from typing import Final

from benchmarks.figures import Figure, ratios
from benchmarks.report import Progress
from benchmarks.seed import Match
from benchmarks.server import Variant
from benchmarks.stand import Site, standing
from benchmarks.throughput import Kind, Rounds, authorize, burst
from licet.domain.names import Principal

SECTION: Final = "TLS"
_WARM_UP_SECONDS: Final = 0.5


def measure(site: Site, principal: Principal, rounds: Rounds, progress: Progress) -> list[Figure]:
    """Compare a server with TLS with one without."""
    site.keep_to({site.cores.load})
    with standing(site, Variant.LICET, Variant.TLS) as (plain, tls):
        unencrypted = authorize(plain, principal, Match.EXACT)
        encrypted = Kind(
            unencrypted.method, unencrypted.request, unencrypted.response_bytes, decisions=1
        )
        runs = [(plain, unencrypted), (tls, encrypted)]
        for stand, kind in runs:
            burst(stand, kind, _WARM_UP_SECONDS)
            kind.rates.clear()
        order = random.Random(rounds.count)
        for number in range(1, rounds.count + 1):
            progress.step(f"TLS, round {number} of {rounds.count}")
            for stand, kind in order.sample(runs, len(runs)):
                burst(stand, kind, rounds.seconds)
    return [
        Figure(
            SECTION,
            "cached Authorize, audited, over TLS / in plain text",
            ratios(encrypted.rates, unencrypted.rates),
        )
    ]
