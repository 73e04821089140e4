"""A delegation passes exactly if it allows nothing that its parent does not."""

from __future__ import annotations

from functools import cache
from typing import Final

from hypothesis import event, given, settings
from hypothesis import strategies as st

from licet.domain.capability import Terms, check_attenuation, inherit
from licet.domain.errors import NotPermittedError, PreconditionError
from licet.domain.instant import Instant
from licet.domain.names import Action
from licet.domain.pattern import ResourcePattern
from tests.properties.models import PATTERNS, RESOURCES, allows
from tests.properties.strategies import ACTION_LISTS, INSTANTS
from tests.unit.builders import NOW, capability, terms

_FAR: Final = 1_000
_EVER: Final = (Instant(NOW - _FAR), *INSTANTS, Instant(NOW + _FAR))
_REQUESTS: Final = tuple((action, resource) for action in "abcd" for resource in RESOURCES)


@st.composite
def some_terms(draw: st.DrawFn, near: Terms | None = None) -> Terms:
    """Return terms that are not empty; near others if given, so that they are often inside."""

    def same() -> bool:
        return near is not None and draw(st.booleans())

    base = near or terms()
    not_before = base.not_before if same() else draw(st.none() | st.sampled_from(INSTANTS[:-1]))
    later = [i for i in INSTANTS if not_before is None or i > not_before]
    expires_at = base.expires_at if same() else draw(st.none() | st.sampled_from(later))
    if not_before is not None and expires_at is not None and expires_at <= not_before:
        expires_at = None
    return Terms(
        principal=base.principal,
        actions=base.actions if same() else draw(st.sampled_from(ACTION_LISTS)),
        resource=base.resource if same() else draw(st.sampled_from(PATTERNS)),
        not_before=not_before,
        expires_at=expires_at,
        delegation_depth=draw(st.integers(0, 4)),
        session_id="",
        metadata=base.metadata,
    )


def rights(has: Terms) -> frozenset[tuple[str, str]]:
    """Return which requests terms allow while they are valid."""
    return _rights(has.resource, has.actions)


@cache
def _rights(pattern: ResourcePattern, actions: tuple[Action, ...]) -> frozenset[tuple[str, str]]:
    return frozenset((a, r) for a, r in _REQUESTS if allows(pattern, actions, a, r))


def times(has: Terms) -> set[Instant]:
    """Return at which instants terms are valid."""
    return {
        at
        for at in _EVER
        if (has.not_before is None or has.not_before <= at)
        and (has.expires_at is None or at < has.expires_at)
    }


@settings(max_examples=200)
@given(st.data())
def test_a_delegation_passes_exactly_if_it_widens_nothing(data: st.DataObject) -> None:
    parent = data.draw(some_terms())
    child = inherit(data.draw(some_terms(near=parent)), capability(1, parent))
    try:
        check_attenuation(child, capability(1, parent), NOW)
    except PreconditionError as refused:
        event(refused.code)
        assert parent.delegation_depth == 0 or times(parent).isdisjoint(
            at for at in _EVER if at >= NOW
        )
        return
    except NotPermittedError as refused:
        passes = False
        event(refused.code)
    else:
        passes = True
        event("passes")
    is_inside = rights(child) <= rights(parent) and times(child) <= times(parent)
    assert passes == (is_inside and child.delegation_depth < parent.delegation_depth)


@given(st.data())
def test_a_chain_of_delegations_is_no_longer_than_the_first_ones_depth(
    data: st.DataObject,
) -> None:
    first = data.draw(some_terms())
    last, length = first, 0
    while True:
        child = data.draw(some_terms(near=last))
        child = inherit(child, capability(1, last))
        try:
            check_attenuation(child, capability(1, last), NOW)
        except (PreconditionError, NotPermittedError):
            break
        last, length = child, length + 1
    assert length <= first.delegation_depth
    # However long the chain: what its end allows, its beginning does.
    assert rights(last) <= rights(first)
    assert times(last) <= times(first)


@given(some_terms())
def test_what_a_delegation_leaves_open_is_its_parents(parent: Terms) -> None:
    child = inherit(terms("a", "x:a"), capability(1, parent))
    assert times(child) == times(parent)
