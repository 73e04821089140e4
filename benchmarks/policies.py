"""What policies cost, in memory: a decision and its event without a server around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import thread_time_ns
from typing import Final

from benchmarks.figures import Bound, Figure, Target, ratios, spread
from benchmarks.report import Progress
from licet.domain.canonical_json import JsonObject
from licet.domain.capability_set import ALWAYS, NEVER, CapabilitySet, HeldCapability
from licet.domain.decision import Request, decide
from licet.domain.decision_event import decision_body
from licet.domain.instant import Instant
from licet.domain.names import Action, Caller, CapabilityId, Principal, Resource
from licet.domain.pattern import ResourcePattern
from licet.domain.policy_set import MAX_REMEMBERED, PolicySet
from licet.policies.reading import compile_set

SECTION: Final = "Policies, in memory"
FEW: Final = 10
MANY: Final = 1000
MATCHING: Final = 3
TARGET: Final = Target(Bound.AT_MOST, 1.3)
# Hours without their approvals, which nothing passes.
_BUILT_IN: Final = "system-paths@1, secrets@1, external-destinations@1, business-hours@1"

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
    built_in = compile_set(f"version: 1\ninclude: [{_BUILT_IN}]")
    deciding = [_nanoseconds(_deciding(p, _requests(1000)), rounds) for p in (None, built_in)]
    name = "deciding and encoding the event: built-in sets / no policies"
    figures.append(Figure(SECTION, name, ratios(deciding[1], deciding[0])))
    figures.append(
        Figure(SECTION, "deciding and encoding, built-in sets", spread(deciding[1]), "ns")
    )
    return figures


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
