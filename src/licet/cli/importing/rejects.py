"""The file of the records that were not imported, each with why: to be mended and imported again.

A line of it is made so that nothing of the record is lost: what was a JSON object stands there as
it was; all else as text. The file is made with the first of them, and replaces no other: someone
may be mending that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Final, Self

from licet.cli.errors import CommandError
from licet.cli.importing.lines import Parsed
from licet.domain.errors import Violation

_MOST: Final = 10_000


class RejectFile:
    """Writes rejected records; may be used from several threads."""

    def __init__(self, path: Path, *, is_chosen: bool) -> None:
        """Write to a path; if nobody chose it and it is there, to the next one that is free."""
        self._wanted = path
        self._is_chosen = is_chosen
        self._lock = Lock()  # of what follows
        self._file: BinaryIO | None = None
        self.path: Path | None = None
        """Where it is; None: nothing was rejected so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def check(self) -> None:
        """Check, before anything is done, that the path that was chosen is free.

        Raises:
            CommandError: it is not.
        """
        if self._is_chosen and os.path.lexists(self._wanted):
            raise CommandError(f"--rejects {self._wanted}: there is such a file, which is kept")

    def record(self, line: int, reasons: Iterable[Violation], record: Parsed) -> None:
        """Write down a record that breaks rules. Raises CommandError."""
        references: dict[str, dict[str, str]] = {}
        for (kind, key), name in record.references.items():
            references.setdefault(kind, {})[key] = name
        self._write(line, reasons, "record", record.text, references)

    def text(self, line: int, rule: str, text: str) -> None:
        """Write down a line that is no record. Raises CommandError."""
        self._write(line, [Violation("", rule)], "text", json.dumps(text), {})

    def _write(
        self,
        line: int,
        reasons: Iterable[Violation],
        key: str,
        value: str,
        references: Mapping[str, Mapping[str, str]],
    ) -> None:
        why = json.dumps([{"field": reason.field, "rule": reason.rule} for reason in reasons])
        known = f', "references": {json.dumps(references)}' if references else ""
        written = f'{{"line": {line}, "reasons": {why}{known}, "{key}": {value}}}\n'
        with self._lock:
            try:
                file = self._file or self._opened()
                file.write(written.encode())
                file.flush()
            except OSError as exc:
                raise CommandError(f"cannot write {self.path or self._wanted}: {exc}") from exc

    def _opened(self) -> BinaryIO:
        """Make the file, for its owner only: records hold what concerns people."""
        for number in count(1):
            path = self._wanted
            if number > 1:
                path = path.with_name(f"{path.name}.{number}")
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                if self._is_chosen or number == _MOST:
                    raise
                continue
            self.path, self._file = path, os.fdopen(descriptor, "wb")
            break
        if self._file is None:
            raise AssertionError  # the numbers never end
        return self._file
