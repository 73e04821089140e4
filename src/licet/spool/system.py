"""What the spool asks of the operating system, call by call, so that a test can make each one fail.

Every method raises OSError and nothing else.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import Final

_READ_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 512  # what st_blocks counts in, whatever the file system's own blocks are


class System:
    """The real one."""

    def create(self, name: str, folder: int) -> int:
        """Make a file that only its owner may read, and open it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=folder)

    def allocate(self, descriptor: int, size: int) -> None:
        """Give a file all its blocks.

        A store into a mapped page that has no block on a full disk is not an error but the end of
        the process (SIGBUS), so a file system that only pretends is refused.
        """
        os.posix_fallocate(descriptor, 0, size)
        if os.fstat(descriptor).st_blocks * _BLOCK_BYTES < size:
            raise OSError(errno.EOPNOTSUPP, "the file system does not allocate in advance")

    def load(self, descriptor: int, size: int) -> None:
        """Bring a file into the page cache.

        Else the first store into it waits for that, 2.6 ms for 16 MiB, and the whole process with
        it: a page fault happens while the interpreter is locked.
        """
        buffer = bytearray(_READ_BYTES)
        for offset in range(0, size, _READ_BYTES):
            os.preadv(descriptor, [buffer], offset)

    def map(self, descriptor: int, size: int) -> mmap.mmap:
        """Map a file, shared: what is stored survives this process."""
        return mmap.mmap(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Bring what was stored to the disk, mapped or written."""
        # Not msync: Python keeps the interpreter locked for as long as that takes.
        os.fdatasync(descriptor)

    def rename(self, name: str, new: str, folder: int) -> None:
        """Give a file another name in its folder."""
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=folder)

    def sync_folder(self, folder: int) -> None:
        """Bring the names in a folder to the disk."""
        os.fsync(folder)

    def unlink(self, name: str, folder: int) -> None:
        """Delete a file."""
        os.unlink(name, dir_fd=folder)


SYSTEM: Final = System()
