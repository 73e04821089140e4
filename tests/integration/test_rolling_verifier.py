"""The steward's verifier: what was changed is on record within a round, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from licet.app.sealed_log import Trust
from licet.domain.audit_event import EventType
from licet.domain.canonical_json import JsonValue
from licet.domain.errors import UnavailableError
from licet.steward.signing import verify_ed25519
from licet.steward.verifier import INCIDENT, RollingVerifier, Rounds
from licet.storage.verification import opened_log
from tests.fakes.postgres import Database
from tests.fakes.sealed_log import SIGNER, SealedLog, sealed_log, some_events

EDIT = "UPDATE audit.events SET result = 'deny' WHERE event_id = '{}'"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[SealedLog]:
    with sealed_log(database, tmp_path) as running:
        yield running


class Rolling:
    """A verifier whose rounds are taken by hand."""

    def __init__(self, log: SealedLog, recent_span: float = 1e9) -> None:
        self.clock = Clock()
        self._log = log
        self.verifier = RollingVerifier(
            lambda: opened_log(log.database.url, snapshot=False),
            Trust(SIGNER.key, verify_ed25519),
            self._record,
            Rounds(recent_span=recent_span),
            self.clock,
        )

    def _record(self, reason: str, facts: Mapping[str, JsonValue]) -> None:
        with self._log.sealing.transaction() as transaction:
            self._log.journal.record(transaction, EventType.INCIDENT, reason, facts)

    def rounds(self) -> None:
        """Take all steps that are due now."""
        while self.verifier.step() <= 0:
            pass

    def incidents(self) -> list[str]:
        """Return the codes of the incidents on record."""
        found = self._log.admin.execute(
            "SELECT metadata ->> 'code' FROM audit.events WHERE event_type = 'audit.incident'"
            " AND reason = %s ORDER BY event_id",
            [INCIDENT],
        ).fetchall()
        return [code for (code,) in found]


@pytest.fixture
def rolling(log: SealedLog) -> Iterator[Rolling]:
    running = Rolling(log)
    yield running
    running.verifier.close()


def test_an_untouched_log_leaves_nothing_behind(log: SealedLog, rolling: Rolling) -> None:
    log.grow(100)
    log.ship(some_events(5, 100))  # waits to be sealed, as some always does
    rolling.rounds()
    verifier = rolling.verifier
    assert (verifier.findings, rolling.incidents()) == (0, [])
    assert (verifier.recent_rounds, verifier.whole_rounds) == (1, 1)
    assert verifier.leaves == 200
    assert 0 < verifier.step() <= 60


def test_what_is_changed_is_on_record_within_a_minute_and_once(
    log: SealedLog, rolling: Rolling
) -> None:
    identifiers = log.grow(100)
    rolling.rounds()
    log.tamper(EDIT.format(identifiers[50]))
    assert rolling.incidents() == []
    for minute in range(1, 4):
        rolling.clock.now = 60.0 * minute
        rolling.rounds()
        log.seal()  # the incident, which is then verified like all else
        log.sign()
        assert rolling.incidents() == ["leaf.altered"]
    assert rolling.verifier.findings == 1
    again = Rolling(log)
    again.rounds()
    again.verifier.close()
    assert (again.verifier.findings, rolling.incidents()) == (0, ["leaf.altered"])


def test_what_is_old_is_verified_within_a_day(log: SealedLog) -> None:
    rolling = Rolling(log, recent_span=0.0)  # the tests' events are in the future
    log.grow(30)
    rolling.rounds()
    log.tamper("INSERT INTO audit.writers (writer_id, shipped_seq) VALUES (77, 5)")
    rolling.clock.now = 3600.0
    rolling.rounds()
    assert rolling.incidents() == []
    rolling.clock.now = 86_400.0
    rolling.rounds()
    assert rolling.incidents() == ["writer.tail"]
    assert rolling.verifier.whole_rounds == 2
    rolling.verifier.close()


def test_it_goes_on_when_the_database_is_back(log: SealedLog, rolling: Rolling) -> None:
    log.grow(30)
    rolling.verifier.step()
    log.admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'licet audit verifier' AND datname = current_database()"
    )
    with pytest.raises(UnavailableError):
        rolling.rounds()
    rolling.verifier.close()
    rolling.rounds()
    assert (rolling.verifier.whole_rounds, rolling.incidents()) == (1, [])
