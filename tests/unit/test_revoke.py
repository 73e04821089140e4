"""Revoke: what is handed on, what makes two requests the same, and what a dry run says."""

from __future__ import annotations

from typing import Any

import pytest

from licet.app.ports import AT_ONCE, Deadline, Ended, NotAtOnceError, Revoked, RevokeTarget
from licet.app.revoke import MAX_IDS, RevokeCapabilities, RevokeCommand
from licet.domain.caller import Identity, Limits, Scope
from licet.domain.errors import NotFoundError, NotPermittedError
from licet.domain.names import Caller, Principal
from licet.domain.pattern import ResourcePattern
from licet.writer.ids import TimeOrderedIds
from tests.unit.builders import (
    CALLER,
    HOLDER,
    NOW,
    PATIENT,
    StillClock,
    admin,
    capability,
    identifier,
    terms,
)
from tests.unit.stores import Journal, Stored

BY_ID = RevokeTarget(capability_id=identifier(1))
BY_FILTER = RevokeTarget(principal=HOLDER, resource=ResourcePattern("doc:**"))


class Scene:
    """The use case over one living capability and one that has ended, and what came of it."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.stored = Stored([capability(1, terms()), capability(2, terms(), ended_at=NOW - 1)])
        self._revoke = RevokeCapabilities(
            self.stored, self.journal, StillClock(), TimeOrderedIds(StillClock())
        )

    def revoke(
        self,
        target: RevokeTarget,
        caller: Caller = CALLER,
        **other: Any,  # noqa: ANN401 - any field
    ) -> Revoked:
        plain: dict[str, Any] = {"reason": "", "dry_run": False, "request_id": "", "trace_id": ""}
        return self._revoke(RevokeCommand(target=target, **(plain | other)), admin(caller), PATIENT)

    def begin(
        self,
        target: RevokeTarget,
        deadline: Deadline,
        caller: Identity | None = None,
        *,
        dry_run: bool = False,
    ) -> Revoked:
        """Begin a revocation with this deadline, for what comes before it."""
        told: list[Ended[Revoked]] = []
        command = RevokeCommand(target, "", dry_run, "", "")
        self._revoke.begin(command, caller or admin(), deadline, PATIENT, told.append)
        (ended,) = told
        return ended.result()

    def digest(self, *arguments: Any, **other: Any) -> bytes:  # noqa: ANN401 - as `revoke`
        self.revoke(*arguments, **other)
        return self.journal.revocations[-1].digest


def test_a_revocation_is_handed_on_with_its_facts() -> None:
    scene = Scene()
    scene.revoke(BY_FILTER, reason="compromised", request_id="r", trace_id="t")
    (revoke,) = scene.journal.revocations
    assert (revoke.target, revoke.actor, revoke.reason) == (BY_FILTER, CALLER, "compromised")
    assert (revoke.request_id, revoke.trace_id) == ("r", "t")
    assert revoke.facts == (
        '{"reason": "compromised", '
        '"target": {"resource": "doc:**", "principal": "agent:worker-17"}}'
    )


def test_a_revocation_without_a_request_id_gets_one_of_its_own() -> None:
    scene = Scene()
    scene.revoke(BY_ID)
    scene.revoke(BY_ID)
    first, second = scene.journal.revocations
    assert first.request_id
    assert first.request_id != second.request_id


def test_only_the_same_body_has_the_same_digest() -> None:
    scene = Scene()
    assert scene.digest(BY_ID, request_id="a") == scene.digest(BY_ID, request_id="b", trace_id="t")
    digests = [
        scene.digest(BY_ID),
        scene.digest(BY_ID, Caller("service:other")),
        scene.digest(BY_ID, reason="x"),
        scene.digest(RevokeTarget(capability_id=identifier(2))),
        scene.digest(BY_FILTER),
        scene.digest(RevokeTarget(principal=Principal("a:b"))),
        scene.digest(RevokeTarget(granted_by=Caller("a:b"))),
        scene.digest(RevokeTarget(session_id="a:b")),
        scene.digest(RevokeTarget(resource=ResourcePattern("a:b"))),
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(("number", "already_ended"), [(1, False), (2, True)])
def test_a_dry_run_says_what_would_end_and_changes_nothing(
    number: int, already_ended: bool
) -> None:
    scene = Scene()
    target = RevokeTarget(capability_id=identifier(number))
    assert scene.revoke(target, dry_run=True) == Revoked(
        ended=2,
        ids=(identifier(1), identifier(2)),
        revision=9,
        confirmed=0,
        fenced=0,
        already_ended=already_ended,
    )
    assert scene.stored.asked == [(target, MAX_IDS)]
    assert not scene.journal.revocations


def test_a_dry_run_by_filter_never_says_that_something_has_ended_already() -> None:
    assert not Scene().revoke(BY_FILTER, dry_run=True).already_ended


def test_a_dry_run_of_nothing_is_not_found() -> None:
    with pytest.raises(NotFoundError, match=identifier(3)):
        Scene().revoke(RevokeTarget(capability_id=identifier(3)), dry_run=True)


@pytest.mark.parametrize("deadline", [AT_ONCE, PATIENT])
def test_a_revocation_that_needs_nothing_else_is_begun_at_once(deadline: Deadline) -> None:
    scene = Scene()
    assert scene.begin(BY_FILTER, deadline).revision == 8
    assert scene.begin(BY_ID, deadline).revision == 8
    assert [revoke.target for revoke in scene.journal.revocations] == [BY_FILTER, BY_ID]
    assert scene.journal.patience == [PATIENT, PATIENT]


def test_what_has_to_be_read_or_recorded_first_is_not_begun_at_once() -> None:
    scene = Scene()
    powerless = Identity.of(CALLER, {Scope.READ})
    limited = Identity.of(CALLER, {Scope.REVOKE}, Limits((ResourcePattern("agent:*"),)))
    for target, caller, dry_run in (
        (BY_ID, None, True),
        (BY_ID, powerless, False),
        (BY_ID, limited, False),
        (BY_FILTER, powerless, False),
    ):
        with pytest.raises(NotAtOnceError):
            scene.begin(target, AT_ONCE, caller, dry_run=dry_run)
    assert not scene.journal.revocations
    assert not scene.journal.refusals
    assert scene.begin(BY_ID, PATIENT, dry_run=True).ended == 2
    with pytest.raises(NotPermittedError):
        scene.begin(BY_FILTER, PATIENT, powerless)
    assert len(scene.journal.refusals) == 1
