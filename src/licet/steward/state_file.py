"""What was signed last, kept outside the database.

A database that was restored does not know that it was. This file does: nothing is signed that is
not consistent with it, so that two histories are never signed by one key.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, NamedTuple

_MODE: Final = 0o600


class StateFileError(Exception):
    """The file cannot be read or written; the message says why."""


class Signed(NamedTuple):
    """The checkpoint that was signed last, or is about to be."""

    origin: str
    size: int
    root: bytes


class StateFile:
    """One file, replaced whole."""

    def __init__(self, path: Path) -> None:
        """Use this path; its folder must exist."""
        self.path = path

    def read(self) -> Signed | None:
        """Return what was signed last, or None when there is no file.

        Raises:
            StateFileError: it cannot be read, or holds something else.
        """
        try:
            facts = json.loads(self.path.read_text(encoding="utf-8"))
            return Signed(str(facts["origin"]), int(facts["size"]), bytes.fromhex(facts["root"]))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StateFileError(f"cannot read {self.path}: {exc.strerror}") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise StateFileError(f"{self.path} does not hold what was signed last") from exc

    def write(self, signed: Signed) -> None:
        """Replace it; when this returns, it is on disk.

        Raises:
            StateFileError: it is as it was, or holds the new state.
        """
        text = json.dumps(
            {"origin": signed.origin, "size": signed.size, "root": signed.root.hex()}, indent=2
        )
        fresh = self.path.with_name(f".{self.path.name}.new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{text}\n")
                file.flush()
                os.fsync(descriptor)
            fresh.rename(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            raise StateFileError(f"cannot write {self.path}: {exc.strerror}") from exc
