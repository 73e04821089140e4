"""Checks what many clients saw of many workers against the promise of licet.

A history is the calls of all clients, each with its start and end by one clock. The promise, for
each capability:

- no request that starts after a revocation of it, or of what it descends from, has returned OK is
  answered ALLOW by it;
- no request that starts after its grant has returned OK is answered DENY for it, unless a
  revocation of it, or of what it descends from, had started before the answer came;
- no request that ended before its grant started is answered ALLOW by it.

A call that failed may have had its effect at any time from its start on, or never.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from typing_extensions import override


class Operation(StrEnum):
    """What was called; a delegation is a grant with a parent."""

    GRANT = "grant"
    REVOKE = "revoke"
    AUTHORIZE = "authorize"


class Answer(StrEnum):
    """What came back; FAILED is every error."""

    OK = "OK"
    ALLOW = "ALLOW"
    DENY = "DENY"
    FAILED = "FAILED"


class Call(NamedTuple):
    """One call of one client, about one capability.

    Attributes:
        operation: what was called.
        capability: the client's own name for it, known before it exists.
        start: seconds, before the call was sent.
        end: seconds, after its answer came.
        answer: what came back.
        parent: of a delegation: the name of what it was delegated from.
        worker: who was called.
    """

    operation: Operation
    capability: str
    start: float
    end: float
    answer: Answer
    parent: str = ""
    worker: int = 0


class Violation(NamedTuple):
    """Calls that cannot all be as they are, in the order of their starts, and why."""

    rule: str
    calls: tuple[Call, ...]

    @property
    def seconds(self) -> float:
        """From the start of the first call to the end of the last."""
        return max(call.end for call in self.calls) - self.calls[0].start

    @override
    def __str__(self) -> str:
        origin = self.calls[0].start
        lines = [f"{self.rule}:"]
        for call in self.calls:
            start, end = (call.start - origin) * 1000, (call.end - origin) * 1000
            parent = f" from {call.parent}" if call.parent else ""
            lines.append(
                f"  {start:10.2f} .. {end:10.2f} ms  worker {call.worker}:"
                f" {call.operation} {call.capability}{parent} -> {call.answer}"
            )
        return "\n".join(lines)


STALE: Final = "a request that started after the revocation had returned was allowed"
"""The only rule that whatever calls are still under way cannot excuse."""
_FORGOTTEN: Final = "a request that started after the grant had returned was denied"
_EARLY: Final = "a request that ended before the grant had started was allowed"


@dataclass(slots=True)
class _Capability:
    """The calls that changed one capability."""

    parent: str = ""
    grants: list[Call] = field(default_factory=list)
    revocations: list[Call] = field(default_factory=list)


def check(calls: Iterable[Call]) -> list[Violation]:
    """Return every violation, the shortest first."""
    changed: dict[str, _Capability] = {}
    asked: list[Call] = []
    for call in calls:
        if call.operation is Operation.AUTHORIZE:
            asked.append(call)
            continue
        capability = changed.setdefault(call.capability, _Capability())
        if call.operation is Operation.GRANT:
            capability.parent = call.parent
            capability.grants.append(call)
        else:
            capability.revocations.append(call)
    found = [violation for call in asked for violation in _violations(call, changed)]
    return sorted(found, key=lambda violation: violation.seconds)


def _violations(call: Call, changed: dict[str, _Capability]) -> Iterator[Violation]:
    lineage = list(_lineage(call.capability, changed))
    grants = lineage[0].grants if lineage else []
    revocations = [revocation for member in lineage for revocation in member.revocations]
    if call.answer is Answer.ALLOW:
        over = [r for r in revocations if r.answer is Answer.OK and r.end < call.start]
        if over:
            yield _violation(STALE, max(over, key=lambda r: r.end), call)
        elif all(call.end < grant.start for grant in grants):
            yield _violation(_EARLY, *grants[:1], call)
    elif call.answer is Answer.DENY:
        before = [g for g in grants if g.answer is Answer.OK and g.end < call.start]
        if before and all(call.end < revocation.start for revocation in revocations):
            yield _violation(_FORGOTTEN, max(before, key=lambda g: g.end), call)


def _lineage(name: str, changed: dict[str, _Capability]) -> Iterator[_Capability]:
    """Yield a capability, what it was delegated from, and so on."""
    while name in changed:
        yield changed[name]
        name = changed[name].parent


def _violation(rule: str, *calls: Call) -> Violation:
    return Violation(rule, tuple(sorted(calls, key=lambda call: call.start)))


def summary(calls: Sequence[Call]) -> str:
    """Return how many calls had which answer."""
    counts: dict[str, int] = {}
    for call in calls:
        key = f"{call.operation} {call.answer}"
        counts[key] = counts.get(key, 0) + 1
    parts = [f"{key}: {count}" for key, count in sorted(counts.items())]
    return f"{len(calls)} calls ({', '.join(parts)})"
