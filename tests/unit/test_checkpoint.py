"""Checkpoints, and proofs as text."""

from __future__ import annotations

import pytest

from licet.domain.checkpoint import Checkpoint, checkpoint, open_checkpoint, sign_checkpoint
from licet.domain.merkle import EMPTY_ROOT, leaf_hash
from licet.domain.merkle_proof import Subtree
from licet.domain.signed_note import (
    MalformedNoteError,
    UnverifiedNoteError,
    VerifierKey,
    signed,
    signed_note,
)
from licet.domain.tlog_proof import (
    ConsistencyProof,
    InclusionProof,
    consistency_proof,
    cover,
    cover_text,
    inclusion_proof,
)
from licet.steward.signing import Ed25519Signer, verify_ed25519
from tests.fakes.audit_log import ORIGIN, SEED, AuditLog

SIGNER = Ed25519Signer(ORIGIN, SEED)
ROOT = leaf_hash(b"root")
STATED = Checkpoint(ORIGIN, 42, ROOT)
NOTE = sign_checkpoint(STATED, SIGNER).text()
# From c2sp.org/tlog-checkpoint, c2sp.org/tlog-proof and c2sp.org/tlog-witness.
SOFA = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa \
Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""
PROOF_HASHES = """\
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=
"""
HASH = PROOF_HASHES.partition("\n")[0]


def test_the_published_checkpoint_is_read() -> None:
    note = signed_note(SOFA)
    found = checkpoint(note.body)
    assert (found.origin, found.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert len(found.root) == 32
    assert found.text() == note.body
    assert note.text() == SOFA


def test_a_signed_checkpoint_opens_with_its_key() -> None:
    assert open_checkpoint(NOTE, SIGNER.key, verify_ed25519) == STATED


def test_a_checkpoint_may_have_further_lines() -> None:
    extended = STATED._replace(extensions=("one", "two"))
    note = sign_checkpoint(extended, SIGNER).text()
    assert open_checkpoint(note, SIGNER.key, verify_ed25519) == extended


@pytest.mark.parametrize(
    ("before", "after"),
    [(ORIGIN, "licet.example/other"), ("\n42\n", "\n43\n"), ("\n\n", "\nmore\n\n"), ("Ij", "Ik")],
)
def test_a_changed_checkpoint_does_not_open(before: str, after: str) -> None:
    changed = NOTE.replace(before, after, 1)
    if before == "Ij":  # a letter of the root
        first = NOTE.split("\n")[2]
        changed = NOTE.replace(first, "A" + first[1:] if first[0] != "A" else "B" + first[1:])
    assert changed != NOTE
    with pytest.raises((MalformedNoteError, UnverifiedNoteError)):
        open_checkpoint(changed, SIGNER.key, verify_ed25519)


def test_a_checkpoint_of_another_log_does_not_open_though_the_key_signed_it() -> None:
    body = STATED._replace(origin="licet.example/other").text()
    with pytest.raises(UnverifiedNoteError, match=r"one of licet\.example/other"):
        open_checkpoint(signed(body, SIGNER).text(), SIGNER.key, verify_ed25519)


def test_the_former_epochs_key_does_not_open_the_next_epochs_checkpoint() -> None:
    epoch = Ed25519Signer(f"{ORIGIN}/epoch2", SEED)
    note = sign_checkpoint(STATED._replace(origin=epoch.key.name), epoch).text()
    assert open_checkpoint(note, epoch.key, verify_ed25519).size == 42
    with pytest.raises(UnverifiedNoteError):
        open_checkpoint(note, SIGNER.key, verify_ed25519)


@pytest.mark.parametrize(
    "stated",
    [
        STATED._replace(origin=""),
        STATED._replace(origin="a\nb"),
        STATED._replace(origin="a b"),
        STATED._replace(origin="licet.example/other"),
        STATED._replace(size=-1),
        STATED._replace(size=1 << 63),
        STATED._replace(root=b"short"),
        STATED._replace(extensions=("",)),
        STATED._replace(extensions=("a\nb",)),
    ],
)
def test_what_would_be_no_checkpoint_is_not_signed(stated: Checkpoint) -> None:
    with pytest.raises(MalformedNoteError):
        sign_checkpoint(stated, SIGNER)


@pytest.mark.parametrize(
    "body",
    [
        "",
        f"{ORIGIN}\n42\n",
        f"{ORIGIN}\n42\n{HASH}",
        f"\n42\n{HASH}\n",
        f"{ORIGIN}\n42\n{HASH}\n\n",
        *(f"{ORIGIN}\n{size}\n{HASH}\n" for size in ("", "042", "+1", "-1", "1 ", "٤", "0x1")),
        f"{ORIGIN}\n{1 << 63}\n{HASH}\n",
        f"{ORIGIN}\n42\n{HASH[:-4]}\n",
        f"{ORIGIN}\n42\n{HASH[:-1]}\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(body: str) -> None:
    with pytest.raises(MalformedNoteError):
        checkpoint(body)


def test_an_empty_log_has_a_checkpoint() -> None:
    note = AuditLog().note()
    assert open_checkpoint(note, SIGNER.key, verify_ed25519) == Checkpoint(ORIGIN, 0, EMPTY_ROOT)


def test_an_inclusion_proof_is_read_as_it_was_written() -> None:
    log = AuditLog([b"a", b"b", b"c"])
    for with_leaf in (True, False):
        text = log.inclusion(2, with_leaf=with_leaf)
        proof = inclusion_proof(text)
        assert proof.text() == text
        assert proof.extra == (b"c" if with_leaf else None)
        assert (proof.index, proof.note) == (2, log.note())


def test_the_published_forms_of_proofs_are_read() -> None:
    shown = f"c2sp.org/tlog-proof@v1\nextra ZXh0cmE=\nindex 73894\n{PROOF_HASHES}\n{SOFA}"
    proof = inclusion_proof(shown)
    assert isinstance(proof, InclusionProof)
    assert (proof.extra, proof.index, len(proof.hashes)) == (b"extra", 73_894, 5)
    assert proof.text() == shown
    sent = f"old 20852014\n{PROOF_HASHES}\n{SOFA}"
    grown = consistency_proof(sent)
    assert isinstance(grown, ConsistencyProof)
    assert (grown.old_size, grown.note) == (20_852_014, SOFA)
    assert grown.text() == sent


@pytest.mark.parametrize(
    "head",
    [
        "",
        "c2sp.org/tlog-proof@v2\nindex 1",
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v1\nextra AA==",
        "c2sp.org/tlog-proof@v1\nextra AB==\nindex 1",
        "c2sp.org/tlog-proof@v1\nindex 01",
        "c2sp.org/tlog-proof@v1\nindex 1\nextra AA==",
        f"c2sp.org/tlog-proof@v1\nindex 1\n{HASH[:-1]}",
        "c2sp.org/tlog-proof@v1\nindex 1" + f"\n{HASH}" * 64,
    ],
)
def test_what_is_no_inclusion_proof_is_refused(head: str) -> None:
    with pytest.raises(MalformedNoteError):
        inclusion_proof(f"{head}\n\n{SOFA}")


@pytest.mark.parametrize("head", ["", "old", "old -1", f"old 1\n{HASH}=", "new 1", "index 1"])
def test_what_is_no_consistency_proof_is_refused(head: str) -> None:
    with pytest.raises(MalformedNoteError):
        consistency_proof(f"{head}\n\n{SOFA}")


@pytest.mark.parametrize("read", [inclusion_proof, consistency_proof])
def test_a_proof_without_a_checkpoint_is_refused(read: object) -> None:
    assert callable(read)
    with pytest.raises(MalformedNoteError):
        read(f"c2sp.org/tlog-proof@v1\nindex 1\n{PROOF_HASHES}")


def test_a_cover_is_read_as_it_was_written() -> None:
    log = AuditLog(bytes([number]) for number in range(100))
    text = log.cover((0, 13), (40, 100))
    subtrees = cover(text)
    assert cover_text(subtrees) == text
    assert [(s.first, s.height) for s in subtrees] == [
        *((0, 3), (8, 2), (12, 0)),
        *((40, 3), (48, 4), (64, 5), (96, 2)),
    ]
    assert cover(cover_text([])) == []


@pytest.mark.parametrize(
    "lines",
    [
        f"0 1 {HASH}",
        f"1 1 {HASH}\n",
        f"0 63 {HASH}\n",
        "0 1\n",
        f"0 1 {HASH} \n",
        f"0 1 {HASH[:-1]}\n",
        f"2 1 {HASH}\n0 1 {HASH}\n",
        f"0 2 {HASH}\n2 1 {HASH}\n",
        "\n",
    ],
)
def test_what_is_no_cover_is_refused(lines: str) -> None:
    with pytest.raises(MalformedNoteError):
        cover(f"licet-cover@v1\n{lines}")


@pytest.mark.parametrize("text", ["", "licet-cover@v1", f"0 1 {HASH}\n", "licet-cover@v2\n"])
def test_a_cover_has_its_header(text: str) -> None:
    with pytest.raises(MalformedNoteError):
        cover(text)


def test_a_subtree_of_a_cover_has_the_hash_of_the_tree() -> None:
    log = AuditLog(bytes([number]) for number in range(8))
    assert log.tree().cover(0, 8) == [Subtree(0, 3, log.root())]


def test_a_key_of_another_name_is_another_key() -> None:
    renamed = VerifierKey("licet.example/other", SIGNER.key.public_key)
    with pytest.raises(UnverifiedNoteError):
        open_checkpoint(NOTE, renamed, verify_ed25519)
