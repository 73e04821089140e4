"""What a key costs, and a flood of credentials that are not valid beside those who call.

The flood comes from the address of those callers, and so do they from it: what keeps them apart is
that they are known. Their calls are counted in seconds of the server's core, all of it: what the
flood takes from it is theirs to pay. That is what the clock would say if the load had a core of its
own, which two generators beside PostgreSQL do not have here.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import Event
from time import perf_counter
from typing import Final

from rich.console import Console

from benchmarks import customs
from benchmarks.figures import BenchmarkError, Bound, Figure, Target, ratios, spread
from benchmarks.h2load import FULL, Traffic
from benchmarks.report import Progress, table
from benchmarks.seed import FEW, Match
from benchmarks.server import Variant
from benchmarks.stand import Cores, Stand, preparing, standing
from benchmarks.throughput import Kind, Rounds, authorize
from licet.domain.names import Principal

SECTION: Final = "A flood of credentials that are not valid"
KNOWN_TARGET: Final = Target(Bound.AT_LEAST, 0.95)
FLOODED_TARGET: Final = Target(Bound.AT_LEAST, 0.8)
MEMORY_TARGET: Final = Target(Bound.AT_MOST, 1.1)
OFFERED: Final = 10_000
"""Calls a second."""

_CONNECTIONS: Final = 8
_INVALID: Final = f"Bearer licet_{'0' * 16}_{'0' * 59}"
_FLOOD: Final = Traffic(_CONNECTIONS, 128, OFFERED // _CONNECTIONS, _INVALID)
_LEAD_SECONDS: Final = 0.5
"""By how much the flood begins earlier, and ends later, than the burst that is measured."""
_WARM_UP_SECONDS: Final = 0.5
_TURNS: Final = 6
"""In a round: a key costs less than two bursts differ by chance, so many short ones take turns,
each two of them in both orders."""
_TURN_SECONDS: Final = 0.25
"""Of a second that a burst of a round lasts elsewhere."""
_MIB: Final = 1024 * 1024
_ALONE: Final = Principal("agent:flooded")


@dataclass(slots=True)
class _Callers:
    """Those who call, and what was measured of them, round by round.

    Attributes:
        traffic: how they call.
        rates: calls in a second of the server's core.
        clocked: calls in a second of the clock.
        calls: how many, in all.
        spent: seconds of the server's core, in all.
    """

    traffic: Traffic
    rates: list[float] = field(default_factory=list)
    clocked: list[float] = field(default_factory=list)
    calls: int = 0
    spent: float = 0.0


@dataclass(slots=True)
class _Flood:
    """What the flood got, round by round.

    Attributes:
        answered: of its calls, in a second of the clock.
        resident: what the server's memory was after each, in bytes.
    """

    answered: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)


def measure(stand: Stand, principal: Principal, rounds: Rounds, progress: Progress) -> list[Figure]:
    """Compare callers with a key with callers without, and with themselves under a flood.

    Raises:
        BenchmarkError: a caller was refused.
    """
    kind, key = authorize(stand, principal, Match.EXACT), customs.key(stand.channel)
    known, flooded = (_Callers(FULL._replace(credential=key)) for _ in range(2))
    flood, order = _Flood(), random.Random(rounds.count)
    # Known before anybody floods.
    compared = _compared(stand, kind, known.traffic, rounds, progress)
    with ThreadPoolExecutor(1) as thread:
        # Also the memory that a flood takes once, and the next one takes again.
        stored = stand.shipped()
        with _flooding(stand, kind, thread, _WARM_UP_SECONDS, _Flood()):
            calls = _burst(stand, kind, _Callers(known.traffic), _WARM_UP_SECONDS)
        stand.await_shipped(stored + calls)
        before = _resident(stand)
        for number in range(1, rounds.count + 1):
            progress.step(f"a flood of credentials, round {number} of {rounds.count}")
            for callers in order.sample([known, flooded], 2):
                meanwhile: AbstractContextManager[None] = nullcontext()
                if callers is flooded:
                    meanwhile = _flooding(stand, kind, thread, rounds.seconds, flood)
                stored = stand.shipped()
                with meanwhile:
                    calls = _burst(stand, kind, callers, rounds.seconds)
                # The next burst must not pay for this one's events; and each answer must have one.
                stand.await_shipped(stored + calls)
    return _figures(compared, known, flooded, flood, before)


def _compared(
    stand: Stand, kind: Kind, with_key: Traffic, rounds: Rounds, progress: Progress
) -> list[float]:
    """Compare callers with a key with callers without, and return the ratio of each round."""
    stored = stand.shipped()
    warm_up = [_burst(stand, kind, _Callers(each), _WARM_UP_SECONDS) for each in (with_key, FULL)]
    stand.await_shipped(stored + sum(warm_up))
    found = []
    for number in range(1, rounds.count + 1):
        progress.step(f"with a key and without, round {number} of {rounds.count}")
        known, anonymous, stored = _Callers(with_key), _Callers(FULL), stand.shipped()
        # Whoever begins a round ends it, and leaves what nobody pays for.
        outer, inner = (known, anonymous) if number % 2 else (anonymous, known)
        for _ in range(_TURNS):
            for callers in (outer, inner, inner, outer):
                _burst(stand, kind, callers, rounds.seconds * _TURN_SECONDS)
        found.append((known.calls / known.spent) / (anonymous.calls / anonymous.spent))
        # Bursts pay for each other's events, both alike; each answer must have one.
        stand.await_shipped(stored + known.calls + anonymous.calls)
    return found


def _burst(stand: Stand, kind: Kind, callers: _Callers, seconds: float) -> int:
    used, begin = stand.server_seconds(), perf_counter()
    # Each answer must have the size of a decision: nobody was refused.
    calls = stand.load.burst(
        kind.method, kind.request, kind.response_bytes, seconds, callers.traffic
    )
    taken, spent = perf_counter() - begin, stand.server_seconds() - used
    callers.rates.append(calls / spent)
    callers.clocked.append(calls / taken)
    callers.calls += calls
    callers.spent += spent
    return calls


@contextmanager
def _flooding(
    stand: Stand, kind: Kind, thread: ThreadPoolExecutor, seconds: float, flood: _Flood
) -> Iterator[None]:
    lasts = seconds + 2 * _LEAD_SECONDS
    refused = thread.submit(stand.load.refusals, kind.method, kind.request, lasts, _FLOOD)
    Event().wait(_LEAD_SECONDS)
    yield
    if refused.done():
        raise BenchmarkError("the flood was over before the burst was")
    flood.answered.append(refused.result() / lasts)
    flood.resident.append(_resident(stand))


def _resident(stand: Stand) -> float:
    return float(stand.server.resident())


def _figures(
    compared: list[float], known: _Callers, flooded: _Callers, flood: _Flood, before: float
) -> list[Figure]:
    return [
        Figure(
            SECTION,
            "cached Authorize, audited, with a key / without",
            spread(compared),
            target=KNOWN_TARGET,
        ),
        Figure(
            SECTION,
            f"with a key, {OFFERED:,} invalid ones a second offered beside it / none",
            ratios(flooded.rates, known.rates),
            target=FLOODED_TARGET,
        ),
        Figure(SECTION, "the same by the clock", ratios(flooded.clocked, known.clocked)),
        Figure(SECTION, "invalid ones that were refused", spread(flood.answered), "calls/s"),
        Figure(
            SECTION,
            "the server's memory after each flood / before all",
            spread([size / before for size in flood.resident]),
            target=MEMORY_TARGET,
        ),
        Figure(SECTION, "the server's memory before", spread([before / _MIB]), "MiB"),
    ]


def _main(arguments: list[str]) -> int:
    """Measure this alone, with so many rounds."""
    holdings = {_ALONE: FEW}
    with (
        Progress(console := Console()) as progress,
        preparing(Cores.of_this_machine(), holdings) as site,
        standing(site, Variant.LICET) as (stand,),
    ):
        figures = measure(stand, _ALONE, Rounds(int(arguments[0]), 1.0), progress)
    console.print(table(figures))
    return int(any(figure.is_missed for figure in figures))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:] or ["5"]))
