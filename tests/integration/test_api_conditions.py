"""Conditions of capabilities over gRPC: granted, inherited, decided by, and on record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2 as d
from tests.fakes.agents import make_agent
from tests.fakes.api import refused, rows, struct
from tests.fakes.callers import calling, holding
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.serving import Served, serving

pytestmark = pytest.mark.usefixtures("both_ways")

MFA = "context.mfa == true"
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def served(cluster: Cluster, migrated_template: Database, both_ways: str) -> Iterator[Served]:
    """Provide one server for all, in which each test has principals of its own."""
    assert both_ways
    with cluster.database(migrated_template) as database, serving(database) as one:
        yield one


def recorded(served: Served, principal: str, event_type: str) -> list[tuple[Any, ...]]:
    return rows(
        served.database,
        "SELECT result, reason, capability_id, metadata ->> 'condition' FROM audit.events"
        " WHERE principal = %s AND event_type = %s ORDER BY occurred_at, event_id",
        principal,
        event_type,
    )


def ask(served: Served, principal: str, **context: Any) -> pb.AuthorizeResponse:  # noqa: ANN401 - any JSON
    return served.authorize(principal, "read", "doc:x/1", context=struct(**context))


def test_a_condition_is_part_of_the_capability_and_of_its_event(served: Served) -> None:
    request = pb.GrantRequest(
        principal="agent:1", actions=["read"], resource="doc:x/**", condition=MFA, request_id="r"
    )
    granted = served.stub.Grant(request, timeout=10).capability
    assert granted.condition == MFA
    assert served.stub.Grant(request, timeout=10).capability == granted
    request.condition = "context.mfa != true"
    assert refused(lambda: served.stub.Grant(request, timeout=10)).reason == "REQUEST_ID_REUSED"

    found = served.stub.GetCapability(pb.GetCapabilityRequest(capability_id=granted.id), timeout=10)
    listed = served.stub.ListCapabilities(
        pb.ListCapabilitiesRequest(principal="agent:1"), timeout=10
    )
    assert found.capability.condition == MFA
    assert [c.condition for c in listed.capabilities] == [MFA]
    assert recorded(served, "agent:1", "grant") == [("done", "", granted.id, MFA)]


def test_a_decision_needs_the_condition(served: Served) -> None:
    granted = served.grant("agent:2", "read", "doc:x/**", condition=MFA)
    answers = [ask(served, "agent:2", **facts) for facts in ({"mfa": True}, {"mfa": False}, {})]
    assert [answer.reason for answer in answers] == [
        d.REASON_GRANTED,
        d.REASON_CONDITION_FAILED,
        d.REASON_POLICY_ERROR,
    ]
    assert [answer.decision for answer in answers] == [
        d.DECISION_ALLOW,
        d.DECISION_DENY,
        d.DECISION_DENY,
    ]
    assert {answer.capability_id for answer in answers} == {granted}
    assert f"its condition `{MFA}` does not hold" in answers[1].detail
    assert f"its condition `{MFA}` cannot be told" in answers[2].detail
    assert eventually(lambda: len(recorded(served, "agent:2", "decision")) == 3)
    assert [row[:3] for row in recorded(served, "agent:2", "decision")] == [
        ("allow", "", granted),
        ("deny", "CONDITION_FAILED", granted),
        ("deny", "POLICY_ERROR", granted),
    ]


def test_one_without_conditions_allows_whatever_the_others_say(served: Served) -> None:
    served.grant("agent:3", "read", "doc:x/1", condition="1 / 0 == 1")
    assert ask(served, "agent:3").reason == d.REASON_POLICY_ERROR
    plain = served.grant("agent:3", "read", "doc:**")
    assert ask(served, "agent:3").capability_id == plain


def test_a_child_has_the_conditions_of_all_its_ancestors(served: Served) -> None:
    root = served.grant(
        "agent:root", "read", "doc:**", condition="context.a == 1", delegation_depth=3
    )
    middle = served.grant(
        "agent:middle", "read", "doc:x/**", parent_capability_id=root, delegation_depth=2
    )
    leaf = served.grant(
        "agent:leaf", "read", "doc:x/1", parent_capability_id=middle, condition="context.c == 1"
    )
    for principal, context, reason in (
        ("agent:middle", {"a": 1}, d.REASON_GRANTED),
        ("agent:middle", {"a": 2}, d.REASON_CONDITION_FAILED),
        ("agent:leaf", {"a": 1, "c": 1}, d.REASON_GRANTED),
        ("agent:leaf", {"a": 2, "c": 1}, d.REASON_CONDITION_FAILED),
        ("agent:leaf", {"a": 1, "c": 2}, d.REASON_CONDITION_FAILED),
        ("agent:leaf", {"c": 1}, d.REASON_POLICY_ERROR),
    ):
        assert ask(served, principal, **context).reason == reason, (principal, context)
    assert "context.a == 1" in ask(served, "agent:leaf", a=2, c=2).detail
    stored = rows(
        served.database,
        "SELECT id::text, conditions FROM licet.capabilities WHERE id = ANY (%s::uuid[])",
        [root, middle, leaf],
    )
    assert dict(stored) == {
        root: ["context.a == 1"],
        middle: ["context.a == 1"],
        leaf: ["context.a == 1", "context.c == 1"],
    }


def test_a_holder_delegates_what_has_a_condition_and_cannot_shed_it(served: Served) -> None:
    root = served.grant("agent:holder", "read", "doc:**", condition=MFA, delegation_depth=1)
    with calling(served.address) as admin:
        token = make_agent(served.address, admin, "holder").token
    with holding(served.address, token) as holder:
        request = pb.GrantRequest(
            principal="agent:4",
            actions=["read"],
            resource="doc:x/**",
            parent_capability_id=root,
            condition="true",
        )
        granted = holder.authorization.Grant(request, timeout=10).capability
    assert granted.granted_by == "agent:holder"
    assert ask(served, "agent:4").reason == d.REASON_POLICY_ERROR
    assert ask(served, "agent:4", mfa=True).reason == d.REASON_GRANTED


def test_there_are_at_most_sixteen(served: Served) -> None:
    parent = ""
    for depth in range(16):
        parent = served.grant(
            "agent:5",
            "read",
            "doc:**",
            condition=f"{depth} >= 0",
            parent_capability_id=parent,
            delegation_depth=20 - depth,
        )
    one_more: dict[str, Any] = {"parent_capability_id": parent, "delegation_depth": 1}
    told = refused(lambda: served.grant("agent:6", "read", "doc:**", condition="true", **one_more))
    assert told.code is grpc.StatusCode.FAILED_PRECONDITION
    assert told.reason == "TOO_MANY_CONDITIONS"
    assert recorded(served, "agent:6", "delegate") == [
        ("refused", "TOO_MANY_CONDITIONS", parent, "true")
    ]
    served.grant("agent:6", "read", "doc:**", **one_more)
    assert ask(served, "agent:6").reason == d.REASON_GRANTED


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("action", "must be a bool"),
        ("action == 'read' &&", "line 1, column"),
        ("true\n && resource.typ == ''", "line 2"),
        ("context.l.exists(x, x == 1)", "cannot be used"),
        ("x" * 2049, "2048 bytes"),
        ("action == '\x01'", "control characters"),
    ],
)
def test_a_condition_that_cannot_be_used_is_not_stored(
    served: Served, condition: str, words: str
) -> None:
    told = refused(lambda: served.grant("agent:7", "read", "doc:**", condition=condition))
    assert (told.code, told.fields) == (_INVALID, ("condition",))
    assert words in told.message
    assert rows(served.database, "SELECT FROM licet.capabilities WHERE principal = 'agent:7'") == []
    assert recorded(served, "agent:7", "grant") == []


def test_batches_and_streams_decide_by_conditions(served: Served) -> None:
    served.grant("agent:n", "read", "doc:**", condition="context.n < 100")
    served.grant("agent:plain", "read", "doc:**")
    # More than are evaluated at once, and without those that are not conditional.
    for size in (3, 30, 200):
        questions = [
            pb.AuthorizeRequest(
                principal="agent:n" if n % 3 else "agent:plain",
                action="read",
                resource="doc:x",
                context=struct(n=n),
                correlation_id=str(n),
            )
            for n in range(size)
        ]
        expected = [
            d.DECISION_ALLOW if n % 3 == 0 or n < 100 else d.DECISION_DENY for n in range(size)
        ]
        batch = served.stub.BatchAuthorize(pb.BatchAuthorizeRequest(requests=questions), timeout=10)
        (streamed,) = served.stub.StreamAuthorize(
            iter([pb.StreamAuthorizeRequest(requests=questions)]), timeout=10
        )
        for answers in (batch.responses, streamed.responses):
            assert [answer.decision for answer in answers] == expected
            assert [answer.correlation_id for answer in answers] == [str(n) for n in range(size)]


def test_what_may_take_long_is_decided_all_the_same(served: Served) -> None:
    served.grant("agent:slow", "read", "doc:x/**", condition="resource.path.matches('^x/[0-9]+$')")
    served.grant("agent:slow", "read", "doc:y/**", condition="size(context.text) == 5000")
    for _ in range(3):
        assert ask(served, "agent:slow").reason == d.REASON_GRANTED
        for length, reason in ((5000, d.REASON_GRANTED), (4999, d.REASON_CONDITION_FAILED)):
            context = struct(text="x" * length)
            answer = served.authorize("agent:slow", "read", "doc:y/1", context=context)
            assert answer.reason == reason


def test_an_explanation_names_the_condition(served: Served) -> None:
    failing = served.grant("agent:8", "read", "doc:x/**", condition="action == 'write'")
    holding = served.grant("agent:8", "read", "doc:x/*", condition="action == 'read'")
    answer = served.authorize("agent:8", "read", "doc:x/1", explain=True)
    found = {c.capability_id: (c.verdict, c.detail) for c in answer.explanation.candidates}
    assert answer.capability_id == holding
    assert found[holding][0] == d.CANDIDATE_VERDICT_APPLIES
    assert found[failing] == (
        d.CANDIDATE_VERDICT_CONDITION_FAILED,
        "its condition `action == 'write'` does not hold",
    )


def test_many_conditions_are_looked_at_up_to_a_bound(served: Served) -> None:
    with served.database.connect() as admin:
        admin.execute(
            """INSERT INTO licet.capabilities (id, principal, actions, resource, granted_by,
                 granted_at, delegation_depth, condition, granted_revision, granted_event_id)
               SELECT gen_random_uuid(), 'agent:many', '{read}', 'doc:**', 'service:gate', now(), 0,
                 'context.n == ' || n, 0, gen_random_uuid()
               FROM generate_series(1, 1000) AS n"""
        )
    answer = ask(served, "agent:many", n=0)
    assert answer.reason == d.REASON_POLICY_ERROR
    assert "more than 250 conditions" in answer.detail
    # Named, each of them is found.
    ((last,),) = rows(
        served.database,
        "SELECT id::text FROM licet.capabilities WHERE condition = 'context.n == 9'",
    )
    named = served.authorize(
        "agent:many", "read", "doc:x/1", context=struct(n=9), capability_id=last
    )
    assert named.reason == d.REASON_GRANTED
