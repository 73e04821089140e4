"""What a caller may ask about, and whose limits are inside whose."""

from __future__ import annotations

import pytest

from licet.domain.caller import ANONYMOUS, UNLIMITED, Identity, Limits, Scope
from licet.domain.errors import ForbiddenError, NotPermittedError
from licet.domain.names import Caller, Principal, Resource
from licet.domain.pattern import ResourcePattern


def limits(principals: str = "", resources: str = "") -> Limits:
    """Return limits from patterns that are separated by spaces."""
    return Limits.of(
        map(ResourcePattern, principals.split()), map(ResourcePattern, resources.split())
    )


def test_limits_that_are_none_are_one_object() -> None:
    assert limits() is UNLIMITED
    assert limits("agent:a") == Limits((ResourcePattern("agent:a"),))
    assert limits("", "doc:a") == Limits((), (ResourcePattern("doc:a"),))


def test_admin_may_everything_and_another_scope_only_itself() -> None:
    assert all(ANONYMOUS.may(scope) for scope in Scope)
    reader = Identity.of(Caller("key:a"), {Scope.READ})
    assert [scope for scope in Scope if reader.may(scope)] == [Scope.READ]
    reader.check_scope(Scope.READ)
    with pytest.raises(NotPermittedError) as raised:
        reader.check_scope(Scope.GRANT)
    assert raised.value.code == "SCOPE_MISSING"


@pytest.mark.parametrize(
    ("has", "principal", "resource", "is_inside"),
    [
        (UNLIMITED, "agent:a", "doc:a", True),
        (limits("agent:a"), "agent:a", "doc:a", True),
        (limits("agent:a"), "agent:b", "doc:a", False),
        (limits("agent:*"), "agent:b", "doc:a", True),
        (limits("agent:*"), "agent:b/c", "doc:a", False),
        (limits("agent:**"), "agent:b/c", "doc:a", True),
        (limits("agent:**"), "agents:b", "doc:a", False),
        (limits("agent:* user:a"), "user:a", "doc:a", True),
        # Principals whose names look like patterns are names.
        (limits("agent:a"), "agent:*", "doc:a", False),
        (limits("agent:*"), "agent:**", "doc:a", False),
        (limits("", "doc:a/**"), "agent:a", "doc:a/b", True),
        (limits("", "doc:a/**"), "agent:a", "doc:a", False),
        (limits("agent:a", "doc:a"), "agent:a", "doc:a", True),
        (limits("agent:a", "doc:a"), "agent:b", "doc:a", False),
        (limits("agent:a", "doc:a"), "agent:a", "doc:b", False),
    ],
)
def test_a_question_is_inside_the_limits_or_not(
    has: Limits, principal: str, resource: str, is_inside: bool
) -> None:
    caller = Identity.of(Caller("key:a"), {Scope.ADMIN}, has)
    if is_inside:
        caller.check_question(Principal(principal), Resource(resource))
    else:
        with pytest.raises(ForbiddenError) as raised:
            caller.check_question(Principal(principal), Resource(resource))
        assert raised.value.code == "OUTSIDE_LIMITS"


@pytest.mark.parametrize(
    ("outer", "inner", "covers"),
    [
        (UNLIMITED, UNLIMITED, True),
        (UNLIMITED, limits("agent:a", "doc:a"), True),
        (limits("agent:a"), UNLIMITED, False),
        (limits("", "doc:a"), UNLIMITED, False),
        (limits("agent:**"), limits("agent:*"), True),
        (limits("agent:*"), limits("agent:**"), False),
        (limits("agent:a agent:b"), limits("agent:b"), True),
        (limits("agent:a"), limits("agent:a agent:b"), False),
        (limits("agent:a"), limits("agent:a", "doc:a"), True),
        (limits("agent:a", "doc:**"), limits("agent:a"), False),
    ],
)
def test_limits_are_inside_others_or_not(outer: Limits, inner: Limits, covers: bool) -> None:
    assert outer.cover(inner) is covers
