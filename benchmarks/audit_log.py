"""Pages of a large audit log, by every kind of filter, on a database of its own.

`make bench-audit EVENTS=10000000` measures this alone, with so many events.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import closing
from statistics import median, quantiles
from time import perf_counter
from typing import Final, LiteralString

import psycopg
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg import sql
from rich.console import Console

from benchmarks import report
from benchmarks.figures import BenchmarkError, Bound, Figure, Spread, Target
from benchmarks.report import Progress
from benchmarks.server import Variant
from benchmarks.stand import Cores, Stand, preparing, standing
from licet.cli.trail import trail_of
from licet.client import Client
from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_DENY

SECTION: Final = "A page of 100 of the audit log: p95, p50 and longest"
PAGE_TARGET: Final = Target(Bound.AT_MOST, 100.0)
TRAIL_TARGET: Final = Target(Bound.AT_MOST, 200.0)
DAYS: Final = 30
_CALLS: Final = 40
_DAY_SECONDS: Final = 86_400
_BEGIN: Final = 20_700 * _DAY_SECONDS  # a midnight of 2026, in UTC
_END: Final = _BEGIN + DAYS * _DAY_SECONDS
_HOT: Final = "agent:hot"

# A day is filled before it becomes a partition: its indexes are built once, from sorted events.
_DAY: Final[LiteralString] = """
CREATE TABLE audit.{name} (LIKE audit.events INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
INSERT INTO audit.{name} (v, event_id, occurred_at, event_type, actor, principal, action, resource,
  capability_id, result, reason, policy_id, session_id, trace_id, revision, metadata)
SELECT 1, ('00000000-0001-8000-8' || lpad(to_hex(n), 15, '0'))::uuid,
  to_timestamp({begin}) + (n - {first}) * interval '1 day' / {count},
  CASE WHEN n % 398 = 0 THEN 'delegate' WHEN n % 199 = 0 THEN 'grant'
       WHEN n % 997 = 0 THEN 'revoke' ELSE 'decision' END,
  'service:gate-' || h % 20,
  CASE WHEN h % 3 = 0 THEN 'agent:hot' ELSE 'agent:' || h % 50000 END,
  CASE WHEN n % 199 = 0 OR n % 997 = 0 THEN '' ELSE 'action-' || h % 30 END,
  'doc:team-' || h % 2000 || '/reports/' || h % 7919,
  '019a0000-0000-7000-8000-' || lpad(to_hex(h % 5000), 12, '0'),
  CASE WHEN n % 199 = 0 OR n % 997 = 0 THEN 'done' WHEN h % 50 = 1 THEN 'deny' ELSE 'allow' END,
  CASE WHEN h % 50 = 1 THEN CASE WHEN h % 7 = 0 THEN 'CAPABILITY_EXPIRED' ELSE 'NO_CAPABILITY' END
       ELSE '' END,
  CASE WHEN h % 5000 = 1 THEN 'policy-' || h % 9 ELSE '' END,
  CASE WHEN h % 4 = 0 THEN 's-' || h % 100000 ELSE '' END,
  CASE WHEN h % 10 = 0 THEN 't-' || n / 20 ELSE '' END, n,
  CASE WHEN n % 199 = 0 THEN jsonb_build_object('ticket', n, 'tenant', 't' || h % 100,
       'parent_id', '019a0000-0000-7000-8000-' || lpad(to_hex(h % 5000), 12, '0'))
       WHEN h % 3 = 1 THEN '{{"region": "north"}}' ELSE '{{}}' END
FROM (SELECT n, (n * 2654435761) % 1000003 AS h
      FROM generate_series({first}::bigint, {first} + {count} - 1) AS n) AS numbered;
ALTER TABLE audit.events ATTACH PARTITION audit.{name}
  FOR VALUES FROM ({lower}) TO ({upper});
ANALYZE audit.{name};
"""


def fill(url: str, events: int, progress: Progress) -> float:
    """Fill the log with events over DAYS days; return how many seconds that took."""
    begin = perf_counter()
    a_day = events // DAYS
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SET timezone = 'UTC'")
        admin.execute("SET synchronous_commit = off")
        admin.execute("SET maintenance_work_mem = '256MB'")
        for day in range(DAYS):
            progress.step(f"{events:,} audit events, day {day + 1} of {DAYS}")
            lower = _END - (DAYS - day) * _DAY_SECONDS
            row = admin.execute(
                "SELECT 'events_' || to_char(to_timestamp(%(at)s), 'YYYYMMDD'),"
                " to_timestamp(%(at)s)::text, (to_timestamp(%(at)s) + interval '1 day')::text",
                {"at": lower},
            ).fetchone()
            if row is None:
                raise BenchmarkError("PostgreSQL knows no days")
            admin.execute(
                sql.SQL(_DAY).format(
                    name=sql.Identifier(row[0]),
                    begin=sql.Literal(lower),
                    first=sql.Literal(day * a_day + 1),
                    count=sql.Literal(a_day),
                    lower=sql.Literal(row[1]),
                    upper=sql.Literal(row[2]),
                )
            )
    return perf_counter() - begin


def _metadata(**fields: str | int) -> Struct:
    struct = Struct()
    struct.update(fields)
    return struct


def _filters(draw: random.Random, events: int) -> dict[str, pb.QueryAuditRequest]:
    capability = f"019a0000-0000-7000-8000-{draw.randrange(5000):012x}"
    return {
        "no filter": pb.QueryAuditRequest(),
        "a third of all": pb.QueryAuditRequest(principal=_HOT),
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
        "a capability": pb.QueryAuditRequest(capability_id=capability),
        "denials": pb.QueryAuditRequest(decision=DECISION_DENY),
        "a third of all, one action, denied": pb.QueryAuditRequest(
            principal=_HOT, action=f"action-{draw.randrange(30)}", decision=DECISION_DENY
        ),
        "a third of all, an action that never was": pb.QueryAuditRequest(
            principal=_HOT, action="absent"
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
            metadata=_metadata(ticket=199 * draw.randrange(1, events // 199))
        ),
        "metadata that never was": pb.QueryAuditRequest(metadata=_metadata(tenant="absent")),
    }


def measure(cores: Cores, events: int, progress: Progress) -> list[Figure]:
    """Fill a log and read it, newest first and from days in between."""
    with preparing(cores, {}) as site, standing(site, Variant.LICET) as (stand,):
        seconds = fill(site.url, events, progress)
        draw = random.Random(20261122)
        taken: dict[str, list[float]] = {}
        complete: dict[str, int] = {}
        for number in range(_CALLS):
            progress.step(f"pages of {events:,} audit events, {number + 1} of {_CALLS}")
            for name, request in _filters(draw, events).items():
                # Every other one from some instant in between on, as later pages are.
                if number % 2:
                    request.to.CopyFrom(Timestamp(seconds=draw.randrange(_BEGIN, _END)))
                milliseconds, is_complete = _page(stand, request)
                taken.setdefault(name, []).append(milliseconds)
                complete[name] = complete.get(name, 0) + is_complete
        trails = list(_trails(stand, draw))
    figures = [
        _figure(_named(name, complete[name]), times, PAGE_TARGET) for name, times in taken.items()
    ]
    return [
        *figures,
        _figure("the life of a capability, the newest 100 of each kind", trails, TRAIL_TARGET),
        Figure(SECTION, f"filling it with {events:,}", Spread(seconds, seconds, seconds), "s"),
    ]


def _named(name: str, complete: int) -> str:
    return name if complete == _CALLS else f"{name} ({_CALLS - complete} of {_CALLS} came short)"


def _page(stand: Stand, request: pb.QueryAuditRequest) -> tuple[float, bool]:
    begin = perf_counter()
    page = stand.stub.QueryAudit(request)
    taken = 1000 * (perf_counter() - begin)
    return taken, len(page.events) == 100 or not page.next_page_token  # noqa: PLR2004 - the default


def _trails(stand: Stand, draw: random.Random) -> Iterator[float]:
    with closing(Client(stand.address)) as client:
        for _ in range(_CALLS):
            capability = f"019a0000-0000-7000-8000-{draw.randrange(5000):012x}"
            begin = perf_counter()
            if not trail_of(client, {"capability_id": capability}, 100).events:
                raise BenchmarkError(f"{capability} has no events")
            yield 1000 * (perf_counter() - begin)


def _figure(name: str, times: list[float], target: Target) -> Figure:
    p95 = quantiles(times, n=20, method="inclusive")[-1]
    return Figure(SECTION, name, Spread(median(times), p95, max(times)), "ms", target)


def _main(arguments: list[str]) -> int:
    events = int(arguments[0]) if arguments else 1_000_000
    console = Console(width=120)
    with Progress(console) as progress:
        figures = measure(Cores.of_this_machine(), events, progress)
    console.print(report.table(figures))
    return int(any(figure.is_missed for figure in figures))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
