"""What policies cost, in memory: a decision and its event without a server around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import thread_time_ns
from typing import Final

from benchmarks.figures import Bound, Figure, Target, ratios, spread
from benchmarks.report import Progress
from licet.app.limit_ports import Exchange, Exchanged
from licet.app.ports import AT_ONCE, Deadline
from licet.domain.canonical_json import JsonObject
from licet.domain.capability_set import ALWAYS, NEVER, CapabilitySet, HeldCapability
from licet.domain.decision import Request, decide
from licet.domain.decision_event import decision_body
from licet.domain.instant import Instant
from licet.domain.names import Action, Caller, CapabilityId, Principal, Resource
from licet.domain.pattern import ResourcePattern
from licet.domain.policy_set import MAX_REMEMBERED, PolicySet
from licet.domain.token_bucket import Demand
from licet.policies.reading import compile_set
from licet.replica.lease import boottime
from licet.replica.limits import SlicedLimits

SECTION: Final = "Policies, in memory"
FEW: Final = 10
MANY: Final = 1000
MATCHING: Final = 3
TARGET: Final = Target(Bound.AT_MOST, 1.3)
BUILT_IN: Final = (
    "system-paths@1, secrets@1, dangerous-tools@1, external-destinations@1, business-hours@1"
)

_PRINCIPAL: Final = Principal("agent:benchmark")
_CALLER: Final = Caller("service:benchmark")
_NOW: Final = Instant(1_800_000_000_000_000)
_CAPABILITY: Final = HeldCapability(
    CapabilityId("0199c5f0-6a5e-7cc3-98c4-000000000001"),
    ResourcePattern("doc:**"),
    (Action("read"),),
    ALWAYS,
    NEVER,
)
_LOOPS: Final = 5000


def measure(rounds: int, progress: Progress) -> list[Figure]:
    """Compare MANY policies with FEW of which as many match, and built-in sets with none."""
    progress.step(f"{MANY:,} policies in memory")
    figures = []
    few, many = (compile_set(_document(size)) for size in (FEW, MANY))
    for what, requests in (
        ("seen before", _requests(1000)),
        ("new", _requests(3 * MAX_REMEMBERED)),
    ):
        runs = [_nanoseconds(_judging(policies, requests), rounds) for policies in (few, many)]
        name = f"{MANY:,} policies / {FEW}, {MATCHING} match, {what}"
        figures.append(Figure(SECTION, name, ratios(runs[1], runs[0]), target=TARGET))
        figures.append(Figure(SECTION, f"{MANY:,} policies, {what}", spread(runs[1]), "ns"))
    built_in = compile_set(f"version: 1\ninclude: [{BUILT_IN}]")
    deciding = [_nanoseconds(_deciding(p, _requests(1000)), rounds) for p in (None, built_in)]
    added, taking = limits(rounds)
    figures += [
        Figure(SECTION, "judging with a limit, beyond judging without it", spread(added), "ns"),
        Figure(SECTION, "taking a token of a slice", spread(taking), "ns"),
    ]
    name = "deciding and encoding the event: built-in sets / no policies"
    figures.append(Figure(SECTION, name, ratios(deciding[1], deciding[0])))
    figures.append(
        Figure(SECTION, "deciding and encoding, built-in sets", spread(deciding[1]), "ns")
    )
    return figures


def limits(rounds: int) -> tuple[list[float], list[float]]:
    """Compare a set that has a limit, whose tokens are in memory, with the same without it.

    Returns:
        By how many nanoseconds judging costs more, and of these what taking a token does.
    """
    other = "{name: p, require: {mfa: true}}"
    without = compile_set(f"version: 1\npolicies: [{other}]")
    limited = compile_set(f"version: 1\npolicies: [{other}, {{name: l, limit: {{rate: 1/s}}}}]")
    requests = _requests(1000)
    demands = limited.evaluate(requests[0], _CAPABILITY, _NOW).demands
    sliced = SlicedLimits(_Plenty(), boottime, lambda: 1)
    added, taking = [], []
    for _ in range(rounds):
        # A slice lasts for longer than a round.
        sliced.ask([demands])
        sliced.advance()
        plain, metered = (
            _nanoseconds(_metering(policies, sliced, requests), 1)[0]
            for policies in (without, limited)
        )
        added.append(metered - plain)
        taking.append(_nanoseconds(_taking(sliced, demands), 1)[0])
    return added, taking


class _Plenty:
    """Grants without end. A `BucketStore`."""

    def exchange(
        self, items: Sequence[Exchange], hold: int, deadline: Deadline
    ) -> Sequence[Exchanged]:
        del hold, deadline
        return [Exchanged(1 << 60, -1) for _ in items]


def _taking(limits: SlicedLimits, demands: Sequence[Demand]) -> Callable[[int], None]:
    def run(_: int) -> None:
        for _ in range(_LOOPS):
            limits.take(demands, AT_ONCE)

    return run


def _metering(
    policies: PolicySet, limits: SlicedLimits, requests: Sequence[Request]
) -> Callable[[int], None]:
    size = len(requests)

    def run(start: int) -> None:
        for number in range(start, start + _LOOPS):
            judgement = policies.evaluate(requests[number % size], _CAPABILITY, _NOW)
            if judgement.demands:
                limits.take(judgement.demands, AT_ONCE)

    return run


def _document(size: int) -> str:
    lines = ["version: 1", "policies:"]
    for number in range(size):
        about = "doc:**" if number < MATCHING else f"doc:other/{number}/**"
        match = f"match: {{resources: ['{about}'], actions: [read]}}"
        lines.append(f"  - {{name: p{number}, {match}, require: {{mfa: true}}}}")
    return "\n".join(lines)


def _requests(count: int) -> list[Request]:
    return [
        Request(_PRINCIPAL, Action("read"), Resource(f"doc:team/{n}"), JsonObject('{"mfa": true}'))
        for n in range(count)
    ]


def _judging(policies: PolicySet, requests: Sequence[Request]) -> Callable[[int], None]:
    size = len(requests)

    def run(start: int) -> None:
        for number in range(start, start + _LOOPS):
            policies.evaluate(requests[number % size], _CAPABILITY, _NOW)

    return run


def _deciding(policies: PolicySet | None, requests: Sequence[Request]) -> Callable[[int], None]:
    held = CapabilitySet(_PRINCIPAL, 1, [_CAPABILITY])
    size = len(requests)

    def run(start: int) -> None:
        for number in range(start, start + _LOOPS):
            request = requests[number % size]
            decision = decide(held, request, _NOW)
            if policies is not None:
                decision = policies.judge(decision, request, _NOW)
            decision_body(_CALLER, _NOW, request, decision)

    return run


def _nanoseconds(run: Callable[[int], None], rounds: int) -> list[float]:
    run(0)
    found = []
    for number in range(rounds):
        before = thread_time_ns()
        run(number * _LOOPS)
        found.append((thread_time_ns() - before) / _LOOPS)
    return found
