"""The folder of archives: a file is in it under its name when it is whole, verified and on disk.

The name ends with the beginning of the file's SHA-256, so that no file ever takes another one's
place, and to write the same leaves again is to write the same file.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import file_digest
from pathlib import Path
from typing import BinaryIO, Final

from licet.app.archiving import Archive, ArchiveRefusedError
from licet.domain.archive import ArchiveError, Segment, read_archive, write_archive
from licet.domain.merkle import leaf_hashes

SUFFIX: Final = ".archive"
_UNFINISHED: Final = ".unfinished"
_NAME_DIGITS: Final = 16
_FOLDER_MODE: Final = 0o700

StoredHashes = Callable[[int, int], bytes]
"""Returns the stored hashes of leaves: `(first, count)` to `count` hashes, concatenated."""


class ArchiveFolder:
    """See the module."""

    def __init__(self, path: Path) -> None:
        """Use this folder; it is made when it is needed."""
        self.path = path

    def holds(self, archive: Archive) -> bool:
        """Say whether a file is here, and is what it was."""
        try:
            with (self.path / archive.file).open("rb") as file:
                return file_digest(file, "sha256").digest() == archive.sha256
        except OSError:
            return False

    def write(
        self,
        partition: str,
        epoch: int,
        segments: Iterable[tuple[Segment, Iterable[bytes]]],
        stored: StoredHashes,
    ) -> Archive:
        """Write an archive, read it again, and compare each leaf with the tree.

        Args:
            partition: what the file is called after.
            epoch: of which tree the leaves are.
            segments: as `write_archive` takes them.
            stored: reads the tree.

        Raises:
            ArchiveRefusedError: it cannot be written, or its leaves are not those of the tree;
                there is no file.
        """
        unfinished = ""
        try:
            self.path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self._sweep()
            descriptor, unfinished = tempfile.mkstemp(  # of mode 0600
                prefix=f".{partition}-", suffix=_UNFINISHED, dir=self.path
            )
            with os.fdopen(descriptor, "w+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write_archive(file, segments)
                file.flush()
                os.fsync(file.fileno())
                ranges = _compared(file, stored)
                file.seek(0)
                sha256 = file_digest(file, "sha256").digest()
                name = f"{partition}-{sha256.hex()[:_NAME_DIGITS]}{SUFFIX}"
                Path(unfinished).rename(self.path / name)
            self._sync()
        except OSError as exc:
            raise ArchiveRefusedError(f"cannot write to {self.path}: {exc.strerror}") from exc
        except ArchiveError as exc:
            raise ArchiveRefusedError(f"what was written is not what is stored: {exc}") from exc
        finally:
            if unfinished:
                with suppress(OSError):
                    Path(unfinished).unlink(missing_ok=True)
        return Archive(name, sha256, epoch, ranges)

    def discard(self, archive: Archive) -> None:
        """Remove a file that nothing tells of."""
        with suppress(OSError):
            (self.path / archive.file).unlink()

    def _sweep(self) -> None:
        """Remove what writers left that have died."""
        for path in self.path.glob(f".*{_UNFINISHED}"):
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _compared(file: BinaryIO, stored: StoredHashes) -> list[tuple[int, int]]:
    """Compare all leaves of a file with the tree, and return their ranges."""
    file.seek(0)
    ranges: list[tuple[int, int]] = []
    for header, leaves in read_archive(file):
        if leaf_hashes(leaves) != stored(header.first, header.count):
            text = f"leaves {header.first} on of the file are not those that were sealed"
            raise ArchiveRefusedError(text)
        end = header.first + header.count
        if ranges and ranges[-1][1] == header.first:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((header.first, end))
    return ranges
