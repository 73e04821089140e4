"""Roots over covers: subtrees that follow each other, known by their hashes alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from licet.domain.merkle import EMPTY_ROOT, Frontier, interior_hash
from licet.domain.merkle_proof import Subtree


def subtrees_of(frontier: Frontier) -> Iterator[Subtree]:
    """Yield the subtrees that a frontier's peaks are the hashes of."""
    at = 0
    ones = [height for height in range(frontier.size.bit_length()) if frontier.size >> height & 1]
    for height, peak in zip(reversed(ones), frontier.peaks, strict=True):
        yield Subtree(at, height, peak)
        at += 1 << height


def root_of(cover: Iterable[Subtree]) -> bytes:
    """Return the root hash over subtrees that follow each other from leaf 0 on."""
    stack: list[tuple[int, bytes]] = []
    for subtree in cover:
        height, value = subtree.height, subtree.hash
        while stack and stack[-1][0] == height:
            value = interior_hash(stack.pop()[1], value)
            height += 1
        stack.append((height, value))
    if not stack:
        return EMPTY_ROOT
    root = stack.pop()[1]
    while stack:
        root = interior_hash(stack.pop()[1], root)
    return root
