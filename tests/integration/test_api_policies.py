"""Policies over gRPC: what is put holds on every replica, and on record, when the call returns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from licet.domain.instant import to_datetime
from licet.policies.reading import built_in_names
from licet.replica.clock import SystemClock
from licet.v1 import authorization_pb2 as api
from licet.v1 import decision_pb2 as decisions
from licet.v1 import policy_pb2 as pb
from licet.v1.policy_pb2_grpc import PolicyServiceStub
from tests.fakes.callers import calling, holding, make_key
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Failure, Served, failure, serving
from tests.unit.policies import document

DENY_DOCS = document("name: no-docs, match: {resources: ['doc:**']}, deny: not today")
NOTHING = document()
ENFORCED = [name for name in built_in_names() if not name.startswith("dangerous-tools")]
LONG_LEASE = 10.0


@pytest.fixture
def served(database: Database) -> Iterator[Served]:
    with serving(database) as one:
        one.grant("agent:a", "read", "doc:**")
        yield one


@pytest.fixture
def stub(served: Served) -> PolicyServiceStub:
    return PolicyServiceStub(served.channel)


def put(stub: PolicyServiceStub, text: str, **fields: Any) -> pb.PutPolicySetResponse:  # noqa: ANN401 - any field
    return stub.PutPolicySet(pb.PutPolicySetRequest(document=text, **fields), timeout=20)


def refused(call: Callable[[], object]) -> Failure:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return failure(raised.value)


def events(database: Database, event_type: str) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return connection.execute(
            "SELECT actor, resource, result, reason, policy_id, metadata FROM audit.events"
            " WHERE event_type = %s ORDER BY occurred_at, event_id",
            [event_type],
        ).fetchall()


def test_a_policy_denies_what_a_capability_allows(served: Served, stub: PolicyServiceStub) -> None:
    before = served.authorize("agent:a", "read", "doc:x")
    done = put(stub, DENY_DOCS)
    after = served.authorize("agent:a", "read", "doc:x")

    assert (done.version, done.policy_count, done.replicas_confirmed) == (1, 1, 1)
    assert before.decision == decisions.DECISION_ALLOW
    assert after.decision == decisions.DECISION_DENY
    assert after.reason == decisions.REASON_POLICY_DENIED
    assert after.policy_id == "no-docs"
    assert after.detail == "policy no-docs: not today"
    assert after.capability_id == before.capability_id


def test_a_policy_allows_nothing(served: Served, stub: PolicyServiceStub) -> None:
    put(stub, NOTHING)

    answer = served.authorize("agent:b", "read", "doc:x")

    assert answer.reason == decisions.REASON_NO_CAPABILITY
    assert answer.policy_id == ""


def test_every_replica_decides_by_the_new_set_when_it_was_put(database: Database) -> None:
    with ExitStack() as stack:
        replicas = [
            stack.enter_context(serving(database, lease_seconds=LONG_LEASE)) for _ in range(3)
        ]
        replicas[0].grant("agent:a", "read", "doc:**")
        for number in range(6):
            text, expected = (
                (DENY_DOCS, decisions.DECISION_DENY)
                if number % 2 == 0
                else (NOTHING, decisions.DECISION_ALLOW)
            )
            done = put(PolicyServiceStub(replicas[number % 3].channel), text)

            assert (done.replicas_confirmed, done.replicas_fenced) == (3, 0)
            found = [r.authorize("agent:a", "read", "doc:x").decision for r in replicas]
            assert found == [expected] * 3


def test_each_decision_names_the_set_and_the_policy(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    served.authorize("agent:a", "read", "doc:x")
    put(stub, NOTHING)
    served.authorize("agent:a", "read", "doc:x")
    put(stub, DENY_DOCS)
    served.authorize("agent:a", "read", "doc:x")
    served.authorize("agent:b", "read", "doc:x")

    eventually(lambda: len(events(database, "decision")) == 4)
    assert sorted((row[2:] for row in events(database, "decision")), key=str) == [
        ("allow", "", "", {"policy_set": 1}),
        ("allow", "", "", {}),
        ("deny", "NO_CAPABILITY", "", {}),
        ("deny", "POLICY_DENIED", "no-docs", {"policy_set": 2}),
    ]


def test_every_change_is_on_record(
    served: Served, stub: PolicyServiceStub, database: Database
) -> None:
    assert served.address
    put(stub, DENY_DOCS, comment="the audit")
    stub.RollbackPolicySet(pb.RollbackPolicySetRequest(version=1, comment="again"), timeout=20)
    refused(lambda: put(stub, NOTHING, expected_version=1))

    stored, refusal = events(database, "policy.put")
    (back,) = events(database, "policy.rolled_back")
    assert stored[:4] == ("caller:anonymous", "policy_set:1", "done", "")
    assert stored[5].keys() == {"comment", "policies", "source_sha256"}
    assert (stored[5]["comment"], stored[5]["policies"]) == ("the audit", 1)
    assert back[1:4] == ("policy_set:2", "done", "")
    assert back[5] == {"comment": "again", "policies": 1, "rollback_of": 1}
    assert refusal[1:4] == ("", "refused", "POLICY_SET_CHANGED")


def test_what_is_not_understood_is_not_put(served: Served, stub: PolicyServiceStub) -> None:
    bad = document("name: p, denny: x", "name: q, when: action ==, deny: x")

    failed = refused(lambda: put(stub, bad))

    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.fields == ("document", "document")
    assert "line 3, column 15: policies[0].denny is no field here" in failed.message
    assert "line 4, column 21: policies[1].when must be a condition" in failed.message
    assert served.authorize("agent:a", "read", "doc:x").decision == decisions.DECISION_ALLOW


def test_a_document_can_be_only_checked(served: Served, stub: PolicyServiceStub) -> None:
    done = put(stub, DENY_DOCS, only_check=True)

    assert (done.version, done.revision, done.policy_count) == (0, 0, 1)
    assert served.authorize("agent:a", "read", "doc:x").decision == decisions.DECISION_ALLOW
    missing = refused(lambda: stub.GetPolicySet(pb.GetPolicySetRequest(), timeout=10))
    assert missing.code is grpc.StatusCode.NOT_FOUND


def test_versions_are_kept_listed_and_rolled_back_to(
    served: Served, stub: PolicyServiceStub
) -> None:
    put(stub, DENY_DOCS, comment="deny")
    put(stub, NOTHING)
    back = stub.RollbackPolicySet(pb.RollbackPolicySetRequest(version=1), timeout=20)
    first = stub.ListPolicySets(pb.ListPolicySetsRequest(page_size=2), timeout=10)
    rest = stub.ListPolicySets(
        pb.ListPolicySetsRequest(page_size=2, page_token=first.next_page_token), timeout=10
    )
    holds = stub.GetPolicySet(pb.GetPolicySetRequest(), timeout=10).policy_set

    assert back.version == 3
    listed = [*first.policy_sets, *rest.policy_sets]
    assert [(s.version, s.rollback_of, s.document) for s in listed] == [
        (3, 1, ""),
        (2, 0, ""),
        (1, 0, ""),
    ]
    assert rest.next_page_token == ""
    assert (holds.version, holds.document, holds.put_by) == (3, DENY_DOCS, "caller:anonymous")
    assert served.authorize("agent:a", "read", "doc:x").policy_id == "no-docs"
    gone = refused(
        lambda: stub.RollbackPolicySet(pb.RollbackPolicySetRequest(version=9), timeout=10)
    )
    assert gone.code is grpc.StatusCode.NOT_FOUND


def test_a_set_is_put_only_over_the_one_that_was_seen(stub: PolicyServiceStub) -> None:
    assert put(stub, NOTHING, expected_version=0).version == 1

    failed = refused(lambda: put(stub, DENY_DOCS, expected_version=0))

    assert (failed.code, failed.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "POLICY_SET_CHANGED",
    )
    assert put(stub, DENY_DOCS, expected_version=1).version == 2


def test_the_same_request_happens_once(stub: PolicyServiceStub) -> None:
    first = put(stub, DENY_DOCS, request_id="r1")
    put(stub, NOTHING)

    assert put(stub, DENY_DOCS, request_id="r1").version == first.version
    reused = refused(lambda: put(stub, NOTHING, request_id="r1"))
    assert reused.code is grpc.StatusCode.ALREADY_EXISTS
    assert stub.GetPolicySet(pb.GetPolicySetRequest(), timeout=10).policy_set.version == 2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "document"),
        ({"document": "x" * (512 * 1024 + 1)}, "document"),
        ({"document": "version: 1\0"}, "document"),
        ({"document": NOTHING, "comment": "x" * 1025}, "comment"),
        ({"document": NOTHING, "expected_version": -1}, "expected_version"),
        ({"document": NOTHING, "request_id": "r", "only_check": True}, "request_id"),
    ],
)
def test_a_malformed_request_names_its_field(
    stub: PolicyServiceStub, fields: dict[str, Any], field: str
) -> None:
    failed = refused(lambda: stub.PutPolicySet(pb.PutPolicySetRequest(**fields), timeout=10))

    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


def test_facts_come_from_the_context(served: Served, stub: PolicyServiceStub) -> None:
    put(stub, document("name: mfa, require: {mfa: true, security_level: 2}"))
    context = Struct()
    context.update({"mfa": True, "security_level": 2})

    without = served.authorize("agent:a", "read", "doc:x")
    assert without.reason == decisions.REASON_MFA_REQUIRED
    assert (
        served.authorize("agent:a", "read", "doc:x", context=context).decision
        == decisions.DECISION_ALLOW
    )


def test_hours_say_when_to_ask_again_and_until_when_an_allow_holds(
    served: Served, stub: PolicyServiceStub
) -> None:
    put(stub, document(f"name: p, time: {{zone: UTC, except: {{{closed_today()}}}}}"))
    shut = served.authorize("agent:a", "read", "doc:x")
    put(stub, document("name: p, require: {mfa: {max_age: 1h}}"))
    context = Struct()
    context.update({"mfa": True, "mfa_at": now_seconds(served)})
    fresh = served.authorize("agent:a", "read", "doc:x", context=context)

    assert shut.reason == decisions.REASON_OUTSIDE_TIME_WINDOW
    assert 0 < shut.retry_after.seconds <= 2 * 86_400
    assert fresh.decision == decisions.DECISION_ALLOW
    assert 3_500 < fresh.valid_until.seconds - now_seconds(served) <= 3_600


def test_a_failed_condition_denies_and_is_counted(served: Served, stub: PolicyServiceStub) -> None:
    put(stub, document("name: p, when: context.x == 1, deny: x"))

    answer = served.authorize("agent:a", "read", "doc:x")

    assert answer.reason == decisions.REASON_POLICY_ERROR
    assert answer.policy_id == "p"


def test_an_explanation_shows_each_policy(served: Served, stub: PolicyServiceStub) -> None:
    put(
        stub,
        document(
            "name: elsewhere, match: {resources: ['fs:**']}, deny: x",
            "name: mfa, require: {mfa: true}",
            "name: unmet, when: action == 'write', deny: x",
        ),
    )

    explained = served.authorize("agent:a", "read", "doc:x", explain=True).explanation
    other = served.authorize("agent:b", "read", "doc:x", explain=True).explanation

    assert explained.policy_count == 3
    assert [(p.policy_id, p.outcome) for p in explained.policies] == [
        ("unmet", decisions.POLICY_OUTCOME_CONDITION_FALSE),
        ("mfa", decisions.POLICY_OUTCOME_DENIED),
        ("elsewhere", decisions.POLICY_OUTCOME_NOT_MATCHED),
    ]
    assert explained.policies[1].effect == "requires multi-factor authentication"
    assert other.policy_count == 0


def test_a_batch_and_a_stream_are_judged_like_single_requests(
    served: Served, stub: PolicyServiceStub
) -> None:
    put(stub, DENY_DOCS)
    asked = [
        api.AuthorizeRequest(principal="agent:a", action="read", resource="doc:x"),
        api.AuthorizeRequest(principal="agent:b", action="read", resource="doc:x"),
    ]

    batch = served.stub.BatchAuthorize(api.BatchAuthorizeRequest(requests=asked), timeout=10)
    (streamed,) = served.stub.StreamAuthorize(
        iter([api.StreamAuthorizeRequest(requests=asked)]), timeout=10
    )

    for responses in (batch.responses, streamed.responses):
        assert [r.reason for r in responses] == [
            decisions.REASON_POLICY_DENIED,
            decisions.REASON_NO_CAPABILITY,
        ]


def test_a_caller_with_limits_changes_no_policies(served: Served) -> None:
    with calling(served.address) as admin:
        made = make_key(admin, "policy", resources=("doc:**",))
    with holding(served.address, made.token) as limited:
        theirs = PolicyServiceStub(limited.channel)
        for call in (
            lambda: put(theirs, NOTHING),
            lambda: theirs.RollbackPolicySet(pb.RollbackPolicySetRequest(version=1), timeout=10),
        ):
            failed = refused(call)
            assert (failed.code, failed.reason) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "OUTSIDE_LIMITS",
            )


def test_cases_are_put_to_a_document_or_to_what_holds(stub: PolicyServiceStub) -> None:
    cases = json.dumps(
        {
            "version": 1,
            "cases": [
                {
                    "name": "docs",
                    "at": "2026-11-23T10:00:00Z",
                    "principal": "agent:a",
                    "action": "read",
                    "resource": "doc:x",
                    "expect": {"decision": "ALLOW"},
                }
            ],
        }
    )

    def test(text: str = "") -> pb.TestPolicySetResponse:
        return stub.TestPolicySet(pb.TestPolicySetRequest(document=text, cases=cases), timeout=10)

    assert refused(test).code is grpc.StatusCode.NOT_FOUND
    draft = test(DENY_DOCS)
    put(stub, NOTHING)
    holds = test()

    (result,) = draft.results
    assert (result.passed, result.reason) == (False, decisions.REASON_POLICY_DENIED)
    assert (result.name, result.line, result.policy_id) == ("docs", 1, "no-docs")
    assert (list(draft.not_reached), holds.results[0].passed) == ([], True)
    assert refused(
        lambda: stub.TestPolicySet(pb.TestPolicySetRequest(cases="x"), timeout=10)
    ).fields == ("cases",)


def test_the_built_in_sets_can_be_put(served: Served, stub: PolicyServiceStub) -> None:
    done = put(stub, f"version: 1\ninclude: [{', '.join(ENFORCED)}]\n")

    assert done.policy_count == len(ENFORCED)
    served.grant("agent:a", "write", "fs:/etc/**")
    denied = served.authorize("agent:a", "write", "fs:/etc/passwd")
    assert denied.policy_id == "system-paths@1/change"
    assert served.authorize("agent:a", "read", "doc:x").decision == decisions.DECISION_ALLOW


def now_seconds(served: Served) -> int:
    with served.database.connect() as connection:
        row = connection.execute("SELECT extract(epoch FROM now())::bigint").fetchone()
    assert row is not None
    return int(row[0])


def closed_today() -> str:
    today = to_datetime(SystemClock().now())
    days = (today + timedelta(days=n) for n in (0, 1))
    return ", ".join(f"{day:%Y-%m-%d}: closed" for day in days)
