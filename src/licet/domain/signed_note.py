"""Signed notes (c2sp.org/signed-note): text with lines of signatures, and the text of keys.

Only Ed25519, signature type 0x01, is signed and verified here; signatures of other keys and types
are kept as they are. The mathematics is brought by whoever calls: `steward.signing`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple, Protocol, TypeAlias

ED25519: Final = 0x01
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
MAX_SIGNATURES: Final = 100

_SIGNATURE_START: Final = "\u2014 "
_PRIVATE_START: Final = "PRIVATE+KEY+"

Verify: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""Tells of `(public key, message, signature)` whether the signature is that key's."""


class MalformedNoteError(ValueError):
    """The text is no note, key, checkpoint or proof; the message says which rule it breaks."""


class UnverifiedNoteError(ValueError):
    """The note is well formed, and no proof of anything: do not read its text."""


class VerifierKey(NamedTuple):
    """A public key and the name it signs under."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that signatures name the key by; a hint and no proof."""
        return key_id(self.name, ED25519, self.public_key)

    def text(self) -> str:
        """Return the key as text, which `verifier_key` reads."""
        return _key_text(self.name, self.key_id, self.public_key)


class NoteSignature(NamedTuple):
    """One line of a note. `signature` is what follows the key's id."""

    name: str
    key_id: bytes
    signature: bytes


class SignedNote(NamedTuple):
    """A text, and its signatures.

    Attributes:
        body: what is signed; it ends with a newline.
        signatures: one a line, known or not.
    """

    body: str
    signatures: tuple[NoteSignature, ...]

    def text(self) -> str:
        """Return the note as text, which `signed_note` reads."""
        lines = [
            f"{_SIGNATURE_START}{s.name} {encode_base64(s.key_id + s.signature)}\n"
            for s in self.signatures
        ]
        return "\n".join((self.body, "".join(lines)))


class Signer(Protocol):
    """A private key."""

    @property
    def key(self) -> VerifierKey:
        """Its public side."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature."""
        ...


def key_id(name: str, signature_type: int, public_key: bytes) -> bytes:
    """Return the id of a key."""
    return sha256(b"%b\n%c%b" % (name.encode(), signature_type, public_key)).digest()[:KEY_ID_BYTES]


def verifier_key(text: str) -> VerifierKey:
    """Read a public key: `name+id+base64`, as `golang.org/x/mod/sumdb/note` writes it.

    Raises:
        MalformedNoteError: it is no Ed25519 key, or the id is another key's.
    """
    name, identifier, public_key = _read_key(text)
    key = VerifierKey(name, public_key)
    if key.key_id != identifier:
        raise MalformedNoteError("the key's id does not belong to it")
    return key


def private_key_text(key: VerifierKey, seed: bytes) -> str:
    """Return the text of a private key, a secret; `seed` is its 32 bytes of RFC 8032."""
    return _PRIVATE_START + _key_text(key.name, key.key_id, seed)


def private_key(text: str) -> tuple[str, bytes, bytes]:
    """Read the text of a private key: its name, its id and its seed.

    The id is that of the public key: whoever derives it has to compare.

    Raises:
        MalformedNoteError: it is no Ed25519 key. The message holds nothing of the text.
    """
    if not text.startswith(_PRIVATE_START):
        raise MalformedNoteError("a private key begins with PRIVATE+KEY+")
    return _read_key(text.removeprefix(_PRIVATE_START))


def signed(text: str, signer: Signer) -> SignedNote:
    """Sign a text."""
    _check_characters(text)
    if not text.endswith("\n"):
        raise MalformedNoteError("a note's text ends with a newline")
    key = signer.key
    return SignedNote(text, (NoteSignature(key.name, key.key_id, signer.sign(text.encode())),))


def signed_note(text: str) -> SignedNote:
    """Take a note apart. Nothing is verified.

    Raises:
        MalformedNoteError: it is no signed note.
    """
    _check_characters(text)
    body, separator, lines = text.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise MalformedNoteError("a note is text, an empty line, and lines of signatures")
    signatures = lines.removesuffix("\n").split("\n")
    if len(signatures) > MAX_SIGNATURES:
        raise MalformedNoteError(f"a note has at most {MAX_SIGNATURES} signatures")
    return SignedNote(f"{body}\n", tuple(map(_signature, signatures)))


def verify(note: SignedNote, keys: Sequence[VerifierKey], verify: Verify) -> None:
    """Check that one of the keys signed the note, and that none of theirs is forged.

    Raises:
        UnverifiedNoteError: no signature is by one of the keys, or one that says so is not.
    """
    known = {(key.name, key.key_id): key.public_key for key in keys}
    message = note.body.encode()
    verified = 0
    for name, identifier, signature in note.signatures:
        public_key = known.get((name, identifier))
        if public_key is None:
            continue
        if not verify(public_key, message, signature):
            raise UnverifiedNoteError(f"the signature of {name} is not valid")
        verified += 1
    if not verified:
        raise UnverifiedNoteError("no signature is by a known key")


def encode_base64(data: bytes) -> str:
    """Return standard base64 (RFC 4648, section 4)."""
    return b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Read standard base64 in its one right spelling.

    Raises:
        MalformedNoteError: it is another spelling, or no base64.
    """
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedNoteError("is no base64") from None
    if encode_base64(data) != text:
        raise MalformedNoteError("is no canonical base64")
    return data


def is_key_name(name: str) -> bool:
    """Tell whether a key may have this name: no white space, no plus, no control character."""
    return (
        name != ""
        and "+" not in name
        and not any(character.isspace() or character < " " for character in name)
    )


def _signature(line: str) -> NoteSignature:
    name, separator, encoded = line.removeprefix(_SIGNATURE_START).partition(" ")
    if not line.startswith(_SIGNATURE_START) or not separator or not is_key_name(name):
        raise MalformedNoteError("a line of a signature is an em dash, the key's name and base64")
    data = decode_base64(encoded)
    if len(data) <= KEY_ID_BYTES:
        raise MalformedNoteError("a signature is the key's id and then the signature itself")
    return NoteSignature(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def _check_characters(text: str) -> None:
    if any(character < " " and character != "\n" for character in text):
        raise MalformedNoteError("a note has no control character but the newline")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MalformedNoteError("a note is valid UTF-8") from None


def _key_text(name: str, identifier: bytes, key: bytes) -> str:
    return f"{name}+{identifier.hex()}+{encode_base64(bytes([ED25519]) + key)}"


def _read_key(text: str) -> tuple[str, bytes, bytes]:
    name, _, rest = text.strip("\n").partition("+")
    identifier, _, encoded = rest.partition("+")
    if not is_key_name(name):
        raise MalformedNoteError("a key has a name without white space and plus")
    try:
        digits = bytes.fromhex(identifier)
        key = decode_base64(encoded)
    except ValueError:
        raise MalformedNoteError("a key is name+id+base64") from None
    if len(digits) != KEY_ID_BYTES or digits.hex() != identifier.lower():
        raise MalformedNoteError("a key's id has eight hexadecimal digits")
    if len(key) != 1 + KEY_BYTES or key[0] != ED25519:
        raise MalformedNoteError("only Ed25519 keys, of 32 bytes, are supported")
    return name, digits, key[1:]
