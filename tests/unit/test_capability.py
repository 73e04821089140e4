"""Delegation: each rule of attenuation just inside and just outside."""

from __future__ import annotations

from dataclasses import replace

import pytest

from licet.domain.capability import MAX_CONDITIONS, Terms, check_attenuation, inherit
from licet.domain.errors import NotPermittedError, PreconditionError, RefusedError
from licet.domain.instant import Instant
from tests.unit.builders import NOW, capability, terms

BOUNDED = terms(
    "read write",
    "doc:reports/**",
    3,
    not_before=Instant(NOW - 10),
    expires_at=Instant(NOW + 10),
)
SAME = terms(
    "read write",
    "doc:reports/**",
    2,
    not_before=Instant(NOW - 10),
    expires_at=Instant(NOW + 10),
)
UNBOUNDED = terms("*", "doc:**", 64)


def refusal(child: Terms, parent: Terms, ended_at: int | None = None) -> RefusedError | None:
    try:
        check_attenuation(child, capability(1, parent, ended_at=ended_at), NOW)
    except RefusedError as refused:
        return refused
    return None


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        pytest.param(SAME, BOUNDED, id="as wide as the parent in everything"),
        pytest.param(terms("*", "doc:**", 63), UNBOUNDED, id="unbounded from an unbounded one"),
        pytest.param(terms(delegation_depth=0), terms(delegation_depth=1), id="the last depth"),
        pytest.param(
            terms("read", "doc:reports/**", 0, not_before=SAME.not_before, expires_at=Instant(NOW)),
            BOUNDED,
            id="an earlier expiry",
        ),
        pytest.param(
            terms(not_before=Instant(NOW - 9), expires_at=Instant(NOW + 9)),
            BOUNDED,
            id="a shorter time at both ends",
        ),
        pytest.param(terms("write"), terms("read write", delegation_depth=1), id="fewer actions"),
        pytest.param(terms("read write"), terms("*", delegation_depth=1), id="named from any"),
        pytest.param(
            terms(resource="doc:reports/2026"),
            terms(delegation_depth=1),
            id="one resource of the pattern",
        ),
        pytest.param(
            terms(),
            terms(delegation_depth=1, expires_at=None, not_before=None),
            id="no bounds of time on either",
        ),
    ],
)
def test_a_delegation_inside_its_parent_passes(child: Terms, parent: Terms) -> None:
    assert refusal(child, parent) is None


@pytest.mark.parametrize(
    ("child", "parent", "code"),
    [
        (terms(delegation_depth=1), terms(delegation_depth=1), "DEPTH_WIDER"),
        (terms(delegation_depth=3), BOUNDED, "DEPTH_WIDER"),
        (terms("read delete"), BOUNDED, "ACTIONS_WIDER"),
        (terms("delete"), BOUNDED, "ACTIONS_WIDER"),
        (terms("*"), BOUNDED, "ACTIONS_WIDER"),
        (terms(resource="doc:**"), BOUNDED, "RESOURCE_WIDER"),
        (terms(resource="doc:reports"), BOUNDED, "RESOURCE_WIDER"),
        (terms(resource="fs:reports/a"), BOUNDED, "RESOURCE_WIDER"),
        (
            terms(expires_at=Instant(NOW + 11), not_before=BOUNDED.not_before),
            BOUNDED,
            "EXPIRY_WIDER",
        ),
        (terms(expires_at=None, not_before=BOUNDED.not_before), BOUNDED, "EXPIRY_WIDER"),
        (
            terms(not_before=Instant(NOW - 11), expires_at=BOUNDED.expires_at),
            BOUNDED,
            "NOT_BEFORE_WIDER",
        ),
        (terms(not_before=None, expires_at=BOUNDED.expires_at), BOUNDED, "NOT_BEFORE_WIDER"),
    ],
)
def test_a_delegation_wider_than_its_parent_is_refused_by_dimension(
    child: Terms, parent: Terms, code: str
) -> None:
    refused = refusal(child, parent)
    assert isinstance(refused, NotPermittedError)
    assert refused.code == code


def test_conditions_come_together_until_there_are_too_many() -> None:
    full = terms(delegation_depth=1, condition="true", inherited=("true",) * (MAX_CONDITIONS - 1))
    assert refusal(inherit(terms(), capability(1, full)), full) is None
    refused = refusal(inherit(terms(condition="true"), capability(1, full)), full)
    assert isinstance(refused, PreconditionError)
    assert refused.code == "TOO_MANY_CONDITIONS"
    room = replace(full, inherited=full.inherited[1:])
    child = inherit(terms(condition="true"), capability(1, room))
    assert refusal(child, room) is None
    assert len(child.conditions) == MAX_CONDITIONS


@pytest.mark.parametrize(
    ("parent", "ended_at", "code"),
    [
        pytest.param(terms(delegation_depth=1), NOW - 1, "PARENT_ENDED", id="revoked"),
        pytest.param(
            terms(delegation_depth=1), NOW + 1, "PARENT_ENDED", id="revoked by a clock that is fast"
        ),
        pytest.param(
            terms(delegation_depth=1, expires_at=Instant(NOW)),
            None,
            "PARENT_EXPIRED",
            id="expired this microsecond",
        ),
        pytest.param(
            terms(delegation_depth=1, expires_at=Instant(NOW - 1)),
            None,
            "PARENT_EXPIRED",
            id="expired",
        ),
        pytest.param(
            terms(delegation_depth=1, expires_at=Instant(NOW - 1)),
            NOW - 2,
            "PARENT_ENDED",
            id="revoked and expired",
        ),
        pytest.param(terms(delegation_depth=0), None, "NO_DEPTH_LEFT", id="no depth"),
    ],
)
def test_a_parent_that_cannot_be_delegated_from_is_refused_first(
    parent: Terms, ended_at: int | None, code: str
) -> None:
    # The child is wider as well, which nobody is told about a parent that is gone.
    refused = refusal(terms("*", "doc:**", 64), parent, ended_at)
    assert isinstance(refused, PreconditionError)
    assert refused.code == code


def test_a_parent_is_alive_until_the_microsecond_of_its_expiry() -> None:
    expires_at = Instant(NOW + 1)
    assert (
        refusal(
            terms(expires_at=expires_at), terms("read", delegation_depth=1, expires_at=expires_at)
        )
        is None
    )


def test_a_refusal_says_what_would_have_been_allowed() -> None:
    assert "at most 2 " in str(refusal(terms(delegation_depth=3), BOUNDED))
    assert " delete, move" in str(refusal(terms("read delete move"), BOUNDED))
    assert "doc:reports/**" in str(refusal(terms(resource="doc:**"), BOUNDED))


def test_a_delegation_inherits_the_times_that_it_leaves_open_and_nothing_else() -> None:
    child = terms("write", "doc:reports/2026", 1, session_id="run-9")
    inherited = inherit(child, capability(1, BOUNDED))
    assert inherited == terms(
        "write",
        "doc:reports/2026",
        1,
        session_id="run-9",
        not_before=BOUNDED.not_before,
        expires_at=BOUNDED.expires_at,
    )


def test_a_delegation_keeps_the_times_that_it_names() -> None:
    child = terms(not_before=Instant(0), expires_at=Instant(NOW + 99))
    assert inherit(child, capability(1, BOUNDED)) == child
