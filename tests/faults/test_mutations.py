"""Answers and statements lost around the COMMIT of a change; each fault comes as a pair."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import grpc
import pytest

from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_ALLOW, DECISION_DENY, REASON_CAPABILITY_REVOKED
from licet.writer import group_commit
from tests.fakes.api import capability_count, count, refused, rows
from tests.fakes.postgres import Database, eventually
from tests.fakes.proxy import Fault, PostgresProxy
from tests.fakes.serving import Served, failure

GRANT = b'"kind": "grant"'
REVOKE = b'"kind": "revoke"'

_Answer = TypeVar("_Answer")

# Lost before the server saw it, or executed with the answer lost.
both = pytest.mark.parametrize("executed", [False, True], ids=["lost", "executed"])
keyed = pytest.mark.parametrize("request_id", ["", "key-1"], ids=["without-key", "with-key"])


def _grant(
    served: Served, timeout: float = 10, request_id: str = "", parent_id: str = ""
) -> pb.GrantResponse:
    request = pb.GrantRequest(
        principal="agent:a",
        actions=["read"],
        resource="doc:x",
        request_id=request_id,
        parent_capability_id=parent_id,
    )
    return served.stub.Grant(request, timeout=timeout)


def _decision(served: Served) -> pb.AuthorizeResponse:
    return served.authorize("agent:a", "read", "doc:x")


def _is_consistent(database: Database) -> bool:
    """Every change is on record exactly once, and every record is of a change."""
    (counts,) = rows(
        database,
        """SELECT count(*), count(*) FILTER (WHERE ended_revision IS NOT NULL),
                  (SELECT count(*) FROM audit.events WHERE event_type = 'grant' AND reason = ''),
                  (SELECT count(*) FROM audit.events WHERE event_type = 'revoke' AND reason = ''),
                  (SELECT count(*) FROM licet.changes WHERE revision > 0),
                  (SELECT max(revision) FROM licet.changes)
           FROM licet.capabilities""",
    )
    granted, ended, grants, revokes, changes, revision = counts
    return bool(granted == grants and ended == revokes and changes == revision == grants + revokes)


@both
@keyed
@pytest.mark.usefixtures("both_ways")
def test_a_grant_whose_answer_is_lost_grants_exactly_once(
    fragile: Served, proxy: PostgresProxy, database: Database, executed: bool, request_id: str
) -> None:
    fault = proxy.arm(Fault(GRANT, forward=executed))
    granted = _grant(fragile, request_id=request_id)
    assert fault.happened()
    (stored,) = rows(database, "SELECT id::text, granted_revision FROM licet.capabilities")
    assert stored == (granted.capability.id, granted.revision)
    assert _decision(fragile).capability_id == granted.capability.id
    assert _is_consistent(database)


@both
@keyed
def test_a_revocation_whose_answer_is_lost_holds_when_it_returns(
    fragile: Served, proxy: PostgresProxy, database: Database, executed: bool, request_id: str
) -> None:
    granted = _grant(fragile)
    assert _decision(fragile).decision == DECISION_ALLOW
    fault = proxy.arm(Fault(REVOKE, forward=executed))
    revoked = fragile.stub.Revoke(
        pb.RevokeRequest(capability_id=granted.capability.id, request_id=request_id), timeout=10
    )
    assert fault.happened()
    assert (revoked.ended_count, revoked.already_ended) == (1, False)
    assert _decision(fragile).reason == REASON_CAPABILITY_REVOKED
    assert _is_consistent(database)


@both
def test_a_retry_with_the_same_key_after_an_unknown_outcome_finds_exactly_one_capability(
    fragile: Served, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    fault = proxy.arm(Fault(GRANT, forward=executed, then=proxy.go_down))
    lost = refused(lambda: _grant(fragile, timeout=0.5, request_id="key-1"))
    assert fault.happened()
    assert lost.code is grpc.StatusCode.DEADLINE_EXCEEDED
    proxy.come_back()
    granted = _patiently(lambda: _grant(fragile, request_id="key-1"))
    (stored,) = rows(database, "SELECT id::text, granted_revision FROM licet.capabilities")
    assert stored == (granted.capability.id, granted.revision)
    # The service, too, goes on until it knows: it must not make a second one.
    assert _patiently(lambda: _decision(fragile)).capability_id == granted.capability.id
    assert capability_count(database) == 1
    assert _is_consistent(database)


@both
@pytest.mark.usefixtures("both_ways")
def test_an_outcome_that_stays_unknown_is_told_with_the_request_id_to_ask_with(
    fragile: Served,
    proxy: PostgresProxy,
    database: Database,
    executed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_commit, "MUTATION_SECONDS", 0.3)
    proxy.arm(Fault(GRANT, forward=executed, then=proxy.go_down))
    lost = refused(lambda: _grant(fragile, request_id="key-1"))
    assert (lost.code, lost.reason) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "OUTCOME_UNKNOWN",
    )
    assert "key-1" in lost.message
    monkeypatch.undo()
    proxy.come_back()
    # Whole or not at all (it may be asked for once more), and asking again with the key tells.
    assert capability_count(database) in ({1} if executed else {0, 1})
    granted = _patiently(lambda: _grant(fragile, request_id="key-1"))
    (stored,) = rows(database, "SELECT id::text FROM licet.capabilities")
    assert stored == (granted.capability.id,)
    assert _is_consistent(database)


@both
def test_a_revocation_of_unknown_outcome_is_not_contradicted_for_longer_than_a_lease(
    fragile: Served, proxy: PostgresProxy, database: Database, executed: bool
) -> None:
    granted = _grant(fragile)
    other = fragile.grant("agent:other", "read", "doc:x")
    assert _decision(fragile).decision == DECISION_ALLOW
    assert fragile.authorize("agent:other", "read", "doc:x").capability_id == other
    fault = proxy.arm(Fault(REVOKE, forward=executed, then=proxy.go_down))
    lost = refused(
        lambda: fragile.stub.Revoke(
            pb.RevokeRequest(capability_id=granted.capability.id), timeout=0.5
        )
    )
    assert fault.happened()
    assert lost.code is grpc.StatusCode.DEADLINE_EXCEEDED
    # Both are in memory; once the lease is over, neither may be answered from it.
    for principal in ("agent:a", "agent:other"):
        assert eventually(partial(_is_unavailable, fragile, principal))
    proxy.come_back()
    decided = _patiently(lambda: _decision(fragile))
    assert decided.decision == (DECISION_DENY if executed else DECISION_ALLOW)
    assert _patiently(lambda: fragile.authorize("agent:other", "read", "doc:x")).decision
    revoked = _patiently(
        lambda: fragile.stub.Revoke(
            pb.RevokeRequest(capability_id=granted.capability.id), timeout=10
        )
    )
    assert revoked.already_ended == executed
    assert _decision(fragile).reason == REASON_CAPABILITY_REVOKED
    assert _is_consistent(database)


def test_a_deadline_that_passes_in_doubt_is_answered_with_the_reason(
    fragile: Served, proxy: PostgresProxy
) -> None:
    reasons = []
    # The answer is given a little before the deadline; a busy machine may still be too slow for it.
    for _ in range(5):
        assert eventually(lambda: _answers(fragile), 30)
        proxy.arm(Fault(GRANT, then=proxy.go_down))
        lost = refused(lambda: _grant(fragile, timeout=2.0))
        assert lost.code is grpc.StatusCode.DEADLINE_EXCEEDED
        reasons.append(lost.reason)
        proxy.come_back()
        if lost.reason:
            break
    assert reasons[-1] == "OUTCOME_UNKNOWN"


def test_a_revocation_whose_answer_never_comes_is_not_contradicted_from_memory(
    fragile: Served, proxy: PostgresProxy, database: Database
) -> None:
    granted = _grant(fragile)
    assert _decision(fragile).decision == DECISION_ALLOW
    # Not cut: a half-open connection, as after a failed router.
    fault = proxy.arm(Fault(REVOKE, cut=False))
    lost = refused(
        lambda: fragile.stub.Revoke(
            pb.RevokeRequest(capability_id=granted.capability.id), timeout=0.5
        )
    )
    assert lost.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert fault.happened()
    ended = "SELECT count(*) FROM licet.capabilities WHERE ended_revision IS NOT NULL"
    assert count(database, ended) == 1
    assert eventually(lambda: _decision(fragile).decision == DECISION_DENY, timeout_seconds=3)


def test_a_grant_cut_off_before_its_statement_is_unavailable_and_grants_nothing(
    fragile: Served, proxy: PostgresProxy, database: Database
) -> None:
    proxy.go_down()
    for call in _mutations_of(fragile):
        down = refused(call)
        assert (down.code, down.retry) == (grpc.StatusCode.UNAVAILABLE, True)
    proxy.come_back()
    assert _patiently(lambda: _grant(fragile)).revision == 1
    assert capability_count(database) == 1


def _mutations_of(served: Served) -> list[Callable[[], object]]:
    nobody = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"
    return [
        lambda: _grant(served),
        lambda: _grant(served, request_id="key-1"),
        lambda: _grant(served, parent_id=nobody),
        lambda: served.stub.Revoke(pb.RevokeRequest(capability_id=nobody), timeout=10),
    ]


def _patiently(call: Callable[[], _Answer]) -> _Answer:
    """Repeat a call while the service is unavailable, as a client does."""
    answers: list[_Answer] = []

    def answered() -> bool:
        try:
            answers.append(call())
        except grpc.RpcError as error:
            assert failure(error).code is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - or it works
        return bool(answers)

    assert eventually(answered)
    return answers[0]


def _is_unavailable(served: Served, principal: str) -> bool:
    try:
        served.authorize(principal, "read", "doc:x")
    except grpc.RpcError as error:
        return failure(error).code is grpc.StatusCode.UNAVAILABLE
    return False


def _answers(served: Served) -> bool:
    try:
        _grant(served)
    except grpc.RpcError:
        return False
    return True
