"""The file that is imported: read from end to end first, and then record by record."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import tzinfo
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from licet.cli.errors import CommandError
from licet.cli.importing import lines
from licet.cli.importing.lines import Line, MalformedError, Parsed
from licet.cli.importing.records import Record, read
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant


class Place(NamedTuple):
    """Where a record is: its line's number, and the offset of that in the file."""

    number: int
    offset: int


class Read(NamedTuple):
    """A record and where it is."""

    place: Place
    parsed: Parsed
    record: Record


class SourceFile:
    """An open file of records, which must not change until it is closed."""

    def __init__(self, path: Path, zone: tzinfo | None, now: Instant) -> None:
        """Open it.

        Args:
            path: where it is.
            zone: of instants that have no offset.
            now: before which everything in it happened.

        Raises:
            CommandError: it is no file that can be read twice.
        """
        self._path = path
        self._zone = zone
        self.now = now
        try:
            self._file = path.open("rb")
        except OSError as exc:
            raise CommandError(f"cannot read {path}: {exc.strerror}") from None
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            self._file.close()
            raise CommandError(f"{path} must be a file: it is read twice")
        self.size = status.st_size
        self._modified = status.st_mtime_ns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def lines(self) -> Iterator[Line]:
        """Yield its lines, once. Raises CommandError."""
        try:
            yield from lines.lines(self._file)
        except OSError as exc:
            raise CommandError(f"cannot read {self._path}: {exc.strerror}") from None

    def record(self, parsed: Parsed) -> Record:
        """Check a record on its own. Raises InvalidRequestError."""
        return read(parsed.fields, self._zone, self.now)

    def again(self, place: Place) -> Read:
        """Return a record that was read before, and was valid on its own.

        Raises:
            CommandError: it is not there any more.
        """
        parsed = self.parsed(place)
        try:
            return Read(place, parsed, self.record(parsed))
        except InvalidRequestError:
            raise self.changed() from None

    def parsed(self, place: Place) -> Parsed:
        """Return a record that was read before, valid or not.

        Raises:
            CommandError: it is not there any more.
        """
        try:
            return lines.parse(lines.line_at(self._file, place.offset, place.number))
        except OSError as exc:
            raise CommandError(f"cannot read {self._path}: {exc.strerror}") from None
        except MalformedError:
            raise self.changed() from None

    def check(self) -> None:
        """Check that it is as it was when it was opened. Raises CommandError."""
        status = os.fstat(self._file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.size, self._modified):
            raise self.changed()

    def changed(self) -> CommandError:
        """Return the error of a file that is not as it was."""
        return CommandError(f"{self._path} was changed while it was imported: import it again")
