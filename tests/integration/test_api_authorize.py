"""Authorize: what is decided, why, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from licet.app.ports import Reading
from licet.domain.instant import Instant
from licet.replica.clock import DatabaseClock
from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2 as d
from tests.fakes.api import all_stored, micros, refused, rows, struct, timestamp
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.serving import Served, serving

pytestmark = pytest.mark.usefixtures("both_ways")

UNKNOWN = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"
FAR = timestamp(4_000_000_000_000_000)  # in 2096
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


def _ask(principal: str, resource: str = "doc:x", **fields: Any) -> pb.AuthorizeRequest:  # noqa: ANN401 - a field
    return pb.AuthorizeRequest(principal=principal, action="read", resource=resource, **fields)


def _revoke(served: Served, capability_id: str) -> None:
    served.stub.Revoke(pb.RevokeRequest(capability_id=capability_id), timeout=10)


@pytest.fixture(scope="module")
def shared(cluster: Cluster, migrated_template: Database, both_ways: str) -> Iterator[Served]:
    """Provide one server for the tests that leave nothing behind."""
    assert both_ways
    with cluster.database(migrated_template) as database, serving(database) as served:
        yield served


def test_an_allow_names_its_capability_its_end_and_its_revision(served: Served) -> None:
    allowed = served.grant("agent:a", "read write", "doc:a/**", expires_at=FAR)
    answer = served.authorize("agent:a", "write", "doc:a/b/c", correlation_id="c-1")
    assert (answer.decision, answer.reason) == (d.DECISION_ALLOW, d.REASON_GRANTED)
    assert (answer.capability_id, answer.revision) == (allowed, 1)
    assert (answer.valid_until, answer.correlation_id) == (FAR, "c-1")
    assert allowed in answer.detail
    assert not answer.HasField("explanation")


def test_an_allow_without_expiry_has_no_end(served: Served) -> None:
    served.grant("agent:a", "*", "doc:x")
    assert not served.authorize("agent:a", "anything.at_all", "doc:x").HasField("valid_until")


@pytest.mark.parametrize(
    "question",
    [
        ("agent:b", "read", "doc:a/b"),
        ("agent:a", "write", "doc:a/b"),
        ("agent:a", "read", "doc:a"),
        ("agent:a", "read", "doc:a/b/c"),
        ("agent:a", "read", "doc:A/b"),
        ("agent:a", "read", "dog:a/b"),
        ("agent:a", "read", "doc:а/b"),  # a Cyrillic letter that looks the same
        ("agent:а", "read", "doc:a/b"),
    ],
)
def test_what_no_capability_covers_is_denied(
    shared: Served, question: tuple[str, str, str]
) -> None:
    shared.grant("agent:a", "read", "doc:a/*")
    answer = shared.authorize(*question)
    assert (answer.decision, answer.reason) == (d.DECISION_DENY, d.REASON_NO_CAPABILITY)
    assert answer.capability_id == ""
    assert not answer.HasField("valid_until")


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_denial_says_what_stood_in_the_way(served: Served, in_memory: bool) -> None:
    expiring = served.grant("agent:e", "read", "doc:x", ttl=Duration(nanos=200_000_000))
    revoked = served.grant("agent:r", "read", "doc:x")
    early = served.grant("agent:n", "read", "doc:x", not_before=FAR)
    if in_memory:
        for principal in ("agent:e", "agent:r", "agent:n"):
            served.authorize(principal, "read", "doc:x")
    _revoke(served, revoked)
    expected = {
        "agent:e": (d.REASON_CAPABILITY_EXPIRED, expiring),
        "agent:r": (d.REASON_CAPABILITY_REVOKED, revoked),
        "agent:n": (d.REASON_NOT_YET_VALID, early),
    }
    assert eventually(lambda: _is_denied(served, "agent:e"))
    for principal, (reason, capability_id) in expected.items():
        answer = served.authorize(principal, "read", "doc:x")
        assert (answer.decision, answer.reason) == (d.DECISION_DENY, reason)
        assert answer.capability_id == capability_id
        assert capability_id in answer.detail


def _is_denied(served: Served, principal: str) -> bool:
    return served.authorize(principal, "read", "doc:x").decision == d.DECISION_DENY


def test_a_capability_named_in_the_request_is_the_only_one_exercised(served: Served) -> None:
    first = served.grant("agent:a", "read", "doc:x")
    second = served.grant("agent:a", "read", "doc:**")
    other = served.grant("agent:b", "read", "doc:x")
    for capability_id in (first, second):
        for text in (capability_id, capability_id.upper()):
            answer = served.authorize("agent:a", "read", "doc:x", capability_id=text)
            assert answer.capability_id == capability_id
    _revoke(served, first)
    answer = served.authorize("agent:a", "read", "doc:x", capability_id=first)
    assert answer.reason == d.REASON_CAPABILITY_REVOKED
    for foreign in (other, UNKNOWN):
        answer = served.authorize("agent:a", "read", "doc:x", capability_id=foreign)
        assert answer.reason == d.REASON_NO_CAPABILITY


def test_an_explanation_tells_about_every_candidate(served: Served) -> None:
    applies = served.grant("agent:a", "read", "doc:a/*")
    other = served.grant("agent:a", "write list", "doc:**")
    early = served.grant("agent:a", "read", "doc:a/b", not_before=FAR)
    gone = served.grant("agent:a", "read", "doc:a/**")
    _revoke(served, gone)
    served.grant("agent:a", "read", "doc:elsewhere")
    answer = served.authorize("agent:a", "read", "doc:a/b", explain=True)
    explanation = answer.explanation
    assert explanation.candidate_count == 4
    assert explanation.candidates[0].capability_id == applies == answer.capability_id
    verdicts = {c.capability_id: c.verdict for c in explanation.candidates}
    assert verdicts == {
        applies: d.CANDIDATE_VERDICT_APPLIES,
        other: d.CANDIDATE_VERDICT_OTHER_ACTION,
        early: d.CANDIDATE_VERDICT_NOT_YET_VALID,
        gone: d.CANDIDATE_VERDICT_REVOKED,
    }
    named = served.authorize("agent:a", "read", "doc:a/b", explain=True, capability_id=early)
    verdicts = {c.capability_id: c.verdict for c in named.explanation.candidates}
    assert verdicts[applies] == d.CANDIDATE_VERDICT_NOT_REQUESTED
    assert named.reason == d.REASON_NOT_YET_VALID
    assert all(c.detail and c.resource and c.actions for c in explanation.candidates)


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_lifetime_is_exact_to_the_microsecond(
    served: Served, database: Database, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    request = pb.GrantRequest(
        principal="agent:a", actions=["read"], resource="doc:x", ttl=Duration(seconds=3600)
    )
    now = micros(served.stub.Grant(request, timeout=10).capability.granted_at)
    begins = now + 60_000_000
    request.not_before.CopyFrom(timestamp(begins))
    request.principal = "agent:b"
    ends = micros(served.stub.Grant(request, timeout=10).capability.expires_at)
    expected = {
        begins - 1: d.REASON_NOT_YET_VALID,
        begins: d.REASON_GRANTED,
        ends - 1: d.REASON_GRANTED,
        ends: d.REASON_CAPABILITY_EXPIRED,
    }
    if in_memory:
        served.authorize("agent:b", "read", "doc:x")
    for instant, reason in expected.items():
        still = Reading(Instant(instant), Instant(instant))
        monkeypatch.setattr(DatabaseClock, "reading", lambda _, at=still: at)
        answer = served.authorize("agent:b", "read", "doc:x")
        assert answer.reason == reason
        batch = pb.BatchAuthorizeRequest(requests=[_ask("agent:b")])
        (other,) = served.stub.BatchAuthorize(batch, timeout=10).responses
        assert other.reason == reason
        assert all_stored(database, [answer.decision_id])
        assert rows(
            database,
            "SELECT (extract(epoch FROM occurred_at) * 1000000)::bigint FROM audit.events"
            " WHERE event_id = %s",
            answer.decision_id,
        ) == [(instant,)]


def test_no_allow_is_recorded_at_or_after_the_expiry(served: Served, database: Database) -> None:
    request = pb.GrantRequest(
        principal="agent:a",
        actions=["read"],
        resource="doc:x",
        ttl=Duration(seconds=2),
    )
    expires_at = micros(served.stub.Grant(request, timeout=10).capability.expires_at)
    batch = pb.BatchAuthorizeRequest(requests=[_ask("agent:a")] * 5)
    answers: list[pb.AuthorizeResponse] = []

    def is_over() -> bool:
        for _ in range(50):
            answers.append(served.stub.Authorize(_ask("agent:a"), timeout=10))
            answers.extend(served.stub.BatchAuthorize(batch, timeout=10).responses)
        return answers[-1].decision == d.DECISION_DENY

    assert eventually(is_over)
    assert all_stored(database, [answer.decision_id for answer in answers])
    found = rows(
        database,
        """SELECT (extract(epoch FROM occurred_at) * 1000000)::bigint, result, reason
           FROM audit.events WHERE event_type = 'decision' ORDER BY occurred_at, event_id""",
    )
    assert len(found) == len(answers)
    for occurred_at, result, reason in found:
        expected = ("allow", "") if occurred_at < expires_at else ("deny", "CAPABILITY_EXPIRED")
        assert (result, reason) == expected
    # The last allow came before the end, by no more than a loaded machine makes of a moment.
    assert max(at for at, result, _ in found if result == "allow") > expires_at - 1_500_000


def test_a_capability_is_alive_from_its_first_instant_on(
    served: Served, database: Database
) -> None:
    with database.connect() as connection:
        (now,) = connection.execute(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        ).fetchone() or (0,)
    begins = now + 400_000
    served.grant("agent:a", "read", "doc:x", not_before=timestamp(begins))
    ids: list[str] = []

    def is_alive() -> bool:
        answer = served.authorize("agent:a", "read", "doc:x")
        ids.append(answer.decision_id)
        return answer.decision == d.DECISION_ALLOW

    assert eventually(is_alive)
    assert all_stored(database, ids)
    found = rows(
        database,
        """SELECT result, (extract(epoch FROM occurred_at) * 1000000)::bigint FROM audit.events
           WHERE event_type = 'decision'""",
    )
    assert all(at >= begins for result, at in found if result == "allow")
    # The instant on record is the latest that it can be; alive it is when that is certain.
    uncertain = 1_000_000
    assert all(at < begins + uncertain for result, at in found if result == "deny")


INVALID: dict[str, tuple[Callable[[pb.AuthorizeRequest], object], str]] = {
    "principal": (lambda r: r.ClearField("principal"), "principal"),
    "action": (lambda r: r.ClearField("action"), "action"),
    "any-action": (lambda r: setattr(r, "action", "*"), "action"),
    "resource": (lambda r: r.ClearField("resource"), "resource"),
    "pattern": (lambda r: setattr(r, "resource", "doc:**"), "resource"),
    "dots": (lambda r: setattr(r, "resource", "doc:a/../b"), "resource"),
    "context": (lambda r: r.context.CopyFrom(struct(a="x" * 16_385)), "context"),
    "capability": (lambda r: setattr(r, "capability_id", "x"), "capability_id"),
    "session": (lambda r: setattr(r, "session_id", "a\u200b"), "session_id"),
    "trace": (lambda r: setattr(r, "trace_id", "x" * 129), "trace_id"),
    "correlation": (lambda r: setattr(r, "correlation_id", "\n"), "correlation_id"),
}


@pytest.mark.parametrize("rule", INVALID)
def test_a_malformed_question_names_its_field(shared: Served, rule: str) -> None:
    spoil, field = INVALID[rule]
    request = _ask("agent:a")
    spoil(request)
    invalid = refused(lambda: shared.stub.Authorize(request, timeout=10))
    assert (invalid.code, invalid.fields) == (_INVALID, (field,))


def test_every_decision_has_an_id_of_its_own_that_grows(served: Served) -> None:
    answers = [served.authorize("agent:a", "read", "doc:x").decision_id for _ in range(5)]
    assert all(one < other for one, other in pairwise(answers))
