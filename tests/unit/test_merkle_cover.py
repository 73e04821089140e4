"""Roots over subtrees that are known by their hashes alone."""

from __future__ import annotations

import pytest

from licet.domain.merkle import EMPTY_ROOT, Frontier
from licet.domain.merkle_cover import root_of, subtrees_of
from tests.fakes.audit_log import AuditLog

LOG = AuditLog(bytes([n % 251, n // 251]) for n in range(700))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 255, 256, 257, 511, 700])
def test_a_frontier_is_the_cover_of_its_tree(size: int) -> None:
    frontier = LOG.tree(size).frontier()
    assert list(subtrees_of(frontier)) == LOG.tree(size).cover(0, size)
    assert root_of(subtrees_of(frontier)) == frontier.root()


@pytest.mark.parametrize("size", [1, 2, 5, 256, 300, 700])
def test_covers_that_follow_each_other_have_the_root(size: int) -> None:
    tree, root = LOG.tree(size), LOG.root(size)
    for first in {0, 1, size // 3, size - 1, size}:
        for end in {first, (first + size) // 2, size}:
            covers = (*tree.cover(0, first), *tree.cover(first, end), *tree.cover(end, size))
            assert root_of(covers) == root
    assert root_of([subtree._replace(hash=bytes(32)) for subtree in tree.cover(0, size)]) != root


def test_nothing_has_the_empty_root() -> None:
    assert root_of([]) == EMPTY_ROOT
    assert list(subtrees_of(Frontier())) == []
