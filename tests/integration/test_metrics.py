"""What Prometheus finds when it asks."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from threading import Event
from urllib.request import urlopen

from licet.client import Client
from licet.spool.writer import SEGMENT_BYTES
from licet.telemetry.metrics import NeverLess
from licet.v1 import authorization_pb2 as pb
from tests.fakes.api import count
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.integration.test_cli_workers import supervised, workers_of


def scraped(served: Served) -> dict[str, float]:
    return read(f"127.0.0.1:{served.licet.metrics_port}")


def read(address: str) -> dict[str, float]:
    with urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_metrics_count_what_happened(database: Database) -> None:
    with serving(database, metrics_listen="127.0.0.1:0") as served:
        served.grant("agent:a", "read", "doc:x")
        for _ in range(3):
            served.authorize("agent:a", "read", "doc:x")
        served.authorize("agent:nobody", "read", "doc:x")
        found = scraped(served)
        assert found["licet_condition_denials_total"] == 0
        for condition in ("false", "1 / 0 == 1", "context.x == 1"):
            served.grant("agent:c", "read", f"doc:{len(condition)}", condition=condition)
            served.authorize("agent:c", "read", f"doc:{len(condition)}")
        conditional = scraped(served)
    assert conditional["licet_condition_denials_total"] == 3
    assert conditional["licet_condition_errors_total"] == 2
    assert found["licet_decisions_total"] == 4
    assert found["licet_set_reads_total"] == 2
    assert found["licet_set_misses_total"] == 2
    assert found["licet_set_hits_total"] == 2
    assert found["licet_feed_changes"] == 1
    assert found["licet_revision_lag"] == 0
    assert found["licet_watchers"] == found["licet_streams"] == 0
    assert found["licet_history_trimmed_total"] == 0
    assert found["licet_capability_sets"] == 2
    assert found["licet_applied_revision"] == 1
    assert found["licet_replicas_fenced_total"] == 0
    assert found["licet_mutation_wait_seconds_count"] == 1
    assert found['licet_mutation_wait_seconds_bucket{le="+Inf"}'] == 1
    assert 0 < found["licet_mutation_wait_seconds_sum"] < 15
    assert 0 < found["licet_lease_remaining_seconds"] <= 1
    assert found["licet_spool_max_bytes"] == 8 << 30
    assert found["licet_spool_bytes"] == 2 * SEGMENT_BYTES
    assert found["licet_audit_findings_total"] == 0


def test_of_two_servers_one_seals_and_verifies_and_the_other_takes_over(
    database: Database,
) -> None:
    settings = {
        "metrics_listen": "127.0.0.1:0",
        "audit_verify_seconds": 1,
        "audit_verify_share": 0.2,
    }
    with serving(database, **settings) as leader:
        assert eventually(lambda: leads(leader))
        with serving(database, **settings) as follower:
            assert eventually(lambda: scraped(leader)["licet_audit_recent_rounds_total"] > 2, 20)
            found = scraped(leader)
            assert found["licet_audit_leaves_verified_total"] > 0
            assert found["licet_audit_whole_rounds_total"] == 1
            found = scraped(follower)
            assert found["licet_audit_recent_rounds_total"] == 0
            assert found["licet_audit_events_sealed_total"] == 0
            assert not leads(follower)
            leader.licet.stop()
            assert eventually(lambda: leads(follower), 20)
            assert eventually(lambda: scraped(follower)["licet_audit_whole_rounds_total"] > 0, 20)
            # It knows the checkpoints of the former leader, whose key has the name of a file.
            forged = "SELECT count(*) FROM audit.events WHERE metadata ->> 'code' ~ 'checkpoint'"
            assert count(database, forged) == 0


def test_verifying_can_be_turned_off(database: Database) -> None:
    settings = {"audit_verify_seconds": 1, "audit_verify_share": 0}
    with serving(database, metrics_listen="127.0.0.1:0", **settings) as served:
        assert eventually(lambda: leads(served))
        assert eventually(lambda: scraped(served)["licet_audit_events_sealed_total"] > 0)
        Event().wait(2)
        assert scraped(served)["licet_audit_leaves_verified_total"] == 0


def leads(served: Served) -> bool:
    return scraped(served)["licet_audit_leading"] == 1


def test_those_who_watch_and_ask_on_streams_are_counted(database: Database) -> None:
    with serving(database, metrics_listen="127.0.0.1:0") as served:
        watch = served.stub.WatchChanges(pb.WatchChangesRequest())
        next(watch)
        over = Event()
        stream = served.stub.StreamAuthorize(one_message(over))
        next(stream)
        found = scraped(served)
        assert (found["licet_watchers"], found["licet_streams"]) == (1, 1)
        over.set()
        watch.cancel()
        stream.cancel()
        assert eventually(lambda: scraped(served)["licet_streams"] == 0)
        assert eventually(lambda: scraped(served)["licet_watchers"] == 0)


def one_message(over: Event) -> Iterator[pb.StreamAuthorizeRequest]:
    request = pb.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
    yield pb.StreamAuthorizeRequest(requests=[request])
    over.wait(30)


def test_a_counter_that_is_computed_never_shrinks() -> None:
    values = iter([3.0, 5.0, 4.0, 6.0])
    counter = NeverLess(lambda: next(values))
    assert [counter() for _ in range(4)] == [3.0, 5.0, 5.0, 6.0]


def test_the_metrics_of_a_host_are_those_of_its_workers_and_of_their_health(
    database: Database,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with supervised(database, LICET_METRICS_LISTEN=address, LICET_CONNECTION_SECONDS="1") as (
        server,
        served_at,
    ):
        with Client(served_at) as client:
            for _ in range(4):
                client.authorize("agent:a", "read", "doc:x")
        before = workers_of(server)
        found = read(address)
        assert [found[f'licet_worker_serving{{worker="{slot}"}}'] for slot in (0, 1)] == [1, 1]
        decisions = [found[f'licet_decisions_total{{worker="{slot}"}}'] for slot in (0, 1)]
        assert sum(decisions) == 4
        assert found['licet_mutation_wait_seconds_bucket{le="+Inf",worker="1"}'] == 0
        assert found["licet_worker_failures_total"] == 0
        # Those who come have their metrics while those who go still have theirs.
        server.process.send_signal(signal.SIGHUP)
        assert eventually(
            lambda: len(workers_of(server)) == 2 and not workers_of(server) & before, 60
        )
        assert eventually(lambda: read(address)["licet_workers_leaving"] == 0, 30)
        found = read(address)
        assert [found[f'licet_decisions_total{{worker="{slot}"}}'] for slot in (0, 1)] == [0, 0]
        os.kill(min(workers_of(server)), signal.SIGKILL)
        assert eventually(lambda: read(address)["licet_worker_failures_total"] == 1, 30)


def test_without_the_setting_nothing_listens(served: Served) -> None:
    assert served.licet.metrics_port is None
