"""What the rolling verifier believes to be archived: what the sealed log says, and no row of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import psycopg
import pytest

from licet.app.archiving import Archive, ToldArchive
from licet.app.sealed_log import Ranges, Trust
from licet.domain.canonical_json import JsonValue
from licet.domain.errors import UnavailableError
from licet.steward.archive import facts_of
from licet.steward.archived import archived_leaves
from licet.steward.signing import verify_ed25519
from licet.steward.verifier import RollingVerifier
from licet.storage.partitions import PostgresPartitions
from licet.storage.verification import opened_log
from tests.fakes.aged_log import AgedLog, aged_log
from tests.fakes.postgres import Database

OLD = 40


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[AgedLog]:
    with aged_log(database, tmp_path) as made:
        made.ship_day(OLD, 20)
        made.ship_day(OLD + 1, 20)
        made.ship_day(3, 20)
        made.settle()
        yield made


def archived(database: Database) -> Mapping[int, Ranges]:
    partitions = PostgresPartitions(database.url)
    try:
        return archived_leaves(partitions.told())
    finally:
        partitions.close()


def found(log: AgedLog) -> list[str]:
    """Return the codes of what a round through everything finds."""
    codes: list[str] = []

    def record(_reason: str, facts: Mapping[str, JsonValue]) -> None:
        codes.append(str(facts["code"]))

    verifier = RollingVerifier(
        lambda: opened_log(log.database.url, snapshot=False),
        Trust(log.signer.key, verify_ed25519),
        record,
        archived=lambda: archived(log.database),
    )
    while not verifier.whole_rounds:
        verifier.step()
    verifier.close()
    return codes


def archive(log: AgedLog, days_ago: int) -> None:
    """Archive a day, and drop its partition."""
    partitions = PostgresPartitions(log.database.url)
    try:
        partition, _ = partitions.find(log.name(days_ago)) or pytest.fail("there is none")
        log.archiver(partitions).archive(partition, 10.0, lambda _written, _events: None)
    finally:
        partitions.close()
    log.settle()


def test_what_is_archived_is_not_missing(log: AgedLog) -> None:
    assert (found(log), archived(log.database)) == ([], {})
    archive(log, OLD)
    assert archived(log.database) == {1: [(0, 20)]}
    archive(log, OLD + 1)
    assert archived(log.database) == {1: [(0, 40)]}
    assert log.partitions().isdisjoint({log.name(OLD), log.name(OLD + 1)})
    assert found(log) == []


def test_a_row_that_says_so_does_not_hide_what_was_deleted(log: AgedLog) -> None:
    archive(log, OLD)
    as_superuser(
        log,
        # A row like that of what is archived, with more leaves, that refers to the same event.
        "INSERT INTO audit.archives (partition, relation, file, sha256, events, event_id, epoch,"
        " leaf_ranges) SELECT partition, 1, file, sha256, events, event_id, epoch,"
        " '{[0,60)}' FROM audit.archives",
        # And one that refers to an event that is gone with the others.
        "INSERT INTO audit.archives (partition, relation, file, sha256, events, event_id, epoch,"
        " leaf_ranges) SELECT 'forged', 2, file, sha256, events,"
        " (SELECT max(e.event_id::text)::uuid FROM audit.events AS e"
        "  WHERE e.event_type = 'decision'), epoch, '{[20,60)}' FROM audit.archives LIMIT 1",
        f"DROP TABLE audit.{log.name(3)}",
        f"DROP TABLE audit.{log.name(OLD + 1)}",
    )
    assert archived(log.database) == {1: [(0, 20)]}
    assert "leaf.missing" in found(log)


def test_a_round_that_could_not_begin_is_due_still(log: AgedLog) -> None:
    archive(log, OLD)
    codes: list[JsonValue] = []
    calls = count()

    def at_the_second_attempt() -> Mapping[int, Ranges]:
        if next(calls) in {0, 2}:  # of either kind of round
            raise UnavailableError("the database is away")
        return archived(log.database)

    verifier = RollingVerifier(
        lambda: opened_log(log.database.url, snapshot=False),
        Trust(log.signer.key, verify_ed25519),
        lambda _reason, facts: codes.append(facts["code"]),
        archived=at_the_second_attempt,
    )
    failed = 0
    for _ in range(100):
        try:
            verifier.step()
        except UnavailableError:
            failed += 1
            verifier.close()
    verifier.close()
    assert (failed, verifier.recent_rounds, verifier.whole_rounds, codes) == (2, 1, 1, [])


def as_superuser(log: AgedLog, *statements: str) -> None:
    with psycopg.connect(log.database.url, autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement.encode())


def told(first: int, end: int, leaf: int, **changed: JsonValue) -> ToldArchive:
    """Return an archive of leaves of which an event of the log tells."""
    it = Archive(f"file-{first}", bytes(32), 1, [(first, end)])
    return ToldArchive(it, 1, leaf, {**facts_of(it), **changed})


def test_an_event_that_is_archived_itself_counts_when_its_archive_does() -> None:
    first, second, third = told(0, 10, 12), told(10, 20, 25), told(20, 30, 40)
    gone = [first._replace(told=None), second._replace(told=None), third]
    assert archived_leaves(gone) == {1: [(0, 30)]}
    # The last link of the chain is said by nobody.
    assert archived_leaves([each._replace(told=None) for each in gone]) == {}
    assert archived_leaves([*gone[:1], third]) == {1: [(20, 30)]}


@pytest.mark.parametrize(
    "changed", [{"sha256": "00"}, {"leaves": "{[0,11)}"}, {"epoch": 2}, {"events": 9}]
)
def test_an_event_that_says_something_else_does_not_count(changed: dict[str, JsonValue]) -> None:
    assert archived_leaves([told(0, 10, 12)]) == {1: [(0, 10)]}
    assert archived_leaves([told(0, 10, 12, **changed)]) == {}
