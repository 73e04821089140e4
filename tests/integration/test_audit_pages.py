"""Pages of a large log: each event once while others arrive, and no page takes long."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from threading import Event
from time import monotonic
from typing import Any, LiteralString

import pytest

from licet.app.audit_ports import AuditFilter, AuditPosition
from licet.app.read import QueryAudit
from licet.client import AuditEvent, Client
from licet.domain.audit_event import RecordedEvent
from licet.domain.canonical_json import JsonObject
from licet.domain.instant import Instant, from_datetime
from licet.domain.names import EventId
from licet.domain.pattern import ResourcePattern
from licet.storage import pool as storage
from licet.storage.audit_pages import PostgresAuditPages
from licet.storage.audit_slices import FIRST_ROWS, Partition
from licet.storage.tokens import SignedPageTokens
from tests.fakes.api import rows
from tests.fakes.postgres import Cluster, Database
from tests.fakes.serving import serving
from tests.unit.builders import PATIENT

# Filling takes a while on a busy machine, and counts for the first test.
pytestmark = pytest.mark.timeout(300)

DAY = 86_400_000_000
BASE = 1_795_305_600_000_000  # 2026-11-22T00:00:00Z
DAYS = 20
EVENTS = 300_000
SLACK_SECONDS = 1.5
"""What a page may take beyond its budget on a machine that does other things as well."""

_PARTITIONS = """
SELECT audit.ensure_partition(to_timestamp(%(base)s / 1e6) - n * interval '1 day')
FROM generate_series(0, %(days)s) AS n
"""
_COLUMNS: LiteralString = """
INSERT INTO audit.events (v, event_id, occurred_at, event_type, actor, principal, action, resource,
  capability_id, result, reason, policy_id, session_id, trace_id, revision, metadata)
"""
# One event in 6 s; a third is of one principal, and a few filters match hardly anything.
_ROW: LiteralString = """
  CASE WHEN n %% 97 = 0 THEN 'grant' ELSE 'decision' END, 'caller:' || n %% 7,
  CASE WHEN n %% 3 = 0 THEN 'agent:busy' ELSE 'agent:' || n %% 5000 END,
  CASE WHEN n %% 97 = 0 THEN '' ELSE 'action-' || n %% 40 END,
  'doc:team-' || n %% 200 || '/' || n %% 1000 || '/x', '',
  CASE WHEN n %% 97 = 0 THEN 'done' WHEN n %% 50 = 0 THEN 'deny' ELSE 'allow' END,
  CASE WHEN n %% 50 = 0 THEN 'NO_CAPABILITY' ELSE '' END, '',
  CASE WHEN n %% 9 = 0 THEN 's-' || n %% 3000 ELSE '' END,
  CASE WHEN n %% 5 = 0 THEN 't-' || n / 100 ELSE '' END, n,
  CASE WHEN n %% 97 = 0 THEN jsonb_build_object('team', n %% 11, 'ticket', n) ELSE '{}' END
"""
_FILL: LiteralString = (
    _COLUMNS
    + "SELECT 1, ('00000000-0000-8000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,"
    + " to_timestamp(%(base)s / 1e6) - n * %(days)s * interval '1 day' / %(events)s,"
    + _ROW
    + "FROM generate_series(1, %(events)s) AS n"
)
_LATE: LiteralString = (
    _COLUMNS
    + "SELECT 1, gen_random_uuid(), to_timestamp(%(at)s / 1e6) + n * interval '1 ms',"
    + _ROW
    + "FROM generate_series(%(first)s, %(first)s + 49) AS n"
)


@pytest.fixture(scope="module")
def large(cluster: Cluster, migrated_template: Database) -> Iterator[Database]:
    """Provide a log of 300,000 events over 20 days."""
    with cluster.database(migrated_template) as database:
        with database.connect() as admin:
            fields = {"base": BASE, "days": DAYS, "events": EVENTS}
            admin.execute(_PARTITIONS, fields)
            admin.execute(_FILL, fields)
            admin.execute("ANALYZE audit.events")
        yield database


class Ticking:
    """A clock that goes on by so many seconds each time it is read.

    How many slices fit a budget does not depend on how busy the machine is.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._now = 0.0

    def __call__(self) -> float:
        self._now += self._seconds
        return self._now


@contextmanager
def _reading(database: Database, tick: float) -> Iterator[QueryAudit]:
    """Provide the use case; each look at the clock costs so much of its budget of 10 s."""
    pool = storage.Database(database.url, storage.PoolLimits(max_size=2, statement_seconds=60))
    pool.open(30)
    try:
        events = PostgresAuditPages(pool, 10.0, Ticking(10 * tick))
        yield QueryAudit(events, SignedPageTokens(b"k" * 32))
    finally:
        pool.close()


def _walk(query: QueryAudit, wanted: AuditFilter, size: int) -> Iterator[Sequence[RecordedEvent]]:
    token = ""
    while True:
        page = query(wanted, size, token, PATIENT)
        yield page.items
        token = page.next_token
        if not token:
            return


def _of(**fields: Any) -> AuditFilter:  # noqa: ANN401 - any field
    return AuditFilter(**fields)


def _days(first: int, last: int) -> dict[str, Instant]:
    return {"since": Instant(BASE - first * DAY), "until": Instant(BASE - last * DAY)}


FILTERS: dict[str, tuple[AuditFilter, LiteralString]] = {
    "none": (_of(**_days(3, 2)), "occurred_at >= '2026-11-19' AND occurred_at < '2026-11-20'"),
    "busy": (
        _of(principal="agent:busy", **_days(9, 7)),
        "principal = 'agent:busy' AND occurred_at >= '2026-11-13' AND occurred_at < '2026-11-15'",
    ),
    "principal": (_of(principal="agent:77"), "principal = 'agent:77'"),
    "actor-denied": (
        _of(actor="caller:3", result="deny"),
        "actor = 'caller:3' AND result = 'deny'",
    ),
    "busy-denied": (
        _of(principal="agent:busy", result="deny", action="action-10"),
        "principal = 'agent:busy' AND result = 'deny' AND action = 'action-10'",
    ),
    "grants": (_of(event_types=("grant",)), "event_type = 'grant'"),
    "reason": (
        _of(reason="NO_CAPABILITY", until=Instant(BASE - 15 * DAY)),
        "reason = 'NO_CAPABILITY' AND occurred_at < '2026-11-07'",
    ),
    "session": (_of(session_id="s-27"), "session_id = 's-27'"),
    "trace": (_of(trace_id="t-1234"), "trace_id = 't-1234'"),
    "pattern": (
        _of(resource=ResourcePattern("doc:team-7/**")),
        "resource LIKE 'doc:team-7/%%'",
    ),
    "pattern-end": (
        _of(resource=ResourcePattern("doc:*/777/x")),
        "resource LIKE 'doc:%%/777/x'",
    ),
    "pattern-and-more": (
        _of(resource=ResourcePattern("doc:team-150/**"), result="deny", action="action-30"),
        "resource LIKE 'doc:team-150/%%' AND result = 'deny' AND action = 'action-30'",
    ),
    "metadata": (_of(metadata=JsonObject('{"team": 4}')), "metadata @> '{\"team\": 4}'"),
    "metadata-one": (
        _of(metadata=JsonObject('{"ticket": 194000}')),
        "metadata @> '{\"ticket\": 194000}'",
    ),
    "absent": (_of(action="absent"), "false"),
    "absent-pattern": (_of(resource=ResourcePattern("doc:*/absent/**")), "false"),
    "absent-metadata": (_of(metadata=JsonObject('{"team": 99}')), "false"),
}


@contextmanager
def _arriving(database: Database) -> Iterator[None]:
    """Store events all the time, of the present and of every day there is."""
    stop = Event()

    def store() -> int:
        stored = 0
        random_days = random.Random(7)
        with database.connect() as admin:
            while not stop.wait(0.05):
                at = BASE - random_days.randrange(DAYS * DAY)
                for moment in (at, BASE + stored * 1000):
                    first = random_days.randrange(EVENTS)
                    admin.execute(_LATE, {"at": moment, "first": first})
                    stored += 50
        return stored

    with ThreadPoolExecutor(1) as pool:
        storing = pool.submit(store)
        try:
            yield
        finally:
            stop.set()
            assert storing.result(30) >= 0


@pytest.mark.parametrize("name", FILTERS)
def test_each_event_is_found_once_while_others_arrive(large: Database, name: str) -> None:
    wanted, condition = FILTERS[name]
    query: LiteralString = "SELECT event_id::text FROM audit.events WHERE " + condition  # noqa: S608 - from above
    with _reading(large, 0.3) as read, _arriving(large):
        before = {event_id for (event_id,) in rows(large, query)}
        pages = list(_walk(read, wanted, 97))
    after = {event_id for (event_id,) in rows(large, query)}
    assert before or condition == "false"
    order = [(e.event.occurred_at, e.event_id) for page in pages for e in page]
    assert order == sorted(order, reverse=True)
    found = [event_id for _, event_id in order]
    assert len(found) == len(set(found))
    assert before <= set(found) <= after


@pytest.mark.parametrize("name", ["absent", "absent-pattern", "absent-metadata", "metadata-one"])
def test_what_is_rare_or_absent_takes_several_short_pages(large: Database, name: str) -> None:
    wanted, condition = FILTERS[name]
    with _reading(large, 0.3) as read:
        pages = list(_walk(read, wanted, 100))
    assert len(pages) >= 3
    assert sum(map(len, pages)) == (condition != "false")


@pytest.mark.parametrize("name", FILTERS)
def test_a_page_takes_no_longer_than_its_budget(large: Database, name: str) -> None:
    wanted, _ = FILTERS[name]
    pool = storage.Database(large.url, storage.PoolLimits())
    pool.open(30)
    try:
        query = QueryAudit(PostgresAuditPages(pool, 0.02), SignedPageTokens(b"k" * 32))
        begin = monotonic()
        for _ in islice(_walk(query, wanted, 100), 4):
            assert monotonic() - begin < SLACK_SECONDS
            begin = monotonic()
    finally:
        pool.close()


_SLOW: LiteralString = """
CREATE FUNCTION public.slow(id uuid) RETURNS boolean LANGUAGE plpgsql VOLATILE AS
  'BEGIN PERFORM pg_sleep(0.002); RETURN true; END';
ALTER TABLE audit.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY reading ON audit.events FOR SELECT USING (public.slow(event_id));
CREATE POLICY writing ON audit.events FOR INSERT WITH CHECK (true);
"""


def test_slices_that_are_cut_at_events_have_each_of_them_once(database: Database) -> None:
    fields = {"base": BASE, "days": 1, "events": 864}
    with database.connect() as admin:
        admin.execute(_PARTITIONS, fields)
        admin.execute(_FILL, fields)  # one each 100 s
    pool = storage.Database(database.url, storage.PoolLimits())
    pool.open(30)
    try:
        pages = PostgresAuditPages(pool, 10.0, Ticking(3.0))
        # Believed to be so full that slices of the first pace take 100 s.
        day = Partition(Instant(BASE - DAY), Instant(BASE), 864 * FIRST_ROWS)
        pages._outline = (monotonic() + 1000, (day,))  # noqa: SLF001 - what it would have read
        query = QueryAudit(pages, SignedPageTokens(b"k" * 32))
        found = list(_walk(query, AuditFilter(), 1000))
    finally:
        pool.close()
    assert len(found) > 100
    assert sorted(e.event.revision for page in found for e in page) == list(range(1, 865))


def test_a_log_of_which_each_row_takes_long_is_read_in_short_pages(database: Database) -> None:
    fields = {"base": BASE, "days": 2, "events": 1000}
    with database.connect() as admin:
        admin.execute(_PARTITIONS, fields)
        admin.execute(_FILL, fields)
    with serving(database) as served, Client(served.address) as client:
        with database.connect() as admin:
            admin.execute(_SLOW)
            # Every row is looked at, and one in 200 matches.
            admin.execute("DROP INDEX audit.event_resource_pattern_idx")
        taken: list[float] = []
        events: list[AuditEvent] = []
        token = ""
        # 2 s for a single statement, and nobody could say so in advance.
        while token or not taken:
            begin = monotonic()
            page = client.audit_page(token, page_size=1, resource="doc:team-7/**", timeout=30)
            taken.append(monotonic() - begin)
            events += page.events
            token = page.next_page_token
        assert [event.revision for event in events] == [7, 207, 407, 607, 807]
        assert max(taken) < SLACK_SECONDS
    # A slice that begins at an event and is given up leaves the walk at that event.
    at = AuditPosition(from_datetime(events[0].occurred_at), EventId(events[0].event_id))
    wanted = AuditFilter(resource=ResourcePattern("doc:team-7/**"))
    pool = storage.Database(database.url, storage.PoolLimits())
    pool.open(30)
    try:
        walk = PostgresAuditPages(pool, 0.02).page(wanted, at, 2, PATIENT)
    finally:
        pool.close()
    assert walk == ((), at._replace(pace=-1))
