"""Proofs as text, to be verified without the log.

- An inclusion proof is a `c2sp.org/tlog-proof@v1`. Its `extra` is the leaf itself.
- A consistency proof is what a witness is sent (`add-checkpoint` of c2sp.org/tlog-witness).
- A cover says by their hashes what an archive does not hold: the rest of the tree.

Nothing here verifies anything: see `merkle_proof` and `checkpoint`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from licet.domain.checkpoint import decimal, hash_of
from licet.domain.merkle_proof import Proof, Subtree
from licet.domain.signed_note import MalformedNoteError, decode_base64, encode_base64

PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
COVER_HEADER: Final = "licet-cover@v1"
_MAX_HASHES: Final = 63
_MAX_HEIGHT: Final = 62
_COVER_FIELDS: Final = 3


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That a leaf is in the log.

    Attributes:
        index: of the leaf.
        hashes: the proof.
        note: the signed checkpoint, as it is.
        extra: not authenticated by anything; in licet's proofs the leaf, which the proof then
            authenticates.
    """

    index: int
    hashes: Proof
    note: str
    extra: bytes | None = None

    def text(self) -> str:
        """Return the proof as text."""
        extra = "" if self.extra is None else f"extra {encode_base64(self.extra)}\n"
        return f"{PROOF_HEADER}\n{extra}index {self.index}\n{_lines(self.hashes)}\n{self.note}"


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """That the log of the first `old_size` leaves grew into that of the signed checkpoint."""

    old_size: int
    hashes: Proof
    note: str

    def text(self) -> str:
        """Return the proof as text."""
        return f"old {self.old_size}\n{_lines(self.hashes)}\n{self.note}"


def inclusion_proof(text: str) -> InclusionProof:
    """Read an inclusion proof.

    Raises:
        MalformedNoteError: it is none.
    """
    head, note = _parts(text)
    if head[0] != PROOF_HEADER:
        raise MalformedNoteError(f"an inclusion proof begins with {PROOF_HEADER}")
    del head[0]
    extra = None
    if head and head[0].startswith("extra "):
        extra = decode_base64(head.pop(0).removeprefix("extra "))
    if not head or not head[0].startswith("index "):
        raise MalformedNoteError("an inclusion proof names the index of its leaf")
    index = decimal(head[0].removeprefix("index "))
    return InclusionProof(index, _hashes(head[1:]), note, extra)


def consistency_proof(text: str) -> ConsistencyProof:
    """Read a consistency proof.

    Raises:
        MalformedNoteError: it is none.
    """
    head, note = _parts(text)
    if not head[0].startswith("old "):
        raise MalformedNoteError("a consistency proof begins with the old size")
    return ConsistencyProof(decimal(head[0].removeprefix("old ")), _hashes(head[1:]), note)


def cover_text(subtrees: Iterable[Subtree]) -> str:
    """Return the text of a cover; the subtrees come in the order of their first leaves."""
    lines = [f"{s.first} {s.height} {encode_base64(s.hash)}\n" for s in subtrees]
    return "".join((f"{COVER_HEADER}\n", *lines))


def cover(text: str) -> list[Subtree]:
    """Read a cover.

    Raises:
        MalformedNoteError: it is none, or its subtrees are not in order.
    """
    header, *lines = text.split("\n")
    if header != COVER_HEADER or not lines or lines.pop():
        raise MalformedNoteError(f"a cover begins with {COVER_HEADER} and ends with a newline")
    subtrees: list[Subtree] = []
    end = 0
    for line in lines:
        fields = line.split(" ")
        if len(fields) != _COVER_FIELDS:
            raise MalformedNoteError("a line of a cover is first leaf, height and hash")
        subtree = Subtree(decimal(fields[0]), decimal(fields[1]), hash_of(fields[2]))
        if subtree.height > _MAX_HEIGHT or subtree.first % (1 << subtree.height):
            raise MalformedNoteError("a complete subtree begins at a multiple of its size")
        if subtree.first < end:
            raise MalformedNoteError("the subtrees of a cover are in order and do not overlap")
        end = subtree.first + (1 << subtree.height)
        subtrees.append(subtree)
    return subtrees


def _parts(text: str) -> tuple[list[str], str]:
    head, separator, note = text.partition("\n\n")
    if not separator:
        raise MalformedNoteError("a proof ends with an empty line and a checkpoint")
    return head.split("\n"), note


def _lines(hashes: Proof) -> str:
    return "".join(f"{encode_base64(value)}\n" for value in hashes)


def _hashes(lines: list[str]) -> Proof:
    if len(lines) > _MAX_HASHES:
        raise MalformedNoteError(f"a proof has at most {_MAX_HASHES} hashes")
    return tuple(map(hash_of, lines))
