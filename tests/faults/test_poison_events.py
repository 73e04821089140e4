"""Events that the database cannot hold: kept apart and on record, and those behind them arrive."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Final

import grpc
import pytest

from licet.domain.audit_event import ID_LOW, leaf_start
from licet.spool.shipper import BATCH
from licet.storage.audit_shipping import PostgresEventStore
from tests.fakes.api import count, rows
from tests.fakes.audit_serving import serving_proofs
from tests.fakes.audit_verifier import run as run_verifier
from tests.fakes.postgres import Database
from tests.fakes.sealed_log import SIGNER, SealedLog, sealed_log
from tests.fakes.served_log import assert_on_record
from tests.fakes.serving import failure, serving
from tests.fakes.shipping import event_store, good_body, raw_body, spooling
from tests.fakes.terminal import run

WRITER = 77
DECISIONS: Final = "SELECT count(*) FROM audit.events WHERE event_type = 'decision'"
YEAR = 31_557_600_000_000

# None comes from the encoders of licet: a bug of them would make one, or a hand in the spool.
POISONS = {
    "a NUL": raw_body(resource=b"doc:\0"),
    "bytes that are no UTF-8": raw_body(principal=b"agent:\xff"),
    "a surrogate": raw_body(session_id=b"\xed\xa0\x80"),
    "an escaped NUL in JSON": raw_body(metadata=b'{"a": "\\u0000"}'),
    "a lone surrogate in JSON": raw_body(metadata=b'{"a": "\\ud800"}'),
    "no JSON": raw_body(metadata=b"{"),
    "JSON that is no object": raw_body(metadata=b"[]"),
    "a text that no index holds": raw_body(resource=secrets.token_hex(4000).encode()),
    "the year 11970": raw_body(occurred_at=10_000 * YEAR),
    "a year before the calendar": raw_body(occurred_at=-9000 * YEAR),
    "no fields": b"",
    "a field that is cut": raw_body()[:-1],
    "a field too many": raw_body() + bytes(4),
    "an instant of four bytes": bytes((0, 0, 0, 4)) + raw_body()[4:],
}


@pytest.fixture
def store(database: Database) -> Iterator[PostgresEventStore]:
    with event_store(database) as found:
        yield found


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Iterator[SealedLog]:
    with sealed_log(database, tmp_path) as running:
        yield running


def _poisoned(sequence: int, body: bytes) -> bytes:
    return leaf_start(WRITER) + (ID_LOW | sequence).to_bytes(8, "big") + body


@pytest.mark.parametrize("name", POISONS)
def test_a_poisoned_event_is_kept_apart_and_the_next_one_arrives(
    log: SealedLog, store: PostgresEventStore, tmp_path: Path, name: str
) -> None:
    with spooling(tmp_path / "spool", WRITER, store) as spool:
        for number in range(7):
            spool.writer.append(good_body(number))
        spool.writer.append(POISONS[name])
        for number in range(8, 12):
            spool.writer.append(good_body(number))
        begin = monotonic()
        spool.ship()
        assert monotonic() - begin < 1.0
        assert (spool.shipper.shipped, spool.shipper.lost) == (12, 1)
    kept = rows(log.database, "SELECT writer_id, seq, raw, error <> '' FROM audit.quarantine")
    assert kept == [(WRITER, 8, _poisoned(8, POISONS[name]), True)]
    assert (
        count(log.database, "SELECT count(*) FROM audit.events WHERE event_type = 'decision'") == 11
    )
    log.seal()
    log.sign()
    report = log.verify()
    assert (report.findings, report.explained) == ([], 1)


def test_among_thousands_that_are_shipped_at_once_it_is_found_within_a_second(
    log: SealedLog, store: PostgresEventStore, tmp_path: Path
) -> None:
    bodies = [good_body(number) for number in range(BATCH)]
    bodies[1234] = POISONS["a NUL"]
    with spooling(tmp_path / "spool", WRITER, store) as spool:
        spool.writer.append_all(bodies)
        begin = monotonic()
        spool.ship()
        assert monotonic() - begin < 1.0
        assert spool.shipper.lost == 1
    assert count(log.database, DECISIONS) == BATCH - 1


def test_events_that_are_all_poisoned_are_all_explained_to_every_verifier(
    log: SealedLog, store: PostgresEventStore, tmp_path: Path
) -> None:
    with spooling(tmp_path / "spool", WRITER, store) as spool:
        for poison in POISONS.values():
            spool.writer.append(poison)
        spool.writer.append(good_body(1))
        spool.ship()
        assert spool.shipper.lost == len(POISONS)
    log.seal()
    log.sign()
    key = SIGNER.key.text()
    variables = {"LICET_DATABASE_URL": log.database.url}
    found = run("audit", "verify", "--key", key, "--json", variables=variables)
    assert (found.status, found.object["explained_events"]) == (0, len(POISONS))
    with serving_proofs(log.database, SIGNER.key.public_key) as served:
        archive = tmp_path / "log.archive"
        exported = run("audit", "export", str(archive), "--address", served.address)
    assert exported.status == 0, exported.err
    (tmp_path / "checkpoint").write_text(log.note(), encoding="utf-8")
    given = ("--key", key, "--checkpoint", tmp_path / "checkpoint")
    assert run_verifier("archive", *given, archive).status == 0
    # It is the event on record that explains the gap, and nothing else.
    log.tamper("DELETE FROM audit.events WHERE event_type = 'audit.quarantined'")
    assert "writer.gap" in log.verify().counts


_RARE = "".join(chr(0x20000 + secrets.randbelow(0xA000)) for _ in range(1000))
HOSTILE = (
    *("\0", "a\0b", "\\u0000", "\x01", "\x7f", "\u2028", "\ufeff", "\ufffe", "e\u0301", "'; --"),
    *(_RARE[:size] for size in (31, 32, 55, 56, 63, 64, 127, 128, 249, 250, 251, 255, 256, 1000)),
    *(secrets.token_hex(500)[:size] for size in (64, 223, 224, 255, 256, 511, 512, 1000)),
)


def test_whatever_a_caller_sends_is_refused_or_stored(database: Database, tmp_path: Path) -> None:
    answered: list[str] = []
    refused: list[grpc.StatusCode] = []
    with serving(database, state_dir=tmp_path) as served:
        for text in HOSTILE:
            asked = {"principal": "agent:a", "action": "read", "resource": "doc:x"}
            for field in ("principal", "resource", "action", "session_id", "trace_id"):
                typed = field in {"principal", "resource"}
                said = asked | {field: f"agent:{text}" if typed else text}
                try:
                    answered.append(served.authorize(**said).decision_id)
                except grpc.RpcError as exc:
                    refused.append(failure(exc).code)
    assert set(refused) == {grpc.StatusCode.INVALID_ARGUMENT}
    assert len(answered) > 10
    assert_on_record(database, tmp_path, answered, exactly=True)
    assert count(database, "SELECT count(*) FROM audit.quarantine") == 0
