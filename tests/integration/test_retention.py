"""What is old is trimmed, in order, a batch at a time, and what is behind it is reset."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from licet.app.ports import Deadline
from licet.app.replication import Change
from licet.domain.errors import UnavailableError
from licet.replica.retention import Retention
from licet.storage.changes import PostgresChanges
from licet.storage.pool import Database as Pool
from licet.storage.pool import PoolLimits
from licet.storage.replicas import PostgresReplicaSession
from tests.fakes.changes import add_changes, trim_through
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served

SOON = Deadline(lambda: 20.0)


@pytest.fixture
def changes(database: Database) -> Iterator[PostgresChanges]:
    """Provide the changes of a new database."""
    pool = Pool(database.url, PoolLimits(min_size=1, max_size=2))
    pool.open(20.0)
    yield PostgresChanges(pool)
    pool.close()


def age(database: Database, hours: float, first: int, last: int) -> None:
    """Make the changes from a revision through another older."""
    with database.connect() as admin:
        admin.execute(
            "UPDATE licet.changes SET at = at - make_interval(secs => %s)"
            " WHERE revision BETWEEN %s AND %s",
            [hours * 3600, first, last],
        )


def kept(database: Database) -> tuple[list[int], int]:
    """Return the revisions that are stored, and the one up to which they are trimmed."""
    with database.connect() as admin:
        rows = admin.execute("SELECT revision FROM licet.changes ORDER BY revision").fetchall()
        meta = admin.execute("SELECT trimmed_through FROM licet.meta").fetchone()
    assert meta is not None
    return [revision for (revision,) in rows], meta[0]


def test_changes_older_than_what_is_kept_go(database: Database, changes: PostgresChanges) -> None:
    add_changes(database, 5, names=1)
    age(database, 24.1, 0, 3)
    age(database, 23.9, 4, 5)
    assert changes.trim(24, 100, SOON) == 4
    assert kept(database) == ([4, 5], 3)
    assert changes.trim(24, 100, SOON) == 0
    assert changes.trim(23, 100, SOON) == 1
    assert kept(database) == ([5], 4)


def test_the_newest_change_stays_however_old(database: Database, changes: PostgresChanges) -> None:
    assert changes.trim(1, 100, SOON) == 0
    age(database, 1000, 0, 0)
    assert changes.trim(1, 100, SOON) == 0
    assert kept(database) == ([0], 0)
    add_changes(database, 5, names=1)
    age(database, 1000, 0, 5)
    for _ in range(3):
        changes.trim(1, 100, SOON)
    assert kept(database) == ([5], 4)
    # The next revision is the next one.
    add_changes(database, 1, names=1)
    assert kept(database) == ([5, 6], 4)


def test_a_batch_takes_no_more_than_it_may(database: Database, changes: PostgresChanges) -> None:
    add_changes(database, 10, names=1)
    age(database, 25, 0, 9)
    assert [changes.trim(24, 4, SOON) for _ in range(4)] == [4, 4, 2, 0]
    assert kept(database) == ([10], 9)


def test_what_is_kept_has_no_gap_even_if_the_clock_stepped(
    database: Database, changes: PostgresChanges
) -> None:
    add_changes(database, 6, names=1)
    age(database, 25, 0, 2)
    age(database, 25, 4, 5)
    changes.trim(24, 100, SOON)
    assert kept(database) == ([3, 4, 5, 6], 2)


def test_old_idempotency_keys_go_after_a_day(
    served: Served, database: Database, changes: PostgresChanges
) -> None:
    for name in ("old", "young"):
        served.grant("agent:a", "read", "doc:a", request_id=name)
    with database.connect() as admin:
        admin.execute(
            "UPDATE licet.requests SET at = at - CASE request_id"
            " WHEN 'old' THEN interval '24 hours 1 minute' ELSE interval '23 hours 59 minutes' END"
        )
        # However short changes are kept, keys are kept for what callers were promised.
        assert changes.trim(1, 100, SOON) == 1
        rows = admin.execute("SELECT request_id FROM licet.requests").fetchall()
    assert rows == [("young",)]


def test_one_process_at_a_time_trims(database: Database, changes: PostgresChanges) -> None:
    add_changes(database, 5, names=1)
    age(database, 25, 0, 4)
    with database.connect() as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(20011)")
        assert changes.trim(24, 100, SOON) == 0
    assert changes.trim(24, 100, SOON) == 5


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        ("SELECT licet.trim_history('59 minutes', 10)", errors.InvalidParameterValue),
        ("SELECT licet.trim_history('24 hours', 0)", errors.InvalidParameterValue),
        ("SELECT licet.trim_history('24 hours', 10001)", errors.InvalidParameterValue),
        ("DELETE FROM licet.changes", errors.InsufficientPrivilege),
        ("DELETE FROM licet.requests", errors.InsufficientPrivilege),
        ("UPDATE licet.meta SET trimmed_through = 9", errors.InsufficientPrivilege),
    ],
)
def test_the_server_can_trim_nothing_that_is_young(
    database: Database, statement: LiteralString, refusal: type[psycopg.Error]
) -> None:
    with database.connect() as admin:
        admin.execute("SET ROLE licet_server")
        with pytest.raises(refusal):
            admin.execute(statement)


def test_a_replica_behind_what_was_trimmed_forgets_everything(database: Database) -> None:
    session = PostgresReplicaSession(database.url, "test", 1.0, lambda: 0.0, lambda *_: None)
    session.register(uuid4())
    add_changes(database, 5, names=1)
    trim_through(database, 3)
    assert session.changes_after(0) == session.changes_after(2) == [Change(5, None)]
    assert [each.revision for each in session.changes_after(3)] == [4, 5]
    assert session.changes_after(5) == []
    session.close()


def test_a_replica_behind_what_was_trimmed_answers_from_the_database(served: Served) -> None:
    served.grant("agent:a", "read", "doc:a")
    assert served.authorize("agent:a", "read", "doc:a").revision == 1
    # Changes that the replica never sees, because they are trimmed as they are committed.
    add_changes(served.database, 5, names=1, trim=5)
    assert eventually(lambda: served.authorize("agent:a", "read", "doc:a").revision == 6)


def test_a_page_of_changes_says_what_it_is_part_of(
    database: Database, changes: PostgresChanges
) -> None:
    add_changes(database, 3, names=6000)
    add_changes(database, 1, names=0, everything=True)
    page = changes.after(0, SOON)
    # It ends with the change with which it names 10,000 principals.
    assert [each.revision for each in page.changes] == [1, 2]
    assert (page.oldest, page.revision) == (0, 4)
    page = changes.after(2, SOON)
    assert [each.revision for each in page.changes] == [3, 4]
    assert page.changes[1].principals is None
    assert changes.after(4, SOON).changes == []
    assert changes.after(9, SOON)[1:3] == (0, 4)
    trim_through(database, 2)
    assert changes.after(1, SOON).changes == ()
    assert changes.after(1, SOON).oldest == 2
    assert [each.revision for each in changes.after(2, SOON).changes] == [3, 4]


class Stubborn:
    """A history that fails once, then has two full batches and a rest, and then nothing."""

    def __init__(self) -> None:
        self.answers = iter([10, 10, 3, 0, 0])
        self.failed = False
        self.asked: list[tuple[int, int]] = []
        self.done = Event()

    def trim(self, keep_hours: int, batch: int, deadline: Deadline) -> int:
        assert deadline.remaining(1.0) > 0
        if not self.failed:
            self.failed = True
            raise UnavailableError("not now")
        self.asked.append((keep_hours, batch))
        if len(self.asked) == 5:
            self.done.set()
        return next(self.answers, 0)


def test_the_thread_trims_batch_after_batch_and_survives_a_failure() -> None:
    history = Stubborn()
    retention = Retention(history, 24, first_seconds=0.0, interval_seconds=0.05, batch=10)
    retention.start()
    assert history.done.wait(20)
    retention.stop()
    assert set(history.asked) == {(24, 10)}
