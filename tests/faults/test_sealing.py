"""The sealing of the audit log under faults: each stored event becomes one leaf, and only one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import monotonic
from typing import LiteralString
from urllib.request import urlopen

import pytest

from licet.domain.errors import UnavailableError
from licet.replica.clock import SystemClock
from licet.steward.steward import Plan, Steward
from licet.storage.sealing import PostgresSealing
from licet.writer.ids import audit_writer_id
from tests.fakes.api import count, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.sealing import (
    Pushy,
    assert_whole,
    custody,
    hosting,
    metadata_of,
    writing_to,
)
from tests.fakes.serving import serving
from tests.fakes.terminal import running

QUEUED = "SELECT count(*) FROM audit.queue"
PATIENCE = 30.0


@contextmanager
def stewarding(
    database: Database, folder: Path, kind: type[PostgresSealing] = PostgresSealing
) -> Iterator[Steward]:
    """Provide a steward that runs until the block ends."""
    steward = Steward(
        lambda: kind(database.url),
        lambda: audit_writer_id(SystemClock()),
        custody(folder),
        Plan(seal_seconds=0.01, checkpoint_seconds=0.05, heartbeat_seconds=0.5),
    )
    steward.start()
    try:
        yield steward
    finally:
        steward.stop()


def is_sealed(database: Database) -> bool:
    return count(database, QUEUED) == 0


STEPS = (
    b"BEGIN",
    b"FOR UPDATE",
    b"FROM audit.queue AS q",
    b"COPY (SELECT",
    b"INSERT INTO audit.batches",
    b"INSERT INTO audit.nodes",
    b"UPDATE audit.log",
    b"DELETE FROM audit.queue",
    b"COMMIT",
)
# What is sent in pieces, or without waiting for an answer, the proxy cannot lose the answer of;
# that is the same as the failure of what comes next.
PIECEMEAL = {b"INSERT INTO audit.batches", b"INSERT INTO audit.nodes"}
FAULTS = [(step, False) for step in STEPS] + [
    (step, True) for step in STEPS if step not in PIECEMEAL
]


def is_signed_to_the_head(database: Database) -> bool:
    unsigned = """
    SELECT count(*) FROM audit.log AS l WHERE EXISTS (SELECT FROM audit.queue) OR NOT EXISTS (
      SELECT FROM audit.checkpoints AS c WHERE c.epoch = l.epoch AND c.tree_size = l.tree_size)
    """
    return count(database, unsigned) == 0


@pytest.mark.parametrize(("statement", "happened"), FAULTS)
def test_a_sealer_that_dies_anywhere_seals_nothing_twice_and_skips_nothing(
    database: Database, proxy: PostgresProxy, tmp_path: Path, statement: bytes, happened: bool
) -> None:
    with writing_to(database) as writer:
        writer.store(300)
        writer.store(5)
    with hosting(proxy.database, tmp_path) as host:
        fault = proxy.arm(Fault(statement, forward=happened))
        with pytest.raises(UnavailableError):
            host.seal()
        assert fault.happened()
        assert host.sealer.sealed == 0  # as far as it knows
    done = statement == b"COMMIT" and happened
    assert assert_whole(database, waiting=0 if done else 305) == (305 if done else 0)
    with writing_to(database) as writer, hosting(proxy.database, tmp_path) as host:
        writer.store(3)
        assert host.seal() == (3 if done else 308)
        assert host.sign() is not None
    assert assert_whole(database) == 308


def test_a_sealer_that_lost_its_lock_cannot_seal_what_another_has_sealed_since(
    database: Database, proxy: PostgresProxy, tmp_path: Path
) -> None:
    def lose_the_lock() -> None:
        with database.connect() as admin:
            admin.execute(
                """SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
                   WHERE application_name = 'licet sealer' AND datname = current_database()"""
            )
        with hosting(database, tmp_path) as other:
            assert other.seal() == 10
            assert other.sign() is not None

    with writing_to(database) as writer, hosting(proxy.database, tmp_path) as paused:
        writer.store(10)
        # All is done but for the COMMIT, and the head is held.
        proxy.arm(Fault(b"DELETE FROM audit.queue", then=lose_the_lock))
        with pytest.raises(UnavailableError):
            paused.seal()
    assert assert_whole(database) == 10


@pytest.mark.timeout(120)
def test_two_sealers_under_load_make_one_chain(database: Database, tmp_path: Path) -> None:
    stopping = Event()
    stored = []

    def store() -> None:
        with writing_to(database) as writer:
            while not stopping.is_set():
                writer.store(7)
            stored.append(writer.sequence)

    with ExitStack() as stack:
        # Neither asks who leads; two processes of one host have one state file.
        stewards = [stack.enter_context(stewarding(database, tmp_path, Pushy)) for _ in range(2)]
        writers = [Thread(target=store) for _ in range(2)]
        for writer in writers:
            writer.start()
        try:
            assert eventually(lambda: all(s.sealed > 300 for s in stewards), PATIENCE)
            assert eventually(
                lambda: count(database, "SELECT count(*) FROM audit.checkpoints") > 10, PATIENCE
            )
        finally:
            stopping.set()
            for writer in writers:
                writer.join()
        assert eventually(lambda: is_sealed(database), PATIENCE)
        assert [steward.refusal for steward in stewards] == [None, None]
    size = assert_whole(
        database, waiting=count(database, "SELECT coalesce(sum(n), 0) FROM audit.queue")
    )
    assert size >= sum(stored) > 0
    # What each believes to have sealed is what is sealed.
    assert sum(steward.sealed for steward in stewards) == size


@pytest.mark.timeout(120)
def test_a_process_that_is_paused_until_it_has_lost_the_lead_does_no_harm(
    database: Database, tmp_path: Path
) -> None:
    leader: LiteralString = """
    SELECT l.pid FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.objid = 20013
      AND l.granted
    """
    variables = {
        "LICET_DATABASE_URL": database.url,
        "LICET_STATE_DIR": str(tmp_path),
        "LICET_LISTEN": "127.0.0.1:0",
        "LICET_WORKERS": "1",
    }
    with running("serve", variables=variables) as paused:
        paused.line()
        assert eventually(lambda: len(rows(database, leader)) == 1, PATIENCE)
        [(first,)] = rows(database, leader)
        with serving(database, state_dir=tmp_path) as served:
            served.authorize("agent:a", "read", "doc:x")
            paused.process.send_signal(signal.SIGSTOP)
            try:
                with database.connect() as admin:
                    admin.execute("SELECT pg_terminate_backend(%s, 10000)", [first])
                assert eventually(
                    lambda: [pid for (pid,) in rows(database, leader) if pid != first] != [],
                    PATIENCE,
                )
                sealed = "SELECT tree_size FROM audit.log"
                before = count(database, sealed)
                for _ in range(20):
                    served.authorize("agent:a", "read", "doc:x")
                assert eventually(lambda: count(database, sealed) >= before + 20, PATIENCE)
            finally:
                paused.process.send_signal(signal.SIGCONT)
            served.authorize("agent:a", "read", "doc:x")
            paused.process.send_signal(signal.SIGTERM)
            assert paused.process.wait(PATIENCE) == 0
    assert assert_whole(database) > 20
    assert is_sealed(database)


@pytest.mark.timeout(120)
def test_a_transaction_that_idles_in_another_database_holds_up_nothing(
    database: Database, empty_database: Database, tmp_path: Path
) -> None:
    lags = []
    with (
        empty_database.connect() as idle,
        stewarding(database, tmp_path),
        writing_to(database) as writer,
    ):
        idle.execute("BEGIN")
        idle.execute("SELECT pg_current_xact_id()")
        for _ in range(20):
            writer.store()
            begin = monotonic()
            assert eventually(lambda: is_sealed(database), PATIENCE)
            lags.append(monotonic() - begin)
        assert idle.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() != (None,)
    assert median(lags) < 1.0
    assert_whole(database)


def test_the_log_of_the_process_has_checkpoints_and_not_all_of_them(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "licet.steward.steward")

    def told() -> list[str]:
        return [m for m in caplog.messages if m.startswith("checkpoint ")]

    with stewarding(database, tmp_path) as steward, writing_to(database) as writer:
        assert eventually(lambda: len(told()) == 1, PATIENCE)
        for _ in range(5):
            writer.store()
            assert eventually(lambda: is_signed_to_the_head(database), PATIENCE)
        assert steward.checkpoint is not None
    [line] = told()  # once a minute at most
    [note] = rows(
        database,
        "SELECT note FROM audit.checkpoints WHERE tree_size = %s",
        int(line.split()[2]),
    )
    assert line.split()[1:] == note[0].splitlines()[:3]


def test_what_hinders_sealing_or_signing_is_in_the_metrics(
    database: Database, tmp_path: Path
) -> None:
    with serving(database, state_dir=tmp_path, metrics_listen="127.0.0.1:0") as served:

        def metric(name: str) -> float:
            url = f"http://127.0.0.1:{served.licet.metrics_port}/metrics"
            with urlopen(url, timeout=10) as answer:
                lines = answer.read().decode().splitlines()
            [value] = [line.split()[-1] for line in lines if line.startswith(f"{name} ")]
            return float(value)

        assert eventually(lambda: metric("licet_audit_events_sealed_total") > 0, PATIENCE)
        assert metric("licet_audit_mismatches_total") == 0
        assert metric("licet_audit_signing_refused") == 0
        with database.connect() as admin, admin.transaction():
            # Queued, and not what it says: as if the event had been deleted.
            admin.execute(
                """INSERT INTO audit.queue (writer_id, first_id, last_id, min_at, max_at, n, digest)
                   SELECT 0, i, i, t, t, 1, sha256('')
                   FROM (SELECT gen_random_uuid() AS i, now() AS t) AS gone"""
            )
        assert eventually(lambda: metric("licet_audit_mismatches_total") == 1, PATIENCE)
        assert eventually(lambda: any(tmp_path.glob("*/signed.json")), PATIENCE)
        [state] = tmp_path.glob("*/signed.json")
        state.write_text("{}")
        served.authorize("agent:a", "read", "doc:x")
        assert eventually(lambda: metric("licet_audit_signing_refused") == 1, PATIENCE)
        # Decisions go on.
        assert served.authorize("agent:a", "read", "doc:x").decision_id


def test_events_of_any_time_are_sealed_in_the_order_of_their_sequence(
    database: Database, tmp_path: Path
) -> None:
    decades = (2099 - 2027) * 365 * 86_400
    with writing_to(database) as writer, hosting(database, tmp_path) as host:
        leaves = [
            *writer.store(),
            *writer.store(seconds=decades),
            *writer.store(seconds=-decades // 3),
            *writer.store(2),
        ]
        assert host.seal() == 5
    years = rows(
        database,
        "SELECT extract(year FROM occurred_at AT TIME ZONE 'UTC')::int FROM audit.events"
        " ORDER BY event_id",
    )
    assert [year for (year,) in years] == [2027, 2098, 2003, 2027, 2027]
    ordered = rows(
        database,
        """SELECT e.leaf FROM audit.batches AS b
           JOIN audit.event_leaves AS e ON e.event_id BETWEEN b.first_id AND b.last_id
           ORDER BY b.first_leaf, e.event_id""",
    )
    assert [bytes(leaf) for (leaf,) in ordered] == leaves
    assert assert_whole(database) == 5


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        ("UPDATE audit.events SET resource = 'doc:other' WHERE event_id = %s", 3),
        (
            (
                "UPDATE audit.events SET occurred_at = occurred_at + interval '1 us'"
                " WHERE event_id = %s"
            ),
            2,
        ),
        ("DELETE FROM audit.events WHERE event_id = %s", 2),
        ("DELETE FROM audit.events WHERE event_id <= %s AND event_type = 'decision'", 0),
    ],
    ids=["edit", "time", "delete", "delete all"],
)
def test_what_is_changed_before_it_is_sealed_is_reported_and_sealing_goes_on(
    database: Database, tmp_path: Path, tampering: LiteralString, found: int
) -> None:
    with writing_to(database) as writer, hosting(database, tmp_path) as host:
        writer.store(3)
        [(last,)] = rows(database, "SELECT last_id FROM audit.queue")
        with database.connect() as superuser:
            tables = superuser.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits"
                " WHERE inhparent = 'audit.events'::regclass"
            ).fetchall()
            for (table,) in [("audit.events",), *tables]:
                superuser.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL".encode())
            assert superuser.execute(tampering, [last]).rowcount == (1 if found else 3)
        writer.store(2)
        host.seal()
        assert host.sealer.mismatches == 1
        assert host.sign() is not None
    [incident] = metadata_of(database, "audit.incident")
    assert (incident["stored"], incident["found"]) == (3, found)
    assert incident["last_id"] == str(last)
    [(reason,)] = rows(
        database, "SELECT reason FROM audit.events WHERE event_type = 'audit.incident'"
    )
    assert reason == "BATCH_MISMATCH"
    moved = "interval" in tampering
    assert assert_whole(database, waiting=1 if moved else 0) == found + 2 + 1
