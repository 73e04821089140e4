"""WatchChanges through a real channel: order, resumption, heartbeats, and every way it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from time import monotonic
from typing import Any, TypeAlias
from uuid import uuid4

import grpc
import pytest

from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.fakes.changes import add_changes, trim_through
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Failure, Served, failure, serving

HEARTBEAT_SECONDS = 0.2
STREAM_SECONDS = 40.0

Stream: TypeAlias = Any
"""A call that is iterated over; the stubs of grpc do not say that it can be cancelled as well."""


@pytest.fixture
def watched(database: Database) -> Iterator[Served]:
    """Provide a licet whose watches say often that there was nothing."""
    with serving(database, heartbeat_seconds=HEARTBEAT_SECONDS) as running:
        yield running


@contextmanager
def watching(served: Served, after: int | None = None, epoch: str = "") -> Iterator[Stream]:
    """Watch until the block ends; the deadline is the test's only."""
    request = pb.WatchChangesRequest(after_revision=after, epoch=epoch)
    stream = served.stub.WatchChanges(request, timeout=STREAM_SECONDS)
    try:
        yield stream
    finally:
        stream.cancel()


def changes_until(stream: Stream, revision: int) -> list[pb.WatchChange]:
    """Return the changes up to a revision; heartbeats in between must not run ahead of them."""
    found: list[pb.WatchChange] = []
    for message in stream:
        if message.HasField("change"):
            found.append(message.change)
            if message.change.revision >= revision:
                break
        else:
            assert not found or message.heartbeat.revision == found[-1].revision
    return found


def taken_to_the_end(stream: Stream) -> tuple[list[pb.WatchChange], Failure]:
    """Read a stream to its end; return the changes and what it ended with."""
    found: list[pb.WatchChange] = []

    def read() -> None:
        found.extend(message.change for message in stream if message.HasField("change"))

    with pytest.raises(grpc.RpcError) as raised:
        read()
    return found, failure(raised.value)


def ended(stream: Stream) -> Failure:
    """Read a stream to its end and return what it ended with."""
    return taken_to_the_end(stream)[1]


def opens(served: Served) -> bool:
    """Say whether there is a place for one more watch."""
    with watching(served) as stream:
        try:
            return bool(next(stream).heartbeat.epoch)
        except grpc.RpcError as exc:
            if failure(exc).reason == "EXHAUSTED":
                return False
            raise


def grant(served: Served, principal: str) -> int:
    """Grant something and return the revision."""
    request = pb.GrantRequest(principal=principal, actions=["read"], resource="doc:a")
    return served.stub.Grant(request, timeout=20).revision


def no_gap(changes: list[pb.WatchChange]) -> bool:
    return all(after.revision == before.revision + 1 for before, after in pairwise(changes))


def test_a_change_names_its_principals_and_its_time(watched: Served) -> None:
    revision = grant(watched, "agent:a")
    with watching(watched, after=0) as stream:
        (change,) = changes_until(stream, revision)
    assert list(change.principals) == ["agent:a"]
    assert not change.everything
    (capability,) = watched.stub.ListCapabilities(pb.ListCapabilitiesRequest()).capabilities
    assert abs(change.at.ToMicroseconds() - capability.granted_at.ToMicroseconds()) < 10_000_000


def test_a_change_of_very_many_principals_says_everything(watched: Served) -> None:
    with watching(watched, after=0) as stream:
        next(stream)
        add_changes(watched.database, 1, names=0, everything=True)
        (change,) = changes_until(stream, 1)
    assert change.everything
    assert not change.principals


def test_concurrent_changes_come_in_order_each_once(watched: Served) -> None:
    writers, each = 8, 12
    barrier = threading.Barrier(writers)

    def write(writer: int) -> dict[str, int]:
        barrier.wait(20)
        return {
            principal: grant(watched, principal)
            for principal in (f"agent:w{writer}-{i}" for i in range(each))
        }

    with watching(watched) as stream, ThreadPoolExecutor(writers) as pool:
        assert next(stream).heartbeat.revision == 0
        granted: dict[str, int] = {}
        for part in pool.map(write, range(writers)):
            granted |= part
        seen = changes_until(stream, max(granted.values()))
    assert seen[0].revision == 1
    assert no_gap(seen)
    told = {principal: change.revision for change in seen for principal in change.principals}
    assert told == granted


def test_a_watch_resumes_in_the_middle_without_loss_or_repetition(watched: Served) -> None:
    last = [grant(watched, f"agent:{i}") for i in range(6)][-1]
    with watching(watched, after=0) as first:
        epoch = next(first).heartbeat.epoch
        begun = changes_until(first, 3)
    with watching(watched, after=begun[-1].revision, epoch=epoch) as second:
        heartbeat = next(second).heartbeat
        assert (heartbeat.revision, heartbeat.epoch) == (3, epoch)
        resumed = changes_until(second, last)
    assert [change.revision for change in begun + resumed] == list(range(1, last + 1))


def test_without_a_revision_it_starts_now(watched: Served) -> None:
    before = grant(watched, "agent:before")
    with watching(watched) as stream:
        assert next(stream).heartbeat.revision == before
        after = grant(watched, "agent:after")
        assert [list(c.principals) for c in changes_until(stream, after)] == [["agent:after"]]


def test_heartbeats_say_that_everything_was_sent(watched: Served) -> None:
    with watching(watched, after=0) as stream:
        beats = [next(stream).heartbeat.revision for _ in range(3)]
        revision = grant(watched, "agent:a")
        # The grant has returned, so no later heartbeat may come before its change. One that was
        # sent earlier may still be on its way.
        kinds = [next(stream) for _ in range(12)]
    assert beats == [0, 0, 0]
    revisions = [m.heartbeat.revision or m.change.revision for m in kinds]
    assert revisions == sorted(revisions)
    assert revisions.count(revision) >= 2
    assert [m.change.revision for m in kinds if m.HasField("change")] == [revision]


def test_a_watch_on_one_replica_tells_of_changes_through_another(
    watched: Served, database: Database
) -> None:
    with serving(database, heartbeat_seconds=HEARTBEAT_SECONDS) as other:
        with watching(other, after=0) as stream:
            next(stream)
            last = [grant(watched, f"agent:{i}") for i in range(5)][-1]
            assert [c.revision for c in changes_until(stream, last)] == [1, 2, 3, 4, 5]
        with watching(watched, after=3) as stream:
            assert [c.revision for c in changes_until(stream, last)] == [4, 5]


def test_a_fenced_replica_neither_skips_nor_repeats(watched: Served, database: Database) -> None:
    with watching(watched, after=0) as stream, database.connect() as admin:
        for i in range(20):
            admin.execute("DELETE FROM licet.replicas")
            grant(watched, f"agent:{i}")
        add_changes(database, 20, names=1)
        last = grant(watched, "agent:last")
        seen = changes_until(stream, last)
    assert [change.revision for change in seen] == list(range(1, last + 1))


def test_a_lost_connection_neither_skips_nor_repeats(watched: Served, database: Database) -> None:
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
    with watching(watched, after=0) as stream, database.connect() as admin:
        for i in range(5):
            admin.execute(kill, ["licet replica"])
            grant(watched, f"agent:{i}")
        last = grant(watched, "agent:last")
        seen = changes_until(stream, last)
    assert [change.revision for change in seen] == list(range(1, last + 1))


def test_more_than_the_feed_holds_comes_from_the_database(watched: Served) -> None:
    add_changes(watched.database, 60, names=5000)
    with watching(watched, after=0) as stream:
        seen = changes_until(stream, 60)
    assert [change.revision for change in seen] == list(range(1, 61))
    assert {len(change.principals) for change in seen} == {5000}


def test_a_slow_consumer_is_told_so_and_can_resume(database: Database) -> None:
    # A long lease: a replica that registers anew lets everybody catch up from the database.
    with serving(database, heartbeat_seconds=HEARTBEAT_SECONDS, lease_seconds=10.0) as served:
        with watching(served) as stream:
            next(stream)
            # More than a channel buffers, and less than the feed holds.
            add_changes(database, 10, names=5000, suffix="x" * 240)
            taken = changes_until(stream, 1)
            # More than the feed holds.
            add_changes(database, 30, names=5000)
            last = grant(served, "agent:last")
            threading.Event().wait(2 * HEARTBEAT_SECONDS)
            more, dropped = taken_to_the_end(stream)
        assert dropped.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (dropped.reason, dropped.retry) == ("SLOW_CONSUMER", True)
        taken += more
        with watching(served, after=taken[-1].revision) as stream:
            taken += changes_until(stream, last)
    assert [change.revision for change in taken] == list(range(1, last + 1))


def test_a_start_older_than_what_is_kept_says_from_where_it_can(watched: Served) -> None:
    last = [grant(watched, f"agent:{i}") for i in range(5)][-1]
    trim_through(watched.database, 3)
    # Another process, so that the changes are not in memory either.
    with serving(watched.database) as fresh:
        with watching(fresh, after=2) as stream:
            refused = ended(stream)
        assert refused.code is grpc.StatusCode.OUT_OF_RANGE
        assert refused.reason == "REVISION_TOO_OLD"
        assert refused.metadata["oldest_revision"] == "3"
        assert refused.metadata["current_revision"] == str(last)
        with watching(fresh, after=int(refused.metadata["oldest_revision"])) as stream:
            assert [c.revision for c in changes_until(stream, last)] == [4, 5]


def test_a_replica_that_missed_trimmed_changes_ends_its_watches(watched: Served) -> None:
    with watching(watched) as stream:
        next(stream)
        add_changes(watched.database, 5, names=1, trim=4)
        refused = ended(stream)
    assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_TOO_OLD")
    # And the replica is current again.
    with watching(watched) as stream:
        assert next(stream).heartbeat.revision == 5
        assert [c.revision for c in changes_until(stream, grant(watched, "agent:a"))] == [6]


def test_a_start_in_the_future_is_refused(watched: Served) -> None:
    revision = grant(watched, "agent:a")
    with watching(watched, after=revision + 1) as stream:
        refused = ended(stream)
    assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_IN_FUTURE")
    assert refused.metadata["current_revision"] == str(revision)


def test_another_epoch_is_refused(watched: Served) -> None:
    with watching(watched, after=0, epoch=str(uuid4())) as stream:
        refused = ended(stream)
    assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "EPOCH_CHANGED")


def test_a_restored_database_ends_a_watch(watched: Served, database: Database) -> None:
    with watching(watched, after=0) as stream:
        before = next(stream).heartbeat.epoch
        with database.connect() as admin:
            admin.execute("UPDATE licet.meta SET epoch = gen_random_uuid()")
        refused = ended(stream)
    assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "EPOCH_CHANGED")
    with watching(watched) as stream:
        assert next(stream).heartbeat.epoch == refused.metadata["epoch"] != before


@pytest.mark.parametrize(
    ("after", "epoch", "field"),
    [(-1, "", "after_revision"), (0, "yesterday", "epoch"), (None, str(uuid4()), "epoch")],
)
def test_a_malformed_request_names_the_field(
    watched: Served, after: int | None, epoch: str, field: str
) -> None:
    with watching(watched, after, epoch) as stream:
        refused = ended(stream)
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


def test_bytes_that_are_no_request_are_refused(watched: Served) -> None:
    call: Stream = watched.channel.unary_stream("/licet.v1.AuthorizationService/WatchChanges")
    assert ended(call(b"\xff\xff", timeout=10)).code is grpc.StatusCode.INVALID_ARGUMENT


def test_draining_ends_every_watch_at_once(database: Database) -> None:
    with serving(database, drain_seconds=30.0) as served:
        streams = [served.stub.WatchChanges(pb.WatchChangesRequest()) for _ in range(5)]
        for stream in streams:
            next(stream)
        began = monotonic()
        served.licet.stop()
        assert monotonic() - began < 15
        for stream in streams:
            told = ended(stream)
            assert (told.code, told.retry) == (grpc.StatusCode.UNAVAILABLE, True)


def test_draining_does_not_wait_for_a_client_that_takes_nothing(database: Database) -> None:
    with serving(database, drain_seconds=30.0) as served:
        stream = served.stub.WatchChanges(pb.WatchChangesRequest())
        next(stream)
        add_changes(database, 10, names=5000, suffix="x" * 240)
        changes_until(stream, 1)
        began = monotonic()
        served.licet.stop()
        assert monotonic() - began < 15


def test_a_cancelled_watch_gives_its_place_back(database: Database) -> None:
    # Cancelling does not wait for a heartbeat.
    with serving(database, max_watchers=1, heartbeat_seconds=60.0) as served:
        assert all(eventually(lambda: opens(served)) for _ in range(3))


def test_a_client_that_vanished_gives_its_place_back(database: Database) -> None:
    with serving(database, max_watchers=1, heartbeat_seconds=60.0) as served:
        with grpc.insecure_channel(served.address) as channel:
            next(AuthorizationServiceStub(channel).WatchChanges(pb.WatchChangesRequest()))
        assert eventually(lambda: opens(served))


def test_as_many_watch_as_there_are_places_and_one_more_is_told(database: Database) -> None:
    with serving(database, max_watchers=30, threads=2) as served:
        streams = [
            served.stub.WatchChanges(pb.WatchChangesRequest(), timeout=STREAM_SECONDS)
            for _ in range(30)
        ]
        for stream in streams:
            next(stream)
        for _ in range(10):
            with watching(served) as one_more:
                refused = ended(one_more)
            assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (refused.reason, refused.retry) == ("EXHAUSTED", True)
        # They hold no thread of the other calls.
        last = [grant(served, f"agent:{i}") for i in range(5)][-1]
        for stream in streams:
            assert [c.revision for c in changes_until(stream, last)] == [1, 2, 3, 4, 5]
            stream.cancel()
