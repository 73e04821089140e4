"""The database is away under load: for how long decisions go on, and what is on record then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import grpc
import pytest

from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_ALLOW
from tests.fakes.api import all_stored, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import PostgresProxy
from tests.fakes.sealing import metadata_of
from tests.fakes.served_log import assert_on_record
from tests.fakes.serving import Served, failure, serving

LEASE = 1.0
# As long as a resource may be: so the smallest spool is soon full.
ONE = pb.AuthorizeRequest(
    principal="agent:a", action="read", resource="doc:" + "/".join(["x" * 50] * 20)
)


class Client:
    """Asks for what is allowed, again and again, and keeps what it was answered."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._stopping = Event()
        self._thread = Thread(target=self._ask)
        self.answered: list[str] = []
        self.last_answer = 0.0
        self.failed: list[grpc.StatusCode] = []
        self.others = 0
        """Answers that were not ALLOW."""

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask meanwhile."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._thread.join()

    def _ask(self) -> None:
        while not self._stopping.is_set():
            try:
                answer = self._served.stub.Authorize(ONE, timeout=1.0)
            except grpc.RpcError as exc:
                self.failed.append(failure(exc).code)
                continue
            self.answered.append(answer.decision_id)
            self.last_answer = monotonic()
            self.others += answer.decision != DECISION_ALLOW


def test_decisions_go_on_for_a_lease_and_what_was_answered_is_stored_afterwards(
    proxy: PostgresProxy, database: Database, tmp_path: Path
) -> None:
    with serving(proxy.database, state_dir=tmp_path, lease_seconds=LEASE) as served:
        served.grant("agent:a", "read", "doc:**")
        client = Client(served)
        with client.asking():
            assert eventually(lambda: len(client.answered) > 100)
            proxy.go_down()
            down, before = monotonic(), len(client.answered)
            assert eventually(lambda: len(client.failed) > 1)
            # From memory, as long as the lease, and no longer.
            assert len(client.answered) > before
            assert client.last_answer - down < LEASE + 0.5
            gone, failed = len(client.answered), len(client.failed)
            assert eventually(lambda: len(client.failed) > failed + 1)
            assert len(client.answered) == gone
            proxy.come_back()
            assert eventually(lambda: len(client.answered) > gone + 100, 30.0)
    # The server waits for the database for as long as its caller waits.
    assert set(client.failed) <= {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
    assert client.others == 0
    assert_on_record(database, tmp_path, client.answered)


@pytest.mark.timeout(180)
def test_when_the_spool_is_full_nothing_is_allowed_and_afterwards_that_is_on_record(
    database: Database, tmp_path: Path
) -> None:
    """The log's table hangs and nothing else does: the lease holds, and the spool fills."""
    with (
        serving(database, state_dir=tmp_path, spool_max_mib=64) as served,
        database.connect() as stranger,
    ):
        served.grant("agent:a", "read", "doc:**")
        answered = [served.stub.Authorize(ONE, timeout=10).decision_id]
        assert all_stored(database, answered)
        stranger.execute("BEGIN")
        stranger.execute("LOCK TABLE audit.events IN SHARE MODE")
        batch = pb.BatchAuthorizeRequest(requests=[ONE] * 1000)
        streamed = pb.StreamAuthorizeRequest(requests=[ONE])
        while True:
            try:
                answers = served.stub.BatchAuthorize(batch, timeout=30).responses
            except grpc.RpcError:
                break
            answered += [answer.decision_id for answer in answers]
        answered += _until_the_segment_is_full(served)
        # Nothing gets through, however it is asked for, and it is not for want of a lease.
        for _ in range(5):
            for call in (
                lambda: served.stub.Authorize(ONE, timeout=10),
                lambda: served.stub.BatchAuthorize(batch, timeout=10),
                lambda: list(served.stub.StreamAuthorize(iter([streamed]), timeout=10)),
            ):
                with pytest.raises(grpc.RpcError) as failed:
                    call()
                found = failure(failed.value)
                assert (found.code, found.retry) == (grpc.StatusCode.UNAVAILABLE, True)
        stranger.execute("ROLLBACK")
        assert eventually(lambda: metadata_of(database, "audit.refused") != [], 60.0)
        answered.append(served.stub.Authorize(ONE, timeout=10).decision_id)
    assert_on_record(database, tmp_path, answered)
    told = sum(facts["decisions"] for facts in metadata_of(database, "audit.refused"))
    assert told >= 5 * 1002
    # In the order in which they were recorded.
    order = rows(
        database,
        """SELECT count(*) FROM (
             SELECT e.event_id, lag(e.occurred_at) OVER (ORDER BY e.event_id) AS before,
                    e.occurred_at
             FROM audit.events AS e WHERE e.event_type = 'decision') AS found
           WHERE occurred_at < before - interval '1 second'""",
    )
    assert order == [(0,)]


def _until_the_segment_is_full(served: Served) -> list[str]:
    """Fill what is left for one decision, where none is left for a thousand."""
    answered: list[str] = []
    while True:
        try:
            answered.append(served.stub.Authorize(ONE, timeout=10).decision_id)
        except grpc.RpcError:
            return answered
