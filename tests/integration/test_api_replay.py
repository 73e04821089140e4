"""Replay over gRPC: real decisions, and what a draft would have said of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Event, Thread
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from licet.v1 import decision_pb2 as decisions
from licet.v1 import policy_pb2 as pb
from licet.v1.policy_pb2_grpc import PolicyServiceStub
from tests.fakes.api import refused, stored_decisions, timestamp
from tests.fakes.callers import calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.unit.policies import document

ALLOW, DENY = decisions.DECISION_ALLOW, decisions.DECISION_DENY
UNKNOWN = decisions.DECISION_UNSPECIFIED
NO_DOCS = "name: no-docs, match: {resources: ['doc:**']}, deny: not today"
MFA = "name: mfa, match: {resources: ['secret:**']}, require: {mfa: true}"
_COPY_BACK = """
INSERT INTO audit.events
SELECT (jsonb_populate_record(e, jsonb_build_object(
  'event_id', gen_random_uuid(), 'occurred_at', e.occurred_at - %(ago)s - n * interval '100 ms'))).*
FROM audit.events AS e, generate_series(1, %(times)s) AS n
WHERE e.event_type = 'decision' AND e.occurred_at > now() - interval '1 hour'
"""


@pytest.fixture
def served(database: Database) -> Iterator[Served]:
    with serving(database, audit_durability="none") as one:
        one.grant("agent:a", "read", "doc:**")
        one.grant("agent:a", "read", "secret:**")
        yield one


@pytest.fixture
def stub(served: Served) -> PolicyServiceStub:
    return PolicyServiceStub(served.channel)


def put(stub: PolicyServiceStub, *policies: str) -> None:
    stub.PutPolicySet(pb.PutPolicySetRequest(document=document(*policies)), timeout=20)


def context(**members: Any) -> Struct:  # noqa: ANN401 - any JSON
    found = Struct()
    found.update(members)
    return found


def replayed(
    stub: PolicyServiceStub,
    *policies: str,
    **fields: Any,  # noqa: ANN401 - any field of the request
) -> tuple[list[pb.ReplayedDecision], pb.ReplayPolicySetResponse]:
    """Return what was listed, and the last message."""
    request = pb.ReplayPolicySetRequest(document=document(*policies), **fields)
    steps = list(stub.ReplayPolicySet(request, timeout=30))
    assert [step.is_last for step in steps] == [False] * (len(steps) - 1) + [True]
    return [decision for step in steps for decision in step.decisions], steps[-1]


def stored(database: Database, count: int) -> None:
    """Wait until so many decisions are in the audit log."""
    assert eventually(lambda: len(stored_decisions(database)) == count)


def counted(last: pb.ReplayPolicySetResponse) -> tuple[int, int, int, int, int]:
    c = last.counts
    return c.looked_at, c.unchanged, c.now_denied, c.now_allowed, c.not_known


def copied_back(database: Database, ago: timedelta, times: int = 1) -> None:
    """Put copies of the decisions of the last hour into the past."""
    with database.connect() as admin:
        admin.execute("SELECT audit.ensure_partition(now() - %s)", [ago])
        admin.execute(_COPY_BACK, {"ago": ago, "times": times})
        admin.execute("ANALYZE audit.events")


def test_what_a_draft_would_deny_and_what_it_would_allow(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    served.authorize("agent:a", "read", "doc:x")
    served.authorize("agent:b", "read", "doc:x")
    put(stub, NO_DOCS)
    served.authorize("agent:a", "read", "doc:x")
    served.authorize("agent:a", "read", "secret:s")
    stored(database, 4)

    flips, last = replayed(stub, "name: no-secrets, match: {resources: ['secret:**']}, deny: never")

    assert counted(last) == (4, 2, 1, 1, 0)
    assert last.is_complete
    assert [(f.resource, f.decision, f.would_be) for f in flips] == [
        ("secret:s", ALLOW, DENY),
        ("doc:x", DENY, ALLOW),
    ]
    denied, allowed = flips
    assert (denied.would_be_policy_id, denied.detail) == ("no-secrets", "policy no-secrets: never")
    assert denied.would_be_reason == decisions.REASON_POLICY_DENIED
    assert denied.reason == allowed.would_be_reason == decisions.REASON_GRANTED
    assert (allowed.policy_id, allowed.reason) == ("no-docs", decisions.REASON_POLICY_DENIED)
    assert (allowed.principal, allowed.action, allowed.detail) == ("agent:a", "read", "")
    assert flips[0].occurred_at.ToMicroseconds() > flips[1].occurred_at.ToMicroseconds()


def test_the_set_that_holds_is_replayed_without_a_flip(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    put(stub, NO_DOCS, MFA, "name: ticket, when: '\"t\" in context', deny: never")
    served.authorize("agent:a", "read", "doc:x")
    served.authorize("agent:a", "read", "secret:s")
    served.authorize("agent:a", "read", "secret:s", context=context(mfa=True))
    served.authorize("agent:a", "read", "secret:s", context=context(mfa=True, t=1))
    stored(database, 4)

    request = pb.ReplayPolicySetRequest()
    *_, last = stub.ReplayPolicySet(request, timeout=30)

    assert counted(last) == (4, 4, 0, 0, 0)


def test_what_is_not_on_record_is_not_guessed(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    served.authorize("agent:a", "read", "secret:s", context=context(mfa=True))
    served.authorize("agent:a", "read", "doc:x")
    stored(database, 2)

    unlisted, last = replayed(stub, MFA)
    listed, _ = replayed(stub, MFA, list_not_known=True)

    assert counted(last) == (2, 1, 0, 0, 1)
    assert [(need.what, need.decisions) for need in last.counts.needs] == [("context.mfa", 1)]
    assert unlisted == []
    [unknown] = listed
    assert (unknown.would_be, list(unknown.needs)) == (UNKNOWN, ["context.mfa"])
    assert unknown.detail == "policy mfa needs context.mfa"


def test_hours_are_looked_at_by_the_time_of_the_decision(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    served.authorize("agent:a", "read", "doc:x")
    stored(database, 1)
    ago = timedelta(hours=6)
    copied_back(database, ago)
    now = datetime.now(UTC)  # noqa: TID251 - the machine's, which is the database's
    opens, closes = (f"{now + timedelta(hours=n):%H:%M}" for n in (-2, 2))

    flips, last = replayed(stub, f"name: h, time: {{zone: UTC, hours: '{opens}-{closes}'}}")
    earlier, _ = replayed(
        stub,
        f"name: h, time: {{zone: UTC, hours: '{closes}-{opens}'}}",
        to=timestamp(int((now - timedelta(hours=3)).timestamp() * 1_000_000)),
    )

    assert counted(last) == (2, 1, 1, 0, 0)
    assert flips[0].would_be_reason == decisions.REASON_OUTSIDE_TIME_WINDOW
    age = now.timestamp() - flips[0].occurred_at.seconds
    assert age == pytest.approx(ago.total_seconds(), abs=60)
    assert earlier == []


def test_conditions_see_the_capability_that_was_used(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    served.grant("agent:b", "read", "doc:x")
    for principal in ("agent:a", "agent:b"):
        served.authorize(principal, "read", "doc:x")
    stored(database, 2)

    flips, last = replayed(
        stub, "name: wide, when: 'capability.resource == \"doc:**\"', deny: never"
    )

    assert [flip.principal for flip in flips] == ["agent:a"]
    assert counted(last) == (2, 1, 1, 0, 0)


def test_the_window_the_principal_and_the_numbers_bound_it(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    for principal in ("agent:a", "agent:b"):
        served.authorize(principal, "read", "doc:x")
    stored(database, 2)
    copied_back(database, timedelta(hours=30))
    copied_back(database, timedelta(hours=2), times=700)

    _, day = replayed(stub, NO_DOCS)
    mine, _ = replayed(stub, NO_DOCS, principal="agent:a", max_listed=100_000)
    few, few_last = replayed(stub, NO_DOCS, max_listed=3)
    _, cut = replayed(stub, NO_DOCS, max_decisions=900)

    assert counted(day) == (1402, 701, 701, 0, 0)
    assert {flip.principal for flip in mine} == {"agent:a"}
    assert len({flip.event_id for flip in mine}) == len(mine) == 701
    assert all(
        a.occurred_at.ToMicroseconds() >= b.occurred_at.ToMicroseconds() for a, b in pairwise(mine)
    )
    assert (len(few), few_last.counts.now_denied, few_last.counts.unlisted) == (3, 701, 698)
    assert (cut.counts.looked_at, cut.is_complete) == (900, False)


def test_nothing_changes_and_nothing_is_recorded(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    served.authorize("agent:a", "read", "doc:x")
    stored(database, 1)

    replayed(stub, NO_DOCS)

    assert served.authorize("agent:a", "read", "doc:x").decision == ALLOW
    missing = refused(lambda: stub.GetPolicySet(pb.GetPolicySetRequest(), timeout=10))
    assert missing.code is grpc.StatusCode.NOT_FOUND


def test_a_malformed_request_names_its_field(stub: PolicyServiceStub) -> None:
    malformed: list[tuple[dict[str, Any], str]] = [
        ({"document": "version: 2"}, "document"),
        ({"document": "x" * (512 * 1024 + 1)}, "document"),
        ({"principal": "nobody"}, "principal"),
        ({"max_decisions": -1}, "max_decisions"),
        ({"max_decisions": 10_000_001}, "max_decisions"),
        ({"max_listed": 100_001}, "max_listed"),
        ({"from": timestamp(2_000_000_000_000_000)}, "from"),
        ({"from": timestamp(1_000_000_000_000_000)}, "from"),
        ({"to": timestamp(0), "from": timestamp(0)}, "from"),
    ]
    for fields, field in malformed:
        failed = refused(
            lambda: list(stub.ReplayPolicySet(pb.ReplayPolicySetRequest(**fields), timeout=10))  # noqa: B023 - called at once
        )

        assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


@pytest.mark.parametrize(
    ("scopes", "may"), [(["policy"], False), (["audit"], False), (["policy", "audit"], True)]
)
def test_both_scopes_are_needed(served: Served, scopes: list[str], *, may: bool) -> None:
    with calling(served.address) as admin:
        token = make_key(admin, *scopes).token
    with holding(served.address, token) as one:
        stub = PolicyServiceStub(one.channel)

        def call() -> object:
            return list(stub.ReplayPolicySet(pb.ReplayPolicySetRequest(), timeout=10))

        if may:
            assert call()
        else:
            failed = refused(call)
            assert (failed.code, failed.reason) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "SCOPE_MISSING",
            )


def test_there_are_places_for_two_and_a_client_that_left_gives_its_back(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    served.authorize("agent:a", "read", "doc:x")
    stored(database, 1)
    copied_back(database, timedelta(hours=2), times=20_000)
    request = pb.ReplayPolicySetRequest(document=document(NO_DOCS))
    calls = [stub.ReplayPolicySet(request, timeout=60) for _ in range(2)]
    for call in calls:
        next(call)

    failed = refused(lambda: list(stub.ReplayPolicySet(request, timeout=10)))
    assert (failed.code, failed.retry) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
    for call in calls:
        call.cancel()

    assert eventually(lambda: len(served.licet.server.replays) == 0, 5)


def test_decisions_go_on_meanwhile(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    served.authorize("agent:a", "read", "doc:x")
    stored(database, 1)
    copied_back(database, timedelta(hours=2), times=8_000)
    ended, answers = Event(), list[int]()

    def ask() -> None:
        while not ended.is_set():
            answers.append(served.authorize("agent:a", "read", "doc:x").decision)

    asking = Thread(target=ask)
    asking.start()
    try:
        _, last = replayed(stub, NO_DOCS)
    finally:
        ended.set()
        asking.join()

    assert last.counts.now_denied > 8_000
    assert len(answers) > 20
    assert set(answers) == {ALLOW}
