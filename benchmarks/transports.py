"""A Unix socket, and clients with certificates, beside stock gRPC's no-op over TCP.

The load over the socket is h2load's. It cannot show a certificate: those calls are made by
`callers.py`, and so are those of the no-op that stands below them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter
from typing import Final

from benchmarks import customs
from benchmarks.callers import PROCESSES, Callers, Calling, write_requests
from benchmarks.figures import Bound, Figure, Target, ratios, spread
from benchmarks.report import Progress
from benchmarks.seed import Match
from benchmarks.server import Variant
from benchmarks.stand import Site, Stand, standing
from benchmarks.throughput import NO_OP_OF_STOCK, Kind, Rounds, authorize, burst, no_op
from licet.domain.names import Principal

SECTION: Final = "Transports"
SOCKET_TARGET: Final = Target(Bound.AT_LEAST, 1.45)
MTLS_TARGET: Final = Target(Bound.AT_LEAST, 1.2)

_BY_CERTIFICATE: Final = f"`none`, client certificate, policies, {customs.LEASE}"
_WARM_UP_SECONDS: Final = 0.5


def measure(site: Site, principal: Principal, rounds: Rounds, progress: Progress) -> list[Figure]:
    """Compare a cached Authorize, audited with durability `none`, with the no-op."""
    site.keep_to({site.cores.load})
    variants = Variant.UNSYNCED, Variant.SOCKET, Variant.MTLS, Variant.STOCK
    with standing(site, *variants) as (tcp, socket, mtls, stock), ExitStack() as stack:
        customs.put_policies(tcp.channel)
        key = customs.key(tcp.channel)
        # Which of them answers is the same for what is asked.
        plain, over_socket = (authorize(tcp, principal, Match.EXACT, key) for _ in range(2))
        secret, called, empty, compared = _copy(plain), _copy(plain), no_op(), no_op()
        by_callers = {
            name: stack.enter_context(_callers(stand, kind))
            for name, stand, kind in (
                ("mtls", mtls, secret),
                ("tcp", tcp, called),
                ("no-op", stock, compared),
            )
        }
        runs: list[Callable[[float], None]] = [
            lambda seconds: burst(tcp, plain, seconds),
            lambda seconds: burst(socket, over_socket, seconds),
            lambda seconds: burst(stock, empty, seconds),
            lambda seconds: call(mtls, secret, by_callers["mtls"], seconds),
            lambda seconds: call(tcp, called, by_callers["tcp"], seconds),
            lambda seconds: call(stock, compared, by_callers["no-op"], seconds),
        ]
        for run in runs:
            run(_WARM_UP_SECONDS)
        for kind in (plain, over_socket, empty, secret, called, compared):
            for measured in (kind.rates, kind.shares, kind.costs):
                measured.clear()
        order = random.Random(rounds.count)
        for number in range(1, rounds.count + 1):
            progress.step(f"transports, round {number} of {rounds.count}")
            for run in order.sample(runs, len(runs)):
                run(rounds.seconds)
    return [
        _ratio("cached Authorize over a Unix socket", over_socket, empty, SOCKET_TARGET),
        _ratio("cached Authorize over TCP", plain, empty),
        _ratio(
            "cached Authorize with mTLS, by gRPC's own client,",
            secret,
            compared,
            MTLS_TARGET,
            _BY_CERTIFICATE,
        ),
        _ratio("cached Authorize in plain text, by gRPC's own client,", called, compared),
        Figure(SECTION, NO_OP_OF_STOCK, spread(empty.rates), "calls/s", settings=customs.STOCK),
        Figure(
            SECTION,
            f"{NO_OP_OF_STOCK}, by gRPC's own client",
            spread(compared.rates),
            "calls/s",
            settings=customs.STOCK,
        ),
        Figure(
            SECTION, "the server's part of its core, by gRPC's own client", spread(secret.shares)
        ),
    ]


def call(stand: Stand, kind: Kind, callers: Callers, seconds: float) -> None:
    """Do as `throughput.burst` does, by gRPC's own client."""
    stored, used, begin = stand.shipped(), stand.server_seconds(), perf_counter()
    calls = callers.call(seconds)
    taken, spent = perf_counter() - begin, stand.server_seconds() - used
    stand.await_shipped(stored + calls * kind.decisions)
    kind.rates.append(calls / spent)
    kind.shares.append(spent / taken)
    kind.costs.append((stand.server_seconds() - used) / calls)


def _callers(stand: Stand, kind: Kind) -> Callers:
    has_tls = stand.server.variant is Variant.MTLS
    requests = stand.site.folder / f"requests-{stand.server.port}"
    calling = Calling(
        stand.address,
        kind.method,
        write_requests(requests, [kind.request]),
        [kind.response_bytes],
        str(stand.server.folder) if has_tls else "",
        "" if has_tls else kind.credential,
    )
    return Callers([calling] * PROCESSES, {stand.site.cores.load})


def _copy(kind: Kind) -> Kind:
    return Kind(
        kind.method, kind.request, kind.response_bytes, kind.decisions, credential=kind.credential
    )


def _ratio(
    name: str,
    above: Kind,
    below: Kind,
    target: Target | None = None,
    settings: str = customs.NONE,
) -> Figure:
    return Figure(
        SECTION,
        f"{name} / {NO_OP_OF_STOCK}",
        ratios(above.rates, below.rates),
        target=target,
        settings=settings,
    )
