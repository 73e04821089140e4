"""Spools for tests: an operating system that fails on demand, and what was written, read again."""

from __future__ import annotations

import errno
import mmap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event
from typing import Final, TypeVar

from typing_extensions import override

from licet.domain.audit_event import ID_LOW, leaf_start
from licet.spool.folder import SpoolFolder
from licet.spool.reader import Damage, Run, SpoolReader
from licet.spool.segment import HEADER_BYTES
from licet.spool.system import SYSTEM, System
from licet.spool.writer import Durability, SpoolWriter

WRITER: Final = 0x0102_0304_0506
SMALL: Final = 4 * 4096
"""The size of a segment that is soon full."""
ROOM: Final = SMALL - HEADER_BYTES
PLENTY: Final = 1 << 30
PATIENCE: Final = 30.0

T = TypeVar("T")


class FaultySystem(System):
    """The real one, until told otherwise."""

    def __init__(self) -> None:
        # Guards the rest: the spool calls from several threads.
        self._lock = Condition()
        self._faults: dict[str, tuple[int, bool]] = {}
        self._met: Event = Event()
        self.calls: Counter[str] = Counter()

    def fail(self, call: str, error: int = errno.EIO, *, happened: bool = False) -> None:
        """Make a call fail from now on: before it happens, or after."""
        with self._lock:
            self._met.clear()
            self._faults[call] = error, happened

    def heal(self) -> None:
        """Let everything succeed again."""
        with self._lock:
            self._faults.clear()

    def wait_until_met(self) -> None:
        """Wait until a call has failed."""
        assert self._met.wait(PATIENCE)

    def wait_for(self, call: str, count: int) -> None:
        """Wait until a call has succeeded so many times."""
        with self._lock:
            assert self._lock.wait_for(lambda: self.calls[call] >= count, PATIENCE)

    def _run(self, call: str, do: Callable[[], T]) -> T:
        with self._lock:
            fault = self._faults.get(call)
        if fault is None:
            result = do()
            with self._lock:
                self.calls[call] += 1
                self._lock.notify_all()
            return result
        error, happened = fault
        if happened:
            do()
        self._met.set()
        raise OSError(error, f"{call} was made to fail")

    @override
    def create(self, name: str, folder: int) -> int:
        return self._run("create", lambda: SYSTEM.create(name, folder))

    @override
    def allocate(self, descriptor: int, size: int) -> None:
        self._run("allocate", lambda: SYSTEM.allocate(descriptor, size))

    @override
    def load(self, descriptor: int, size: int) -> None:
        self._run("load", lambda: SYSTEM.load(descriptor, size))

    @override
    def map(self, descriptor: int, size: int) -> mmap.mmap:
        return self._run("map", lambda: SYSTEM.map(descriptor, size))

    @override
    def sync(self, descriptor: int) -> None:
        self._run("sync", lambda: SYSTEM.sync(descriptor))

    @override
    def rename(self, name: str, new: str, folder: int) -> None:
        self._run("rename", lambda: SYSTEM.rename(name, new, folder))

    @override
    def sync_folder(self, folder: int) -> None:
        self._run("sync_folder", lambda: SYSTEM.sync_folder(folder))

    @override
    def unlink(self, name: str, folder: int) -> None:
        self._run("unlink", lambda: SYSTEM.unlink(name, folder))


@contextmanager
def writing(  # noqa: PLR0913 - all with defaults
    root: Path,
    durability: Durability = Durability.NONE,
    *,
    writer_id: int = WRITER,
    system: System = SYSTEM,
    max_bytes: int = PLENTY,
    segment_bytes: int = SMALL,
) -> Iterator[SpoolWriter]:
    """Provide a writer in a folder of its own; afterwards it is dead, and the folder stays."""
    folder = SpoolFolder.create(root, writer_id, system)
    try:
        writer = SpoolWriter(folder, durability, max_bytes=max_bytes, segment_bytes=segment_bytes)
        try:
            yield writer
        finally:
            writer.close()
    finally:
        folder.close()


def leaf(sequence: int, body: bytes, writer_id: int = WRITER) -> bytes:
    """Return the leaf that a body becomes."""
    return leaf_start(writer_id) + (ID_LOW | sequence).to_bytes(8, "big") + body


def bodies_of(count: int, size: int = 200) -> list[bytes]:
    """Return bodies that differ."""
    return [b"%08d" % number + b"x" * (size - 8) for number in range(count)]


def runs(reader: SpoolReader, limit: int = 1000) -> Iterator[Run]:
    """Return all runs that there are now."""
    while (run := reader.read(limit)) is not None:
        yield run


def recover(root: Path, after: int = 0) -> tuple[dict[int, bytes], list[Damage]]:
    """Adopt the one spool there is, read what follows a sequence, and let go."""
    folder = SpoolFolder.adopt(root)
    assert folder is not None
    reader = SpoolReader(folder, after)
    found = {
        run.first + position: leaf
        for run in runs(reader)
        for position, leaf in enumerate(run.leaves)
    }
    reader.close()
    folder.close()
    return found, reader.damages()


def leaves_of(bodies: list[bytes]) -> dict[int, bytes]:
    """Return what is read of a writer that appended these bodies and nothing else."""
    return {sequence: leaf(sequence, body) for sequence, body in enumerate(bodies, 1)}
