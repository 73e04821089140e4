"""Grant: the terms that are stored, what makes two requests the same, and what is on record."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from licet.app.grant import GrantCapability, GrantCommand
from licet.app.ports import AT_ONCE, Deadline, Ended, Granted, NotAtOnceError
from licet.domain.audit_event import EventType, Result
from licet.domain.caller import Identity, Scope
from licet.domain.canonical_json import JsonObject
from licet.domain.capability import Terms
from licet.domain.errors import (
    InvalidRequestError,
    NotFoundError,
    NotPermittedError,
    RefusedError,
)
from licet.domain.instant import LATEST, Instant
from licet.domain.names import Caller, CapabilityId, Principal
from licet.policies.cel import compile_condition
from licet.replica.conditions import CompiledConditions
from licet.writer.ids import TimeOrderedIds
from tests.unit.builders import (
    CALLER,
    NOW,
    PATIENT,
    StillClock,
    admin,
    capability,
    identifier,
    terms,
)
from tests.unit.stores import Journal, Stored

PARENT = identifier(1)


class Scene:
    """The use case over what is stored, and what came of it."""

    def __init__(self, parent: Terms | None = None, *, ended_at: int | None = None) -> None:
        stored = [] if parent is None else [capability(1, parent, ended_at=ended_at)]
        self.journal = Journal()
        self.clock = StillClock()
        conditions = CompiledConditions(compile_condition)
        self._grant = GrantCapability(
            Stored(stored), self.journal, self.clock, TimeOrderedIds(self.clock), conditions
        )

    def grant(self, has: Terms, caller: Caller = CALLER, **other: Any) -> Granted:  # noqa: ANN401 - any field
        plain: dict[str, Any] = {"ttl": None, "parent_id": None, "request_id": "", "trace_id": ""}
        return self._grant(GrantCommand(terms=has, **(plain | other)), admin(caller), PATIENT)

    def begin(self, has: Terms, deadline: Deadline, **other: Any) -> Granted:  # noqa: ANN401 - any field
        """Begin a grant with this deadline, for what comes before it."""
        plain: dict[str, Any] = {"ttl": None, "parent_id": None, "request_id": "", "trace_id": ""}
        caller = other.pop("caller", admin(CALLER))
        told: list[Ended[Granted]] = []
        command = GrantCommand(terms=has, **(plain | other))
        self._grant.begin(command, caller, deadline, PATIENT, told.append)
        (ended,) = told
        return ended.result()

    def digest(self, has: Terms, caller: Caller = CALLER, **other: Any) -> bytes:  # noqa: ANN401 - any field
        self.grant(has, caller, **other)
        return self.journal.grants[-1].digest


def test_a_grant_is_handed_on_with_its_facts() -> None:
    scene = Scene()
    has = terms("read write", session_id="s", metadata=JsonObject('{"team": "x"}'))
    granted = scene.grant(has, trace_id="t", request_id="r")
    (grant,) = scene.journal.grants
    assert (grant.terms, grant.parent_id, grant.actor) == (has, None, CALLER)
    assert (grant.request_id, grant.trace_id) == ("r", "t")
    assert grant.facts == (
        '{"actions": ["read", "write"], "metadata": {"team": "x"}, "parent_id": null, '
        '"expires_at": null, "not_before": null, "delegation_depth": 0}'
    )
    assert granted.capability.id == grant.capability_id


def test_a_grant_without_a_request_id_gets_one_of_its_own() -> None:
    scene = Scene()
    scene.grant(terms())
    scene.grant(terms())
    first, second = scene.journal.grants
    assert first.request_id
    assert first.request_id != second.request_id
    assert first.capability_id < second.capability_id


@pytest.mark.parametrize(("ttl", "expires_at"), [(1, NOW + 1), (LATEST - NOW, LATEST)])
def test_a_ttl_counts_from_now(ttl: int, expires_at: int) -> None:
    assert Scene().grant(terms(), ttl=ttl).capability.terms.expires_at == expires_at


def test_a_ttl_that_ends_after_the_last_instant_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="ttl must end before the year 10000"):
        Scene().grant(terms(), ttl=LATEST - NOW + 1)


def test_a_time_of_one_microsecond_is_enough() -> None:
    has = terms(not_before=Instant(NOW), expires_at=Instant(NOW + 1))
    assert Scene().grant(has).capability.terms == has


@pytest.mark.parametrize("not_before", [NOW + 1, NOW + 2])
def test_an_empty_time_is_refused(not_before: int) -> None:
    scene = Scene()
    for has, ttl in (
        (terms(not_before=Instant(not_before), expires_at=Instant(NOW + 1)), None),
        (terms(not_before=Instant(not_before)), 1),
    ):
        with pytest.raises(InvalidRequestError, match="not_before must be before the expiry"):
            scene.grant(has, ttl=ttl)
    assert not scene.journal.grants


def test_a_delegation_inherits_what_it_leaves_open() -> None:
    scene = Scene(terms(delegation_depth=1, not_before=Instant(NOW), expires_at=Instant(NOW + 9)))
    scene.grant(terms(), parent_id=PARENT)
    (grant,) = scene.journal.grants
    assert grant.parent_id == PARENT
    assert (grant.terms.not_before, grant.terms.expires_at) == (NOW, NOW + 9)
    facts = json.loads(grant.facts)
    assert facts["parent_id"] == PARENT
    assert facts["not_before"] == "2027-01-15T08:00:00.000000+00:00"
    assert facts["expires_at"] == "2027-01-15T08:00:00.000009+00:00"


def test_a_delegation_that_inherits_an_empty_time_is_refused() -> None:
    scene = Scene(terms(delegation_depth=1, not_before=Instant(NOW + 5)))
    with pytest.raises(InvalidRequestError, match="not_before must be before the expiry"):
        scene.grant(terms(), parent_id=PARENT, ttl=5)


@pytest.mark.parametrize(
    ("parent", "ended_at", "child", "code"),
    [
        (terms(delegation_depth=1), NOW - 1, terms(), "PARENT_ENDED"),
        (terms(delegation_depth=1, expires_at=Instant(NOW)), None, terms(), "PARENT_EXPIRED"),
        (terms(), None, terms(), "NO_DEPTH_LEFT"),
        (terms(delegation_depth=1), None, terms(delegation_depth=1), "DEPTH_WIDER"),
        (terms(delegation_depth=1), None, terms("write"), "ACTIONS_WIDER"),
        (terms(delegation_depth=1), None, terms(resource="doc:**"), "RESOURCE_WIDER"),
    ],
)
def test_a_delegation_that_the_rules_refuse_is_on_record(
    parent: Terms, ended_at: int | None, child: Terms, code: str
) -> None:
    scene = Scene(parent, ended_at=ended_at)
    with pytest.raises(RefusedError) as refused:
        scene.grant(child, parent_id=PARENT, trace_id="t")
    assert refused.value.code == code
    (event,) = scene.journal.refusals
    assert (event.event_type, event.result, event.reason) == (
        EventType.DELEGATE,
        Result.REFUSED,
        code,
    )
    assert (event.actor, event.principal, event.occurred_at) == (CALLER, child.principal, NOW)
    assert (event.resource, event.capability_id) == (child.resource, PARENT)
    assert (event.action, event.policy_id, event.trace_id) == ("", "", "t")
    assert json.loads(event.metadata)["actions"] == list(child.actions)
    assert not scene.journal.grants


def test_a_delegation_from_nothing_is_on_record() -> None:
    scene = Scene()
    with pytest.raises(NotFoundError, match=PARENT):
        scene.grant(terms(session_id="s"), parent_id=PARENT)
    (event,) = scene.journal.refusals
    assert (event.reason, event.capability_id, event.session_id) == (
        "PARENT_NOT_FOUND",
        PARENT,
        "s",
    )


def test_a_delegation_repeated_gets_its_first_outcome_though_the_parent_has_ended() -> None:
    scene = Scene(terms(delegation_depth=1), ended_at=NOW - 1)
    before = Granted(capability(2, terms()), 5)
    scene.journal.earlier["r"] = before
    assert scene.grant(terms(), parent_id=PARENT, request_id="r") is before
    assert not scene.journal.grants
    with pytest.raises(RefusedError):
        scene.grant(terms(), parent_id=PARENT, request_id="another")


def test_a_delegation_inherits_conditions_and_its_own_is_on_record() -> None:
    scene = Scene(terms(delegation_depth=1, condition="1 == 1", inherited=("2 == 2",)))
    scene.grant(terms(condition="3 == 3"), parent_id=PARENT)
    (grant,) = scene.journal.grants
    assert grant.terms.condition == "3 == 3"
    assert grant.terms.conditions == ("2 == 2", "1 == 1", "3 == 3")
    assert json.loads(grant.facts)["condition"] == "3 == 3"


def test_a_condition_that_cannot_be_used_is_refused_and_nothing_is_on_record() -> None:
    scene = Scene(terms(delegation_depth=1))
    for parent in (None, PARENT):
        with pytest.raises(
            InvalidRequestError, match="condition cannot be used: line 1, column 10"
        ):
            scene.grant(terms(condition="action =="), parent_id=parent)
    assert not scene.journal.grants
    assert not scene.journal.refusals


def test_the_same_request_has_the_same_digest_whenever_it_comes() -> None:
    scene = Scene()
    first = scene.digest(terms(), ttl=1000)
    scene.clock.instant = Instant(NOW + 5)
    assert scene.digest(terms(), ttl=1000, request_id="r", trace_id="t") == first
    assert scene.journal.grants[0].terms != scene.journal.grants[1].terms


def test_another_body_has_another_digest() -> None:
    scene = Scene(terms("*", "doc:**", 9))
    expiring = terms(expires_at=Instant(NOW + 1000))
    digests = [
        scene.digest(terms()),
        scene.digest(terms(), Caller("service:other")),
        scene.digest(terms(principal=Principal("agent:other"))),
        scene.digest(terms("write")),
        scene.digest(terms("read write")),
        scene.digest(terms("write read")),
        scene.digest(terms(resource="doc:reports/*")),
        scene.digest(terms(delegation_depth=1)),
        scene.digest(terms(session_id="s")),
        scene.digest(terms(metadata=JsonObject('{"a": 1}'))),
        scene.digest(terms(condition="true")),
        scene.digest(terms(not_before=Instant(NOW))),
        scene.digest(expiring),
        scene.digest(terms(), ttl=1000),
        scene.digest(terms(), parent_id=CapabilityId(PARENT)),
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("deadline", [AT_ONCE, PATIENT])
def test_a_grant_that_needs_nothing_else_is_begun_at_once(deadline: Deadline) -> None:
    scene = Scene()
    begun = scene.begin(terms(), deadline, ttl=7, request_id="r")
    assert begun.capability.terms.expires_at == NOW + 7
    (grant,) = scene.journal.grants
    assert (grant.request_id, grant.digest) == ("r", scene.digest(terms(), ttl=7))
    assert scene.journal.patience == [PATIENT]


def test_what_has_to_be_read_or_recorded_first_is_not_begun_at_once() -> None:
    scene = Scene(terms(delegation_depth=1))
    powerless = Identity.of(CALLER, {Scope.READ})
    for other in (
        {"has": terms(), "parent_id": PARENT},
        {"has": terms(condition="true")},
        {"has": terms(), "caller": powerless},
    ):
        with pytest.raises(NotAtOnceError):
            scene.begin(deadline=AT_ONCE, **other)
    assert not scene.journal.grants
    assert not scene.journal.refusals
    scene.begin(terms(), PATIENT, parent_id=PARENT)
    scene.begin(terms(condition="true"), PATIENT)
    with pytest.raises(NotPermittedError):
        scene.begin(terms(), PATIENT, caller=powerless)
    assert len(scene.journal.grants) == 2
    assert len(scene.journal.refusals) == 1


def test_what_a_former_request_delegated_is_told_without_another_change() -> None:
    scene = Scene(terms(delegation_depth=1))
    before = scene.begin(terms(), PATIENT, parent_id=PARENT)
    scene.journal.earlier["r"] = before
    assert scene.begin(terms(), PATIENT, parent_id=PARENT, request_id="r") is before
    assert len(scene.journal.grants) == 1


def test_a_digest_is_of_the_text_that_it_always_was_of() -> None:
    scene = Scene()
    has = terms("read", session_id='s-\N{SNOWMAN}"\\', metadata=JsonObject('{"k": "\N{KEY}\\n"}'))
    for ttl in (None, 1000):
        digest = scene.digest(has, ttl=ttl)
        facts = (
            f'{{"actions": ["read"], "metadata": {has.metadata}, "parent_id": null, '
            '"expires_at": null, "not_before": null, "delegation_depth": 0}'
        )
        body = ["grant", CALLER, has.principal, has.resource, has.session_id, ttl, facts]
        assert digest == hashlib.sha256(json.dumps(body).encode()).digest()
