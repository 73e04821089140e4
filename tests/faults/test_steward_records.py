"""The steward's own events, when the database forgets their writer or goes away in between."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from licet.domain.audit_batch import MacKeys
from licet.domain.audit_event import EventType
from licet.domain.errors import ConflictError, LicetError, UnavailableError
from licet.steward.records import Records
from licet.storage.audit_shipping import PostgresEventStore
from licet.storage.pool import Database as Pool
from licet.storage.pool import PoolLimits
from licet.storage.sealing import PostgresSealing
from tests.fakes.api import rows
from tests.fakes.postgres import Database

FACTS = {"writer_id": 7}
WRITERS = "SELECT writer_id, shipped_seq FROM audit.writers WHERE writer_id > 0 ORDER BY writer_id"


@pytest.fixture
def records(database: Database) -> Iterator[Records]:
    pool = Pool(database.url, PoolLimits(min_size=1, max_size=2, acquire_seconds=0.5))
    pool.open(30.0)
    sealing = PostgresSealing(database.url)
    sealing.open_log(None)
    sealing.close()
    writers = count(100)
    yield Records(PostgresEventStore(pool), lambda: next(writers), MacKeys(bytes(32)))
    pool.close()


def test_events_follow_each_other_as_those_of_one_writer(
    database: Database, records: Records
) -> None:
    assert rows(database, WRITERS) == []
    for _ in range(3):
        records.record(EventType.WRITER_RECOVERED, "", FACTS)
    assert rows(database, WRITERS) == [(100, 3)]
    stored = rows(database, "SELECT event_type, actor, metadata FROM audit.events")
    assert stored == [("audit.writer_recovered", "service:licet-steward", FACTS)] * 3
    # They wait to be sealed like all others.
    assert rows(database, "SELECT writer_id, n FROM audit.queue") == [(100, 1)] * 3


def test_a_writer_that_the_database_has_forgotten_is_followed_by_another(
    database: Database, records: Records
) -> None:
    records.record(EventType.INCIDENT, "NOT_AS_SEALED", FACTS)
    with database.connect() as admin:
        admin.execute("DELETE FROM audit.writers WHERE writer_id = 100")
    with pytest.raises(ConflictError, match="is not registered"):
        records.record(EventType.INCIDENT, "NOT_AS_SEALED", FACTS)
    records.record(EventType.INCIDENT, "NOT_AS_SEALED", FACTS)
    assert rows(database, WRITERS) == [(101, 1)]


def test_what_failed_can_be_recorded_when_the_database_is_back(
    database: Database, records: Records
) -> None:
    records.record(EventType.INCIDENT, "NOT_AS_SEALED", FACTS)
    with database.connect() as admin:
        admin.execute("ALTER TABLE audit.events RENAME TO away")
        with pytest.raises(UnavailableError, match="schema is not the expected"):
            records.record(EventType.INCIDENT, "NOT_AS_SEALED", FACTS)
        admin.execute("ALTER TABLE audit.away RENAME TO events")
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'licet' AND datname = current_database()"
        )
    for _ in range(3):
        try:
            records.record(EventType.INCIDENT, "NOT_AS_SEALED", FACTS)
        except LicetError:
            continue
        break
    ((stored, queued),) = rows(
        database, "SELECT (SELECT count(*) FROM audit.events), (SELECT sum(n) FROM audit.queue)"
    )
    assert (stored, queued) == (2, 2)
