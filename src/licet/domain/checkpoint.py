"""Checkpoints (c2sp.org/tlog-checkpoint): a signed statement of the log's root at a size."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from licet.domain.merkle import HASH_BYTES
from licet.domain.signed_note import (
    MalformedNoteError,
    SignedNote,
    Signer,
    UnverifiedNoteError,
    VerifierKey,
    Verify,
    decode_base64,
    encode_base64,
    is_key_name,
    signed,
    signed_note,
    verify,
)

MAX_SIZE: Final = (1 << 63) - 1
_BODY_LINES: Final = 3
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Checkpoint(NamedTuple):
    """The root of the log's tree at a size.

    Attributes:
        origin: which log it is; also the name that its key signs under.
        size: how many leaves the tree has.
        root: its root hash.
        extensions: further lines; licet writes none.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the text that is signed."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def checkpoint(body: str) -> Checkpoint:
    """Read the text of a checkpoint, without signatures.

    Raises:
        MalformedNoteError: it is no checkpoint.
    """
    *lines, end = body.split("\n")
    if end or len(lines) < _BODY_LINES or "" in lines:
        raise MalformedNoteError("a checkpoint is three lines or more, none of them empty")
    origin, size, root, *extensions = lines
    return Checkpoint(origin, decimal(size), hash_of(root), tuple(extensions))


def sign_checkpoint(statement: Checkpoint, signer: Signer) -> SignedNote:
    """Sign a checkpoint.

    Whoever calls has proved that it is consistent with all that the key ever signed.

    Raises:
        MalformedNoteError: it is not well formed, or the key signs for another origin.
    """
    body = statement.text()
    if checkpoint(body) != statement or not is_key_name(statement.origin):
        raise MalformedNoteError(
            "a checkpoint has an origin without white space, and no empty line"
        )
    if signer.key.name != statement.origin:
        raise MalformedNoteError("a checkpoint is signed by the key of its origin")
    return signed(body, signer)


def open_checkpoint(note: str, key: VerifierKey, verify_signature: Verify) -> Checkpoint:
    """Return the checkpoint of a note that this key signed.

    Raises:
        MalformedNoteError: it is no checkpoint.
        UnverifiedNoteError: the key did not sign it, or it is another log's.
    """
    found = signed_note(note)
    verify(found, [key], verify_signature)
    statement = checkpoint(found.body)
    if statement.origin != key.name:
        raise UnverifiedNoteError(f"the checkpoint is one of {statement.origin}, not {key.name}")
    return statement


def decimal(text: str) -> int:
    """Read a number below 2 ** 63, without sign and leading zero.

    Raises:
        MalformedNoteError: it is none.
    """
    if _DECIMAL.fullmatch(text) is None or int(text) > MAX_SIZE:
        raise MalformedNoteError("a size or index is a decimal below 2 ** 63, no zero in front")
    return int(text)


def hash_of(text: str) -> bytes:
    """Read the base64 of a hash.

    Raises:
        MalformedNoteError: it is none.
    """
    value = decode_base64(text)
    if len(value) != HASH_BYTES:
        raise MalformedNoteError(f"a hash has {HASH_BYTES} bytes, not {len(value)}")
    return value
