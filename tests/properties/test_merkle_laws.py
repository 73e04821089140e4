"""Laws of the tree and of archives: however it grew, it is the same; nothing false is proved."""

from __future__ import annotations

import itertools
from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st

from licet.domain.archive import ArchiveError, read_archive
from licet.domain.merkle import HASH_BYTES, Frontier, interior_hash, leaf_hash
from licet.domain.merkle_proof import Subtree, verify_consistency, verify_inclusion
from licet.domain.tlog_proof import cover
from tests.fakes.audit_log import AuditLog

LEAVES = [number.to_bytes(2, "big") for number in range(1300)]
LOG = AuditLog(LEAVES)

sizes = st.integers(1, len(LEAVES))


@given(st.lists(st.integers(0, 700), max_size=8))
def test_batches_of_any_size_make_the_same_tree_and_the_same_nodes(batches: list[int]) -> None:
    frontier, nodes, at = Frontier(), [], 0
    for batch in batches:
        hashes = LOG.read(0, at, batch)
        frontier, completed = frontier.grown(hashes)
        nodes += completed
        at = min(at + batch, len(LEAVES))
    assert (frontier.size, frontier.root()) == (at, LOG.root(at))
    assert sorted((n.level, n.index) for n in nodes) == [(1, i) for i in range(at // 256)]
    assert all(node.hash == LOG.read(1, node.index, 1) for node in nodes)


@given(sizes, st.data())
def test_every_leaf_is_proved_to_be_where_it_is_and_nowhere_else(
    size: int, data: st.DataObject
) -> None:
    index, other = (data.draw(st.integers(0, size - 1)) for _ in range(2))
    proof, root = LOG.tree(size).inclusion_proof(index), LOG.root(size)
    assert verify_inclusion(leaf_hash(LEAVES[index]), index, size, proof, root)
    if other != index:
        assert not verify_inclusion(leaf_hash(LEAVES[index]), other, size, proof, root)
        assert not verify_inclusion(leaf_hash(LEAVES[other]), index, size, proof, root)


@given(sizes, st.data())
def test_a_proof_with_any_bit_changed_proves_nothing(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    root, old_root = LOG.root(size), LOG.root(old)
    inclusion = LOG.tree(size).inclusion_proof(old - 1)
    consistency = LOG.tree(size).consistency_proof(old)
    assert verify_consistency(old, size, old_root, root, consistency)
    for proof in (inclusion, consistency):
        if proof:
            at = data.draw(st.integers(0, len(proof) - 1))
            bit = data.draw(st.integers(0, 8 * HASH_BYTES - 1))
            flipped = int.from_bytes(proof[at], "big") ^ (1 << bit)
            changed = (*proof[:at], flipped.to_bytes(HASH_BYTES, "big"), *proof[at + 1 :])
            leaf = leaf_hash(LEAVES[old - 1])
            assert not verify_inclusion(leaf, old - 1, size, changed, root)
            assert not verify_consistency(old, size, old_root, root, changed)


@given(sizes, st.data())
def test_an_old_tree_is_consistent_with_no_other_history(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    changed = data.draw(st.integers(0, old - 1))
    forged = AuditLog([*LEAVES[:changed], b"forged", *LEAVES[changed + 1 : size]])
    proof = forged.tree().consistency_proof(old)
    assert verify_consistency(old, size, forged.root(old), forged.root(), proof)
    assert not verify_consistency(old, size, LOG.root(old), forged.root(), proof)


def root_over(parts: list[Subtree]) -> bytes:
    """Return the root over complete subtrees that lie side by side."""
    stack: list[tuple[int, bytes]] = []
    for part in parts:
        height, value = part.height, part.hash
        while stack and stack[-1][0] == height:
            value = interior_hash(stack.pop()[1], value)
            height += 1
        stack.append((height, value))
    root = stack.pop()[1]
    while stack:
        root = interior_hash(stack.pop()[1], root)
    return root


@given(sizes, st.sets(st.integers(0, len(LEAVES)), max_size=6))
def test_leaves_and_a_cover_of_the_others_make_the_root(size: int, cuts: set[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < size), size]
    parts: list[Subtree] = []
    for number, (first, end) in enumerate(itertools.pairwise(edges)):
        if number % 2:
            parts += [Subtree(i, 0, leaf_hash(LEAVES[i])) for i in range(first, end)]
        else:
            parts += LOG.tree(size).cover(first, end)
    assert root_over(parts) == LOG.root(size)
    hidden = [(first, end) for first, end in itertools.pairwise(edges) if first < end]
    assert sum(1 << part.height for part in cover(LOG.cover(*hidden))) == size


@given(
    st.lists(st.binary(max_size=400), min_size=1, max_size=60),
    st.integers(0, 1 << 40),
    st.integers(1, 7),
)
def test_a_damaged_archive_gives_no_wrong_leaf(leaves: list[bytes], at: int, bit: int) -> None:
    packed = bytearray(AuditLog(leaves).archive())
    [found] = [list(rest) for _, rest in read_archive(BytesIO(packed))]
    assert found == leaves
    position = at % (len(packed) - 10) + 10  # before that is what gzip says of the file, not of us
    packed[position] ^= 1 << bit
    try:
        found = [leaf for _, rest in read_archive(BytesIO(packed)) for leaf in rest]
    except ArchiveError:
        return
    assert found == leaves
