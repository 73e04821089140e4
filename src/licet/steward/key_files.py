"""Secrets in files: 32 bytes as hexadecimal text, for their owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from licet.steward.signing import KeyFileError

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def create_secret(path: Path, size: int) -> None:
    """Write a new secret of so many bytes to a new file of mode 0600.

    Raises:
        KeyFileError: the file exists or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_hex(size)}\n")
            file.flush()
            os.fsync(descriptor)
    except OSError as exc:
        raise KeyFileError(f"cannot write the key file {path}: {exc.strerror}") from exc


def read_secret(path: Path, size: int) -> bytes:
    """Read a secret of so many bytes.

    Raises:
        KeyFileError: it cannot be read, others than its owner may read it, or it is none.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4 * size)
    except OSError as exc:
        raise KeyFileError(f"cannot read the key file {path}: {exc.strerror}") from exc
    if mode & _OTHERS:
        permissions = f"{stat.S_IMODE(mode):04o}"
        raise KeyFileError(f"the key file {path} has mode {permissions}: only 0600 or stricter")
    try:
        secret = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != size:
        raise KeyFileError(f"the key file {path} does not hold {size} bytes as hexadecimal text")
    return secret
