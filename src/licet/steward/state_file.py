"""What was signed last, kept outside the database.

A database that was restored does not know that it was. This file does: nothing is signed that is
not consistent with it, so that two histories are never signed by one key.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final, NamedTuple

_MODE: Final = 0o600
_POLL_SECONDS: Final = 0.02


class StateFileError(Exception):
    """The file cannot be read or written; the message says why."""


class StateBusyError(StateFileError):
    """Another process of this host holds the file."""


class DamagedStateError(StateFileError):
    """The file can be read, and does not hold what was signed last."""


class Signed(NamedTuple):
    """The checkpoint that was signed last, or is about to be."""

    origin: str
    size: int
    root: bytes


class StateFile:
    """One file, replaced whole.

    Whoever decides by what is in it holds it from before it is read until it is written.
    """

    def __init__(self, path: Path) -> None:
        """Use this path; its folder must exist."""
        self.path = path

    @contextmanager
    def held(self, seconds: float = 0.0) -> Iterator[None]:
        """Keep every other thread and process of this host from holding it.

        Raises:
            StateBusyError: another one held it for so many seconds.
            StateFileError: it cannot be held.
        """
        lock = self.path.with_name(f".{self.path.name}.lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        except OSError as exc:
            raise StateFileError(f"cannot write {lock}: {exc.strerror}") from exc
        try:
            self._lock(descriptor, monotonic() + seconds)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> Signed | None:
        """Return what was signed last, or None when there is no file.

        Raises:
            DamagedStateError: it holds something else.
            StateFileError: it cannot be read.
        """
        facts = self._facts()
        if facts is None:
            return None
        try:
            return _signed(facts)
        except (ValueError, KeyError, TypeError) as exc:
            raise DamagedStateError(f"{self.path} does not hold what was signed last") from exc

    def begun(self) -> Signed | None:
        """Return the first checkpoint of an epoch that was begun and not finished.

        Whether its transaction was committed only the database knows. None when there is none, or
        nothing can be read of it.
        """
        try:
            facts = self._facts()
            return None if facts is None else _signed(facts["begun"])
        except (StateFileError, ValueError, KeyError, TypeError):
            return None

    def write(self, signed: Signed) -> None:
        """Replace what was signed last by what that grew into; when this returns, it is on disk.

        Raises:
            StateFileError: it is as it was, or holds the new state; or this would go back.
        """
        last = self.read()
        if last is not None and (
            last.origin != signed.origin
            or last.size > signed.size
            or (last.size == signed.size and last.root != signed.root)
        ):
            raise StateFileError(f"{self.path} never goes back: it is at {last.size} leaves")
        begun = self.begun()
        self._replace(_facts(signed) | ({} if begun is None else {"begun": _facts(begun)}))

    def begin(self, first: Signed) -> None:
        """Note that an epoch is about to begin; what was signed last stays what it is.

        Raises:
            StateFileError: it is as it was, or the note is there.
        """
        try:
            last = self.read()
        except DamagedStateError:
            last = None
        self._replace(({} if last is None else _facts(last)) | {"begun": _facts(first)})

    def finish(self, first: Signed) -> None:
        """Let the epoch that was begun be what was signed last.

        Raises:
            StateFileError: it is as it was, or holds the new state.
        """
        self._replace(_facts(first))

    def _lock(self, descriptor: int, end: float) -> None:
        pausing = Event()  # never set: a bounded wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() >= end:
                    raise StateBusyError(f"another process holds {self.path}") from None
            except OSError as exc:
                raise StateFileError(f"cannot lock {self.path}: {exc.strerror}") from exc
            else:
                return
            pausing.wait(_POLL_SECONDS)

    def _facts(self) -> Mapping[str, object] | None:
        try:
            facts = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StateFileError(f"cannot read {self.path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise DamagedStateError(f"{self.path} does not hold what was signed last") from exc
        if not isinstance(facts, dict):
            raise DamagedStateError(f"{self.path} does not hold what was signed last")
        return facts

    def _replace(self, facts: Mapping[str, object]) -> None:
        fresh = self.path.with_name(f".{self.path.name}.new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{json.dumps(facts, indent=2)}\n")
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


def _signed(facts: object) -> Signed:
    if not isinstance(facts, dict):
        raise TypeError
    origin, size, root = facts["origin"], facts["size"], bytes.fromhex(facts["root"])
    if not isinstance(origin, str) or type(size) is not int or size < 0 or len(root) != 32:  # noqa: PLR2004 - SHA-256
        raise ValueError
    return Signed(origin, size, root)


def _facts(signed: Signed) -> dict[str, object]:
    return {"origin": signed.origin, "size": signed.size, "root": signed.root.hex()}
