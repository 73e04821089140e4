"""Files that are replaced while the server runs, and read again without a restart.

They are read each second and compared, not watched: that works on every file system, and however
they are replaced, by a symbolic link too (as Kubernetes does it). What is new counts when it was
the same in two looks, so that of a pair that is written one after the other no half is taken. What
cannot be used is said once and counted, and what was there before stays in use.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

_log: Final = logging.getLogger(__name__)

_MAX_BYTES: Final = 1024 * 1024
# The group may read: a volume of Kubernetes belongs to root and to the group of the process.
_TOO_OPEN: Final = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP

Contents: TypeAlias = tuple[bytes, ...]
"""Of the files that belong together, in a fixed order."""
_T = TypeVar("_T")


class FileRefusedError(Exception):
    """A file cannot be used; the message names its setting and says why, and holds no secret."""


def read_file(setting: str, path: Path, *, is_secret: bool = False) -> bytes:
    """Read a file whole.

    Args:
        setting: what named it.
        path: where it is.
        is_secret: others may not read it, and its group at most that.

    Raises:
        FileRefusedError: it cannot be read, is too long, or is open to others.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise FileRefusedError(f"{setting}: cannot read {path}: {exc.strerror}") from exc
    if is_secret and mode & _TOO_OPEN:
        raise FileRefusedError(
            f"{setting}: {path} has mode {mode:04o}: others must not read it,"
            " like with 0600, or 0640 for a group"
        )
    if len(content) > _MAX_BYTES:
        raise FileRefusedError(f"{setting}: {path} is longer than 1 MiB")
    return content


class Followed(Generic[_T]):
    """What is made of some files, always of the latest that could be used."""

    def __init__(
        self, what: str, read: Callable[[], Contents], parse: Callable[[Contents], _T]
    ) -> None:
        """Read the files for the first time.

        Args:
            what: their name in the log.
            read: reads them; raises FileRefusedError.
            parse: makes something of what they hold; raises FileRefusedError.

        Raises:
            FileRefusedError: they cannot be used.
        """
        self._what = what
        self._read = read
        self._parse = parse
        # The rest is written by the one thread that looks, and read by any.
        self._loaded: Contents = read()
        self.current: _T = parse(self._loaded)
        self.failures = 0
        """How often what was new could not be used."""
        self._seen: Contents | str = self._loaded
        self._refused: Contents | str | None = None

    def look(self) -> None:
        """Take what is new, if anything is and can be used."""
        found = self._found()
        has_settled = found == self._seen
        self._seen = found
        if found == self._loaded:
            self._refused = None
        elif has_settled:
            self._take(found)

    def _found(self) -> Contents | str:
        try:
            return self._read()
        except FileRefusedError as exc:
            return str(exc)

    def _take(self, found: Contents | str) -> None:
        if isinstance(found, str):
            self._refuse(found, found)
            return
        try:
            # Also what was refused a second ago: it may have become valid since.
            self.current = self._parse(found)
        except FileRefusedError as exc:
            self._refuse(found, str(exc))
        else:
            self._loaded, self._refused = found, None
            _log.info("the new %s is in use", self._what)

    def _refuse(self, found: Contents | str, why: str) -> None:
        if found != self._refused:
            self._refused = found
            self.failures += 1
            _log.error("the new %s cannot be used, the former stays: %s", self._what, why)
