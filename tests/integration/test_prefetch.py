"""A new process knows what the principals that asked lately hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from licet.app.ports import Deadline
from licet.app.prefetch import prefetch
from licet.domain.capability_set import CapabilitySet
from licet.domain.errors import DeadlineError
from licet.domain.names import Principal
from tests.fakes.postgres import Database
from tests.fakes.serving import serving
from tests.integration.test_metrics import scraped


def test_what_recent_principals_hold_is_in_memory_before_the_first_request(
    database: Database,
) -> None:
    with serving(database) as first:
        for number in range(120):
            first.grant(f"agent:w{number}", "read", "doc:x")
            assert first.authorize(f"agent:w{number}", "read", "doc:x").decision == 1
        first.grant("agent:silent", "read", "doc:x")
    with serving(database, metrics_listen="127.0.0.1:0") as second:
        assert scraped(second)["licet_capability_sets"] == 120
        reads = scraped(second)["licet_set_reads_total"]
        second.authorize("agent:w7", "read", "doc:x")
        assert scraped(second)["licet_set_reads_total"] == reads
        second.authorize("agent:silent", "read", "doc:x")
        assert scraped(second)["licet_set_reads_total"] == reads + 1


class _Slow:
    """A database that knows who asked, and is too slow to tell what they hold."""

    def recent_principals(self, limit: int, deadline: Deadline) -> list[Principal]:
        assert deadline.remaining(1.0) <= 1.0
        return [Principal(f"agent:w{number}") for number in range(limit)]

    def get(self, principal: Principal, deadline: Deadline) -> CapabilitySet:
        return self.get_many([principal], deadline)[principal]

    def get_many(
        self, principals: Collection[Principal], deadline: Deadline
    ) -> Mapping[Principal, CapabilitySet]:
        raise DeadlineError(f"{len(principals)} principals in {deadline.remaining(1.0)} s")


def test_a_slow_database_does_not_keep_it_from_starting() -> None:
    slow = _Slow()
    assert prefetch(slow, slow, Deadline(lambda: 0.0)) == 0
