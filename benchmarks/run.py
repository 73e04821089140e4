"""One run: everything on one stand, a table, a file, and whether the targets are held."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Final

import grpc
from rich.console import Console

from benchmarks import (
    audit_log,
    flood,
    h2load,
    matching,
    memory,
    mutations,
    policies,
    protocol,
    reads_and_changes,
    report,
    revocation,
    seed,
    spool,
    throughput,
    tls,
    workers,
)
from benchmarks.figures import BenchmarkError, Figure
from benchmarks.report import Progress
from benchmarks.seed import FEW, MANY
from benchmarks.server import Variant
from benchmarks.stand import Cores, Stand, preparing, standing
from benchmarks.throughput import Rounds
from licet.storage.embedded import EmbeddedPostgresError

HELD: Final = 0
MISSED: Final = 1
"""A target is missed."""
IMPOSSIBLE: Final = 2
"""Nothing could be measured."""

INTERRUPTED: Final = 130

_BUSY: Final = 0.5
_WIDTH: Final = 120

_FLEET: Final = seed.principals("fleet", 10)
_COLD: Final = seed.principals("cold", 200)
_SINGLE: Final = seed.principals("single", 200)
_THOUSAND: Final = seed.principals("thousand", 1)
_MANY: Final = seed.principals("many", 1)
_GROUPS: Final = {1: _SINGLE, FEW: _COLD, 1000: _THOUSAND, MANY: _MANY}
_HOLDINGS: Final = dict.fromkeys(_FLEET, FEW) | {
    principal: size for size, group in _GROUPS.items() for principal in group
}


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        name: of this effort.
        calls: rounds of the comparison of kinds of calls.
        principals: rounds of the comparison of principals.
        flood: rounds of the comparison of callers with and without a flood.
        in_memory: how many rounds of what needs no server.
        repetitions: of what one client does.
        workers: rounds of the comparison of two workers with one.
        protocol: rounds of the comparison with a server without the replica protocol.
        tls: rounds of the comparison of TLS with plain text.
        mutations: rounds of the comparison of many clients that mutate with one.
        revocations: how many rounds of revocations.
        audit_events: in the log that is sealed, proven, verified and read page by page.
        audit_rounds: how many of what is measured again and again of that.
    """

    name: str
    calls: Rounds
    principals: Rounds
    flood: Rounds
    in_memory: int
    repetitions: int
    workers: Rounds
    protocol: Rounds
    tls: Rounds
    mutations: Rounds
    revocations: int
    audit_events: int
    audit_rounds: int


def main(effort: Effort) -> int:
    """Measure, tell, and return the status to exit with."""
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH  # else 80 columns
    signal.signal(signal.SIGTERM, _end)
    load, _, _ = os.getloadavg()
    if load > _BUSY:
        console.print(f"the machine is busy (load {load:.1f}): times will be too long")
    try:
        with Progress(console) as progress:
            figures = _measure(effort, progress)
    except (BenchmarkError, EmbeddedPostgresError) as exc:
        print(exc, file=sys.stderr)
        return IMPOSSIBLE
    except KeyboardInterrupt:
        return INTERRUPTED
    except grpc.RpcError as exc:
        print(f"a call failed: {exc}", file=sys.stderr)
        return IMPOSSIBLE
    console.print(report.table(figures))
    console.print(f"written to benchmarks/results/{report.write(figures, effort.name, load).name}")
    return MISSED if any(figure.is_missed for figure in figures) else HELD


def _measure(effort: Effort, progress: Progress) -> list[Figure]:
    h2load.program()  # before minutes are spent
    cores = Cores.of_this_machine()
    in_memory = [
        *matching.measure(effort.in_memory, progress),
        *policies.measure(effort.in_memory, progress),
    ]
    on_record = spool.measure(effort.in_memory, progress)
    progress.step(f"filling a database of its own with {sum(_HOLDINGS.values()):,} capabilities")
    with preparing(cores, _HOLDINGS) as site, standing(site, Variant.LICET) as (stand,):
        # Reads first: under load the audit log grows, and PostgreSQL tidies up behind it.
        calls = _one_by_one(stand, effort, progress)
        with standing(site, Variant.UNSYNCED, Variant.STOCK) as others:
            stands = throughput.Stands(stand, *others)
            audited = throughput.measure(stands, _FLEET, effort.calls, progress)
        under_load = [
            *audited,
            *flood.measure(stand, _FLEET[0], effort.flood, progress),
            *throughput.measure_matching(stand, _FLEET[0], _MANY[0], effort.principals, progress),
        ]
        weights = memory.measure(stand.url, _GROUPS, progress)
    audit = audit_log.measure(cores, effort.audit_events, effort.audit_rounds, progress)
    return [
        *under_load,
        *_several_servers(cores, effort, progress),
        *in_memory,
        *on_record,
        *calls,
        *weights,
        *audit,
    ]


def _several_servers(cores: Cores, effort: Effort, progress: Progress) -> list[Figure]:
    progress.step("a small database of its own, for several servers")
    with preparing(cores, dict.fromkeys(_FLEET, FEW)) as site:
        return [
            *workers.measure(site, _FLEET[0], effort.workers, progress),
            *protocol.measure(site, _FLEET[0], effort.protocol, progress),
            *tls.measure(site, _FLEET[0], effort.tls, progress),
            *mutations.measure(site, effort.mutations, progress),
            *revocation.measure(site, effort.revocations, progress),
        ]


def _one_by_one(stand: Stand, effort: Effort, progress: Progress) -> list[Figure]:
    return [
        reads_and_changes.measure_grants(stand, effort.repetitions, progress),
        *reads_and_changes.measure_listing(stand, _MANY[0], effort.repetitions, progress),
        *reads_and_changes.measure_misses(stand, _COLD, _MANY[0], progress),
    ]


def _end(_number: int, _frame: FrameType | None) -> None:
    # Unwinds, so that nothing is left running.
    raise SystemExit(IMPOSSIBLE)
