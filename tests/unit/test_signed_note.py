"""Signed notes and keys, with the published vectors of `golang.org/x/mod/sumdb/note`."""

from __future__ import annotations

import pytest

from licet.domain.signed_note import (
    MalformedNoteError,
    NoteSignature,
    UnverifiedNoteError,
    VerifierKey,
    decode_base64,
    private_key,
    private_key_text,
    signed,
    signed_note,
    verifier_key,
    verify,
)
from licet.steward.signing import Ed25519Signer, verify_ed25519
from tests.fakes.audit_log import ORIGIN, SEED

# From the package's documentation; the second key is made of 32 zero bytes.
NEUMANN_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
NEUMANN_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngot"
    "pRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLo"
    "x33WWd1RvMc+QQ=\n"
)
# From c2sp.org/signed-note; its key was not published.
SALVATORE = """\
Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore \
NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""
SIGNER = Ed25519Signer(ORIGIN, SEED)
NOTE = signed("text\n", SIGNER)


def test_a_published_key_signs_the_published_note() -> None:
    name, key_id, seed = private_key(NEUMANN_PRIVATE)
    signer = Ed25519Signer(name, seed)
    assert signer.key.key_id == key_id
    assert signer.key.text() == NEUMANN
    assert private_key_text(signer.key, seed) == NEUMANN_PRIVATE
    assert signed(TEXT, signer).text() == f"{TEXT}\n{NEUMANN_LINE}"


def test_a_published_note_verifies_and_another_signature_may_stand_in_it() -> None:
    note = signed_note(f"{TEXT}\n{NEUMANN_LINE}{ENOCH_LINE}")
    enoch = Ed25519Signer("EnochRoot", bytes(32)).key
    assert [s.name for s in note.signatures] == ["PeterNeumann", "EnochRoot"]
    for keys in ([verifier_key(NEUMANN)], [enoch], [enoch, verifier_key(NEUMANN)]):
        verify(note, keys, verify_ed25519)


def test_the_text_of_a_note_may_have_empty_lines_and_any_language() -> None:
    note = signed_note(SALVATORE)
    assert note.body.endswith("sole:\n\ned è subito sera.\n")
    assert note.text() == SALVATORE
    [signature] = note.signatures
    assert signature.name == "quasimodo.example/salvatore"
    assert len(signature.signature) == 64


def test_a_note_of_nobody_known_is_not_verified() -> None:
    key = verifier_key(NEUMANN)
    others = [
        VerifierKey(ORIGIN, key.public_key),  # the name alone
        VerifierKey("licet.example/other", SIGNER.key.public_key),  # the bytes alone
    ]
    for keys in ([], [key], others):
        with pytest.raises(UnverifiedNoteError, match="no signature is by a known key"):
            verify(NOTE, keys, verify_ed25519)


def test_one_forged_signature_of_a_known_key_spoils_a_note() -> None:
    [good] = NOTE.signatures
    for forged in (
        good._replace(signature=bytes(64)),
        good._replace(signature=good.signature[:-1]),
        good._replace(signature=bytes([good.signature[0] ^ 1]) + good.signature[1:]),
    ):
        for signatures in ((forged,), (good, forged), (forged, good)):
            with pytest.raises(UnverifiedNoteError, match="is not valid"):
                verify(NOTE._replace(signatures=signatures), [SIGNER.key], verify_ed25519)
    with pytest.raises(UnverifiedNoteError, match="is not valid"):
        verify(NOTE._replace(body="texts\n"), [SIGNER.key], verify_ed25519)


LINE = NOTE.text().split("\n\n")[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text\n",
        "text\n\n",
        "\n\n",
        LINE,
        f"text\n{LINE}",
        f"text\n\n{LINE[:-1]}",
        f"text\n\n{LINE}\n",
        f"text\n\n{LINE}x\n",
        f"text\n\n{LINE.replace('—', '-')}",
        f"text\n\n{LINE.replace('— ', '—')}",
        f"te\txt\n\n{LINE}",
        f"te\rxt\n\n{LINE}",
        f"te\0xt\n\n{LINE}",
        f"te\ud800xt\n\n{LINE}",
        f"text\n\n— {ORIGIN}\n",
        f"text\n\n— {ORIGIN} \n",
        f"text\n\n— {ORIGIN} AAAA\n",
        f"text\n\n— {ORIGIN} AAAAAA==\n",
        f"text\n\n— {ORIGIN} AAAAAAA\n",
        f"text\n\n— {ORIGIN} AAAAAAB=\n",
        f"text\n\n—  {'A' * 8}\n",
        f"text\n\n— a+b {'A' * 8}\n",
        f"text\n\n— a\u2003b {'A' * 8}\n",
        "text\n\n" + LINE * 101,
    ],
)
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(MalformedNoteError):
        signed_note(text)


def test_a_note_may_have_a_hundred_signatures() -> None:
    assert len(signed_note("text\n\n" + LINE * 100).signatures) == 100


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n", "\ud800\n"])
def test_what_would_be_no_note_is_not_signed(text: str) -> None:
    with pytest.raises(MalformedNoteError):
        signed(text, SIGNER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        NEUMANN.replace("c74f20a3", "c74f20a4"),
        NEUMANN.replace("c74f20a3", "c74f20"),
        NEUMANN.replace("c74f20a3", "c74f 20a3"),
        NEUMANN.replace("c74f20a3", "not hexa"),
        NEUMANN.replace("PeterNeumann", "EnochRoot"),
        NEUMANN.replace("PeterNeumann", "Peter Neumann"),
        NEUMANN.replace("+ARpc", "+Ahpc"),  # another type of signature
        NEUMANN[:-4],
        NEUMANN + "=",
        NEUMANN_PRIVATE,
    ],
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(MalformedNoteError):
        verifier_key(text)


@pytest.mark.parametrize("text", ["", NEUMANN, NEUMANN_PRIVATE[:-8], "PRIVATE+KEY+"])
def test_what_is_no_private_key_is_refused_without_being_told(text: str) -> None:
    with pytest.raises(MalformedNoteError) as refusal:
        private_key(text)
    assert "AYEK" not in str(refusal.value)


def test_a_key_may_end_with_a_newline() -> None:
    assert verifier_key(f"{NEUMANN}\n").text() == NEUMANN


@pytest.mark.parametrize("text", ["AB==", "AA", "AA==\n", "A===", "-_8=", "é", " AA=="])
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(MalformedNoteError):
        decode_base64(text)


def test_a_signature_of_another_type_is_kept() -> None:
    witness = NoteSignature("witness.example/w1", b"\1\2\3\4", b"\4" * 72)
    note = NOTE._replace(signatures=(*NOTE.signatures, witness))
    assert signed_note(note.text()) == note
    verify(note, [SIGNER.key], verify_ed25519)
