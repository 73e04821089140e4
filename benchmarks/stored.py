"""What a decision costs by how many capabilities are stored, and what a worker's memory is.

Each number of capabilities has a database of its own, on one PostgreSQL, and a server; they take
turns. In the memory of each are 100,000 principals, with what they hold, be it nothing: so of few
capabilities, too. The questions are about all of them, each time another one at random. What the
processor's caches do where the few principals that hold something are asked about alone is a figure
of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from benchmarks import customs, seed
from benchmarks.callers import PROCESSES, Callers, Calling, write_requests
from benchmarks.figures import (
    BenchmarkError,
    Bound,
    Curve,
    Figure,
    Found,
    Plot,
    Point,
    Target,
    ratios,
    spread,
)
from benchmarks.report import Progress
from benchmarks.seed import FEW, REVISION, Match
from benchmarks.server import Variant
from benchmarks.servers import Server
from benchmarks.stand import Site, Stand
from benchmarks.throughput import AUTHORIZE, Kind, Rounds
from benchmarks.transports import call
from licet.replica.capability_sets import CAPABILITY_BYTES, SET_BYTES
from licet.storage import migrate
from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_ALLOW

SECTION: Final = "Capabilities stored"
TARGET: Final = Target(Bound.AT_MOST, 1.1)
MEMORY_SECTION: Final = "Memory of a worker"
MEMORY_TARGET: Final = Target(Bound.AT_MOST, 500.0)
CACHED: Final = 100_000
"""Principals in memory: those that hold something have FEW capabilities each."""
SIZES: Final = (1_000, 100_000, 1_000_000)
ALL_SIZES: Final = (*SIZES, 10_000_000)

_WEIGHED: Final = 1_000_000
_CACHE_BYTES: Final = 1024 * 1024 * 1024
_BATCH: Final = 1000
_ASKED: Final = 200_000
"""Requests that a process goes through before it begins again, each about a principal at random."""
_MB: Final = 1e6
_SETTINGS: Final[LiteralString] = (
    "SELECT set_config('synchronous_commit', 'off', false),"
    " set_config('maintenance_work_mem', '512MB', false)"
)
_CREATE: Final[LiteralString] = "CREATE DATABASE {name}"
# The patterns are those of `seed.pattern`, of FEW positions.
_FILL: Final[LiteralString] = """
INSERT INTO licet.capabilities (id, principal, actions, resource, granted_by, granted_at,
  delegation_depth, granted_revision, granted_event_id)
SELECT id, 'agent:holder-' || lpad((n / 10)::text, 7, '0'), '{read,write}',
  CASE WHEN n %% 10 = 9 THEN 'doc:projects/*/' || lpad((n %% 10)::text, 6, '0')
       WHEN n %% 10 > 6 THEN 'doc:teams/' || lpad((n %% 10)::text, 6, '0') || '/**'
       ELSE 'doc:reports/2026/' || lpad((n %% 10)::text, 6, '0') END,
  'caller:benchmark', now(), 0, %(revision)s, id
FROM (SELECT n, ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id
      FROM generate_series(%(first)s::bigint, %(last)s) AS n) AS numbered
"""
_CHUNK: Final = 500_000


class _Asked(NamedTuple):
    """A server on a database with so many capabilities, and who is asked about."""

    capabilities: int
    principals: int
    stand: Stand
    kind: Kind
    callers: Callers


def measure(site: Site, sizes: Sequence[int], rounds: Rounds, progress: Progress) -> Found:
    """Compare the cost of a decision, all of it the server's, with that at the first size."""
    with ExitStack() as stack:
        figures: list[Figure] = []
        asked: list[_Asked] = []
        for size in sizes:
            asked += stack.enter_context(_served(site, size, progress, figures))
        # PostgreSQL is confined last: filling took both cores.
        site.keep_to({site.cores.load})
        order = random.Random(rounds.count)
        for each in asked:
            call(each.stand, each.kind, each.callers, rounds.seconds)
            each.kind.rates.clear()
        for number in range(1, rounds.count + 1):
            progress.step(f"capabilities stored, round {number} of {rounds.count}")
            for each in order.sample(asked, len(asked)):
                call(each.stand, each.kind, each.callers, rounds.seconds)
    stored = [each for each in asked if each.principals == CACHED]
    alone = [each for each in asked if each.principals < CACHED][:1]
    plots = [_plot(stored)] if len(sizes) > 1 else []
    return Found([*_figures(stored), *_beside(stored[-1], alone), *figures], plots)


@contextmanager
def _served(
    site: Site, size: int, progress: Progress, figures: list[Figure]
) -> Iterator[list[_Asked]]:
    """Fill a database, serve it, and have what CACHED principals hold in memory."""
    site.keep_to(site.cores.both)
    with ExitStack() as stack:
        place = stack.enter_context(_database(site, size, progress))
        settings = {
            "LICET_CACHE_BYTES": str(_CACHE_BYTES),
            "LICET_CACHE_NEGATIVE": str(2 * CACHED),
        }
        server = Server(
            Variant.LICET, place.url, place.state, {site.cores.server}, settings=settings
        )
        stand = stack.enter_context(Stand(place, stack.enter_context(server)))
        customs.put_policies(stand.channel)
        before = stand.server.private()
        holders = min(size // FEW, CACHED)
        progress.step(f"{size:,} capabilities: {CACHED:,} principals into memory")
        _warm(stand, holders)
        if size == _WEIGHED:
            figures += _weighed(before, stand.server, holders)
        # A denial has another size; which of the two each answer was has just been seen.
        sizes = [stand.stub.Authorize(_question(who)).ByteSize() for who in (0, CACHED - 1)]
        key, asked = customs.key(stand.channel), []
        for principals in sorted({holders, CACHED}):
            files = [
                write_requests(
                    place.folder / f"holders-{principals}-{number}", _questions(principals, number)
                )
                for number in range(PROCESSES)
            ]
            callings = [
                Calling(stand.address, AUTHORIZE, file, sizes, credential=key) for file in files
            ]
            callers = stack.enter_context(Callers(callings, {site.cores.load}))
            kind = Kind(AUTHORIZE, _question(0), sizes[0], 1)
            asked.append(_Asked(size, principals, stand, kind, callers))
        yield asked


@contextmanager
def _database(site: Site, size: int, progress: Progress) -> Iterator[Site]:
    name = f"stored_{size}"
    site.admin.execute(sql.SQL(_CREATE).format(name=sql.Identifier(name)))
    url = make_conninfo(site.url, dbname=name)
    migrate.up(url)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(_SETTINGS)
        admin.execute(seed.CHANGE, [REVISION])
        for first in range(0, size, _CHUNK):
            progress.step(f"{size:,} capabilities: {first:,} are stored")
            last = min(first + _CHUNK, size) - 1
            admin.execute(_FILL, {"first": first, "last": last, "revision": REVISION})
        admin.execute("VACUUM ANALYZE licet.capabilities")
        admin.execute("CHECKPOINT")
    folder, state = site.folder / name, site.state / name
    folder.mkdir()
    state.mkdir()
    place = Site(url, folder, state, site.cores)
    try:
        yield place
    finally:
        place.close()


def _warm(stand: Stand, holders: int) -> None:
    for first in range(0, CACHED, _BATCH):
        together = range(first, first + _BATCH)
        asked = [_question(number) for number in together]
        answered = stand.stub.BatchAuthorize(pb.BatchAuthorizeRequest(requests=asked))
        for number, answer in zip(together, answered.responses, strict=True):
            if (answer.decision == DECISION_ALLOW) != (number < holders):
                raise BenchmarkError(f"principal {number} of {holders} that hold: {answer}")


def _question(holder: int) -> pb.AuthorizeRequest:
    return pb.AuthorizeRequest(
        principal=f"agent:holder-{holder:07d}",
        action="read",
        resource=seed.covered(Match.EXACT, holder % FEW),
    )


def _questions(principals: int, number: int) -> list[pb.AuthorizeRequest]:
    draw = random.Random(number)
    return [_question(draw.randrange(principals)) for _ in range(_ASKED)]


def _weighed(before: int, server: Server, holders: int) -> list[Figure]:
    held, after = FEW * holders, server.private()
    estimate = holders * SET_BYTES + held * CAPABILITY_BYTES
    figures = (
        (f"{held:,} capabilities of {holders:,} principals", (after - before) / _MB, "MB"),
        ("for each capability", (after - before) / held, "bytes"),
        ("the worker's private memory before", before / _MB, "MB"),
        ("all of the worker after, with the spool", server.resident() / _MB, "MB"),
    )
    return [
        Figure(MEMORY_SECTION, figures[0][0], spread([figures[0][1]]), "MB", MEMORY_TARGET),
        *(Figure(MEMORY_SECTION, name, spread([value]), unit) for name, value, unit in figures[1:]),
        Figure(
            MEMORY_SECTION,
            "the cache's estimate / what it took",
            spread([estimate / (after - before)]),
        ),
    ]


def _figures(stored: Sequence[_Asked]) -> list[Figure]:
    least, *others = stored
    figures = [
        Figure(
            SECTION,
            f"the server's time for a decision, {each.capabilities:,} capabilities"
            f" / {least.capabilities:,}",
            ratios(least.kind.rates, each.kind.rates),
            target=TARGET,
            settings=customs.GROUP,
        )
        for each in others
    ]
    return figures + [
        Figure(
            SECTION,
            f"{each.capabilities:,} capabilities",
            spread(each.kind.rates),
            "calls/s",
            settings=customs.GROUP,
        )
        for each in stored
    ]


def _beside(last: _Asked, alone: Sequence[_Asked]) -> list[Figure]:
    return [
        Figure(
            SECTION,
            f"the same, {last.capabilities:,} / {few.capabilities:,}, of which only the"
            f" {few.principals:,} principals that hold them are asked about",
            ratios(few.kind.rates, last.kind.rates),
            settings=customs.GROUP,
        )
        for few in alone
    ]


def _plot(stored: Sequence[_Asked]) -> Plot:
    points = [
        Point(float(each.capabilities), spread([1e6 / rate for rate in each.kind.rates]))
        for each in stored
    ]
    return Plot(
        "stored",
        "What a decision costs, by how many capabilities are stored",
        f"capabilities stored; {CACHED:,} principals in memory",
        "us of the server's core",
        [Curve("cached Authorize", points)],
        customs.GROUP,
        is_log_across=True,
    )
