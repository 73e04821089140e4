"""Pages of a large audit log, by every kind of filter; `audit_fill.py` says what is in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from time import perf_counter
from typing import Final

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks import audit_fill
from benchmarks.audit_fill import GRANT_EVERY, HOT
from benchmarks.figures import BenchmarkError, Bound, Figure, Target, tail
from benchmarks.report import Progress
from benchmarks.stand import Stand
from licet.cli.trail import trail_of
from licet.client import Client
from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_DENY

SECTION: Final = "A page of 100 of the audit log: p95, p50 and longest"
PAGE_TARGET: Final = Target(Bound.AT_MOST, 100.0)
TRAIL_TARGET: Final = Target(Bound.AT_MOST, 200.0)
_CALLS: Final = 40


def measure(stand: Stand, events: int, progress: Progress) -> list[Figure]:
    """Read a log of so many events, newest first and from days in between."""
    draw = random.Random(20261122)
    taken: dict[str, list[float]] = {}
    complete: dict[str, int] = {}
    for number in range(_CALLS):
        progress.step(f"pages of {events:,} audit events, {number + 1} of {_CALLS}")
        for name, request in _filters(draw, events).items():
            # Every other one from some instant in between on, as later pages are.
            if number % 2:
                instant = draw.randrange(audit_fill.BEGIN, audit_fill.END)
                request.to.CopyFrom(Timestamp(seconds=instant))
            milliseconds, is_complete = _page(stand, request)
            taken.setdefault(name, []).append(milliseconds)
            complete[name] = complete.get(name, 0) + is_complete
    trails = list(_trails(stand, draw, events))
    return [
        *(_figure(_named(name, complete[name]), taken[name], PAGE_TARGET) for name in taken),
        _figure("the life of a capability, the newest 100 of each kind", trails, TRAIL_TARGET),
    ]


def _metadata(**fields: str | int) -> Struct:
    struct = Struct()
    struct.update(fields)
    return struct


def _filters(draw: random.Random, events: int) -> dict[str, pb.QueryAuditRequest]:
    return {
        "no filter": pb.QueryAuditRequest(),
        "a third of all": pb.QueryAuditRequest(principal=HOT),
        "a principal": pb.QueryAuditRequest(principal=f"agent:{draw.randrange(50_000)}"),
        "an actor": pb.QueryAuditRequest(actor=f"service:gate-{draw.randrange(20)}"),
        "a resource": pb.QueryAuditRequest(
            resource=f"doc:team-{draw.randrange(2000)}/reports/{draw.randrange(7919)}"
        ),
        "a pattern": pb.QueryAuditRequest(resource=f"doc:team-{draw.randrange(2000)}/**"),
        "a pattern with `*` first": pb.QueryAuditRequest(
            resource=f"doc:*/reports/{draw.randrange(7919)}"
        ),
        "a pattern that nothing matches": pb.QueryAuditRequest(resource="doc:*/absent/**"),
        "an action": pb.QueryAuditRequest(action=f"action-{draw.randrange(30)}"),
        "an action that never was": pb.QueryAuditRequest(action="absent"),
        "a capability": pb.QueryAuditRequest(capability_id=_some_capability(draw, events)),
        "denials": pb.QueryAuditRequest(decision=DECISION_DENY),
        "a third of all, one action, denied": pb.QueryAuditRequest(
            principal=HOT, action=f"action-{draw.randrange(30)}", decision=DECISION_DENY
        ),
        "a third of all, an action that never was": pb.QueryAuditRequest(
            principal=HOT, action="absent"
        ),
        "a reason": pb.QueryAuditRequest(reason="CAPABILITY_EXPIRED"),
        "a policy": pb.QueryAuditRequest(policy_id=f"policy-{draw.randrange(9)}"),
        "a session": pb.QueryAuditRequest(session_id=f"s-{4 * draw.randrange(25_000)}"),
        "a trace": pb.QueryAuditRequest(trace_id=f"t-{draw.randrange(events // 20)}"),
        "grants": pb.QueryAuditRequest(event_types=["grant"]),
        "revocations": pb.QueryAuditRequest(event_types=["revoke"]),
        "metadata of a third": pb.QueryAuditRequest(metadata=_metadata(region="north")),
        "metadata of a few": pb.QueryAuditRequest(
            metadata=_metadata(tenant=f"t{draw.randrange(100)}")
        ),
        "metadata of one": pb.QueryAuditRequest(
            metadata=_metadata(ticket=GRANT_EVERY * draw.randrange(1, events // GRANT_EVERY))
        ),
        "metadata that never was": pb.QueryAuditRequest(metadata=_metadata(tenant="absent")),
    }


def _some_capability(draw: random.Random, events: int) -> str:
    return audit_fill.capability(draw.randint(1, audit_fill.capabilities(events)))


def _named(name: str, complete: int) -> str:
    return name if complete == _CALLS else f"{name} ({_CALLS - complete} of {_CALLS} came short)"


def _page(stand: Stand, request: pb.QueryAuditRequest) -> tuple[float, bool]:
    begin = perf_counter()
    page = stand.stub.QueryAudit(request)
    taken = 1000 * (perf_counter() - begin)
    return taken, len(page.events) == 100 or not page.next_page_token  # noqa: PLR2004 - the default


def _trails(stand: Stand, draw: random.Random, events: int) -> Iterator[float]:
    with closing(Client(stand.address)) as client:
        for _ in range(_CALLS):
            wanted = _some_capability(draw, events)
            begin = perf_counter()
            if not trail_of(client, {"capability_id": wanted}, 100).events:
                raise BenchmarkError(f"{wanted} has no events")
            yield 1000 * (perf_counter() - begin)


def _figure(name: str, times: list[float], target: Target) -> Figure:
    return Figure(SECTION, name, tail(times), "ms", target)
