"""Approvals over gRPC: a DENY asks, people approve, and one request is allowed, once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Final, LiteralString

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from licet.storage.verification import opened_log
from licet.v1 import approval_pb2 as pb
from licet.v1 import authorization_pb2 as api
from licet.v1 import capability_pb2
from licet.v1 import decision_pb2 as decisions
from licet.v1 import policy_pb2 as policies
from licet.v1.approval_pb2_grpc import ApprovalServiceStub
from licet.v1.policy_pb2_grpc import PolicyServiceStub
from tests.fakes.api import micros, refused, rows, struct
from tests.fakes.approvals import (
    AGENT,
    ALLOW,
    APPROVED,
    NEEDED,
    PENDING,
    QUESTION,
    REJECTED,
    SHELL,
    USED,
    asked,
    get,
    prepared,
    put,
    request,
    resolve,
)
from tests.fakes.postgres import Database, eventually
from tests.fakes.serving import Served, serving
from tests.unit.policies import document

OTHER = (AGENT, "execute", "tool:other")


@pytest.mark.parametrize("mode", ["auto", "stock"])
def test_an_approval_allows_one_request(database: Database, mode: str) -> None:
    with serving(database, serving=mode) as served:
        parent = prepared(served)
        approval_id = asked(served, context=struct(purpose="clean\u202e up"))
        assert asked(served) == approval_id
        pending = get(served.channel, approval_id)
        assert (pending.state, pending.purpose) == (PENDING, "clean  up")
        assert (list(pending.roles), list(pending.policy_ids)) == (["security"], ["shell"])
        assert (pending.principal, pending.action, pending.resource) == QUESTION
        assert micros(pending.expires_at) - micros(pending.asked_at) == 86_400_000_000

        done = resolve(served.channel, approval_id, comment="go", ttl=Duration(seconds=60))
        first, second = served.authorize(*QUESTION), served.authorize(*QUESTION)

        assert (done.approval.state, done.replicas_confirmed) == (APPROVED, 1)
        assert (first.decision, first.capability_id) == (ALLOW, done.approval.capability_id)
        # It is good for this request, and not to be kept.
        assert first.HasField("valid_until")
        assert (second.decision, second.reason) == (decisions.DECISION_DENY, NEEDED)
        assert second.approval_id not in {"", approval_id}
        assert get(served.channel, approval_id).state == USED
        found = served.stub.GetCapability(
            api.GetCapabilityRequest(capability_id=first.capability_id), timeout=10
        ).capability
        assert (found.parent_id, found.resource, list(found.actions)) == (
            *(parent, "tool:shell", ["execute"]),
        )
        assert (found.end_cause, list(found.approved_roles)) == (
            *(capability_pb2.END_CAUSE_USED, ["security"]),
        )
        assert (found.delegation_depth, found.ended_by) == (0, "caller:anonymous")
        assert micros(found.expires_at) - micros(found.granted_at) == 60_000_000


def test_of_many_who_ask_at_once_one_is_allowed(database: Database) -> None:
    with serving(database) as one, serving(database) as other:
        prepared(one)
        for _ in range(3):
            resolve(other.channel, asked(one))
            together = Barrier(8)

            def ask(number: int, together: Barrier = together) -> api.AuthorizeResponse:
                together.wait(10)
                return (one, other)[number % 2].authorize(*QUESTION)

            with ThreadPoolExecutor(8) as threads:
                answers = list(threads.map(ask, range(8)))

            assert [answer.decision for answer in answers].count(ALLOW) == 1
            assert {answer.reason for answer in answers if answer.decision != ALLOW} == {NEEDED}
        used = "SELECT count(*) FROM licet.capabilities WHERE end_cause = 'USED'"
        assert rows(database, used) == [(3,)]


def test_an_approval_is_good_for_nothing_else(served: Served) -> None:
    prepared(served)
    resolve(served.channel, asked(served))

    asked(served, OTHER)
    asked(served, (AGENT, "read", "tool:shell"))
    stranger = served.authorize("agent:b", *QUESTION[1:])
    assert stranger.reason == decisions.REASON_NO_CAPABILITY
    assert served.authorize(*QUESTION).decision == ALLOW


def test_each_role_approves_and_the_shortest_time_counts(served: Served) -> None:
    prepared(served, SHELL, "name: ops, match: {resources: ['tool:**']}, require: {approval: sre}")
    approval_id = asked(served)

    assert list(get(served.channel, approval_id).roles) == ["security", "sre"]
    done = resolve(served.channel, approval_id, ttl=Duration(seconds=5))
    assert [consent.role for consent in done.approval.consents] == ["security", "sre"]
    assert served.authorize(*QUESTION).decision == ALLOW


def test_whatever_else_is_demanded_still_is(served: Served) -> None:
    prepared(served, SHELL, "name: mfa, match: {actions: [execute]}, require: {mfa: true}")
    resolve(served.channel, asked(served))

    without = served.authorize(*QUESTION, explain=True)
    assert (without.reason, without.policy_id) == (decisions.REASON_MFA_REQUIRED, "mfa")
    assert without.approval_id == ""
    outcomes = {p.policy_id: p.outcome for p in without.explanation.policies}
    assert outcomes["shell"] == decisions.POLICY_OUTCOME_PASSED
    allowed = served.authorize(*QUESTION, context=struct(mfa=True), explain=True)
    assert allowed.decision == ALLOW
    assert {p.outcome for p in allowed.explanation.policies} == {decisions.POLICY_OUTCOME_PASSED}


def test_an_explanation_names_the_limit_that_an_approved_request_met(served: Served) -> None:
    prepared(served, SHELL, "name: rare, limit: {rate: 1/d}")
    resolve(served.channel, asked(served))
    assert served.authorize(*QUESTION).decision == ALLOW
    resolve(served.channel, asked(served))

    denied = served.authorize(*QUESTION, explain=True)

    assert (denied.reason, denied.policy_id) == (decisions.REASON_RATE_LIMITED, "rare")
    outcomes = {p.policy_id: p.outcome for p in denied.explanation.policies}
    assert outcomes == {
        "shell": decisions.POLICY_OUTCOME_PASSED,
        "rare": decisions.POLICY_OUTCOME_DENIED,
    }


def test_policies_see_the_capability_that_covers_it(served: Served) -> None:
    """The child is exact; what is demanded of a wide capability, no approval gives."""
    wide = "name: wide, when: 'capability.resource == \"tool:**\"', require: {mfa: true}"
    prepared(served, SHELL, wide)
    resolve(served.channel, asked(served))
    assert served.authorize(*QUESTION).policy_id == "wide"
    put(served.channel, SHELL)
    assert served.authorize(*QUESTION).decision == ALLOW


def test_a_named_capability_is_the_one_that_covers_it(served: Served) -> None:
    parent = prepared(served)
    another = served.grant(AGENT, "execute", "tool:shell")
    done = resolve(served.channel, asked(served, capability_id=parent))

    assert served.authorize(*QUESTION, capability_id=another).decision != ALLOW
    child = done.approval.capability_id
    by_child = served.authorize(*QUESTION, capability_id=child)
    assert by_child.reason == decisions.REASON_NO_CAPABILITY
    grant = api.GrantRequest(
        parent_capability_id=child, principal="agent:b", actions=["execute"], resource="tool:shell"
    )
    assert refused(lambda: served.stub.Grant(grant, timeout=10)).reason == "NO_DEPTH_LEFT"
    # Another capability came that decides first; the approval is still found.
    assert served.authorize(*QUESTION).capability_id == child


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_same_question_twice_in_a_call_is_allowed_once(served: Served, is_stream: bool) -> None:
    prepared(served)
    approval_id = asked(served)
    questions = [request(), request(OTHER), request()]

    def ask() -> Sequence[api.AuthorizeResponse]:
        if is_stream:
            message = api.StreamAuthorizeRequest(requests=questions)
            return next(served.stub.StreamAuthorize(iter([message]), timeout=10)).responses
        batch = api.BatchAuthorizeRequest(requests=questions)
        return served.stub.BatchAuthorize(batch, timeout=10).responses

    before = ask()
    assert [answer.approval_id for answer in before[::2]] == [approval_id] * 2
    assert before[1].approval_id not in {"", approval_id}
    resolve(served.channel, approval_id)

    after = ask()

    assert [answer.decision == ALLOW for answer in after] == [True, False, False]
    assert after[2].approval_id not in {"", approval_id}


def test_a_principal_has_a_number_of_pending_approvals(served: Served) -> None:
    prepared(served)
    questions = [request((AGENT, "execute", f"tool:{number}")) for number in range(21)]
    batch = api.BatchAuthorizeRequest(requests=questions)
    answers = served.stub.BatchAuthorize(batch, timeout=20).responses

    assert [bool(answer.approval_id) for answer in answers] == [True] * 20 + [False]
    assert answers[20].detail.endswith("one call asks for 20 approvals at most")
    alone = served.authorize(*QUESTION)
    assert (alone.reason, alone.approval_id) == (NEEDED, "")
    assert alone.detail.endswith("its principal has 20 pending approvals already")
    listed = ApprovalServiceStub(served.channel).ListApprovals
    first = listed(pb.ListApprovalsRequest(page_size=15, state=PENDING), timeout=10)
    rest = listed(
        pb.ListApprovalsRequest(page_size=15, state=PENDING, page_token=first.next_page_token),
        timeout=10,
    )
    found = [approval.resource for approval in (*first.approvals, *rest.approvals)]
    assert found == [f"tool:{number}" for number in range(20)]
    assert rest.next_page_token == ""
    others = pb.ListApprovalsRequest(principal="agent:b")
    assert not listed(others, timeout=10).approvals
    wrong = pb.ListApprovalsRequest(page_size=15, page_token=first.next_page_token)
    assert refused(lambda: listed(wrong, timeout=10)).code is grpc.StatusCode.INVALID_ARGUMENT


def test_all_of_it_is_on_record(served: Served, database: Database) -> None:
    prepared(served)
    approval_id = asked(served, context=struct(purpose="clean up"), session_id="s-1")
    done = resolve(served.channel, approval_id, comment="go")
    refused(lambda: resolve(served.channel, approval_id))
    served.authorize(*QUESTION)
    rejected = asked(served, OTHER)
    resolve(served.channel, rejected, REJECTED, comment="no")

    query = (
        "SELECT event_type, actor, principal, resource, capability_id, result, reason, metadata"
        " FROM audit.events WHERE event_type ~ '^approval' ORDER BY event_id"
    )
    found = rows(database, query)
    parent, child = done.approval.parent_capability_id, done.approval.capability_id
    assert [row[:1] + row[4:7] for row in found] == [
        ("approval.requested", parent, "done", ""),
        ("approval.approved", child, "done", ""),
        ("approval.approved", "", "refused", "APPROVAL_RESOLVED"),
        ("approval.used", child, "done", ""),
        ("approval.requested", parent, "done", ""),
        ("approval.rejected", "", "done", ""),
    ]
    assert {row[1:3] for row in found} == {("caller:anonymous", AGENT)}
    assert found[0][7] == {
        "action": "execute",
        "approval_id": approval_id,
        "policies": ["shell"],
        "policy_set": 1,
        "purpose": "clean up",
        "roles": ["security"],
    }
    assert found[1][7] == {
        "action": "execute",
        "approval_id": approval_id,
        "comment": "go",
        "all_roles": ["security"],
        "parent_id": parent,
        "roles": ["security"],
        "ttl_seconds": 900,
    }
    assert found[3][7] == {"action": "execute", "roles": ["security"]}
    allowed = (
        "SELECT capability_id FROM audit.events WHERE event_type = 'decision' AND result = 'allow'"
    )
    assert eventually(lambda: rows(database, allowed) == [(child,)])


def test_an_approval_that_nobody_can_give_is_not_put(served: Served) -> None:
    stub = PolicyServiceStub(served.channel)
    text = document("name: p, require: {approval: ops}")
    failed = refused(
        lambda: stub.PutPolicySet(policies.PutPolicySetRequest(document=text), timeout=10)
    )
    assert failed.fields == ("document",)
    assert "line 3, column 35" in failed.message
    assert "must be one of developer, sre, security, admin" in failed.message
    built_in = "version: 1\ninclude: [dangerous-tools@1]"
    done = stub.PutPolicySet(policies.PutPolicySetRequest(document=built_in), timeout=10)
    assert done.version == 1


TAMPERED: Final[tuple[tuple[LiteralString, str], ...]] = (
    (
        (
            "UPDATE licet.capabilities SET ended_revision = NULL, ended_event_id = NULL,"
            " ended_at = NULL, ended_by = NULL, end_reason = NULL, end_cause = NULL"
        ),
        "approval.used",
    ),
    (
        "UPDATE licet.capabilities SET approved_roles = '{sre}' WHERE approved_roles IS NOT NULL",
        "grant",
    ),
    (
        "UPDATE licet.capabilities SET actions = '{read}' WHERE approved_roles IS NOT NULL",
        "grant",
    ),
    ("UPDATE licet.capabilities SET approved_roles = NULL WHERE end_cause IS NULL", "grant"),
    ("DELETE FROM licet.capabilities WHERE approved_roles IS NOT NULL", "approval.approved"),
)


def test_what_approvals_made_and_ended_is_verified(served: Served, database: Database) -> None:
    prepared(served)
    resolve(served.channel, asked(served))
    assert served.authorize(*QUESTION).decision == ALLOW
    resolve(served.channel, asked(served))

    def faults() -> set[str]:
        with opened_log(database.url, snapshot=True) as log:
            return {kind for _, kind in (*log.capability_faults(9), *log.event_faults(9))}

    assert faults() == set()
    for change, found in TAMPERED:
        with database.connect() as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute("CREATE TABLE kept AS SELECT * FROM licet.capabilities")
            connection.execute(change)
            assert found in faults()
            connection.execute("DELETE FROM licet.capabilities")
            connection.execute("INSERT INTO licet.capabilities SELECT * FROM kept")
            connection.execute("DROP TABLE kept")
