"""What goes to the database, called one after the other by one client."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Final

from benchmarks import seed
from benchmarks.figures import BenchmarkError, Bound, Figure, Target, ratios, spread
from benchmarks.report import Progress
from benchmarks.seed import FEW, MANY, Match
from benchmarks.stand import Stand
from licet.domain.names import Principal
from licet.v1 import authorization_pb2 as pb

SECTION: Final = "Reads and changes, one client"
GRANTS: Final = 1000
GRANTS_TARGET: Final = Target(Bound.AT_MOST, 5.0)
PAGE: Final = 1000
PAGES_TARGET: Final = Target(Bound.AT_MOST, 1.5)
_LOADS: Final = 5


def measure_grants(stand: Stand, rounds: int, progress: Progress) -> Figure:
    """Grant, again and again."""
    taken = []
    for number in range(1, rounds + 1):
        progress.step(f"{GRANTS:,} grants, {number} of {rounds}")
        begin = perf_counter()
        for i in range(GRANTS):
            stand.stub.Grant(
                pb.GrantRequest(
                    principal=f"agent:granted-{i % 100:04d}",
                    actions=seed.ACTIONS,
                    resource=f"doc:grants/{number}/{i:06d}",
                )
            )
        taken.append(perf_counter() - begin)
    return Figure(SECTION, f"{GRANTS:,} grants", spread(taken), "s", GRANTS_TARGET)


def measure_listing(stand: Stand, many: Principal, rounds: int, progress: Progress) -> list[Figure]:
    """List MANY capabilities, and compare the last tenth of the pages with the first."""
    walks = []
    for number in range(1, rounds + 1):
        progress.step(f"{MANY:,} capabilities page by page, {number} of {rounds}")
        walks.append(_walk(stand, many))
    tenth = len(walks[0]) // 10
    first = [median(walk[:tenth]) for walk in walks]
    last = [median(walk[-tenth:]) for walk in walks]
    return [
        Figure(
            SECTION,
            f"pages of {MANY:,} capabilities: last tenth / first tenth",
            ratios(last, first),
            target=PAGES_TARGET,
        ),
        Figure(SECTION, f"a page of {PAGE:,}", spread([1000 * median(w) for w in walks]), "ms"),
        Figure(SECTION, f"all {MANY:,}", spread([sum(walk) for walk in walks]), "s"),
    ]


def _walk(stand: Stand, many: Principal) -> list[float]:
    pages: list[float] = []
    listed, token = 0, ""
    while token or not pages:
        begin = perf_counter()
        page = stand.stub.ListCapabilities(
            pb.ListCapabilitiesRequest(principal=many, page_size=PAGE, page_token=token)
        )
        pages.append(perf_counter() - begin)
        listed += len(page.capabilities)
        token = page.next_page_token
    if listed < MANY:
        raise BenchmarkError(f"only {listed} capabilities were listed")
    return pages


def measure_misses(
    stand: Stand, cold: Sequence[Principal], many: Principal, progress: Progress
) -> list[Figure]:
    """Ask for principals that are not in memory, then again now that they are."""
    progress.step("cache misses")
    known = [_twice(stand, principal) for principal in cold]
    unknown = [_twice(stand, principal) for principal in seed.principals("unknown", len(cold))]
    loads = []
    for number in range(_LOADS):
        # Evicts the principal.
        stand.stub.Grant(
            pb.GrantRequest(principal=many, actions=["read"], resource=f"doc:extra/{number}")
        )
        loads.append(_ask(stand, many))
    figures = []
    for name, pairs in ((f"a principal of {FEW} capabilities", known), ("an unknown one", unknown)):
        misses, hits = [miss for miss, _ in pairs], [hit for _, hit in pairs]
        figures += [
            Figure(SECTION, f"Authorize, miss / hit, {name}", ratios(misses, hits)),
            Figure(SECTION, f"Authorize, miss, {name}", spread([1000 * m for m in misses]), "ms"),
        ]
    figures.append(
        Figure(
            SECTION, f"Authorize, miss, a principal of {MANY:,} capabilities", spread(loads), "s"
        )
    )
    return figures


def _twice(stand: Stand, principal: Principal) -> tuple[float, float]:
    return _ask(stand, principal), _ask(stand, principal)


def _ask(stand: Stand, principal: Principal) -> float:
    request = pb.AuthorizeRequest(
        principal=principal, action="read", resource=seed.covered(Match.EXACT, 0)
    )
    begin = perf_counter()
    stand.stub.Authorize(request)
    return perf_counter() - begin
