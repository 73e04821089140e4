"""The tree: known vectors, and every shape of it against the definition of RFC 9162."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from itertools import pairwise
from random import Random

import pytest

from licet.domain.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    LEVEL_WIDTH,
    Frontier,
    interior_hash,
    leaf_hash,
    leaf_hashes,
)
from licet.domain.merkle_proof import (
    Proof,
    StoredTree,
    verify_consistency,
    verify_inclusion,
)
from tests.fakes.audit_log import AuditLog

CT_LEAVES = [
    *map(bytes.fromhex, ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")),
    bytes(range(0x60, 0x70)),
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
_96A2 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
_5F08 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
_6B47 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
_BC1A = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
_CA85 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
_0EBC = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"

MANY = 70_000
LEAVES = [number.to_bytes(4, "big") for number in range(MANY)]
HASHES = [leaf_hash(leaf) for leaf in LEAVES]
EDGES = [65_535, 65_536, 65_537, MANY]


@pytest.fixture(scope="module")
def log() -> AuditLog:
    """Provide a log of many leaves, appended in batches of all sizes."""
    made, random, at = AuditLog(), Random(1), 0
    while at < MANY:
        size = random.choice([1, 2, 3, 100, 255, 256, 257, 1000, 5000])
        made.append(LEAVES[at : at + size])
        at += size
    return made


@cache
def root_of(low: int, high: int) -> bytes:
    """Compute MTH of section 2.1.1, by its definition."""
    if high - low == 1:
        return HASHES[low]
    if high == low:
        return sha256().digest()
    middle = low + split(high - low)
    return sha256(b"\1" + root_of(low, middle) + root_of(middle, high)).digest()


def split(size: int) -> int:
    """Return the largest power of two smaller than `size`."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


def path(index: int, low: int, high: int) -> list[bytes]:
    """Compute PATH of section 2.1.3.1, by its definition."""
    if high - low == 1:
        return []
    middle = low + split(high - low)
    if index < middle:
        return [*path(index, low, middle), root_of(middle, high)]
    return [*path(index, middle, high), root_of(low, middle)]


def subproof(size: int, low: int, high: int, *, whole: bool) -> list[bytes]:
    """Compute SUBPROOF of section 2.1.4.1, by its definition; `size` counts from leaf 0."""
    if size == high:
        return [] if whole else [root_of(low, high)]
    middle = low + split(high - low)
    if size <= middle:
        return [*subproof(size, low, middle, whole=whole), root_of(middle, high)]
    return [*subproof(size, middle, high, whole=False), root_of(low, middle)]


def chosen(size: int) -> list[int]:
    """Return all numbers below a size, or the edges among them and some others."""
    if size <= 150:
        return list(range(size))
    edges = {0, 1, size // 2, size - 2, size - 1}
    for power in (1 << bit for bit in range(1, size.bit_length())):
        edges |= {power - 1, power, power + 1, size - power}
    edges |= {Random(size).randrange(size) for _ in range(5)}
    return sorted(number for number in edges if 0 <= number < size)


def refused_inclusion(index: int, size: int, proof: Proof) -> None:
    """Check that nothing but this very statement is proved."""
    value, root = HASHES[index], root_of(0, size)
    assert not verify_inclusion(leaf_hash(b"x"), index, size, proof, root)
    assert not verify_inclusion(value, index, size, proof, leaf_hash(b"x"))
    assert not verify_inclusion(value, index, size, (*proof, value), root)
    assert not verify_inclusion(value, size, size, proof, root)
    assert not verify_inclusion(value, -1, size, proof, root)
    assert not verify_inclusion(value, index, size + 1, proof, root_of(0, size + 1))
    if size > 1:
        assert not verify_inclusion(value, index, size, proof[:-1], root)
        assert not verify_inclusion(value, index, size, proof[1:], root)
        assert not verify_inclusion(value, index ^ 1, size, proof, root)
        assert not verify_inclusion(value, index, size, (*proof[:-1], proof[-1][:-1]), root)
        assert not verify_inclusion(value, index, size - 1, proof, root_of(0, size - 1))


def refused_consistency(old: int, size: int, proof: Proof) -> None:
    """Check that nothing but this very statement is proved."""
    first, root = root_of(0, old), root_of(0, size)
    assert not verify_consistency(old, size, leaf_hash(b"x"), root, proof)
    assert not verify_consistency(old, size, first, root, (*proof, first))
    assert not verify_consistency(size + 1, size, first, root, proof)
    assert not verify_consistency(-1, size, first, root, proof)
    if old:
        assert not verify_consistency(old, size, first, leaf_hash(b"x"), proof)
        assert not verify_consistency(old - 1, size, root_of(0, old - 1), root, proof) or old == 1
    if proof:
        assert not verify_consistency(old, size, first, root, proof[:-1])
        assert not verify_consistency(old, size, first, root, proof[1:])
        assert not verify_consistency(old, size, first, root, (*proof[:-1], proof[-1][:-1]))
        assert not verify_consistency(old, size, first, root, ())


def check(log: AuditLog, size: int) -> None:
    """Check all proofs of a size against their definitions."""
    tree, root = log.tree(size), root_of(0, size)
    assert tree.frontier().root() == root
    for index in chosen(size):
        proof = tree.inclusion_proof(index)
        assert list(proof) == path(index, 0, size)
        assert verify_inclusion(HASHES[index], index, size, proof, root)
    for old in [*chosen(size), size]:
        proof = tree.consistency_proof(old)
        assert list(proof) == (subproof(old, 0, size, whole=True) if old else [])
        assert verify_consistency(old, size, root_of(0, old), root, proof)


def test_the_vectors_of_certificate_transparency() -> None:
    assert [AuditLog(CT_LEAVES[:size]).frontier.root().hex() for size in range(9)] == CT_ROOTS
    assert EMPTY_ROOT.hex() == CT_ROOTS[0]


@pytest.mark.parametrize(
    ("index", "size", "expected"),
    [
        (0, 1, []),
        (0, 8, [_96A2, _5F08, _6B47]),
        (5, 8, [_BC1A, _CA85, CT_ROOTS[4]]),
        (2, 3, [CT_ROOTS[2]]),
        (1, 5, [CT_ROOTS[1], _5F08, _BC1A]),
    ],
)
def test_the_inclusion_proofs_of_certificate_transparency(
    index: int, size: int, expected: list[str]
) -> None:
    proof = AuditLog(CT_LEAVES).tree(size).inclusion_proof(index)
    assert [value.hex() for value in proof] == expected
    root = bytes.fromhex(CT_ROOTS[size])
    assert verify_inclusion(leaf_hash(CT_LEAVES[index]), index, size, proof, root)


@pytest.mark.parametrize(
    ("old", "size", "expected"),
    [
        (1, 1, []),
        (1, 8, [_96A2, _5F08, _6B47]),
        (6, 8, [_0EBC, _CA85, CT_ROOTS[4]]),
        (2, 5, [_5F08, _BC1A]),
    ],
)
def test_the_consistency_proofs_of_certificate_transparency(
    old: int, size: int, expected: list[str]
) -> None:
    proof = AuditLog(CT_LEAVES).tree(size).consistency_proof(old)
    assert [value.hex() for value in proof] == expected
    old_root, root = (bytes.fromhex(CT_ROOTS[n]) for n in (old, size))
    assert verify_consistency(old, size, old_root, root, proof)


@pytest.mark.parametrize("sizes", list(pairwise(range(1, 602, 50))), ids=str)
def test_every_proof_of_a_small_tree_is_the_one_of_the_definition(
    log: AuditLog, sizes: tuple[int, int]
) -> None:
    for size in range(*sizes):
        check(log, size)


@pytest.mark.parametrize("size", EDGES)
def test_proofs_at_the_edges_of_stored_levels_are_those_of_the_definition(
    log: AuditLog, size: int
) -> None:
    check(log, size)


@pytest.mark.parametrize("size", [*range(1, 66), 255, 256, 257, 600, *EDGES[:3]])
def test_a_proof_proves_nothing_else(log: AuditLog, size: int) -> None:
    tree = log.tree(size)
    for index in chosen(size)[:40]:
        refused_inclusion(index, size, tree.inclusion_proof(index))
        refused_consistency(index, size, tree.consistency_proof(index))
    refused_consistency(size, size, ())


@pytest.mark.parametrize("size", [2, 3, 5, 8, 100, 256])
def test_a_proof_that_ends_below_the_root_proves_nothing(log: AuditLog, size: int) -> None:
    # What it leads to is the hash of a subtree; a forger may well call that a root.
    proof = log.tree(size).inclusion_proof(0)
    for count in range(len(proof)):
        subtree = root_of(0, 1 << count)
        assert not verify_inclusion(HASHES[0], 0, size, proof[:count], subtree)
    proof = log.tree(size).consistency_proof(1)
    for count in range(1, len(proof)):
        subtree = root_of(0, 1 << count)
        assert not verify_consistency(1, size, HASHES[0], subtree, proof[:count])


def test_what_is_no_hash_proves_nothing_though_the_bytes_behind_each_other_are_right() -> None:
    root = root_of(0, 2)
    for cut in (0, 31, 33, 64):
        joined = HASHES[0] + HASHES[1]
        left, right = joined[:cut], joined[cut:]
        assert not verify_inclusion(left, 0, 2, (right,), root)
        assert not verify_consistency(1, 2, left, root, (right,))


def test_a_log_that_was_empty_is_consistent_with_every_other() -> None:
    root = leaf_hash(b"x")
    assert verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, ())
    assert verify_consistency(0, 1, EMPTY_ROOT, root, ())
    assert not verify_consistency(0, 1, root, root, ())
    assert not verify_consistency(0, 1, EMPTY_ROOT, root, (root,))
    assert not verify_consistency(0, 0, EMPTY_ROOT, root, ())


def test_the_frontier_of_a_stored_tree_grows_like_the_first_one(log: AuditLog) -> None:
    for size in (0, 1, 255, 256, 257, 600, 65_535, 65_536, 65_537):
        frontier = log.tree(size).frontier()
        assert frontier.size == size
        grown, completed = frontier.grown(b"".join(HASHES[size:]))
        assert grown == log.frontier
        assert sum(node.level == 1 for node in completed) == MANY // 256 - size // 256
        assert sum(node.level == 2 for node in completed) == (size < 65_536)


def test_a_completed_node_is_the_hash_of_its_leaves() -> None:
    _, completed = Frontier().grown(b"".join(HASHES[:65_537]))
    assert [(node.level, node.index) for node in completed] == [
        *((1, index) for index in range(256)),
        (2, 0),
    ]
    for node in completed:
        width = LEVEL_WIDTH**node.level
        assert node.hash == root_of(node.index * width, (node.index + 1) * width)


def test_a_proof_costs_two_reads_a_level() -> None:
    calls: list[tuple[int, int, int]] = []

    def read(level: int, first: int, count: int) -> bytes:
        calls.append((level, first, count))
        return bytes(HASH_BYTES * count)

    size = 10_000_019
    for number in (0, 1, 255, 65_536, 5_000_000, 9_999_999, size - 1):
        for make in ("inclusion_proof", "consistency_proof"):
            calls.clear()
            assert len(getattr(StoredTree(size, read), make)(number)) <= 25
            assert len(calls) <= 5
            assert len(set(calls)) == len(calls)
            for level, first, count in calls:
                assert 0 < count <= LEVEL_WIDTH
                assert first % LEVEL_WIDTH == 0
                assert (first + count) << (8 * level) <= size


def test_a_short_read_is_no_proof() -> None:
    tree = StoredTree(300, lambda _level, _first, count: bytes(HASH_BYTES * (count - 1)))
    with pytest.raises(ValueError, match="were read for"):
        tree.inclusion_proof(0)


@pytest.mark.parametrize("index", [-1, 5, 6])
def test_there_is_no_proof_of_a_leaf_that_is_not_there(index: int) -> None:
    tree = AuditLog(LEAVES[:5]).tree()
    with pytest.raises(ValueError, match="no leaf"):
        tree.inclusion_proof(index)
    if index != 5:
        with pytest.raises(ValueError, match="was never one of"):
            tree.consistency_proof(index)
        with pytest.raises(ValueError, match="has no leaves"):
            tree.cover(index, index)


def test_only_whole_hashes_are_appended() -> None:
    with pytest.raises(ValueError, match="no sequence of hashes"):
        Frontier().grown(bytes(33))


def test_hashes_of_leaves_and_nodes_have_prefixes_of_their_own() -> None:
    assert leaf_hash(b"") == sha256(b"\0").digest()
    assert interior_hash(b"l", b"r") == sha256(b"\1lr").digest()
    assert leaf_hashes([b"a", b"b"]) == leaf_hash(b"a") + leaf_hash(b"b")
