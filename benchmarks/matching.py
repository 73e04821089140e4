"""What finding a capability costs, in memory: `decide` without a server around it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations, product
from time import thread_time_ns
from typing import Final

from benchmarks import seed
from benchmarks.figures import Bound, Figure, Target, ratios, spread
from benchmarks.report import Progress
from benchmarks.seed import ACTIONS, FEW, MANY, Match
from licet.domain.capability_set import ALWAYS, NEVER, CapabilitySet, HeldCapability
from licet.domain.decision import Request, decide
from licet.domain.instant import Instant
from licet.domain.names import Action, CapabilityId, Principal, Resource
from licet.domain.pattern import MAX_WILDCARD_SEGMENT, MAX_WILDCARDS, ResourcePattern

SECTION: Final = "Matching, in memory"
TARGET: Final = Target(Bound.AT_MOST, 2.0)

_PRINCIPAL: Final = Principal("agent:benchmark")
_NOW: Final = Instant(1)
# Different ones, so that not all that is touched stays in the processor's caches.
_REQUESTS: Final = 2000
_WORST_REQUESTS: Final = 20


def measure(rounds: int, progress: Progress) -> list[Figure]:
    """Compare a principal with FEW capabilities with one with MANY, way of matching by way."""
    progress.step(f"matching against {MANY:,} capabilities in memory")
    sizes = {size: CapabilitySet(_PRINCIPAL, 1, seed.held(size)) for size in (FEW, MANY)}
    runs: dict[tuple[int, Match], Callable[[], float]] = {}
    for (size, held), match in product(sizes.items(), Match):
        runs[size, match] = _run(held, _requests(size, match))
    nanoseconds = _shuffled(runs, rounds)
    figures = []
    for match in Match:
        few, many = nanoseconds[FEW, match], nanoseconds[MANY, match]
        name = f"{MANY:,} capabilities / {FEW}, {match}"
        figures.append(Figure(SECTION, name, ratios(many, few), target=TARGET))
        figures.append(Figure(SECTION, f"{MANY:,} capabilities, {match}", spread(many), "ns"))
    worst = _run(_every_mask(), [_request("/".join("abcdefghijklmnop"))] * _WORST_REQUESTS)
    figures.append(
        Figure(
            SECTION,
            "the worst that can be granted: every placement of `*`, miss",
            spread([worst() / 1000 for _ in range(3)]),
            "us",
        )
    )
    return figures


def _requests(size: int, match: Match) -> list[Request]:
    positions = random.Random(size)
    return [
        Request(
            _PRINCIPAL, Action("read"), Resource(seed.covered(match, positions.randrange(size)))
        )
        for _ in range(_REQUESTS)
    ]


def _request(path: str) -> Request:
    return Request(_PRINCIPAL, Action("read"), Resource(f"doc:{path}"))


def _run(held: CapabilitySet, requests: Sequence[Request]) -> Callable[[], float]:
    def run() -> float:
        """Return the nanoseconds of one decision, without those that others took."""
        begin = thread_time_ns()
        for request in requests:
            decide(held, request, _NOW)
        return (thread_time_ns() - begin) / len(requests)

    return run


def _shuffled(
    runs: dict[tuple[int, Match], Callable[[], float]], rounds: int
) -> dict[tuple[int, Match], list[float]]:
    order = random.Random(rounds)
    found: dict[tuple[int, Match], list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key in order.sample(list(runs), len(runs)):
            # The best of three: what interrupts a run has nothing to do with it.
            found[key].append(min(runs[key]() for _ in range(3)))
    return found


def _every_mask() -> CapabilitySet:
    """Hold a pattern for every placement of `*` that the rules allow, with and without `**`."""
    capabilities = []
    for length in range(1, MAX_WILDCARD_SEGMENT + 1):
        for stars in range(1, MAX_WILDCARDS + 1):
            for mask in combinations(range(length), stars):
                path = "/".join("*" if i in mask else "x" for i in range(length))
                capabilities += [f"doc:{path}", f"doc:{path}/**"]
    return CapabilitySet(
        _PRINCIPAL,
        1,
        [
            HeldCapability(CapabilityId(str(i)), ResourcePattern(text), ACTIONS, ALWAYS, NEVER)
            for i, text in enumerate(capabilities)
        ],
    )
