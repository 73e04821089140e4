"""Strangers on the way that serves decisions without threads: nobody else waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from threading import Event
from typing import Any

import grpc
import pytest

from licet.server import strangers
from licet.v1 import authorization_pb2 as pb
from licet.v1 import users_pb2
from tests.fakes.api import refused
from tests.fakes.callers import calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import serving
from tests.integration.test_request_limits import (
    BURST,
    QUESTION,
    SLOW,
    ask,
    keyed,
    limited,
    wrong,
)

SERVICE = "/licet.v1.AuthorizationService"
REQUIRED = {"authentication": "required", "serving": "auto"}


def test_a_stream_that_a_stranger_opened_holds_up_nobody_when_it_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on on gRPC's thread, which must not wait for the pace of strangers."""
    monkeypatch.setattr(strangers, "PACE", SLOW)
    monkeypatch.setattr(strangers, "BURST", 1)
    with (
        keyed(database, caller_rate=SLOW, rate_burst=BURST, **REQUIRED) as (served, one, two),
        holding(served.address, one) as busy,
        holding(served.address, two) as quiet,
        calling(served.address, wrong(one)) as bad,
    ):
        ask(quiet)
        # Whoever is refused as a stranger from now on waits for as good as ever.
        assert refused(partial(ask, bad)).code is grpc.StatusCode.UNAUTHENTICATED
        message = pb.StreamAuthorizeRequest(requests=[QUESTION] * 600)
        answers = busy.authorization.StreamAuthorize(iter([message] * 2), timeout=10)
        assert len(next(answers).responses) == 600
        limited(lambda: next(answers), "caller")
        ask(quiet)


@pytest.mark.parametrize("method", ["Authorize", "BatchAuthorize"])
def test_of_a_stranger_no_message_is_received_before_it_is_known_who_that_is(
    database: Database, method: str
) -> None:
    """Thousands of them may wait: with their messages, those would fill memory."""
    over = Event()

    def nothing() -> Iterator[bytes]:
        over.wait(20)
        yield from ()

    with keyed(database, **REQUIRED) as (served, one, _), holding(served.address, one) as good:
        raw: Any = served.channel.stream_unary(f"{SERVICE}/{method}")
        for headers in ((), (("authorization", wrong(one)),), (("authorization", "x"),) * 2):
            failed = refused(lambda h=headers: raw(nothing(), metadata=h, timeout=5))  # type: ignore[misc] # bound now
            assert failed.code is grpc.StatusCode.UNAUTHENTICATED
        over.set()
        # Known from now on; its message counts once.
        ask(good)
        ask(good)
        assert eventually(lambda: served.licet.server.authority.strangers.lane.under_way == 0)


@pytest.mark.parametrize("way", ["auto", "stock"])
def test_strangers_that_make_changes_are_slowed_down_and_hold_up_no_change(
    database: Database, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(strangers, "PACE", SLOW)
    monkeypatch.setattr(strangers, "BURST", 1)
    user = users_pb2.CreateUserRequest(principal="user:a", email="a@example.com", roles=["user"])
    with serving(database) as served, calling(served.address) as admin:
        token = make_key(admin, "authorize", "grant", "revoke", "read", "identity").token
    with (
        serving(database, authentication="required", serving=way) as served,
        holding(served.address, token) as good,
        calling(served.address, wrong(token)) as bad,
    ):
        grant = pb.GrantRequest(principal="agent:a", actions=["read"], resource="doc:x")
        granted = good.authorization.Grant(grant, timeout=20).capability.id
        revoke = pb.RevokeRequest(capability_id=granted)
        tried = (
            partial(bad.authorization.Grant, grant, timeout=0.5),
            partial(bad.authorization.Revoke, revoke, timeout=0.5),
            partial(bad.identity.CreateUser, user, timeout=0.5),
        )
        assert refused(tried[0]).code is grpc.StatusCode.UNAUTHENTICATED
        for call in tried:
            assert refused(call).code is grpc.StatusCode.DEADLINE_EXCEEDED
        # All four threads of strangers have somebody who waits; whoever is known does not.
        assert refused(tried[0]).code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert good.authorization.Revoke(revoke, timeout=10).ended_count == 1
        assert good.identity.CreateUser(user, timeout=10).user.principal == "user:a"


def test_what_a_stranger_asks_counts_once(database: Database) -> None:
    settings = {"caller_rate": SLOW, "rate_burst": BURST, **REQUIRED}
    with keyed(database, **settings) as (served, one, _), holding(served.address, one) as first:
        request = pb.BatchAuthorizeRequest(requests=[QUESTION] * (BURST - 1))
        first.authorization.BatchAuthorize(request, timeout=20)
        ask(first)
        limited(lambda: ask(first), "caller")
