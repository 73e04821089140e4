"""The Merkle tree of the audit log (RFC 9162, section 2.1): its hashes, and how it grows.

Proofs are in `merkle_proof`. What others agree on:

- Hashes are 32 bytes, and several of them are one `bytes`, concatenated.
- A tree is stored as the hashes of its leaves, level 0, and those of its complete subtrees of 256,
  65,536, ... leaves, levels 1, 2, ...: each is stored once, when it is complete, and never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256().digest()
"""The root of the tree without leaves."""

LEVEL_HEIGHT: Final = 8
"""A stored subtree of a level is that many binary levels higher than one of the level below."""
LEVEL_WIDTH: Final = 1 << LEVEL_HEIGHT

_pairs = Struct(f"{2 * HASH_BYTES}s").iter_unpack

ReadHashes: TypeAlias = Callable[[int, int, int], bytes]
"""Reads stored hashes: `(level, first, count)` to `count` hashes, concatenated.

Of level 0 the leaf hashes from leaf `first` on; of level n the hashes of the complete subtrees of
256 ** n leaves from subtree `first` on. One call never asks for more than 256, nor across a
multiple of 256.
"""


@dataclass(frozen=True, slots=True)
class Node:
    """The hash of a complete subtree: of 256 ** level leaves, from leaf index * 256 ** level on."""

    level: int
    index: int
    hash: bytes


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + leaf).digest()


def leaf_hashes(leaves: Iterable[bytes]) -> bytes:
    """Return the hashes of leaves, concatenated."""
    return b"".join([sha256(b"\x00" + leaf).digest() for leaf in leaves])


def interior_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node of the tree over those of its children."""
    return sha256(b"\x01" + left + right).digest()


def parents(row: bytes) -> bytes:
    """Return the hashes of the nodes over a row of hashes; one that is left over has none."""
    pairs = memoryview(row)[: len(row) - len(row) % (2 * HASH_BYTES)]
    return b"".join([sha256(b"\x01" + pair).digest() for (pair,) in _pairs(pairs)])


class Frontier(NamedTuple):
    """All of a tree that its growth and its root depend on.

    It is a value: a transaction that fails leaves the one from before as it was.

    Attributes:
        size: how many leaves there are.
        peaks: the hashes of the largest complete subtrees that together hold all leaves, from left
            to right: one for each one in the binary form of `size`.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def grown(self, hashes: bytes) -> tuple[Frontier, list[Node]]:
        """Return the frontier with more leaves, and the nodes to store: those now complete.

        The nodes come in the order of level and index.

        Args:
            hashes: the hashes of the new leaves in order, concatenated.
        """
        if len(hashes) % HASH_BYTES:
            message = f"{len(hashes)} bytes are no sequence of hashes"
            raise ValueError(message)
        before = list(self.peaks)
        after: list[bytes] = []
        completed: list[Node] = []
        row, height = hashes, 0
        while row or before:
            if height and height % LEVEL_HEIGHT == 0:
                level, first = height // LEVEL_HEIGHT, self.size >> height
                completed += [
                    Node(level, first + i, row[i * HASH_BYTES : (i + 1) * HASH_BYTES])
                    for i in range(len(row) // HASH_BYTES)
                ]
            if self.size >> height & 1:
                row = before.pop() + row
            if len(row) % (2 * HASH_BYTES):
                after.append(row[-HASH_BYTES:])
            row = parents(row)
            height += 1
        size = self.size + len(hashes) // HASH_BYTES
        return Frontier(size, tuple(reversed(after))), completed

    def root(self) -> bytes:
        """Return the root hash."""
        if not self.peaks:
            return EMPTY_ROOT
        *higher, root = self.peaks
        for peak in reversed(higher):
            root = interior_hash(peak, root)
        return root
