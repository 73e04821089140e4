"""Proofs about the tree of the audit log (RFC 9162, section 2.1): made, and verified.

They are made from stored hashes, in at most two reads a stored level; a stored hash that is wrong
makes a proof that does not verify.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from licet.domain.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    LEVEL_HEIGHT,
    LEVEL_WIDTH,
    Frontier,
    ReadHashes,
    interior_hash,
    parents,
)

Proof: TypeAlias = tuple[bytes, ...]
"""Hashes, from the leaves' end to the root's."""


class Subtree(NamedTuple):
    """A complete subtree, of 2 ** height leaves from `first` on, by its hash alone."""

    first: int
    height: int
    hash: bytes


class StoredTree:
    """A tree of a size, by its stored hashes. Each stored row is read once.

    Not for several threads.
    """

    def __init__(self, size: int, read: ReadHashes) -> None:
        """Look at the first `size` leaves of what is stored; there may be more."""
        self._size = size
        self._read = read
        # Of each row that was read, the rows above it within its level: 256 hashes, 128, ... 2.
        self._rows: dict[tuple[int, int], list[bytes]] = {}

    def frontier(self) -> Frontier:
        """Return what growth goes on from."""
        return Frontier(
            self._size,
            tuple(self._node(first, height) for first, height in _subtrees(0, self._size)),
        )

    def inclusion_proof(self, index: int) -> Proof:
        """Prove that a leaf is in the tree."""
        if not 0 <= index < self._size:
            message = f"there is no leaf {index} in a tree of {self._size}"
            raise ValueError(message)
        path = []
        low, high = 0, self._size
        while high - low > 1:
            middle = low + _left_size(high - low)
            if index < middle:
                path.append(self._hash(middle, high))
                high = middle
            else:
                path.append(self._hash(low, middle))
                low = middle
        return tuple(reversed(path))

    def consistency_proof(self, old_size: int) -> Proof:
        """Prove that the tree of the first `old_size` leaves grew into this one."""
        if not 0 <= old_size <= self._size:
            message = f"a tree of {self._size} was never one of {old_size}"
            raise ValueError(message)
        if old_size == 0:
            return ()
        path = []
        low, high = 0, self._size
        while old_size < high:
            middle = low + _left_size(high - low)
            if old_size <= middle:
                path.append(self._hash(middle, high))
                high = middle
            else:
                path.append(self._hash(low, middle))
                low = middle
        if low > 0:  # else it is the old root itself, which the verifier has
            path.append(self._hash(low, high))
        return tuple(reversed(path))

    def cover(self, first: int, end: int) -> list[Subtree]:
        """Return the fewest subtrees that stand for the leaves from `first` up to `end`."""
        if not 0 <= first <= end <= self._size:
            message = f"a tree of {self._size} has no leaves {first} to {end}"
            raise ValueError(message)
        return [Subtree(at, height, self._node(at, height)) for at, height in _subtrees(first, end)]

    def _hash(self, low: int, high: int) -> bytes:
        """Return the hash over leaves that begin at a multiple of a power of two >= their count."""
        peaks = tuple(self._node(first, height) for first, height in _subtrees(low, high))
        return Frontier(high - low, peaks).root()

    def _node(self, first: int, height: int) -> bytes:
        level, above = divmod(height, LEVEL_HEIGHT)
        tile, offset = divmod(first >> (level * LEVEL_HEIGHT), LEVEL_WIDTH)
        rows = self._rows.get((level, tile))
        if rows is None:
            rows = self._rows[level, tile] = [self._row(level, tile * LEVEL_WIDTH)]
        while len(rows) <= above:
            rows.append(parents(rows[-1]))
        start = (offset >> above) * HASH_BYTES
        return rows[above][start : start + HASH_BYTES]

    def _row(self, level: int, first: int) -> bytes:
        count = min(LEVEL_WIDTH, (self._size >> (level * LEVEL_HEIGHT)) - first)
        row = self._read(level, first, count)
        if len(row) != count * HASH_BYTES:
            message = f"{len(row)} bytes were read for {count} hashes of level {level}, at {first}"
            raise ValueError(message)
        return row


def verify_inclusion(
    leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Tell whether the leaf with this hash has this index in the tree of this size and root."""
    if not 0 <= index < size or not _are_hashes(leaf_hash, root, *proof):
        return False
    node, last, found = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = interior_hash(sibling, found)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            found = interior_hash(found, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and found == root


def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Tell whether the old tree is the beginning of the new one."""
    if not 0 <= old_size <= new_size or not _are_hashes(old_root, new_root, *proof):
        return False
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT and (new_size > 0 or new_root == EMPTY_ROOT)
    if old_size == new_size:
        return not proof and old_root == new_root
    if not proof:
        return False
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node >>= 1
        last >>= 1
    # An old tree that is one complete subtree of the new one begins the proof itself.
    start, *rest = proof if node else (old_root, *proof)
    old = new = start
    for sibling in rest:
        if last == 0:
            return False
        if node & 1 or node == last:
            old = interior_hash(sibling, old)
            new = interior_hash(sibling, new)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            new = interior_hash(new, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and old == old_root and new == new_root


def _are_hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_BYTES for value in values)


def _left_size(size: int) -> int:
    """Return the leaves under a root's left child: the largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def _subtrees(first: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield first leaf and height of the fewest complete subtrees from `first` up to `end`."""
    while first < end:
        height = (end - first).bit_length() - 1
        if first:
            height = min(height, (first & -first).bit_length() - 1)
        yield first, height
        first += 1 << height
