"""Ed25519, and the files that its private keys are kept in.

A key file holds one line, `PRIVATE+KEY+name+id+base64`, as `golang.org/x/mod/sumdb/note` writes it.
Nobody but its owner may read it: a key that others can read is refused, not warned about.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from licet.domain.signed_note import (
    MalformedNoteError,
    VerifierKey,
    is_key_name,
    private_key,
    private_key_text,
)

_MAX_FILE_BYTES: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class KeyFileError(Exception):
    """A key file cannot be used; the message says why, and holds nothing of the key."""


class Ed25519Signer:
    """See `signed_note.Signer`."""

    def __init__(self, name: str, seed: bytes) -> None:
        """Take the name to sign under and the 32 secret bytes."""
        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._key = VerifierKey(name, self._private.public_key().public_bytes_raw())

    def named(self, name: str) -> Ed25519Signer:
        """Return the same key under another name: an epoch's log signs under its own origin."""
        return Ed25519Signer(name, self._seed)

    @property
    def key(self) -> VerifierKey:
        """See `signed_note.Signer.key`."""
        return self._key

    def sign(self, message: bytes) -> bytes:
        """See `signed_note.Signer.sign`."""
        return self._private.sign(message)


def verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """See `signed_note.Verify`."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def create_key_file(path: Path, name: str) -> VerifierKey:
    """Write a new private key to a new file of mode 0600, and return its public side.

    Raises:
        KeyFileError: the name is none for a key, or the file exists or cannot be written. A key
            that was there is as it was.
    """
    if not is_key_name(name):
        raise KeyFileError("a key's name is not empty and has no white space and no plus")
    seed = Ed25519PrivateKey.generate().private_bytes_raw()
    key = Ed25519Signer(name, seed).key
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{private_key_text(key, seed)}\n")
            file.flush()
            os.fsync(descriptor)
        _sync_folder(path.parent)
    except OSError as error:
        raise KeyFileError(f"cannot write the key file {path}: {error.strerror}") from error
    return key


def read_key_file(path: Path) -> Ed25519Signer:
    """Read a private key.

    Raises:
        KeyFileError: it cannot be read, others than its owner may read it, or it is no key.
    """
    try:
        with path.open("rb") as file:
            # Of the open file, so that no other can take its place after the look at it.
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeyFileError(f"the key file {path} is no regular file")
            if status.st_mode & _OTHERS:
                mode = f"{stat.S_IMODE(status.st_mode):04o}"
                raise KeyFileError(f"the key file {path} has mode {mode}: only 0600 or stricter")
            if status.st_uid not in {os.geteuid(), 0}:
                raise KeyFileError(f"the key file {path} belongs to another user")
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}") from error
    return _signer(path, content)


def _signer(path: Path, content: bytes) -> Ed25519Signer:
    try:
        name, key_id, seed = private_key(content.decode())
    except (MalformedNoteError, UnicodeDecodeError):
        raise KeyFileError(f"the key file {path} holds no Ed25519 private key") from None
    signer = Ed25519Signer(name, seed)
    if signer.key.key_id != key_id:
        raise KeyFileError(f"the key file {path} is damaged: the id is another key's")
    return signer


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
