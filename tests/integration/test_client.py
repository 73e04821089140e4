"""The client library against a real licet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest

from licet.client import (
    AuthorizeRequest,
    Client,
    JsonObject,
    LicetCallError,
    ServingStatus,
)
from tests.fakes.postgres import eventually
from tests.fakes.serving import Served

UNKNOWN_ID = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"
FAR = datetime(2099, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address) as connected:
        yield connected


def failing(error: pytest.ExceptionInfo[LicetCallError]) -> tuple[str, str]:
    return error.value.code, error.value.reason


def test_a_granted_capability_allows_until_it_is_revoked(client: Client) -> None:
    capability = client.grant("agent:a", ["read", "write"], "doc:x/**", expires_at=FAR)
    allowed = client.authorize("agent:a", "write", "doc:x/y")
    assert allowed.allowed
    assert (allowed.reason, allowed.capability_id) == ("GRANTED", capability.id)
    assert allowed.valid_until == FAR
    assert allowed.explanation is None

    revocation = client.revoke(capability.id, reason="the work is done")
    assert revocation.ended_count == 1
    assert revocation.ended_capability_ids == (capability.id,)
    assert not revocation.already_ended

    denied = client.authorize("agent:a", "write", "doc:x/y")
    assert not denied.allowed
    assert denied.reason == "CAPABILITY_REVOKED"
    assert denied.valid_until is None


def test_a_decision_has_no_truth_value_that_could_be_taken_for_an_allow(client: Client) -> None:
    decision = client.authorize("agent:a", "read", "doc:x")
    assert decision.allowed is False
    with pytest.raises(TypeError, match="allowed"):
        bool(decision)


def test_a_capability_comes_back_with_all_that_was_granted(client: Client) -> None:
    metadata: JsonObject = {"a": [1, 2.5, None, True, {"ü": "é"}], "big": 2**53 - 1, "": {}}
    granted = client.grant(
        "agent:a",
        "read",
        "doc:x/*",
        expires_at=FAR,
        not_before=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=5))),
        delegation_depth=3,
        condition="context.mfa == true",
        session_id="s1",
        metadata=metadata,
    )
    assert granted.principal == "agent:a"
    assert granted.actions == ("read",)
    assert granted.resource == "doc:x/*"
    assert granted.expires_at == FAR
    assert granted.not_before == datetime(2026, 1, 1, 22, 4, 5, 6, tzinfo=UTC)
    assert granted.delegation_depth == 3
    assert granted.condition == "context.mfa == true"
    assert granted.session_id == "s1"
    assert granted.metadata == metadata
    assert granted.granted_at.tzinfo is UTC
    assert (granted.parent_id, granted.end_cause, granted.ended_at) == ("", "", None)
    assert client.capability(granted.id).capability == granted


def test_a_ttl_is_counted_from_the_grant(client: Client) -> None:
    granted = client.grant("agent:a", "read", "doc:x", ttl=timedelta(minutes=15))
    assert granted.expires_at is not None
    lifetime = granted.expires_at - granted.granted_at
    assert abs(lifetime - timedelta(minutes=15)) < timedelta(seconds=1)


def test_a_delegation_shows_in_the_tree_of_its_parent(client: Client) -> None:
    root = client.grant("agent:a", "*", "doc:**", delegation_depth=2)
    middle = client.delegate(root.id, "agent:b", "read", "doc:x/**", delegation_depth=1)
    leaf = client.delegate(middle.id, "agent:c", ["read"], "doc:x/y")
    assert leaf.parent_id == middle.id

    tree = client.capability(middle.id, with_tree=True)
    assert tree.capability == middle
    assert tree.ancestors == (root,)
    assert tree.descendants == (leaf,)
    assert not tree.descendants_truncated

    assert client.revoke(root.id).ended_count == 3
    assert client.capability(leaf.id).capability.end_cause == "CASCADE"


def test_a_delegation_that_is_wider_names_the_dimension(client: Client) -> None:
    root = client.grant("agent:a", "read", "doc:x/**", delegation_depth=1)
    with pytest.raises(LicetCallError) as error:
        client.delegate(root.id, "agent:b", "read", "doc:**")
    assert failing(error) == ("PERMISSION_DENIED", "RESOURCE_WIDER")
    with pytest.raises(LicetCallError) as error:
        client.delegate(client.grant("agent:a", "read", "doc:x").id, "agent:b", "read", "doc:x")
    assert failing(error) == ("FAILED_PRECONDITION", "NO_DEPTH_LEFT")


def test_an_explanation_lists_each_candidate(client: Client) -> None:
    capability = client.grant("agent:a", "read", "doc:x/**")
    explanation = client.authorize("agent:a", "write", "doc:x/y", explain=True).explanation
    assert explanation is not None
    assert explanation.candidate_count == 1
    (candidate,) = explanation.candidates
    assert candidate.capability_id == capability.id
    assert (candidate.verdict, candidate.actions) == ("OTHER_ACTION", ("read",))


def test_many_requests_are_answered_in_their_order(client: Client) -> None:
    client.grant("agent:a", "read", "doc:even/**")
    questions = [
        AuthorizeRequest(
            "agent:a", "read", f"doc:{'odd' if i % 2 else 'even'}/{i}", correlation_id=str(i)
        )
        for i in range(2_001)
    ]
    decisions = client.authorize_many(iter(questions))
    assert [decision.correlation_id for decision in decisions] == [str(i) for i in range(2_001)]
    assert [decision.allowed for decision in decisions] == [i % 2 == 0 for i in range(2_001)]
    assert client.authorize_many([]) == []


def test_a_malformed_request_among_many_is_named(client: Client) -> None:
    requests = [AuthorizeRequest("agent:a", "read", "doc:x"), AuthorizeRequest("", "read", "doc:x")]
    with pytest.raises(LicetCallError) as error:
        client.authorize_many(requests)
    assert [v.field for v in error.value.violations] == ["requests[1].principal"]


def test_a_stream_answers_in_order_until_its_requests_are_used_up(client: Client) -> None:
    client.grant("agent:a", "read", "doc:even/**")
    questions = (
        AuthorizeRequest("agent:a", "read", f"doc:{'odd' if i % 2 else 'even'}/{i}")
        for i in range(500)
    )
    decisions = list(client.authorize_stream(questions))
    assert [decision.allowed for decision in decisions] == [i % 2 == 0 for i in range(500)]


def test_what_the_requests_of_a_stream_raise_is_raised_after_the_answers(client: Client) -> None:
    def questions() -> Iterator[AuthorizeRequest]:
        yield AuthorizeRequest("agent:a", "read", "doc:x")
        raise LookupError("no more")

    stream = client.authorize_stream(questions())
    assert next(stream).reason == "NO_CAPABILITY"
    with pytest.raises(LookupError, match="no more"):
        next(stream)


def test_a_malformed_request_ends_a_stream(client: Client) -> None:
    stream = client.authorize_stream([AuthorizeRequest("", "read", "doc:x")])
    with pytest.raises(LicetCallError) as error:
        next(stream)
    assert failing(error) == ("INVALID_ARGUMENT", "INVALID_REQUEST")


def test_a_stream_left_half_read_does_not_keep_the_interpreter_from_ending(served: Served) -> None:
    script = f"""
from itertools import repeat
from licet.client import AuthorizeRequest, Client
client = Client({served.address!r})
stream = client.authorize_stream(repeat(AuthorizeRequest("agent:a", "read", "doc:x")))
print(next(stream).reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "NO_CAPABILITY\n", "")


def test_a_filter_revokes_all_that_match_and_a_dry_run_only_says_so(client: Client) -> None:
    mine = [client.grant("agent:a", "read", f"doc:x/{i}").id for i in range(3)]
    other = client.grant("agent:b", "read", "doc:x/0").id
    foreseen = client.revoke(principal="agent:a", resource="doc:x/**", dry_run=True)
    assert foreseen.ended_count == 3
    assert client.authorize("agent:a", "read", "doc:x/0").allowed

    done = client.revoke(principal="agent:a", resource="doc:x/**", reason="gone")
    assert sorted(done.ended_capability_ids) == sorted(foreseen.ended_capability_ids) == mine
    assert client.revoke(mine[0]).already_ended
    ended = client.capability(mine[0]).capability
    assert (ended.end_cause, ended.end_reason) == ("REVOKED", "gone")
    assert client.capability(other).capability.end_cause == ""


def test_all_pages_of_capabilities_are_iterated(client: Client) -> None:
    granted = [client.grant("agent:a", "read", f"doc:x/{i}").id for i in range(7)]
    client.grant("agent:b", "read", "doc:x/0")
    found = client.capabilities(principal="agent:a", page_size=3)
    assert [capability.id for capability in found] == granted
    page = client.capabilities_page(principal="agent:a", page_size=3)
    following = client.capabilities_page(page.next_page_token, principal="agent:a", page_size=3)
    assert [c.id for c in (*page.capabilities, *following.capabilities)] == granted[:6]


def test_audit_events_are_iterated_newest_first(client: Client) -> None:
    capability = client.grant("agent:a", "read", "doc:x/**", metadata={"team": "blue"})
    for i in range(5):
        client.authorize("agent:a", "read" if i % 2 else "write", f"doc:x/{i}", trace_id="t1")
    assert eventually(lambda: len(list(client.audit(trace_id="t1"))) == 5)

    events = list(client.audit(principal="agent:a", page_size=2))
    assert len(events) == 6
    assert all(new.occurred_at >= old.occurred_at for new, old in pairwise(events))
    assert events[-1].event_type == "grant"
    assert events[-1].capability_id == capability.id
    assert [e.resource for e in client.audit(allowed=True)] == ["doc:x/3", "doc:x/1"]
    assert len(list(client.audit(allowed=False, resource="doc:x/*"))) == 3
    assert list(client.audit(principal="agent:a", until=events[-1].occurred_at)) == []
    assert list(client.audit(principal="agent:a", since=events[0].occurred_at)) == [events[0]]
    assert client.audit_page(page_size=1, event_types=["grant"]).events == (events[-1],)


def test_one_client_serves_many_threads(client: Client) -> None:
    client.grant("agent:a", "read", "doc:x")
    with ThreadPoolExecutor(8) as pool:
        decisions = pool.map(lambda _: client.authorize("agent:a", "read", "doc:x"), range(200))
        assert all(decision.allowed for decision in decisions)


def test_a_serving_licet_says_so(client: Client) -> None:
    assert client.health() is ServingStatus.SERVING


def test_the_server_names_the_field_and_the_rule(client: Client) -> None:
    with pytest.raises(LicetCallError, match="principal is required") as error:
        client.authorize("", "read", "doc:x")
    assert failing(error) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert [(v.field, v.rule) for v in error.value.violations] == [("principal", "is required")]


def test_an_unknown_capability_is_not_found(client: Client) -> None:
    with pytest.raises(LicetCallError) as error:
        client.capability(UNKNOWN_ID)
    assert failing(error) == ("NOT_FOUND", "NOT_FOUND")


def test_what_a_revocation_needs_is_judged_by_the_server(client: Client) -> None:
    with pytest.raises(LicetCallError) as error:
        client.revoke()
    assert error.value.code == "INVALID_ARGUMENT"
    with pytest.raises(LicetCallError) as error:
        client.revoke(UNKNOWN_ID, principal="agent:a")
    assert error.value.code == "INVALID_ARGUMENT"


def test_what_cannot_be_sent_is_named_like_what_the_server_refuses(client: Client) -> None:
    attempts: dict[str, Callable[[], object]] = {
        "principal": lambda: client.authorize("agent:\udcff", "read", "doc:x"),
        "actions": lambda: client.grant("agent:a", ["\udcff"], "doc:x"),
        "context": lambda: client.authorize("agent:a", "read", "doc:x", context={"n": 2**53 + 1}),
        "metadata": lambda: client.grant("agent:a", "read", "doc:x", metadata={"\udcff": 1}),
        "expires_at": lambda: client.grant(
            "agent:a", "read", "doc:x", expires_at=FAR.replace(tzinfo=None)
        ),
        "ttl": lambda: client.grant("agent:a", "read", "doc:x", ttl=timedelta.max),
        "delegation_depth": lambda: client.grant("agent:a", "read", "doc:x", delegation_depth=-1),
        "since": lambda: next(client.audit(since=FAR.replace(tzinfo=None))),
    }
    for field, attempt in attempts.items():
        with pytest.raises(LicetCallError) as error:
            attempt()
        assert error.value.code == "INVALID_ARGUMENT", field
        assert [v.field.partition("[")[0] for v in error.value.violations] == [field]
