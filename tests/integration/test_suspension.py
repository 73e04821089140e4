"""Suspended principals: denied everything, nobody's callers, and what they hold stays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from licet.v1 import authorization_pb2 as az
from licet.v1 import decision_pb2
from licet.v1 import identity_pb2 as pb
from licet.v1 import users_pb2 as up
from tests.fakes.agents import make_agent, who
from tests.fakes.api import refused, rows
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving

WHO = pb.GetCallerRequest()
SUSPENDED = decision_pb2.REASON_PRINCIPAL_SUSPENDED
GRANTED = decision_pb2.REASON_GRANTED
NONE = decision_pb2.REASON_NO_CAPABILITY
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture
def admin(served: Served) -> Iterator[As]:
    """Provide the services of a server on loopback, called by nobody in particular: the admin."""
    with calling(served.address) as services:
        yield services


def suspend(services: As, principal: str, **fields: str) -> up.SuspendPrincipalResponse:
    request = up.SuspendPrincipalRequest(principal=principal, **fields)
    return services.identity.SuspendPrincipal(request, timeout=10)


def resume(services: As, principal: str, **fields: str) -> up.ResumePrincipalResponse:
    request = up.ResumePrincipalRequest(principal=principal, **fields)
    return services.identity.ResumePrincipal(request, timeout=10)


def listed(services: As, **wanted: object) -> list[up.Suspension]:
    request = up.ListSuspensionsRequest(**wanted)  # type: ignore[arg-type] # any field
    return list(services.identity.ListSuspensions(request, timeout=10).suspensions)


def is_suspended(services: As, principal: str) -> bool:
    try:
        suspend(services, principal)
    except grpc.RpcError:
        return False
    return True


def why(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    failed = refused(call)
    return failed.code, failed.reason


def test_a_suspended_principal_is_denied_whatever_it_holds(served: Served, admin: As) -> None:
    capability = served.grant("agent:a", "read", "doc:**")
    assert served.authorize("agent:a", "read", "doc:x").reason == GRANTED
    # Holds nothing, and memory knows that.
    assert served.authorize("agent:b", "read", "doc:x").reason == NONE
    done = suspend(admin, "agent:a", reason="leaked")
    assert (done.already_suspended, done.replicas_confirmed) == (False, 1)
    suspend(admin, "agent:b")
    answer = served.authorize("agent:a", "read", "doc:x", explain=True)
    assert (answer.decision, answer.reason) == (decision_pb2.DECISION_DENY, SUSPENDED)
    assert (answer.detail, answer.capability_id) == ("agent:a is suspended", "")
    assert [c.capability_id for c in answer.explanation.candidates] == [capability]
    for fields in ({}, {"capability_id": capability}):
        assert served.authorize("agent:a", "read", "doc:x", **fields).reason == SUSPENDED
    # From memory and not, of one who never held anything, too; before any other reason.
    for principal, resource in (("agent:a", "fs:x"), ("agent:b", "doc:x"), ("agent:b", "fs:x")):
        assert served.authorize(principal, "read", resource).reason == SUSPENDED
    assert served.authorize("agent:c", "read", "doc:x").reason == NONE
    # What it is given meanwhile does not help.
    served.grant("agent:b", "read", "doc:**")
    assert served.authorize("agent:b", "read", "doc:x").reason == SUSPENDED
    resumed = resume(admin, "agent:a")
    assert (resumed.already_resumed, resumed.revision) == (False, done.revision + 3)
    assert served.authorize("agent:a", "read", "doc:x").reason == GRANTED
    resume(admin, "agent:b")
    assert served.authorize("agent:b", "read", "doc:x").reason == GRANTED


def test_batches_and_streams_say_the_same(served: Served, admin: As) -> None:
    for principal in ("agent:a", "agent:b"):
        served.grant(principal, "read", "doc:**")
    questions = [
        az.AuthorizeRequest(principal=principal, action="read", resource="doc:x")
        for principal in ("agent:a", "agent:b", "agent:c")
    ]

    def reasons() -> list[list[int]]:
        batch = az.BatchAuthorizeRequest(requests=questions)
        stream = az.StreamAuthorizeRequest(requests=questions)
        (streamed,) = served.stub.StreamAuthorize(iter([stream]), timeout=10)
        batched = served.stub.BatchAuthorize(batch, timeout=10)
        return [[answer.reason for answer in found.responses] for found in (batched, streamed)]

    assert reasons() == [[GRANTED, GRANTED, NONE]] * 2
    suspend(admin, "agent:b")
    suspend(admin, "agent:c")
    assert reasons() == [[GRANTED, SUSPENDED, SUSPENDED]] * 2


def test_what_it_passed_on_stays_and_can_be_revoked(served: Served, admin: As) -> None:
    parent = served.grant("agent:a", "read", "doc:**", delegation_depth=1)
    served.grant("agent:b", "read", "doc:x", parent_capability_id=parent)
    suspend(admin, "agent:a")
    assert served.authorize("agent:b", "read", "doc:x").reason == GRANTED
    request = az.RevokeRequest(filter=az.RevokeFilter(principal="agent:a"))
    assert served.stub.Revoke(request, timeout=10).ended_count == 2
    assert served.authorize("agent:b", "read", "doc:x").decision == decision_pb2.DECISION_DENY


def test_nobody_calls_as_a_suspended_principal(served: Served, admin: As) -> None:
    bound = make_key(admin, "authorize", principal="service:gate")
    own = make_key(admin, "authorize", "read")
    with (
        holding(served.address, bound.token) as gate,
        holding(served.address, own.token) as itself,
    ):
        for caller in (gate, itself):
            caller.identity.GetCaller(WHO, timeout=10)
        suspend(admin, "service:gate")
        unknown = grpc.StatusCode.UNAUTHENTICATED
        assert why(lambda: gate.identity.GetCaller(WHO, timeout=10))[0] is unknown
        itself.identity.GetCaller(WHO, timeout=10)
        # A key that acts as itself is a principal like others, and so is the one that replaces it.
        request = pb.RotateApiKeyRequest(key_id=own.key.key_id)
        fresh = itself.identity.RotateApiKey(request, timeout=10)
        suspend(admin, own.key.caller)
        with holding(served.address, fresh.token) as replaced:
            assert why(lambda: replaced.identity.GetCaller(WHO, timeout=10))[0] is unknown
            resume(admin, own.key.caller)
            replaced.identity.GetCaller(WHO, timeout=10)
        # Made meanwhile, it waits for its principal, too.
        late = make_key(admin, "authorize", principal="service:gate")
        with holding(served.address, late.token) as caller:
            assert why(lambda: caller.identity.GetCaller(WHO, timeout=10))[0] is unknown
            resume(admin, "service:gate")
            caller.identity.GetCaller(WHO, timeout=10)
        gate.identity.GetCaller(WHO, timeout=10)


def test_who_may_suspend_and_who_may_resume(served: Served, admin: As) -> None:
    make_key(admin, "admin", principal="service:root")
    user = up.CreateUserRequest(principal="user:root", email="r@example.org", roles=["admin"])
    admin.identity.CreateUser(user, timeout=10)
    switch = make_key(admin, "revoke", principal="service:switch").token
    limited = make_key(admin, "revoke", "grant", principals=("agent:**",)).token
    narrow = make_key(admin, "revoke", resources=("doc:**",)).token
    with holding(served.address, switch) as caller:
        suspend(caller, "agent:a")
        # Who can only take away cannot give back.
        assert why(lambda: resume(caller, "agent:a")) == (PERMISSION_DENIED, "SCOPE_MISSING")
        wider = (PERMISSION_DENIED, "SCOPES_WIDER")
        assert why(lambda: suspend(caller, "service:root")) == wider
        assert why(lambda: suspend(caller, "user:root")) == wider
        own = (PERMISSION_DENIED, "OWN_RIGHTS")
        assert why(lambda: suspend(caller, "service:switch")) == own
    outside = (PERMISSION_DENIED, "OUTSIDE_LIMITS")
    make_key(admin, "admin", principal="agent:b", ttl=Duration(seconds=1))
    rotated = make_key(admin, "admin", principal="agent:c")
    request = pb.RotateApiKeyRequest(key_id=rotated.key.key_id)
    fresh = admin.identity.RotateApiKey(request, timeout=10)
    with holding(served.address, limited) as caller:
        resume(caller, "agent:a")
        # Only keys that count protect.
        assert why(lambda: suspend(caller, "agent:c")) == wider
        admin.identity.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=fresh.key.key_id), timeout=10)
        suspend(caller, "agent:c")
        assert eventually(lambda: is_suspended(caller, "agent:b"))
        assert why(lambda: suspend(caller, "service:x")) == outside
    with holding(served.address, narrow) as caller:
        assert why(lambda: suspend(caller, "agent:a")) == outside
    for principal in ("caller:anonymous", "address:10.0.0.1", "service:licet", "nobody", ""):
        assert refused(lambda p=principal: suspend(admin, p)).fields == ("principal",)  # type: ignore[misc] # bound now
    refusals = rows(
        served.database,
        "SELECT DISTINCT reason FROM audit.events"
        " WHERE event_type ~ '^principal' AND result = 'refused'",
    )
    assert {reason for (reason,) in refusals} == {
        "SCOPES_WIDER",
        "OWN_RIGHTS",
        "OUTSIDE_LIMITS",
    }


def test_suspensions_are_listed_and_on_record(served: Served, admin: As) -> None:
    first = suspend(admin, "agent:a", reason="leaked", request_id="r")
    # The same call again, and another one: it stays one suspension.
    assert suspend(admin, "agent:a", reason="leaked", request_id="r") == first
    again = suspend(admin, "agent:a")
    assert (again.already_suspended, again.revision) == (True, first.revision)
    suspend(admin, "agent:b")
    resume(admin, "agent:a", reason="rotated")
    assert resume(admin, "agent:a").already_resumed
    assert [s.principal for s in listed(admin)] == ["agent:b"]
    ended, lasting = listed(admin, include_ended=True)
    assert (ended.principal, ended.reason, ended.suspended_by) == (
        "agent:a",
        "leaked",
        "caller:anonymous",
    )
    assert (ended.resumed_by, ended.resume_reason) == ("caller:anonymous", "rotated")
    assert not lasting.HasField("resumed_at")
    assert listed(admin, principal="agent:a", include_ended=True) == [ended]
    request = up.ListSuspensionsRequest(include_ended=True, page_size=1)
    page = admin.identity.ListSuspensions(request, timeout=10)
    assert list(page.suspensions) == [ended]
    assert listed(admin, include_ended=True, page_token=page.next_page_token) == [lasting]
    found = rows(
        served.database,
        "SELECT event_type, result, reason, metadata ->> 'reason' FROM audit.events"
        " WHERE principal = 'agent:a' ORDER BY event_id",
    )
    assert found == [
        ("principal.suspended", "done", "", "leaked"),
        ("principal.suspended", "done", "ALREADY", ""),
        ("principal.resumed", "done", "", "rotated"),
        ("principal.resumed", "done", "ALREADY", ""),
    ]


def test_watchers_see_who_was_suspended(admin: As) -> None:
    watch = admin.authorization.WatchChanges(az.WatchChangesRequest(after_revision=0), timeout=30)
    assert next(watch).HasField("heartbeat")
    suspend(admin, "agent:a")
    assert list(next(watch).change.principals) == ["agent:a"]
    resume(admin, "agent:a")
    assert list(next(watch).change.principals) == ["agent:a"]
    watch.cancel()


def test_nobody_suspended_is_allowed_anything_after_the_answer(database: Database) -> None:
    """Threads ask two replicas all the while."""
    with serving(database) as one, serving(database) as two, calling(one.address) as admin:
        one.grant("agent:a", "read", "doc:**")
        suspended, stop = threading.Event(), threading.Event()
        wrong: list[str] = []
        warm = threading.Barrier(9)

        def ask(served: Served) -> None:
            assert served.authorize("agent:a", "read", "doc:x").reason == GRANTED
            warm.wait(30)
            for _ in range(100_000):
                was_suspended = suspended.is_set()
                reason = served.authorize("agent:a", "read", "doc:x").reason
                if was_suspended:
                    if reason != SUSPENDED:
                        wrong.append(f"{reason} after the suspension")
                    return
                if stop.is_set():
                    break
            wrong.append("never asked after the suspension")

        threads = [threading.Thread(target=ask, args=(served,)) for served in (one, two) * 4]
        for thread in threads:
            thread.start()
        warm.wait(30)
        answer = suspend(admin, "agent:a")
        suspended.set()
        timer = threading.Timer(20, stop.set)
        timer.start()
        for thread in threads:
            thread.join(30)
        timer.cancel()
        assert (answer.replicas_confirmed, answer.replicas_fenced) == (2, 0)
        assert not wrong


def test_the_token_of_a_suspended_agent_counts_again_when_it_is_resumed(
    served: Served, admin: As
) -> None:
    token = make_agent(served.address, admin, "worker").token
    # In memory here, so that the change has to make it forgotten.
    assert who(served.address, token) is grpc.StatusCode.OK
    suspend(admin, "agent:worker")
    assert who(served.address, token) is grpc.StatusCode.UNAUTHENTICATED
    resume(admin, "agent:worker")
    assert who(served.address, token) is grpc.StatusCode.OK
