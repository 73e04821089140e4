"""API keys on a real server: used, rotated, expired, revoked; and what a wrong one is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from licet.domain import api_key
from licet.v1 import authorization_pb2 as az
from licet.v1 import identity_pb2 as pb
from tests.fakes.api import count, micros, refused, rows, timestamp
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Failure, Served, serving

WHO = pb.GetCallerRequest()
QUESTION = az.AuthorizeRequest(principal="agent:a", action="read", resource="doc:a")
UNAUTHENTICATED = (
    grpc.StatusCode.UNAUTHENTICATED,
    "an API key is required: `authorization: Bearer licet_...`",
    "UNAUTHENTICATED",
)


def facts(failed: Failure) -> tuple[grpc.StatusCode, str, str]:
    assert not failed.fields
    assert not failed.metadata
    assert not failed.retry
    return failed.code, failed.message, failed.reason


def who(address: str, token: str) -> Callable[[], pb.GetCallerResponse]:
    def ask() -> pb.GetCallerResponse:
        with holding(address, token) as caller:
            return caller.identity.GetCaller(WHO, timeout=10)

    return ask


@pytest.fixture
def admin(served: Served) -> Iterator[As]:
    """Provide the services of a server on loopback, called by nobody in particular: the admin."""
    with calling(served.address) as services:
        yield services


def test_a_key_says_who_calls_and_its_actions_are_its_own(served: Served, admin: As) -> None:
    made = make_key(admin, "authorize", "grant", resources=("doc:**",))
    with holding(served.address, made.token) as caller:
        found = caller.identity.GetCaller(WHO, timeout=10)
        granted = caller.authorization.Grant(
            az.GrantRequest(principal="agent:a", actions=["read"], resource="doc:a"), timeout=10
        )
        caller.authorization.Authorize(QUESTION, timeout=10)
    name = f"key:{made.key.key_id}"
    assert (found.caller, found.key_id) == (name, made.key.key_id)
    assert set(found.scopes) == {"authorize", "grant"}
    assert found.limits.resources == ["doc:**"]
    assert granted.capability.granted_by == name
    assert eventually(
        lambda: (
            count(served.database, "SELECT count(*) FROM audit.events WHERE actor = %s", name) == 2
        )
    )


def test_an_unknown_id_and_a_wrong_secret_are_answered_alike(served: Served, admin: As) -> None:
    made, other = make_key(admin, "read"), make_key(admin, "read")
    ids = {api_key.KeyId(key.key.key_id) for key in (made, other)}
    tag_key = api_key.tag_key(
        bytes(rows(served.database, "SELECT page_token_key FROM licet.meta")[0][0])
    )
    unknown = api_key.new_id(b"nobody", tag_key)
    foreign = api_key.new_id(b"nobody", bytes(32))
    assert not {unknown, foreign} & ids
    wrong = bytes(32)
    answers = {
        facts(refused(who(served.address, token)))
        for token in (
            api_key.render(unknown, wrong),
            api_key.render(foreign, wrong),
            api_key.render(api_key.KeyId(made.key.key_id), wrong),
            # The secret of another key.
            made.token[:22] + other.token[22:],
            made.token[:-1],
            made.token[:-1] + ("0" if made.token[-1] != "0" else "1"),
            made.token.upper(),
            "",
        )
    }
    assert answers == {UNAUTHENTICATED}


def test_the_scheme_is_written_in_any_case(served: Served, admin: As) -> None:
    made = make_key(admin, "read")
    for scheme in ("Bearer", "bearer", "BEARER"):
        with calling(served.address, f"{scheme} {made.token}") as caller:
            assert caller.identity.GetCaller(WHO, timeout=10).key_id == made.key.key_id


def test_a_key_ends_by_the_databases_clock(served: Served, admin: As) -> None:
    made = make_key(admin, "read", ttl=Duration(seconds=1))
    ask = who(served.address, made.token)
    first = ask()
    assert 0 <= micros(made.key.created_at) - (micros(first.expires_at) - 1_000_000) < 500_000

    def is_over() -> bool:
        try:
            ask()
        except grpc.RpcError as exc:
            return exc.code() is grpc.StatusCode.UNAUTHENTICATED
        return False

    assert eventually(is_over)
    assert facts(refused(ask)) == UNAUTHENTICATED
    now = rows(served.database, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    assert now[0][0] >= micros(first.expires_at)


def test_a_rotated_key_goes_on_for_the_overlap(served: Served, admin: As) -> None:
    made = make_key(admin, "authorize", principals=("agent:**",), ttl=Duration(seconds=3600))
    request = pb.RotateApiKeyRequest(key_id=made.key.key_id, overlap=Duration(seconds=2))
    with holding(served.address, made.token) as old:
        # Its own key a caller rotates without any scope for it.
        fresh = old.identity.RotateApiKey(request, timeout=10)
        assert old.identity.GetCaller(WHO, timeout=10).key_id == made.key.key_id
        assert who(served.address, fresh.token)().caller == made.key.caller
        assert eventually(
            lambda: (
                _code(lambda: old.identity.GetCaller(WHO, timeout=10))
                is grpc.StatusCode.UNAUTHENTICATED
            )
        )
    assert who(served.address, fresh.token)().key_id == fresh.key.key_id
    assert fresh.key.replaces == made.key.key_id
    assert (fresh.key.scopes, fresh.key.limits) == (made.key.scopes, made.key.limits)
    assert fresh.key.expires_at == made.key.expires_at
    again = refused(lambda: admin.identity.RotateApiKey(request, timeout=10))
    assert (again.code, again.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_ROTATED")


def _code(call: Callable[[], object]) -> grpc.StatusCode | None:
    try:
        call()
    except grpc.RpcError as exc:
        return exc.code()
    return None


def test_a_rotation_without_overlap_ends_the_old_key_at_once(served: Served, admin: As) -> None:
    made = make_key(admin, "read")
    ask = who(served.address, made.token)
    ask()
    admin.identity.RotateApiKey(pb.RotateApiKeyRequest(key_id=made.key.key_id), timeout=10)
    assert facts(refused(ask)) == UNAUTHENTICATED


def test_a_revoked_key_ends_at_once_and_once(served: Served, admin: As) -> None:
    made = make_key(admin, "read")
    ask = who(served.address, made.token)
    ask()
    request = pb.RevokeApiKeyRequest(key_id=made.key.key_id, reason="leaked")
    first = admin.identity.RevokeApiKey(request, timeout=10)
    assert facts(refused(ask)) == UNAUTHENTICATED
    second = admin.identity.RevokeApiKey(request, timeout=10)
    assert (first.already_ended, second.already_ended) == (False, True)
    assert first.revision == second.revision == made.revision + 1
    assert first.replicas_confirmed == 1
    (listed,) = admin.identity.ListApiKeys(
        pb.ListApiKeysRequest(include_ended=True), timeout=10
    ).keys
    assert (listed.ended_by, listed.end_reason) == ("caller:anonymous", "leaked")
    assert not admin.identity.ListApiKeys(pb.ListApiKeysRequest(), timeout=10).keys
    unknown = pb.RevokeApiKeyRequest(key_id="0" * 16)
    assert refused(lambda: admin.identity.RevokeApiKey(unknown, timeout=10)).reason == "NOT_FOUND"


def test_no_key_is_accepted_after_its_revocation_was_answered(database: Database) -> None:
    """Eight threads on two replicas use a key all the while."""
    with serving(database) as one, serving(database) as two, calling(one.address) as admin:
        made = make_key(admin, "authorize")
        revoked = threading.Event()
        wrong: list[str] = []
        warm = threading.Barrier(9)

        def use(address: str) -> None:
            with holding(address, made.token) as caller:
                caller.authorization.Authorize(QUESTION, timeout=10)
                warm.wait(30)
                for _ in range(100_000):
                    was_revoked = revoked.is_set()
                    code = _code(lambda: caller.authorization.Authorize(QUESTION, timeout=10))
                    if was_revoked and code is not grpc.StatusCode.UNAUTHENTICATED:
                        wrong.append(f"{code} after the revocation")
                        return
                    if code is not None:
                        return
                wrong.append("never refused")

        threads = [
            threading.Thread(target=use, args=(served.address,)) for served in (one, two) * 4
        ]
        for thread in threads:
            thread.start()
        warm.wait(30)
        request = pb.RevokeApiKeyRequest(key_id=made.key.key_id)
        answer = admin.identity.RevokeApiKey(request, timeout=10)
        revoked.set()
        for thread in threads:
            thread.join(30)
        assert (answer.replicas_confirmed, answer.replicas_fenced) == (2, 0)
        assert not wrong


def test_a_stream_ends_with_the_key_it_was_opened_with(served: Served, admin: As) -> None:
    made = make_key(admin, "authorize")
    more = threading.Semaphore(1)

    def questions() -> Iterator[az.StreamAuthorizeRequest]:
        while True:
            more.acquire()
            yield az.StreamAuthorizeRequest(requests=[QUESTION])

    with holding(served.address, made.token) as caller:
        stream = caller.authorization.StreamAuthorize(questions(), timeout=30)
        assert next(stream).responses
        request = pb.RevokeApiKeyRequest(key_id=made.key.key_id)
        admin.identity.RevokeApiKey(request, timeout=10)
        more.release()
        assert facts(refused(lambda: next(stream))) == UNAUTHENTICATED
        more.release()


def test_a_watch_ends_with_the_key_it_was_opened_with(database: Database) -> None:
    with serving(database, heartbeat_seconds=0.2) as served, calling(served.address) as admin:
        made = make_key(admin, "read")
        with holding(served.address, made.token) as caller:
            watch = caller.authorization.WatchChanges(az.WatchChangesRequest(), timeout=30)
            assert next(watch).HasField("heartbeat")
            request = pb.RevokeApiKeyRequest(key_id=made.key.key_id)
            revoked = admin.identity.RevokeApiKey(request, timeout=10)
            # Not even the change that ended it.
            assert facts(refused(lambda: list(watch))) == UNAUTHENTICATED
            assert revoked.revision == made.revision + 1


def test_when_a_key_was_used_last_is_kept_without_a_write_per_call(database: Database) -> None:
    with serving(database) as served, calling(served.address) as admin:
        used, idle = make_key(admin, "read"), make_key(admin, "read")
        for _ in range(3):
            who(served.address, used.token)()
        assert not rows(database, "SELECT * FROM licet.api_key_uses")
    with serving(database) as served, calling(served.address) as admin:
        listed = admin.identity.ListApiKeys(pb.ListApiKeysRequest(), timeout=10).keys
    times = {key.key_id: key.HasField("last_used_at") for key in listed}
    assert times == {used.key.key_id: True, idle.key.key_id: False}


def test_failed_calls_are_one_event_for_each_caller(database: Database) -> None:
    with serving(database, authentication="required") as served:
        for _ in range(20):
            refused(who(served.address, "licet_x"))
    found = rows(
        database,
        "SELECT actor, result, reason, (metadata ->> 'count')::int FROM audit.events"
        " WHERE event_type = 'auth.failed'",
    )
    assert {row[:3] for row in found} == {("address:127.0.0.1", "refused", "UNAUTHENTICATED")}
    assert sum(row[3] for row in found) == 20
    assert len(found) <= 2


def test_what_cannot_be_rotated(served: Served, admin: As) -> None:
    ended, expired = make_key(admin, "read"), make_key(admin, "read", ttl=Duration(seconds=1))
    assert eventually(lambda: _code(who(served.address, expired.token)) is not None)
    admin.identity.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=ended.key.key_id), timeout=10)

    def rotate(key_id: str, **fields: Any) -> Callable[[], object]:  # noqa: ANN401 - any field
        request = pb.RotateApiKeyRequest(key_id=key_id, **fields)
        return lambda: admin.identity.RotateApiKey(request, timeout=10)

    assert refused(rotate(ended.key.key_id)).reason == "KEY_ENDED"
    assert refused(rotate(expired.key.key_id)).reason == "KEY_EXPIRED"
    assert refused(rotate("0" * 16)).code is grpc.StatusCode.NOT_FOUND
    assert refused(rotate("0")).fields == ("key_id",)
    alive = make_key(admin, "read").key.key_id
    assert refused(rotate(alive, overlap=Duration(seconds=31 * 86_400))).fields == ("overlap",)
    assert refused(rotate(alive, overlap=Duration(seconds=-1))).fields == ("overlap",)
    assert refused(rotate(alive, expires_at=timestamp(1))).fields == ("expires_at",)
    on_record = rows(
        served.database,
        "SELECT reason FROM audit.events WHERE event_type = 'key.rotated' ORDER BY 1",
    )
    expected = ["ALREADY_EXPIRED", "KEY_ENDED", "KEY_EXPIRED", "KEY_NOT_FOUND"]
    assert [reason for (reason,) in on_record] == expected


def test_a_repeated_rotation_returns_the_key_and_never_its_secret(admin: As) -> None:
    made = make_key(admin, "read")
    request = pb.RotateApiKeyRequest(
        key_id=made.key.key_id, overlap=Duration(seconds=60), request_id="r"
    )
    first = admin.identity.RotateApiKey(request, timeout=10)
    again = admin.identity.RotateApiKey(request, timeout=10)
    assert (again.key.key_id, again.token) == (first.key.key_id, "")
    assert first.token
