"""`licet audit follow`: each new event once, until Ctrl-C."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.postgres import eventually
from tests.fakes.serving import Served, serving
from tests.fakes.terminal import Running, running


@contextmanager
def following(served: Served, *arguments: str) -> Iterator[Running]:
    """Follow the log, from before the first event that the block causes."""
    command = ("audit", "follow", "--address", served.address, *arguments)
    with running(*command) as follower:
        # Whether it looks at the log already does not show; that it prints does.
        def is_following() -> bool:
            served.authorize("agent:probe", "read", "doc:probe")
            try:
                follower.line(0.3)
            except TimeoutError:
                return False
            return True

        assert eventually(is_following, 30)
        yield follower


def next_of(follower: Running, principal: str) -> dict[str, object]:
    while True:
        event: dict[str, object] = json.loads(follower.line())
        if event["principal"] == principal:
            return event


def test_new_events_are_printed_once_and_in_order(served: Served) -> None:
    served.authorize("agent:a", "read", "doc:before")
    with following(served, "--json") as follower:
        granted = served.grant("agent:a", "read", "doc:x/**")
        for i in range(20):
            served.authorize("agent:a", "read", f"doc:x/{i}")
        served.grant("agent:a", "read", "doc:last")

        first = next_of(follower, "agent:a")
        assert (first["event_type"], first["capability_id"]) == ("grant", granted)
        resources = [next_of(follower, "agent:a")["resource"] for _ in range(21)]
        assert resources == [*(f"doc:x/{i}" for i in range(20)), "doc:last"]

        ended = follower.finish(signal.SIGINT)
        assert (ended.status, ended.err) == (130, "")
        assert [e for e in ended.objects if e["principal"] == "agent:a"] == []


def test_a_line_for_people_says_what_happened(served: Served) -> None:
    with following(served) as follower:
        served.authorize("agent:a", "read", "doc:[red]/x")
        line = follower.lines_until("agent:a")[-1]
        assert line.split()[2:] == [
            "decision", "deny", "agent:a", "read", "doc:[red]/x", "NO_CAPABILITY",
        ]  # fmt: skip
        assert follower.finish(signal.SIGINT).status == 130


def test_only_events_that_match_the_filter_are_printed(served: Served) -> None:
    served.grant("agent:a", "read", "doc:x")
    arguments = ("--principal", "agent:a", "--decision", "deny", "--since", "1h", "--json")
    command = ("audit", "follow", "--address", served.address, *arguments)
    served.authorize("agent:a", "write", "doc:first")
    with running(*command) as follower:
        assert json.loads(follower.line())["resource"] == "doc:first"
        served.authorize("agent:a", "read", "doc:x")
        served.authorize("agent:b", "write", "doc:x")
        served.authorize("agent:a", "write", "doc:second")
        assert json.loads(follower.line())["resource"] == "doc:second"
        ended = follower.finish(signal.SIGINT)
        assert (ended.status, ended.out) == (130, "")


def test_a_restart_of_the_server_is_waited_for(served: Served) -> None:
    with serving(served.database) as first:
        arguments = ("--principal", "agent:a", "--since", "1h", "--json", "--timeout", "0.5")
        first.authorize("agent:a", "read", "doc:before")
        with running("audit", "follow", "--address", first.address, *arguments) as follower:
            assert json.loads(follower.line())["resource"] == "doc:before"
            first.licet.stop()
            assert eventually(lambda: "waiting: no licet answers" in follower.errors)
            with serving(served.database, listen=first.address) as second:
                second.authorize("agent:a", "read", "doc:after")
                assert json.loads(follower.line())["resource"] == "doc:after"
                ended = follower.finish(signal.SIGINT)
                assert (ended.status, ended.out) == (130, "")
                assert ended.err.count("\n") == 1


def test_nobody_there_is_an_error() -> None:
    with running("audit", "follow", "--address", "127.0.0.1:1") as follower:
        with pytest.raises(TimeoutError):
            follower.line(0.1)
        assert follower.process.wait(30) == 2
