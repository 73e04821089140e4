"""What Prometheus finds when it asks."""

from __future__ import annotations

from urllib.request import urlopen

from tests.fakes.postgres import Database
from tests.fakes.serving import Served, serving


def scraped(served: Served) -> dict[str, float]:
    port = served.licet.metrics_port
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
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
    assert found["licet_decisions_total"] == 4
    assert found["licet_set_reads_total"] == 2
    assert found["licet_capability_sets"] == 2
    assert found["licet_applied_revision"] == 1
    assert found["licet_replicas_fenced_total"] == 0
    assert found["licet_mutation_wait_seconds_count"] == 1
    assert found['licet_mutation_wait_seconds_bucket{le="+Inf"}'] == 1
    assert 0 < found["licet_mutation_wait_seconds_sum"] < 15
    assert 0 < found["licet_lease_remaining_seconds"] <= 1


def test_without_the_setting_nothing_listens(served: Served) -> None:
    assert served.licet.metrics_port is None
