"""The folder of one writer, and who may use it.

    ROOT/<writer id, 12 hex digits>/     mode 0700, held by flock for the life of its owner
        00000001-<salt>.segment          mode 0600; see `segment.py`
        settled                          since when all of it is stored, sealed and signed

The kernel lets go of the lock when the owner dies, however it dies. Then one other process adopts
the folder, ships what is left, and in time removes it. A folder is locked before it gets its name:
nobody can adopt one whose owner has just made it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from licet.domain.errors import UnavailableError
from licet.spool.segment import HEADER_BYTES, Header, SegmentName, parse_header, parse_name
from licet.spool.system import SYSTEM, System

_log: Final = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[0-9a-f]{12}", re.ASCII)
_UNNAMED: Final = re.compile(r"\.[0-9a-f]{12}-[0-9a-f]{8}\.new", re.ASCII)
_ATTEMPTS: Final = 5
_SETTLED: Final = "settled"
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SpoolFolder:
    """A folder that this process holds exclusively."""

    def __init__(self, path: Path, writer_id: int, descriptor: int, system: System) -> None:
        """Own a locked folder; made by `create` and `adopt`."""
        self.path = path
        self.writer_id = writer_id
        self.descriptor = descriptor
        self.system = system

    @classmethod
    def create(cls, root: Path, writer_id: int, system: System = SYSTEM) -> Self:
        """Make the folder of a new writer, whose id nobody has used before.

        Raises:
            UnavailableError: it cannot be made, or is there already.
        """
        path = root / f"{writer_id:012x}"
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                raise UnavailableError(f"the spool {path} is there already")
            descriptor = _locked_new(path)
            try:
                _sync(root, system)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as exc:
            raise UnavailableError(f"cannot make the spool {path}: {exc.strerror}") from exc
        return cls(path, writer_id, descriptor, system)

    @classmethod
    def adopt(cls, root: Path, system: System = SYSTEM) -> Self | None:
        """Take over one folder whose owner is dead, or return None when there is none.

        What was being made or removed by somebody who died is tidied up on the way.

        Raises:
            UnavailableError: the root cannot be read.
        """
        try:
            paths = sorted(root.iterdir())
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise UnavailableError(f"cannot read the spools in {root}: {exc.strerror}") from exc
        for path in paths:
            if _UNNAMED.fullmatch(path.name):
                _tidy(path)
            elif _NAME.fullmatch(path.name) and (descriptor := _locked(path)) is not None:
                return cls(path, int(path.name, 16), descriptor, system)
        return None

    def segments(self) -> list[SegmentName]:
        """Return the segments in order, those not in use yet as well. Raises OSError."""
        return sorted(filter(None, map(parse_name, self._names())))

    def open(self, name: SegmentName) -> int:
        """Open a segment to read. Raises OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(str(name), flags, dir_fd=self.descriptor)

    def header(self, name: SegmentName) -> Header:
        """Return what is left of a segment's header. Raises OSError, and as `parse_header`."""
        descriptor = self.open(name)
        try:
            page = os.pread(descriptor, HEADER_BYTES, 0)
        finally:
            os.close(descriptor)
        return parse_header(page, name.seed(self.writer_id))

    def bytes(self) -> int:
        """Return what all the files take. Raises OSError."""
        total = 0
        for name in self._names():
            with suppress(FileNotFoundError):  # deleted in between
                total += os.stat(name, dir_fd=self.descriptor, follow_symlinks=False).st_size
        return total

    def discard(self, through: int) -> int:
        """Delete the segments whose events all have sequences up to `through`; return how many.

        Those before one that begins no later than right behind `through`: the last in use never is
        deleted. From the oldest on, so that what is left has no gap whenever this ends. Only what
        the reader has passed may go.

        Raises:
            UnavailableError: not all could be deleted; to be asked again.
        """
        try:
            names = self.segments()
            keep = len(names) - 1
            while keep > 0:
                first = self.header(names[keep]).first
                if first is not None and first <= through + 1:
                    break
                keep -= 1
            for name in names[: max(keep, 0)]:
                self.system.unlink(str(name), self.descriptor)
        except OSError as exc:
            message = f"cannot delete what is shipped of the spool {self.path}: {exc.strerror}"
            raise UnavailableError(message) from exc
        return max(keep, 0)

    def is_settled(self) -> bool:
        """Say whether all of it was once found stored, sealed and signed."""
        return _SETTLED in self._names()

    def settled_seconds(self) -> float:
        """Return since when all of it is stored, sealed and signed: since the first call.

        Raises:
            UnavailableError: the disk does not keep that.
        """
        flags = os.O_CREAT | os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            marker = os.open(_SETTLED, flags, 0o600, dir_fd=self.descriptor)
            try:
                since = os.fstat(marker).st_mtime
            finally:
                os.close(marker)
        except OSError as exc:
            raise UnavailableError(f"cannot mark the spool {self.path}: {exc.strerror}") from exc
        return max(time.time() - since, 0.0)

    def unsettle(self) -> None:
        """Take that back: something of it has been stored since."""
        with suppress(OSError):
            os.unlink(_SETTLED, dir_fd=self.descriptor)

    def remove(self) -> None:
        """Delete it with all that is in it, and let go.

        Everything in it must be shipped.

        Raises:
            UnavailableError: it could not be deleted, and is still held; to be asked again.
        """
        try:
            with suppress(FileNotFoundError):  # an earlier attempt did more than it knew
                for name in sorted(self._names()):
                    self.system.unlink(name, self.descriptor)
                self.path.rmdir()
            _sync(self.path.parent, self.system)
        except OSError as exc:
            message = f"cannot remove the spool {self.path}: {exc.strerror}"
            raise UnavailableError(message) from exc
        self.close()

    def close(self) -> None:
        """Let go; another process may adopt it now."""
        os.close(self.descriptor)

    def _names(self) -> list[str]:
        # Opened anew: two threads that list one open folder share its position, and miss names.
        descriptor = os.open(".", _OPEN, dir_fd=self.descriptor)
        try:
            return os.listdir(descriptor)  # noqa: PTH208 - a pathlib.Path knows no descriptors
        finally:
            os.close(descriptor)


def _locked_new(path: Path) -> int:
    for _ in range(_ATTEMPTS):
        draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}.new")
        draft.mkdir(mode=0o700)
        # Another process may tidy it up until it is locked.
        descriptor = _locked(draft)
        if descriptor is None:
            continue
        try:
            draft.rename(path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    raise UnavailableError(f"cannot make the spool {path}: another process is in the way")


def _locked(path: Path) -> int | None:
    """Lock a folder; None when another process has it, or it is gone."""
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        return None
    except OSError as exc:
        _log.warning("%s is no spool of ours: %s", path, exc.strerror)
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What was opened may have been removed, by whoever held the lock, before it was locked.
        if os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _tidy(draft: Path) -> None:
    """Remove a folder that its maker did not live to name; there is nothing in it."""
    descriptor = _locked(draft)
    if descriptor is not None:
        with suppress(OSError):
            draft.rmdir()
        os.close(descriptor)


def _sync(path: Path, system: System) -> None:
    descriptor = os.open(path, _OPEN)
    try:
        system.sync_folder(descriptor)
    finally:
        os.close(descriptor)
