"""What a principal holds: which entries a look-up finds, and in which order."""

from __future__ import annotations

import pytest

from licet.domain.capability import EndCause
from licet.domain.capability_set import CapabilitySet
from licet.domain.instant import Instant
from licet.domain.names import Action, CapabilityId, Resource
from tests.unit.builders import HOLDER, NOW, held, holding, identifier


def found(capabilities: CapabilitySet, resource: str, action: str = "read") -> list[CapabilityId]:
    return [
        capability.id
        for entry in capabilities.living(Action(action), Resource(resource))
        for capability in entry
    ]


@pytest.mark.parametrize(
    ("pattern", "resource"),
    [
        ("doc:a", "doc:a"),
        ("doc:a/b/c", "doc:a/b/c"),
        ("fs:/", "fs:/"),
        ("doc:**", "doc:a"),
        ("doc:**", "doc:a/b/c"),
        ("doc:a/**", "doc:a/b"),
        ("doc:a/**", "doc:a/b/c"),
        ("fs:/**", "fs:/"),
        ("fs:/**", "fs:/etc/passwd"),
        ("fs:**", "fs:/etc"),
        ("doc:*", "doc:a"),
        ("doc:*/b", "doc:a/b"),
        ("doc:a/*/c", "doc:a/b/c"),
        ("doc:*/*", "doc:a/b"),
        ("fs:/*", "fs:/etc"),
        ("doc:*/**", "doc:a/b"),
        ("doc:a/*/**", "doc:a/b/c/d"),
        ("doc:a:b/*", "doc:a:b/c"),
    ],
)
def test_a_capability_is_found_by_a_resource_that_it_covers(pattern: str, resource: str) -> None:
    assert found(holding(held(1, pattern)), resource) == [identifier(1)]


@pytest.mark.parametrize(
    ("pattern", "resource"),
    [
        ("doc:a", "doc:a/b"),
        ("doc:a/b", "doc:a"),
        ("doc:a", "fs:a"),
        ("doc:**", "fs:a"),
        ("doc:a/**", "doc:a"),
        ("doc:a/**", "doc:ab"),
        ("doc:a/**", "doc:b/a/c"),
        ("doc:*", "doc:a/b"),
        ("doc:*", "fs:a"),
        ("fs:*", "fs:/"),
        ("fs:/*", "fs:/"),
        ("fs:*/etc", "fs:/etc"),
        ("fs:*/**", "fs:/etc"),
        ("doc:*/b", "doc:a/c"),
        ("doc:*/**", "doc:a"),
        ("doc:a/*/**", "doc:a/b"),
        ("doc:a/*/**", "doc:b/b/c"),
    ],
)
def test_a_capability_is_not_found_by_a_resource_outside_it(pattern: str, resource: str) -> None:
    assert found(holding(held(1, pattern)), resource) == []


def test_a_look_up_finds_everything_that_covers_the_most_specific_first() -> None:
    capabilities = holding(
        held(1, "doc:**"),
        held(2, "doc:a/**"),
        held(3, "doc:a/b/**"),
        held(4, "doc:*/b/c"),
        held(5, "doc:a/*/c"),
        held(6, "doc:*/b/**"),
        held(7, "doc:a/b/c"),
        held(8, "doc:a/b"),
        held(9, "doc:*/*/d"),
    )
    order = found(capabilities, "doc:a/b/c")
    assert order[:4] == [identifier(n) for n in (7, 3, 2, 1)]
    assert sorted(order[4:]) == [identifier(n) for n in (4, 5, 6)]


def test_a_look_up_is_for_one_action_and_for_those_that_allow_any() -> None:
    capabilities = holding(
        held(1, allowed="read write"), held(2, allowed="*"), held(3, allowed="move")
    )
    assert found(capabilities, "doc:reports/x", "write") == [identifier(1), identifier(2)]
    assert found(capabilities, "doc:reports/x", "move") == [identifier(3), identifier(2)]
    assert found(capabilities, "doc:reports/x", "burn") == [identifier(2)]


def test_capabilities_of_one_pattern_share_an_entry_the_last_to_expire_in_front() -> None:
    capabilities = holding(
        held(1, expires_at=NOW + 2),
        held(2),
        held(3, expires_at=NOW + 3),
        held(4, expires_at=NOW + 1),
    )
    (entry,) = capabilities.living(Action("read"), Resource("doc:reports/x"))
    assert [capability.id for capability in entry] == [identifier(n) for n in (2, 3, 1, 4)]


def test_what_has_ended_is_kept_apart() -> None:
    capabilities = holding(
        held(1), held(2, ended_at=NOW - 1), held(3, expires_at=NOW - 1), held(4, "doc:other")
    )
    assert found(capabilities, "doc:reports/x") == [identifier(1)]
    ended = capabilities.ended(Action("read"), Resource("doc:reports/x"))
    assert {c.id for entry in ended for c in entry} == {identifier(2), identifier(3)}
    assert capabilities.size == 4


def test_covering_lists_every_capability_of_the_resource_once() -> None:
    capabilities = holding(
        held(1, allowed="read write"),
        held(2, allowed="*"),
        held(3, allowed="move", ended_at=NOW - 1, cause=EndCause.CASCADE),
        held(4, "doc:other"),
        held(5, "doc:reports/*", "write read burn"),
        held(6, allowed="write read", expires_at=NOW + 1),
    )
    covering = [capability.id for capability in capabilities.covering(Resource("doc:reports/x"))]
    assert sorted(covering) == [identifier(n) for n in (1, 2, 3, 5, 6)]


def test_an_empty_set_finds_nothing_and_has_no_size() -> None:
    empty = CapabilitySet(HOLDER, 3, [])
    assert empty.size == 0
    assert (empty.principal, empty.revision) == (HOLDER, 3)
    assert found(empty, "doc:a") == []
    assert list(empty.covering(Resource("doc:a"))) == []


def test_a_set_does_not_follow_the_list_that_it_was_made_from() -> None:
    mine = [held(1)]
    capabilities = CapabilitySet(HOLDER, 1, mine)
    mine.append(held(2))
    assert found(capabilities, "doc:reports/x") == [identifier(1)]


def test_a_capability_that_never_expires_sorts_after_every_instant() -> None:
    (entry,) = holding(held(1, expires_at=Instant(253_402_300_799_999_999)), held(2)).living(
        Action("read"), Resource("doc:reports/x")
    )
    assert entry[0].id == identifier(2)
