"""The file of the credentials that an import makes: each text once, for its owner's eyes only.

A file that is there is gone on with, never replaced. Each run writes a line about itself first, and
each credential has the run in its name: so it can be told later whether a credential's text should
be in this file, and got lost with an answer.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from uuid import uuid4

from licet.cli.errors import CommandError

_RUN: Final = re.compile(r"[0-9a-f]{8}")


class KeysFile:
    """An open file of credentials. Not for several threads at once."""

    def __init__(self, path: Path, source: str) -> None:
        """Open it, or make it, and write that a run begins.

        Raises:
            CommandError: it is no file of this kind, or others can read it.
        """
        self._path = path
        self.run = uuid4().hex[:8]
        """Names this run."""
        self._runs: set[str] = set()
        self._ids: set[str] = set()
        self._file = self._opened()
        try:
            self._read()
            self._write({"import": source, "run": self.run})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def is_of(self, run: str) -> bool:
        """Say whether what a run made is in this file."""
        return run in self._runs

    def holds(self, key_id: str) -> bool:
        """Say whether the text of a credential is in this file."""
        return key_id in self._ids

    def add(self, key_id: str, text: str, **about: Any) -> None:  # noqa: ANN401 - any JSON
        """Write down a credential; it is on the disk when this returns. Raises CommandError."""
        self._write({**about, "key_id": key_id, "key": text})
        self._ids.add(key_id)

    def _opened(self) -> BinaryIO:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as exc:
            raise CommandError(f"--keys-file {self._path}: {exc.strerror}") from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            os.close(descriptor)
            raise CommandError(f"--keys-file {self._path} must be a file that only you can read")
        return os.fdopen(descriptor, "r+b", buffering=0)

    def _read(self) -> None:
        lines = self._file.read().split(b"\n")
        for line in lines[:-1]:
            self._take(line)
        if lines[-1]:
            # A run was killed while it wrote this: without its end nothing here is a key's text.
            self._append(b"\n")

    def _take(self, line: bytes) -> None:
        if not line:
            return
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        match found:
            case {"import": str(), "run": str() as run} if _RUN.fullmatch(run):
                self._runs.add(run)
            case {"key_id": str() as key_id, "key": str()}:
                self._ids.add(key_id)
            case _ if self._runs:
                return  # torn
            case _:
                raise CommandError(f"--keys-file {self._path} holds something else: name another")

    def _write(self, about: dict[str, Any]) -> None:
        self._append(json.dumps(about).encode() + b"\n")

    def _append(self, data: bytes) -> None:
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as exc:
            raise CommandError(f"cannot write {self._path}: {exc.strerror}") from exc
