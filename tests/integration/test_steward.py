"""The steward as a process beside two workers: what it does, and what its death costs."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Self

import pytest

from licet.client import Client, LicetCallError
from tests.fakes.api import all_stored, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.terminal import Running, run
from tests.integration.test_cli_workers import stewards_of, supervised, workers_of
from tests.integration.test_metrics import read

_SECONDS = 60.0


class Load:
    """Clients that ask all the time, each on a connection of its own."""

    def __init__(self, address: str) -> None:
        """Ask the server at an address."""
        self.decided: list[str] = []
        self.failures: list[str] = []
        self._address = address
        self._over = Event()
        self._threads = [Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_SECONDS)

    def grows(self) -> bool:
        """Say whether decisions go on."""
        before = len(self.decided)
        return eventually(lambda: len(self.decided) > before + 50, 20)

    def _ask(self) -> None:
        with Client(self._address) as client:
            while not self._over.is_set():
                try:
                    decision = client.authorize("agent:a", "read", "doc:x")
                except LicetCallError as exc:
                    self.failures.append(str(exc))
                else:
                    self.decided.append(decision.decision_id)


@dataclass(frozen=True, slots=True)
class Service:
    """A supervisor, two workers and a steward; what they keep outside the database."""

    server: Running
    address: str
    database: Database
    state: Path

    def steward(self) -> int:
        """Return the process of the steward, of which there is one."""
        (found,) = stewards_of(self.server)
        return found

    def has_another(self, before: int) -> bool:
        """Say whether another steward is the only one."""
        now = stewards_of(self.server)
        return len(now) == 1 and before not in now

    def spools(self) -> list[Path]:
        """Return the folders of all spools."""
        return list(self.state.glob("*/spool-*/*"))

    def is_sealed_on(self) -> bool:
        """Say whether what is there now comes to be sealed and signed."""
        ((stored,),) = rows(self.database, "SELECT count(*) FROM audit.events")
        return eventually(lambda: signed(self.database) >= stored, 30)


@contextmanager
def service(database: Database, state: Path, **variables: str) -> Iterator[Service]:
    variables |= {
        "LICET_STATE_DIR": str(state),
        "LICET_CONNECTION_SECONDS": "1",
        "LICET_SPOOL_RETAIN_SECONDS": "0",
    }
    with supervised(database, **variables) as (server, address):
        yield Service(server, address, database, state)


@pytest.fixture
def metrics() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def signed(database: Database) -> int:
    ((size,),) = rows(database, "SELECT coalesce(max(tree_size), 0) FROM audit.checkpoints")
    return int(size)


def assert_nothing_is_left(found: Service, decided: list[str]) -> None:
    """Everything that was decided is stored, once, and all that is stored is sealed and signed."""
    ((waiting, sealed, stored),) = rows(
        found.database,
        """SELECT (SELECT count(*) FROM audit.queue), (SELECT tree_size FROM audit.log),
                  (SELECT count(*) FROM audit.events)""",
    )
    assert (waiting, sealed, signed(found.database)) == (0, stored, stored)
    ids = rows(
        found.database, "SELECT event_id::text FROM audit.events WHERE event_type = 'decision'"
    )
    assert sorted(event_id for (event_id,) in ids) == sorted(decided)
    assert found.spools() == []


@pytest.mark.parametrize("told", ["supervisor", "everyone"])
def test_sigterm_leaves_everything_stored_sealed_and_signed_and_no_spool(
    database: Database, tmp_path: Path, told: str
) -> None:
    with service(database, tmp_path) as found:
        with Load(found.address) as load:
            assert load.grows()
        assert len(found.spools()) == 2
        if told == "everyone":  # as a service manager does that ends a whole group
            for process in [found.steward(), *workers_of(found.server)]:
                os.kill(process, signal.SIGTERM)
        ended = found.server.finish(signal.SIGTERM)
        assert ended.status == 0
        # Of everyone the supervisor may be told so late that it has started others.
        assert told == "everyone" or "ERROR" not in ended.err
    assert load.failures == []
    assert_nothing_is_left(found, load.decided)


@pytest.mark.timeout(120)
def test_a_killed_steward_is_replaced_and_costs_no_decision(
    database: Database, tmp_path: Path
) -> None:
    with service(database, tmp_path) as found:
        with Load(found.address) as load:
            for _ in range(2):
                assert load.grows()
                before = found.steward()
                os.kill(before, signal.SIGKILL)
                assert eventually(partial(found.has_another, before), _SECONDS)
                assert load.grows()
                assert found.is_sealed_on()
        assert load.failures == []
        assert found.server.finish(signal.SIGTERM).status == 0
    assert_nothing_is_left(found, load.decided)


@pytest.mark.timeout(120)
def test_decisions_go_on_while_the_steward_is_stopped(database: Database, tmp_path: Path) -> None:
    with service(database, tmp_path) as found:
        with Load(found.address) as load:
            assert load.grows()
            assert found.is_sealed_on()
            os.kill(found.steward(), signal.SIGSTOP)
            before = signed(database)
            for _ in range(10):
                assert load.grows()
            assert signed(database) <= before + 1  # what it was about to sign, perhaps
            os.kill(found.steward(), signal.SIGCONT)
            assert found.is_sealed_on()
        assert load.failures == []
        assert found.server.finish(signal.SIGTERM).status == 0
    assert_nothing_is_left(found, load.decided)


@pytest.mark.timeout(120)
def test_sighup_replaces_the_steward_and_sigterm_does_too(
    database: Database, tmp_path: Path
) -> None:
    with service(database, tmp_path) as found:
        for number, target in ((signal.SIGHUP, found.server.process.pid), (signal.SIGTERM, 0)):
            before = found.steward()
            os.kill(target or before, number)
            assert eventually(partial(found.has_another, before), _SECONDS)
            assert found.is_sealed_on()
        ended = found.server.finish(signal.SIGTERM)
        assert (ended.status, "failed" in ended.err) == (0, False)
    assert_nothing_is_left(found, [])


@pytest.mark.timeout(120)
def test_the_spool_of_a_killed_worker_is_adopted_by_the_steward(
    database: Database, tmp_path: Path
) -> None:
    with service(database, tmp_path) as found:
        before = {path.name for path in found.spools()}
        with Client(found.address) as client:
            decided = [client.authorize("agent:a", "read", "doc:x").decision_id for _ in range(5)]
        worker = min(workers_of(found.server))
        os.kill(worker, signal.SIGKILL)
        assert eventually(lambda: len(before & {path.name for path in found.spools()}) == 1, 40)
        ((actor, writer),) = rows(
            database,
            "SELECT actor, to_hex((metadata ->> 'writer_id')::bigint) FROM audit.events"
            " WHERE event_type = 'audit.writer_recovered'",
        )
        assert actor == "service:licet-steward"
        assert writer.zfill(12) in before
        assert found.server.finish(signal.SIGTERM).status == 0
    assert_nothing_is_left(found, decided)


@pytest.mark.timeout(120)
def test_a_row_that_was_changed_is_found_while_the_service_runs(
    database: Database, tmp_path: Path, metrics: str
) -> None:
    with service(
        database, tmp_path, LICET_AUDIT_VERIFY_SECONDS="1", LICET_METRICS_LISTEN=metrics
    ) as found:
        with Client(found.address) as client:
            decided = [client.authorize("agent:a", "read", "doc:x").decision_id]
        assert all_stored(database, decided)
        assert found.is_sealed_on()
        assert eventually(lambda: of_steward(metrics, "audit_recent_rounds_total") > 1, 20)
        assert of_steward(metrics, "audit_findings_total") == 0
        with database.connect() as admin:
            admin.execute("ALTER TABLE audit.events DISABLE TRIGGER USER")
            admin.execute("UPDATE audit.events SET result = 'allow' WHERE event_type = 'decision'")
            admin.execute("ALTER TABLE audit.events ENABLE TRIGGER USER")
        incidents = "SELECT metadata ->> 'code' FROM audit.events WHERE reason = 'NOT_AS_SEALED'"
        assert eventually(lambda: rows(database, incidents) == [("leaf.altered",)], 30)
        rounds = of_steward(metrics, "audit_recent_rounds_total")
        assert eventually(lambda: of_steward(metrics, "audit_recent_rounds_total") > rounds + 1, 20)
        assert rows(database, incidents) == [("leaf.altered",)]
        assert of_steward(metrics, "audit_findings_total") == 1
        assert found.server.finish(signal.SIGTERM).status == 0
        assert "the audit log was changed: leaf.altered" in found.server.errors
    assert_nothing_is_left(found, decided)


def of_steward(address: str, name: str) -> float:
    return read(address).get(f'licet_{name}{{worker="steward"}}', 0.0)


def test_the_metrics_of_the_steward_are_among_those_of_the_host(
    database: Database, tmp_path: Path, metrics: str
) -> None:
    with service(database, tmp_path, LICET_METRICS_LISTEN=metrics) as found:
        assert eventually(lambda: of_steward(metrics, "audit_events_sealed_total") > 0, 20)
        seen = read(metrics)
        assert seen['licet_worker_serving{worker="steward"}'] == 1
        assert seen['licet_audit_leading{worker="steward"}'] == 1
        assert seen['licet_spool_bytes{worker="0"}'] > 0
        # What a worker does not do it has no number of.
        assert 'licet_audit_events_sealed_total{worker="0"}' not in seen
        os.kill(found.steward(), signal.SIGKILL)
        assert eventually(lambda: read(metrics)["licet_worker_failures_total"] == 1, 20)


@pytest.mark.timeout(120)
def test_a_key_that_cannot_be_used_ends_the_first_start_and_no_later_one(
    database: Database, tmp_path: Path
) -> None:
    with service(database, tmp_path) as found:
        (key,) = tmp_path.glob("*/signing.key")
        before, worker = found.steward(), min(workers_of(found.server))
        key.chmod(0o644)
        os.kill(before, signal.SIGKILL)
        assert eventually(lambda: "has mode 0644" in found.server.errors, _SECONDS)
        # A worker does not need it, not even a new one.
        os.kill(worker, signal.SIGKILL)
        assert eventually(
            lambda: (
                len(workers_of(found.server) - {worker}) == 2
                and found.server.errors.count("serving") > 3
            ),
            _SECONDS,
        )
        with Load(found.address) as load:
            assert load.grows()
        assert load.failures == []
        key.chmod(0o600)
        assert eventually(lambda: found.server.errors.count("steward (process") > 3, _SECONDS)
        assert found.is_sealed_on()
        assert found.server.finish(signal.SIGTERM).status == 0
    key.chmod(0o644)
    variables = {"LICET_DATABASE_URL": database.url, "LICET_STATE_DIR": str(tmp_path)}
    refused = run("serve", "--workers", "2", "--listen", "127.0.0.1:0", variables=variables)
    assert refused.status == 2
    assert f"licet: the key file {key} has mode 0644" in refused.err
    assert "licet: steward ended with code 2" in refused.err


@pytest.mark.timeout(120)
def test_a_steward_that_refuses_to_sign_does_not_serve_and_decisions_go_on(
    database: Database, tmp_path: Path, metrics: str
) -> None:
    with service(database, tmp_path, LICET_METRICS_LISTEN=metrics) as found:
        assert found.is_sealed_on()
        (state,) = tmp_path.glob("*/signed.json")
        truth = state.read_text()
        signed_last = json.loads(truth)
        state.write_text(json.dumps(signed_last | {"size": signed_last["size"] + 10**9}))
        with Load(found.address) as load:
            assert eventually(lambda: "ROLLBACK" in found.server.errors, _SECONDS)
            assert eventually(lambda: of_steward(metrics, "audit_signing_refused") == 1)
            assert eventually(lambda: of_steward(metrics, "worker_serving") == 0)
            assert load.grows()
            assert load.failures == []
        state.write_text(truth)
        assert eventually(lambda: of_steward(metrics, "worker_serving") == 1, _SECONDS)
        assert found.server.finish(signal.SIGTERM).status == 0
        assert ": not serving" in found.server.errors
    assert_nothing_is_left(found, load.decided)


def test_nobody_starts_a_steward_by_hand() -> None:
    alone = run("steward")
    assert alone.status == 2
    assert alone.err == "licet: `licet serve` starts the steward, beside its workers\n"
