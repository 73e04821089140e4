"""Limits on a real PostgreSQL: never more than the limit over all replicas, and most of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from secrets import randbits
from threading import Barrier, Event
from time import monotonic

import psycopg
import pytest

from licet.app.limit_ports import Exchange, Exchanged
from licet.app.ports import Deadline
from licet.bootstrap.custody import soon
from licet.domain.errors import LicetError, UnavailableError
from licet.domain.token_bucket import Bucket, Demand, Refusal
from licet.replica.lease import boottime
from licet.replica.limits import SlicedLimits
from licet.steward.buckets import BucketThread
from licet.storage import pool
from licet.storage.limits import PostgresBuckets
from licet.v1 import authorization_pb2 as api
from licet.v1 import decision_pb2 as decisions
from licet.v1 import policy_pb2 as pb
from licet.v1.policy_pb2_grpc import PolicyServiceStub
from tests.fakes.api import rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.serving import Served, serving
from tests.properties.limit_world import overrun
from tests.unit.builders import PATIENT
from tests.unit.policies import document

SECOND = 1_000_000
BUSY = Bucket("busy", 100, SECOND, 30)
SLOW = Bucket("slow", 1, 3600 * SECOND, 8)
LIMITS = pool.PoolLimits(min_size=1, max_size=2, acquire_seconds=0.5)


@contextmanager
def replica(database: Database) -> Iterator[SlicedLimits]:
    """Provide what a process has of the buckets."""
    connections = pool.Database(database.url, LIMITS)
    connections.open(10.0)
    limits = SlicedLimits(PostgresBuckets(connections), boottime, lambda: randbits(63))
    limits.start()
    try:
        yield limits
    finally:
        limits.stop()
        connections.close()


def take(limits: SlicedLimits, bucket: Bucket, deadline: Deadline = PATIENT) -> bool:
    """Take a token, and say whether there was one."""
    return not isinstance(limits.take([Demand(bucket.key, bucket)], deadline), Refusal)


def test_a_batch_may_be_under_more_limits_than_a_statement_takes(database: Database) -> None:
    buckets = [Bucket(f"b{number}", 1, 3600 * SECOND, 1) for number in range(4200)]
    wanted = [
        [Demand(bucket.key, bucket) for bucket in buckets[first::100]] for first in range(100)
    ]
    with replica(database) as limits:
        for is_refused in (False, True):
            found = limits.take_all(wanted, PATIENT)
            assert {isinstance(one, Refusal) for one in found} == {is_refused}


def hammer(limits: SlicedLimits, bucket: Bucket, start: Barrier, over: Event) -> list[int]:
    """Take as often as possible; return between which instants, in microseconds, each happened."""
    start.wait(10)
    taken = []
    while not over.is_set():
        if take(limits, bucket):
            taken.append(int(boottime() * SECOND))
        else:
            over.wait(0.001)
    return taken


def test_two_replicas_and_four_threads_each_take_no_more_than_the_limit(
    database: Database,
) -> None:
    start, over = Barrier(9), Event()
    with ExitStack() as stack, ThreadPoolExecutor(8) as threads:
        both = [stack.enter_context(replica(database)) for _ in range(2)]
        hammering = [
            threads.submit(hammer, both[number % 2], BUSY, start, over) for number in range(8)
        ]
        start.wait(10)
        begin = monotonic()
        over.wait(3.0)
        over.set()
        seconds = monotonic() - begin
        taken = sorted(at for one in hammering for at in one.result(10))
        granted = sum(limits.granted for limits in both)
    most = BUSY.burst + BUSY.tokens * seconds
    assert len(taken) <= granted <= most
    assert len(taken) >= 0.8 * most
    # An instant is noted after its take, so each thread may have one that seems to be in a window
    # and was before it.
    assert overrun(BUSY._replace(burst=BUSY.burst + 8), taken) is None


def test_a_replica_that_uses_some_leaves_the_rest_to_others(database: Database) -> None:
    with replica(database) as one, replica(database) as other:
        assert [take(one, SLOW) for _ in range(3)] == [True] * 3
        # What the one keeps it gives back when it is not used.
        assert eventually(lambda: len(one) == 0)
        assert [take(other, SLOW) for _ in range(6)] == [True] * 5 + [False]
    assert one.granted - one.given_back + other.granted - other.given_back == 8


def test_what_a_dead_replica_had_counts_as_used(database: Database) -> None:
    with replica(database) as dead:
        dead.take_all([[Demand(SLOW.key, SLOW)]] * 4, PATIENT)
        # It takes with it whatever it has: nobody is told.
        dead._gives_back = False  # noqa: SLF001 - and its thread ends where it is
        dead._store = Gone()  # noqa: SLF001
        with replica(database) as other:
            # It may have kept up to a quarter of the burst.
            assert 2 <= sum(take(other, SLOW) for _ in range(9)) <= 4


class Gone:
    def exchange(
        self, items: Sequence[Exchange], hold: int, deadline: Deadline
    ) -> Sequence[Exchanged]:
        raise UnavailableError(f"nobody asks: {len(items), hold, deadline}")


@pytest.mark.parametrize("executed", [False, True], ids=["lost", "executed"])
def test_a_lost_answer_gives_nothing_twice(database: Database, executed: bool) -> None:
    with PostgresProxy(database) as proxy, replica(proxy.database) as limits:
        fault = proxy.arm(Fault(b"exchange_slices", forward=executed))
        taken = failed = 0
        for _ in range(12):
            try:
                taken += take(limits, SLOW)
            except LicetError:
                failed += 1
        assert fault.happened()
        assert failed == 1
        # The grant that nobody heard of is still there for who it was made for.
        assert taken == 8


def test_without_the_database_nothing_is_allowed_beyond_what_was_granted(
    database: Database,
) -> None:
    with PostgresProxy(database) as proxy, replica(proxy.database) as limits:
        assert take(limits, SLOW)
        proxy.go_down()
        with pytest.raises(UnavailableError, match="what a limit leaves cannot be known"):
            limits.take_all([[Demand(SLOW.key, SLOW)]] * 3, PATIENT)
        proxy.come_back()
        assert eventually(lambda: answers(limits))
        assert limits.failures > 0
        assert limits.taken <= 8


def answers(limits: SlicedLimits) -> bool:
    try:
        take(limits, SLOW)
    except LicetError:
        return False
    return True


def test_what_is_granted_is_durable_even_where_commits_are_not(database: Database) -> None:
    """Whoever turns durability off for everything has it all the same for what is granted."""
    with psycopg.connect(database.url, autocommit=True) as admin, admin.transaction():
        admin.execute("SET LOCAL synchronous_commit = off")
        admin.execute(
            "SELECT * FROM licet.exchange_slices('{\"\\\\x00112233445566778899aabbccddeeff\"}',"
            " '{1}', '{t}', '{0}', '{0}', '{1}', '{0}', '{1}', '{1000000}', '{1}', 1000000)"
        )
        assert admin.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_rows_go_when_their_buckets_are_full(database: Database) -> None:
    quick = Bucket("quick", 1000, SECOND, 10)
    with replica(database) as limits:
        assert take(limits, quick)
        assert take(limits, SLOW)
    assert len(rows(database, "SELECT bucket FROM licet.buckets")) == 2
    connections = pool.Database(database.url, LIMITS)
    connections.open(10.0)
    leads = Event()
    thread = BucketThread(PostgresBuckets(connections), leads.is_set, soon, 0.02)
    thread.start()
    try:
        # Half an hour later, as far as the rows are concerned.
        later = "UPDATE licet.buckets SET tat = tat - {0}, full_at = full_at - {0}"
        with database.connect() as admin:
            admin.execute(later.format(1800 * SECOND))
        leads.set()
        assert eventually(lambda: thread.trimmed == 1)
        kept = [row[0] for row in rows(database, "SELECT bucket FROM licet.buckets")]
        assert kept == [SLOW.digest()]
    finally:
        thread.stop()
        connections.close()


LIMITED = document("name: few, match: {actions: [read]}, limit: {rate: 3/h}")


@pytest.fixture
def two(database: Database, both_ways: str) -> Iterator[list[Served]]:
    assert both_ways
    with serving(database) as one, serving(database) as other:
        one.grant("agent:a", "read write", "doc:**")
        one.grant("agent:b", "read", "doc:**")
        request = pb.PutPolicySetRequest(document=LIMITED)
        PolicyServiceStub(one.channel).PutPolicySet(request, timeout=20)
        yield [one, other]


def test_servers_share_a_limit_and_say_when_there_is_more(two: list[Served]) -> None:
    answers = [served.authorize("agent:a", "read", "doc:x") for served in two * 3]

    allowed = [answer.decision == decisions.DECISION_ALLOW for answer in answers]
    assert allowed == [True] * 3 + [False] * 3
    for denied in answers[3:]:
        assert denied.reason == decisions.REASON_RATE_LIMITED
        assert denied.policy_id == "few"
        assert denied.detail == "policy few: its limit is used up"
        assert 0 < denied.retry_after.ToTimedelta().total_seconds() <= 1200
    # As soon as each has told what it used.
    assert eventually(
        lambda: all(
            _asked(served).retry_after.ToTimedelta().total_seconds() > 1100 for served in two
        )
    )
    # Another action, and another principal.
    assert two[0].authorize("agent:a", "write", "doc:x").decision == decisions.DECISION_ALLOW
    assert two[0].authorize("agent:b", "read", "doc:x").decision == decisions.DECISION_ALLOW


def test_batches_streams_and_explanations_take_what_their_decisions_do(two: list[Served]) -> None:
    question = api.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x")
    explained = api.AuthorizeRequest()
    explained.CopyFrom(question)
    explained.explain = True

    first = two[0].stub.Authorize(explained, timeout=10)
    batch = two[1].stub.BatchAuthorize(
        api.BatchAuthorizeRequest(requests=[question] * 3), timeout=10
    )
    message = api.StreamAuthorizeRequest(requests=[question, explained])
    (streamed,) = two[0].stub.StreamAuthorize(iter([message]), timeout=10)

    allowed = [one.decision for one in (first, *batch.responses, *streamed.responses)]
    assert allowed == [decisions.DECISION_ALLOW] * 3 + [decisions.DECISION_DENY] * 3
    (policy,) = streamed.responses[1].explanation.policies
    assert (policy.policy_id, policy.detail) == ("few", "its limit was used up")


def test_another_set_with_the_same_limit_fills_no_bucket(two: list[Served]) -> None:
    assert all(_allowed(two[0]) for _ in range(3))
    stub = PolicyServiceStub(two[1].channel)
    more = LIMITED + "  - {name: other, match: {actions: [drop]}, deny: nope}\n"
    stub.PutPolicySet(pb.PutPolicySetRequest(document=more), timeout=20)
    assert not any(_allowed(served) for served in two)
    # Another limit is another bucket.
    stub.PutPolicySet(pb.PutPolicySetRequest(document=LIMITED.replace("3/h", "4/h")), timeout=20)
    assert _allowed(two[0])


def _asked(served: Served) -> api.AuthorizeResponse:
    return served.authorize("agent:a", "read", "doc:x")


def _allowed(served: Served) -> bool:
    return _asked(served).decision == decisions.DECISION_ALLOW
