"""Mutations: many clients at once beside one, and beside what the database takes without licet.

Wall-clock time: a client waits for a commit and for the replicas, not for a processor.
"""

from __future__ import annotations

import random
from itertools import count
from time import perf_counter
from typing import Final, LiteralString

from psycopg import Connection
from psycopg.rows import TupleRow

from benchmarks import customs, seed
from benchmarks.figures import BenchmarkError, Bound, Figure, Target, ratios, spread
from benchmarks.h2load import Traffic
from benchmarks.report import Progress
from benchmarks.server import Variant
from benchmarks.stand import Site, Stand, standing
from benchmarks.throughput import NO_OP_OF_STOCK, Rounds, burst, no_op
from licet.replica.clock import SystemClock
from licet.v1 import authorization_pb2 as pb
from licet.writer.ids import TimeOrderedIds

SECTION: Final = "Mutations"
CLIENTS: Final = 64
SPEED_UP_TARGET: Final = Target(Bound.AT_LEAST, 20.0)
ROWS: Final = 200
"""How many rows an insert without licet has, as many as a batch of licet at most."""
RAW_TARGET: Final = Target(Bound.AT_LEAST, 0.3)

_GRANT: Final = "/licet.v1.AuthorizationService/Grant"
_ONE: Final = Traffic(1, 1)
_MANY: Final = Traffic(CLIENTS, 1)
_WARM_UP_SECONDS: Final = 0.5

_WRITTEN: Final[LiteralString] = """
SELECT (SELECT count(*) FROM licet.capabilities WHERE principal = %(principal)s),
       (SELECT count(*) FROM audit.events
        WHERE principal = %(principal)s AND event_type = 'grant')
"""
_RAW_TABLE: Final[LiteralString] = (
    "CREATE TABLE raw_capabilities (LIKE licet.capabilities INCLUDING ALL)"
)
_RAW_INSERT: Final[LiteralString] = """
INSERT INTO raw_capabilities (id, principal, actions, resource, granted_by, granted_at,
                              delegation_depth, granted_revision, granted_event_id) VALUES
"""
_RAW_ROW: Final[LiteralString] = "(%s, %s, %s, %s, 'caller:benchmark', now(), 0, 1, %s)"

_bursts: Final = count()


def measure(site: Site, rounds: Rounds, progress: Progress) -> list[Figure]:
    """Compare CLIENTS clients with one, and with an insert of ROWS rows at a time.

    And show what an RPC that does nothing takes of the same clients.
    """
    site.keep_to({site.cores.load})
    with standing(site, Variant.LICET, Variant.STOCK) as (stand, stock):
        raw, nothing = _RawInsert(site.admin), no_op()

        def no_ops(seconds: float) -> float:
            burst(stock, nothing, seconds, _MANY)
            return nothing.clocked[-1]

        runs = {
            "one": lambda seconds: grants(stand, _ONE, seconds) / seconds,
            "many": lambda seconds: grants(stand, _MANY, seconds) / seconds,
            "raw": raw.rate,
            "no-op": no_ops,
        }
        for run in runs.values():
            run(_WARM_UP_SECONDS)
        found: dict[str, list[float]] = {name: [] for name in runs}
        order = random.Random(rounds.count)
        for number in range(1, rounds.count + 1):
            progress.step(f"mutations, round {number} of {rounds.count}")
            for name in order.sample(list(runs), len(runs)):
                found[name].append(runs[name](rounds.seconds))
    return [
        Figure(
            SECTION,
            f"grants a second, {CLIENTS} clients at once / one",
            ratios(found["many"], found["one"]),
            target=SPEED_UP_TARGET,
        ),
        Figure(
            SECTION,
            f"grants a second, {CLIENTS} clients / rows of an insert of {ROWS} at a time",
            ratios(found["many"], found["raw"]),
            target=RAW_TARGET,
        ),
        Figure(SECTION, "one client", spread(found["one"]), "grants/s"),
        Figure(SECTION, f"{CLIENTS} clients", spread(found["many"]), "grants/s"),
        Figure(SECTION, f"an insert of {ROWS} at a time", spread(found["raw"]), "rows/s"),
        Figure(
            SECTION,
            f"{NO_OP_OF_STOCK}, {CLIENTS} clients",
            spread(found["no-op"]),
            "calls/s",
            settings=customs.STOCK,
        ),
    ]


def grants(stand: Stand, traffic: Traffic, seconds: float) -> int:
    """Grant for some seconds, to a principal of this burst, and return how often it succeeded.

    Raises:
        BenchmarkError: what was answered is not what is stored, or not what is on record.
    """
    principal = f"agent:burst-{next(_bursts):06d}"
    request = pb.GrantRequest(
        principal=principal, actions=seed.ACTIONS, resource="doc:reports/2026/granted"
    )
    calls = stand.load.calls(_GRANT, request, seconds, traffic)
    with Connection.connect(stand.url) as connection:
        stored, recorded = connection.execute(_WRITTEN, {"principal": principal}).fetchone() or (
            0,
            0,
        )
    # Those that were under way at the end may be there as well.
    if not calls <= stored <= calls + traffic.in_flight or stored != recorded:
        raise BenchmarkError(
            f"{calls} grants were answered, {stored} are stored, {recorded} are on record"
        )
    return calls


class _RawInsert:
    """Inserts into a table like that of the capabilities, with its indexes and no licet."""

    def __init__(self, connection: Connection[TupleRow]) -> None:
        self._connection = connection
        self._ids = TimeOrderedIds(SystemClock())
        self._statement = _RAW_INSERT + ", ".join([_RAW_ROW] * ROWS)
        connection.execute(_RAW_TABLE)

    def rate(self, seconds: float) -> float:
        """Insert for some seconds and return how many rows a second were."""
        begin, rows = perf_counter(), 0
        while (taken := perf_counter() - begin) < seconds:
            inserted = self._connection.execute(self._statement, self._values(), prepare=True)
            rows += inserted.rowcount
        return rows / taken

    def _values(self) -> list[object]:
        values: list[object] = []
        for _ in range(ROWS):
            identifier = self._ids.capability_id()
            values += [
                identifier,
                "agent:raw",
                list(seed.ACTIONS),
                "doc:reports/2026/granted",
                identifier,
            ]
        return values
