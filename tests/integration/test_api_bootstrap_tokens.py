"""Bootstrap tokens over the API: who makes one, how often it is used, and what nobody learns."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from licet.v1 import agents_pb2 as pb
from tests.fakes.agents import event_reasons, make_bootstrap, register, registration, who
from tests.fakes.api import count, refused, rows
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, failure, serving

NOBODY = "an API key is required: `authorization: Bearer licet_...`"


@pytest.fixture
def admin(served: Served) -> Iterator[As]:
    """Provide the services as the admin calls them."""
    with calling(served.address) as services:
        yield services


def test_the_uses_of_a_bootstrap_token_are_exact_over_two_servers(
    served: Served, admin: As, database: Database
) -> None:
    made = make_bootstrap(admin, max_uses=5)
    together = Barrier(8)

    def attempt(number: int, address: str) -> tuple[grpc.StatusCode, str]:
        with holding(address, made.token) as bootstrap:
            together.wait(10)
            try:
                bootstrap.identity.RegisterAgent(registration(f"a-{number}"), timeout=20)
            except grpc.RpcError as exc:
                told = failure(exc)
                return told.code, told.message
        return grpc.StatusCode.OK, ""

    with serving(database) as other, ThreadPoolExecutor(8) as pool:
        addresses = [served.address, other.address] * 4
        outcomes = list(pool.map(attempt, range(8), addresses))
        # The same to each: whether it was used up before the call or during it is not told.
        late = [attempt_once(address, made.token) for address in addresses[:2]]
    assert outcomes.count((grpc.StatusCode.OK, "")) == 5
    assert outcomes.count((grpc.StatusCode.UNAUTHENTICATED, NOBODY)) == 3
    assert late == [(grpc.StatusCode.UNAUTHENTICATED, NOBODY)] * 2
    assert count(database, "SELECT count(*) FROM licet.agents") == 5
    assert rows(database, "SELECT uses, max_uses FROM licet.bootstrap_tokens") == [(5, 5)]
    done = [row for row in event_reasons(database, "agent.registered") if row[0] == "done"]
    assert len(done) == 5


def attempt_once(address: str, token: str) -> tuple[grpc.StatusCode, str]:
    with holding(address, token) as bootstrap:
        told = refused(lambda: bootstrap.identity.RegisterAgent(registration("late"), timeout=10))
    return told.code, told.message


def test_bootstrap_tokens_that_do_not_count_are_alike(served: Served, admin: As) -> None:
    used = make_bootstrap(admin)
    register(served.address, used.token, "one")
    revoked = make_bootstrap(admin)
    ended = admin.identity.RevokeBootstrapToken(
        pb.RevokeBootstrapTokenRequest(token_id=revoked.bootstrap_token.token_id), timeout=10
    )
    assert ended.replicas_confirmed == 1
    expired = make_bootstrap(admin, ttl=Duration(nanos=500_000_000))
    good = make_bootstrap(admin)
    wrong = good.token[:-1] + ("0" if good.token[-1] != "0" else "1")
    head, _, secret = good.token.rpartition("_")
    other_secret = used.token.rpartition("_")[2]
    assert eventually(lambda: who(served.address, expired.token) is grpc.StatusCode.UNAUTHENTICATED)
    answers = {
        attempt_once(served.address, token)
        for token in (
            used.token,
            revoked.token,
            expired.token,
            wrong,
            f"{head}_{other_secret}",
            "licet_" + secret,
            "",
        )
    }
    assert answers == {(grpc.StatusCode.UNAUTHENTICATED, NOBODY)}
    assert register(served.address, good.token, "two").token
    states = admin.identity.ListBootstrapTokens(pb.ListBootstrapTokensRequest(), timeout=10)
    assert [t.token_id for t in states.bootstrap_tokens] == []  # the good one is used up by now
    again = admin.identity.RevokeBootstrapToken(
        pb.RevokeBootstrapTokenRequest(token_id=revoked.bootstrap_token.token_id), timeout=10
    )
    assert (again.already_ended, again.revision) == (True, ended.revision)


def test_a_bootstrap_token_is_made_once_for_a_request(
    served: Served, admin: As, database: Database
) -> None:
    first = make_bootstrap(admin, request_id="b1")
    register(served.address, first.token, "one")
    again = make_bootstrap(admin, request_id="b1")
    assert (again.token, again.revision) == ("", first.revision)
    assert again.bootstrap_token.token_id == first.bootstrap_token.token_id
    assert again.bootstrap_token.uses == 1
    told = refused(lambda: make_bootstrap(admin, request_id="b1", max_uses=2))
    assert told.reason == "REQUEST_ID_REUSED"
    assert count(database, "SELECT count(*) FROM licet.bootstrap_tokens") == 1


def test_nobody_makes_a_bootstrap_token_for_more_than_they_may(
    served: Served, admin: As, database: Database
) -> None:
    ttl = Duration(seconds=60)
    for key, reason in (
        (make_key(admin, "admin", principals=("agent:a",)), "LIMITS_WIDER"),
        (make_key(admin, "admin", resources=("doc:**",)), "LIMITS_WIDER"),
        (make_key(admin, "admin", ttl=ttl), "EXPIRY_WIDER"),
        (make_key(admin, "identity"), "SCOPE_MISSING"),
    ):
        with holding(served.address, key.token) as caller:
            told = refused(partial(make_bootstrap, caller))
        assert (told.code, told.reason) == (grpc.StatusCode.PERMISSION_DENIED, reason)
    limited = make_key(admin, "admin", principals=("agent:a/*",))
    with holding(served.address, limited.token) as caller:
        assert make_bootstrap(caller, principals=["agent:a/b"]).token
    refusals = event_reasons(database, "bootstrap.created")
    assert [reason for result, reason in refusals if result == "refused"] == [
        "LIMITS_WIDER",
        "LIMITS_WIDER",
        "EXPIRY_WIDER",
    ]
